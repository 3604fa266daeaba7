"""Deliveries that go wrong on purpose: each fault changes its own day, and what the contract says of it is the real thing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pyarrow
import pytest

from pipeline_assets.recommender.errors import ConfigurationError, SchemaError, SourceError
from pipeline_assets.resources.content import contents, in_order
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.sources.base import empty
from pipeline_assets.sources.batch import LandedBatch
from pipeline_assets.sources.faulty import FAULTS, LATE_DAYS, FaultySource

DAY, BEFORE = date(2017, 3, 20), date(2017, 3, 19)
PURCHASES, PRODUCTS = FEEDS["purchases"], FEEDS["products"]
LINES = 200  # of a day


class TwoDays:
    """200 lines of 20 customers and 25 products on each of two days; the catalogue came on the first."""

    def arrived_days(self) -> list[date]:
        return [BEFORE, DAY]

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        rows = [row for day in days for row in (self._lines(day) if feed is PURCHASES else self._products(day))]
        return pyarrow.Table.from_pylist([{"parse_errors": None, **row} for row in rows], schema=empty(feed).schema)

    def _lines(self, day: date) -> list[dict[str, object]]:
        noon = datetime(day.year, day.month, day.day, 16, tzinfo=UTC)
        return [
            {
                "event_id": f"{day}-{n}", "order_id": f"{day}-{n % 40}", "customer_id": f"c{n % 20}", "product_id": f"p{n % 25}",
                "store_id": "s1", "quantity": 1.0, "amount": 2.0, "discount": 0.0, "event_ts": noon, "event_date": day,
            }
            for n in range(LINES)
        ]  # fmt: skip

    def _products(self, day: date) -> list[dict[str, object]]:
        return [
            {"product_id": f"p{n}", "department": "D", "category": "C", "type": "T", "brand": "B", "is_sellable": True, "event_date": day}
            for n in range(25 if day == BEFORE else 0)
        ]  # fmt: skip


def faulty(*names: str, until: date = DAY) -> FaultySource:
    return FaultySource(TwoDays(), {DAY: names}, until, 0.5, "America/New_York")


def purchases(source: FaultySource, day: date = DAY) -> pyarrow.Table:
    return source.read(PURCHASES, [day])


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.feed == "purchases"])
def test_only_the_day_of_the_fault_is_touched(name: str) -> None:
    """The day before is what the source delivers."""
    assert purchases(faulty(name), BEFORE).equals(TwoDays().read(PURCHASES, [BEFORE]))


@pytest.mark.parametrize(
    "name", [n for n in FAULTS if n not in ("missing_day", "column_renamed", "column_retyped", "product_deleted")]
)
def test_a_fault_changes_its_day_and_the_same_way_each_time(name: str) -> None:
    """Two reads are equal, and differ from what was delivered."""
    once, again = purchases(faulty(name)), purchases(faulty(name))
    assert in_order(once, "event_id").equals(in_order(again, "event_id"))
    assert not once.equals(TwoDays().read(PURCHASES, [DAY]))


def test_a_missing_day_does_not_arrive() -> None:
    """It is not among the arrived ones, and asking for it is an error that names the fault."""
    assert faulty("missing_day").arrived_days() == [BEFORE]
    with pytest.raises(SourceError, match="fault missing_day"):
        purchases(faulty("missing_day"))


@pytest.mark.parametrize("name", ["column_renamed", "column_retyped"])
def test_a_changed_column_meets_the_contract(name: str) -> None:
    """The contract's own error names the column."""
    with pytest.raises(SchemaError, match="column amount"):
        purchases(faulty(name))


def test_shares_and_factors_are_what_the_names_say() -> None:
    """Prices 2.00 x 100; a bot adds 10,000 lines; all lines come twice; a share of 60 % is between 50 and 70 % of 200 lines."""
    assert set(purchases(faulty("prices_x100"))["amount"].to_pylist()) == {200.0}
    assert len(purchases(faulty("bot"))) == LINES + 10_000
    assert len(purchases(faulty("duplicate_events"))) == 2 * LINES
    corrupt = sum(quantity < 0 for quantity in purchases(faulty("corrupt_60"))["quantity"].to_pylist())
    assert 0.5 * LINES < corrupt < 0.7 * LINES


def test_the_rest_of_a_late_day_comes_and_reopens_it() -> None:
    """Until three days later some lines are missing; then the day is whole, and differs from what was landed."""
    first = faulty("late_day")
    held = in_order(purchases(first), "event_id")
    content = contents(held, [DAY])[DAY]
    landed = {
        DAY: LandedBatch(
            "purchases", DAY, "batch", content.rows, content.digest, recorded_at=datetime(2017, 3, 21, tzinfo=UTC)
        )
    }
    later = faulty("late_day", until=DAY + timedelta(days=LATE_DAYS))
    assert len(held) < LINES == len(purchases(later))
    assert first.changed_days(PURCHASES, landed) == []
    assert later.changed_days(PURCHASES, landed) == [DAY]


def test_deleted_products_are_delivered_as_not_sellable() -> None:
    """The 20 best sellers of the day (all 25 products sell 8 times, so by id) come again, not sellable."""
    rows = faulty("product_deleted").read(PRODUCTS, [DAY])
    assert len(rows) == 20
    assert set(rows["is_sellable"].to_pylist()) == {False}


def test_an_unknown_fault_is_named() -> None:
    """With the names there are."""
    with pytest.raises(ConfigurationError, match=r"found priced_x10; wanted one or more of missing_day"):
        faulty("priced_x10")
