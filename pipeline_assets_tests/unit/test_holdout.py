"""The door: reads of the holdout are counted, others are not, and there is no way to labels without it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.holdout import Door, counted, holdout_reads
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.training_data import sellable_purchases, window_purchases
from pipeline_assets_tests.unit.test_snapshots import FRIDAY, SATURDAY, SUNDAY, lake_with_marts

MOMENT = datetime(2017, 3, 6, tzinfo=UTC)


def door(lake: Lake, start: date | None, run: str = "run", hours: int = 0) -> Door:
    return Door(lake, "evaluation", run, MOMENT + timedelta(hours=hours), start)


def test_a_window_with_one_day_of_the_holdout_is_of_the_holdout(tmp_path: Path) -> None:
    """The holdout starts on day 8 after `first`: of 7-day windows the one as of day 0 ends on day 7, that of day 1 on day 8."""
    first = date(2017, 11, 5)
    weeks = [first, first + timedelta(days=1), first + timedelta(days=8)]
    lake = Lake(root=str(tmp_path))
    assert door(lake, first + timedelta(days=8)).held_out(weeks, 7) == weeks[1:]
    assert door(lake, None).held_out(weeks, 7) == []


def test_each_read_of_the_holdout_is_counted(tmp_path: Path) -> None:
    """Saturday's window of one day is Sunday. Two runs read it, one of them twice: 3 reads, 2 runs, first and last moment."""
    lake = lake_with_marts(tmp_path)
    for run, hours in (("a", 0), ("a", 1), ("b", 2)):
        rows = window_purchases(lake, SATURDAY, 1, door(lake, SUNDAY, run, hours))
        assert rows["event_date"].tolist() == [SUNDAY]
    (found,) = holdout_reads(lake)
    assert (found.week, found.purpose, found.reads, found.runs) == (SATURDAY, "evaluation", 3, 2)
    assert (found.last - found.first) == timedelta(hours=2)
    assert counted([found]) == {"evaluation": 3}


def test_reads_before_the_holdout_are_not_counted(tmp_path: Path) -> None:
    """Friday's window is Saturday, a development day."""
    lake = lake_with_marts(tmp_path)
    assert len(window_purchases(lake, FRIDAY, 1, door(lake, SUNDAY))) == 1
    assert holdout_reads(lake) == []


def test_a_copy_of_the_lake_counts_where_it_was_copied_from(tmp_path: Path) -> None:
    """A rebuild reads rows of its own lake and writes down in the one that people look at."""
    ledger, copy = lake_with_marts(tmp_path / "ledger"), lake_with_marts(tmp_path / "copy")
    window_purchases(copy, SATURDAY, 1, door(ledger, SUNDAY))
    assert counted(holdout_reads(ledger)) == {"evaluation": 1}
    assert holdout_reads(copy) == []


def test_history_ends_on_the_day_that_is_known(tmp_path: Path) -> None:
    """Asking for Sunday as known on Saturday is asking for labels without a door."""
    lake = lake_with_marts(tmp_path)
    with pytest.raises(NotEnoughData, match=f"purchases up to {SUNDAY}.*window_purchases"):
        sellable_purchases(lake, FRIDAY, SUNDAY, SATURDAY)
