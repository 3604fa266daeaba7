"""What the lists of a replay were worth, on a lake of three customers."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow
import pytest

from pipeline_assets.replay.outcome import realised
from pipeline_assets.resources.holdout import Door, holdout_reads
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.schemas.validation import Verdict

FIRST = date(2017, 3, 6)
DAYS = [FIRST + timedelta(days=n) for n in range(10)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Lists of the first day only: a, b for c1, and b for c2. On the second day c1 buys b for 4.00 and z for 6.00, c2 buys b for 5.00 and fuel."""
    lake = local_lake(tmp_path)
    rows = [{"event_date": FIRST, "product_id": p, "is_sellable": p != "fuel"} for p in ("a", "b", "z", "fuel")]
    lake.replace_days("warehouse/dim_products", pyarrow.Table.from_pylist(rows), [FIRST], "run")
    slates = [("c1", 1, "a"), ("c1", 2, "b"), ("c2", 1, "b")]
    rows = [{"event_date": FIRST, "customer_id": c, "rank": r, "product_id": p} for c, r, p in slates]
    lake.replace_days("recommendations/daily", pyarrow.Table.from_pylist(rows), [FIRST], "run")
    bought = [("c1", "b", 4.0), ("c1", "z", 6.0), ("c2", "b", 5.0), ("c2", "fuel", 30.0)]
    rows = [{"event_date": DAYS[1], "customer_id": c, "product_id": p, "amount": a} for c, p, a in bought]
    lake.replace_days("warehouse/fct_purchases", pyarrow.Table.from_pylist(rows), [DAYS[1]], "run")
    judge(lake, "passed", DAYS)
    return lake


def door(lake: Lake, start: date | None = None) -> Door:
    return Door(lake, "backtest", "replay", datetime(2017, 4, 1, tzinfo=UTC), start)


def judge(lake: Lake, status: str, days: list[date]) -> None:
    lake.record_verdicts([Verdict("purchases", day, status, 1, 1, 0) for day in days], "run", datetime.now(UTC))


def test_lists_are_judged_on_the_week_after_them(lake: Lake) -> None:
    """c1: one of two targets, at place 2 of an ideal of two; c2: its one target at place 1, as fuel may not be listed; 9.00 of
    15.00 were named."""
    (row,) = realised(lake, [FIRST], 7, door(lake)).to_dict("records")
    half = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert row["ndcg"] == pytest.approx((half + 1) / 2)
    assert row["recall"] == pytest.approx((0.5 + 1) / 2)
    assert (row["customers"], row["revenue_hit"], row["revenue_target"]) == (2, 9.0, 15.0)


def test_a_day_without_lists_is_judged_by_those_that_were_live(lake: Lake) -> None:
    """The lists of the first day are shown on; nothing is bought in the week after the second day but on it, so a purchase is added."""
    rows = [{"event_date": DAYS[2], "customer_id": "c2", "product_id": "b", "amount": 1.0}]
    lake.replace_days("warehouse/fct_purchases", pyarrow.Table.from_pylist(rows), [DAYS[2]], "run")
    (row,) = realised(lake, [DAYS[1]], 7, door(lake)).to_dict("records")
    assert (row["shown"], row["ndcg"], row["revenue_hit"]) == (FIRST, 1.0, 1.0)


def test_a_week_with_a_day_that_is_not_valid_is_not_judged(lake: Lake) -> None:
    """Unknown is not zero: the day is left out."""
    judge(lake, "blocked", [DAYS[3]])
    assert realised(lake, [FIRST], 7, door(lake)).empty


def test_a_week_that_is_held_out_is_counted(lake: Lake) -> None:
    """The window of the first day has the holdout's first day."""
    realised(lake, [FIRST], 7, door(lake, FIRST + timedelta(days=7)))
    assert [(read.week, read.reads) for read in holdout_reads(lake)] == [(FIRST, 1)]
