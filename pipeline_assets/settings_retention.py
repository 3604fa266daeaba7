"""The section `retention` of the settings: how long what grows every day is kept. settings.py reads it, as every section."""

from __future__ import annotations

import pydantic

from pipeline_assets.settings_base import Section


class RetentionSettings(Section):
    """Days to keep, counted from when something was written. What is not here is kept for ever, or has a limit of its own (docs/runbook.md)."""

    run_log_days: int = pydantic.Field(30, ge=1)  # events and output of runs that ended: 4 MB a business day
    report_days: int = pydantic.Field(180, ge=1)  # pages of the daily reports, 4 MB a day; their figures stay
    prediction_log_days: int = pydantic.Field(90, ge=1)  # files of the API that are in the lake by then
    bundle_days: int = pydantic.Field(90, ge=1)  # bundles, lists for serving, compiled models: 1 to 3 MB a day
