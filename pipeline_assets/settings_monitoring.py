"""The section `monitoring` of the settings. settings.py reads it, as every section."""

from __future__ import annotations

from pathlib import Path

import pydantic

from pipeline_assets.settings_base import Section


class MonitoringSettings(Section):
    """Reports, retraining and metrics."""

    reference_weeks: int = pydantic.Field(8, ge=1)  # drift compares a day with the same weekdays of these weeks
    drift_min_rows: int = pydantic.Field(
        1_000, ge=1
    )  # purchase lines, of the day and of its reference; below it drift is unknown (drift.py)
    retrain_cooldown_days: int = pydantic.Field(7, ge=0)  # business days between retrainings asked for by drift
    retrain_weekly_maximum: int = pydantic.Field(
        2, ge=0
    )  # models of seven business days, the weekly one included: one that is asked for, not a loop
    metrics_file: Path | None = None  # none: metrics/pipeline.prom in data_dir
    pushgateway: str = ""
    prometheus_url: str = ""  # the service levels of the API are asked there
    slo_file: Path = Path(__file__).resolve().parent.parent / "slo.toml"
    override_freeze: str = ""  # why a person promotes although an error budget is used up
