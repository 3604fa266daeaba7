"""The one daily partition. Its key is a business day: a date in the shop's time zone, not in UTC."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg

from pipeline_assets.settings import CalendarSettings, get_settings


def daily_partitions(calendar: CalendarSettings) -> dg.DailyPartitionsDefinition:
    """One partition a business day. `end_date` is exclusive: the sample is one closed year, production leaves the end open."""
    return dg.DailyPartitionsDefinition(
        start_date=calendar.first_day.isoformat(),
        end_date=(calendar.last_day + timedelta(days=1)).isoformat() if calendar.last_day else None,
        timezone=calendar.time_zone,
    )


daily = daily_partitions(get_settings().calendar)


def days_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> list[date]:
    """The business days of a run: one, or every day of a range run."""
    return [date.fromisoformat(key) for key in context.partition_keys]
