"""The section `monitoring` of the settings. settings.py reads it, as every section."""

from __future__ import annotations

import pydantic

from pipeline_assets.settings_base import Section


class MonitoringSettings(Section):
    """Drift reports, retraining and alerts."""

    reference_weeks: int = pydantic.Field(8, ge=1)  # drift compares a day with the same weekdays of these weeks
    drift_min_rows: int = pydantic.Field(
        1_000, ge=1
    )  # purchase lines, of the day and of its reference; below it drift is unknown (drift.py)
    retrain_cooldown_days: int = pydantic.Field(7, ge=0)  # business days between retrainings asked for by drift
    webhook_url: pydantic.SecretStr = pydantic.SecretStr("")
