"""Marts as views: nothing after the as-of day, and nothing of a day that is blocked now."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow
import pytest

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.snapshots import marts_as_of
from pipeline_assets.resources.training_data import purchases_up_to, sellable_purchases
from pipeline_assets.schemas.validation import Verdict

FRIDAY, SATURDAY, SUNDAY = (date(2017, 3, 3) + timedelta(days=n) for n in range(3))
MARTS = (
    "fct_purchases",
    "dim_products",
    "dim_customers",
    "fct_campaign_mailings",
    "fct_coupons",
    "fct_store_promotions",
)


def lake_with_marts(root: Path) -> Lake:
    """Each mart has one row a day, Friday to Sunday; all days of purchases are passed."""
    lake = Lake(root=str(root))
    for mart in MARTS:
        columns = {
            "product_id": ["p1"] * 3,
            "is_sellable": [True] * 3,
            **{name: ["x"] * 3 for name in ("customer_id", "order_id")},
            **{name: [1.0] * 3 for name in ("quantity", "amount", "discount")},
            "event_date": [FRIDAY, SATURDAY, SUNDAY],
        }
        lake.replace_days(f"warehouse/{mart}", pyarrow.table(columns), [FRIDAY, SATURDAY, SUNDAY], "run")
    judge(lake, "passed", FRIDAY, SATURDAY, SUNDAY)
    return lake


def judge(lake: Lake, status: str, *days: date) -> None:
    """Record a verdict on purchases; of two on one day the later counts."""
    moment = datetime(2017, 3, 6, 1 if status == "passed" else 2, tzinfo=UTC)
    lake.record_verdicts([Verdict("purchases", day, status, 1, 1, 0) for day in days], "run", moment)


def days_in(lake: Lake, mart: str, as_of: date) -> list[date]:
    """The days that feature code sees in a mart."""
    with marts_as_of(lake, as_of, threads=1) as con:
        return [row[0] for row in con.sql(f"select event_date from {mart} order by 1").fetchall()]


def test_nothing_after_the_as_of_day_is_there(tmp_path: Path) -> None:
    """As of Saturday, Sunday does not exist."""
    assert days_in(lake_with_marts(tmp_path), "fct_purchases", SATURDAY) == [FRIDAY, SATURDAY]


def test_a_day_that_is_blocked_now_is_not_read(tmp_path: Path) -> None:
    """Saturday was good, came again and was blocked: its old rows in the mart are not seen, in features or in labels."""
    lake = lake_with_marts(tmp_path)
    judge(lake, "blocked", SATURDAY)
    assert days_in(lake, "fct_purchases", SUNDAY) == [FRIDAY, SUNDAY]
    assert sorted(sellable_purchases(lake, FRIDAY, SUNDAY, SUNDAY)["event_date"]) == [FRIDAY, SUNDAY]


def test_purchases_up_to_several_days_are_those_of_each_day_alone(tmp_path: Path) -> None:
    """One reading for all of them, which holds later rows than the first day may know."""
    lake = lake_with_marts(tmp_path)
    judge(lake, "blocked", SATURDAY)
    days = [FRIDAY, SATURDAY, SUNDAY]
    for day, found in zip(days, purchases_up_to(lake, FRIDAY, days), strict=True):
        pd.testing.assert_frame_equal(found, sellable_purchases(lake, FRIDAY, day, day))
    assert len(found) == 2


def test_a_blocked_feed_does_not_hide_another_feeds_marts(tmp_path: Path) -> None:
    """Purchases of Saturday are blocked; what was learned about products that day is another feed's."""
    lake = lake_with_marts(tmp_path)
    judge(lake, "blocked", SATURDAY)
    assert days_in(lake, "dim_products", SUNDAY) == [FRIDAY, SATURDAY, SUNDAY]


def test_a_mart_that_never_had_a_row_is_empty(tmp_path: Path) -> None:
    """A shop without campaigns: the mart was published, without rows; one that was never published is refused."""
    lake = lake_with_marts(tmp_path)
    (tmp_path / "warehouse" / "fct_coupons").rename(tmp_path / "gone")
    with pytest.raises(NotEnoughData, match="fct_coupons"):
        days_in(lake, "fct_coupons", SUNDAY)
    lake.replace_days("warehouse/fct_coupons", lake.read("warehouse/fct_purchases").slice(0, 0), [FRIDAY], "run")
    assert days_in(lake, "fct_coupons", SUNDAY) == []
