"""The section `events` of the settings: what customers do between two nights. settings.py reads it, as every section."""

from __future__ import annotations

import pydantic

from pipeline_assets.settings_base import Section


class EventSettings(Section):
    """The store of recent events, which the API and `pipeline-assets follow` write and every worker of the API follows."""

    url: str = ""  # SQLAlchemy URL; empty: SQLite file events.db in data_dir
    topic: str = pydantic.Field(
        "events", min_length=1
    )  # of `pipeline-assets follow`; the brokers are those of section stream
    follow_seconds: float = pydantic.Field(0.5, gt=0)  # how often a worker looks for new ones; 5 s is the promise
    retention_days: int = pydantic.Field(
        7, ge=1, le=90
    )  # older events are not taken, and removed: features know them by then
    per_customer: int = pydantic.Field(50, ge=1)  # the newest that count
    in_memory: int = pydantic.Field(100_000, ge=1)  # of a worker, 0.4 KB each; who was quiet longest is forgotten first
