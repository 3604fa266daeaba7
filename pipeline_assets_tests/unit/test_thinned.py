"""A source of some customers: the same ones every day, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import pyarrow
import pyarrow.compute as pc
import pytest

from pipeline_assets.resources.content import contents, in_order
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.sources.base import empty
from pipeline_assets.sources.batch import LandedBatch
from pipeline_assets.sources.thinned import ThinnedSource, is_chosen

DAYS = [date(2017, 3, 19), date(2017, 3, 20)]
PURCHASES, PRODUCTS = FEEDS["purchases"], FEEDS["products"]
CUSTOMERS = [f"c{n}" for n in range(200)]


class Shop:
    """A line of each of 200 customers a day, one of nobody; ten products on the first day."""

    def arrived_days(self) -> list[date]:
        return DAYS

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        rows = [row for day in days for row in (self._lines(day) if feed is PURCHASES else self._products(day))]
        return pyarrow.Table.from_pylist([{"parse_errors": None, **row} for row in rows], schema=empty(feed).schema)

    def _lines(self, day: date) -> list[dict[str, object]]:
        noon = datetime(day.year, day.month, day.day, 16, tzinfo=UTC)
        return [
            {"event_id": f"{day}-{c}", "customer_id": c, "event_ts": noon, "event_date": day}
            for c in [*CUSTOMERS, None]
        ]

    def _products(self, day: date) -> list[dict[str, object]]:
        return [{"product_id": f"p{n}", "event_date": day} for n in range(10 if day == DAYS[0] else 0)]


class ChangingShop(Shop):
    """Says that all its days may have changed."""

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        return list(landed)


def test_a_quarter_of_the_customers() -> None:
    """A hash has no favourites: 50 of 200, give or take three standard deviations (19)."""
    assert 31 <= sum(is_chosen(customer, 0.25) for customer in CUSTOMERS) <= 69
    assert all(is_chosen(customer, 1.0) for customer in CUSTOMERS)


def test_the_customers_of_a_smaller_share_are_among_those_of_a_larger_one() -> None:
    """So that a larger trial only adds customers."""
    assert {c for c in CUSTOMERS if is_chosen(c, 0.1)} < {c for c in CUSTOMERS if is_chosen(c, 0.4)}


def test_all_lines_of_those_customers_and_none_of_others() -> None:
    """On each day the same ones; a line without a customer is there too: what it lacks is for validation to say."""
    rows = ThinnedSource(Shop(), 0.25).read(PURCHASES, DAYS)
    wanted = {c for c in CUSTOMERS if is_chosen(c, 0.25)} | {None}
    for day in DAYS:
        assert set(rows.filter(pc.equal(rows["event_date"], day))["customer_id"].to_pylist()) == wanted


def test_a_feed_without_customers_stays_as_it_is() -> None:
    """Ten products."""
    assert ThinnedSource(Shop(), 0.01).read(PRODUCTS, DAYS).equals(Shop().read(PRODUCTS, DAYS))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_day_has_changed_when_the_rows_of_its_customers_have(share: float) -> None:
    """What was landed at 0.25 is as it was; at 0.5 other rows are read, so it is not."""
    rows = in_order(ThinnedSource(Shop(), 0.25).read(PURCHASES, [DAYS[0]]), PURCHASES.key)
    digest = contents(rows, [DAYS[0]])[DAYS[0]].digest
    landed = {
        DAYS[0]: LandedBatch(
            "purchases", DAYS[0], "b", len(rows), digest, recorded_at=datetime(2017, 3, 20, tzinfo=UTC)
        )
    }
    found = ThinnedSource(ChangingShop(), share).changed_days(PURCHASES, landed)
    assert found == ([] if share == 0.25 else [DAYS[0]])
