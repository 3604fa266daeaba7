"""The section `automation` of the settings: what starts by itself, and when. settings.py reads it, as every section."""

from __future__ import annotations

import pydantic

from pipeline_assets.settings_base import Section

FIVE_FIELDS = r"^\S+( \S+){4}$"


class AutomationSettings(Section):
    """Schedules and sensors. Times are those of clocks in calendar.time_zone."""

    is_on: bool = False  # every sensor and schedule runs from the start; a switch that a person throws in the UI wins
    training_cron: str = pydantic.Field("0 7 * * 1", pattern=FIVE_FIELDS)  # Monday 07:00 (docs/adr/0024-staleness.md)
    retention_cron: str = pydantic.Field("0 4 * * *", pattern=FIVE_FIELDS)  # after midnight's day was published
