"""Landed batches, as sources are asked about them. Knows neither lake nor Dagster: connectors run where those are not installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol, runtime_checkable

from pipeline_assets.resources.content import contents, in_order
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.sources.base import Source


@dataclass(frozen=True)
class Batch:
    """One landed day of one feed. `batch_id` identifies the content: the same content has the same id."""

    feed: str
    event_date: date
    batch_id: str
    rows: int
    digest: str
    extra_columns: tuple[str, ...] = field(default=(), kw_only=True)  # delivered, not in the contract, and left out
    erased_rows: int = field(default=0, kw_only=True)  # delivered, of customers who were erased, and dropped


@dataclass(frozen=True)
class LandedBatch(Batch):
    """The newest batch of a day, and when it was landed."""

    recorded_at: datetime


def differing(source: Source, feed: Feed, suspects: Sequence[date], landed: Mapping[date, LandedBatch]) -> list[date]:
    """Those of `suspects` that differ from what was landed, by content: for sources whose own signs only say that a day may have."""
    different = []
    for day in sorted(suspects):
        content = contents(in_order(source.read(feed, [day]), feed.key), [day])[day]
        if content.digest != landed[day].digest:
            different.append(day)
    return different


@runtime_checkable
class ReopeningSource(Protocol):
    """A source that can tell cheaply which of its days may have changed. The sample never changes and does not have this."""

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        """Those of the landed days whose content is another now, in order.

        Args:
            landed: the newest batch of each day.
        """
        ...
