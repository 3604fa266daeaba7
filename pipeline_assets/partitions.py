"""The one daily partition. Its key is a business day: a date in the shop's time zone, not in UTC."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg

from pipeline_assets.settings import get_settings

_calendar = get_settings().calendar

# `end_date` is exclusive. The sample is one closed year, so its last key is 2017-12-31; production leaves the end open.
daily = dg.DailyPartitionsDefinition(
    start_date=_calendar.first_day.isoformat(),
    end_date=(_calendar.last_day + timedelta(days=1)).isoformat() if _calendar.last_day else None,
    timezone=_calendar.time_zone,
)


def days_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> list[date]:
    """The business days of a run: one, or every day of a range run."""
    return [date.fromisoformat(key) for key in context.partition_keys]
