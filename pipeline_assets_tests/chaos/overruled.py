"""The pipeline's definitions with every verdict read as passed: the negative control of a route that runs in other processes."""

from __future__ import annotations

from datetime import date, timedelta

from pipeline_assets.definitions import defs
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.settings import get_settings


def _passed(_: Lake, feed: str, start: date, end: date, *_rest: str) -> dict[date, Verdict]:
    first = max(start, get_settings().calendar.first_day)
    days = [first + timedelta(days=n) for n in range((end - first).days + 1)]
    return {day: Verdict(feed, day, "passed", 0, 0, 0) for day in days}


def _statuses(lake: Lake, feed: str, start: date, end: date) -> dict[date, str]:
    return dict.fromkeys(_passed(lake, feed, start, end), "passed")


Lake.verdicts = _passed  # type: ignore[method-assign]
Lake.statuses = _statuses  # type: ignore[method-assign]
__all__ = ["defs"]
