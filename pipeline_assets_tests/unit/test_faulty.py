"""Deliveries that go wrong on purpose: each fault changes its own day, and what the contract says of it is the real thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pyarrow
import pytest

from pipeline_assets.recommender.errors import ConfigurationError, SchemaError, SourceError
from pipeline_assets.resources.content import contents, in_order
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import Validated, ValidationPolicy, validate
from pipeline_assets.sources.base import empty
from pipeline_assets.sources.batch import LandedBatch
from pipeline_assets.sources.faulty import FAULTS, LATE_DAYS, FaultySource

DAY, BEFORE = date(2017, 3, 20), date(2017, 3, 19)
PURCHASES, PRODUCTS = FEEDS["purchases"], FEEDS["products"]
LINES = 200  # of a day


class TwoDays:
    """200 lines of 20 customers and 25 products of two departments on `day` and on the day before; the catalogue came on the first."""

    def __init__(self, day: date = DAY) -> None:
        self.days = [day - timedelta(days=1), day]

    def arrived_days(self) -> list[date]:
        return self.days

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
            {"product_id": f"p{n}", "department": "D" if n < 15 else "E", "category": "C", "type": "T", "brand": "B", "is_sellable": True, "event_date": day}
            for n in range(25 if day == self.days[0] else 0)
        ]  # fmt: skip


# Faults of the calendar happen on days of their own: New York's clocks go forward on the first.
OF_CALENDAR = {"clock_change": date(2017, 3, 12), "leap_day": date(2016, 2, 29), "year_end": date(2016, 12, 31)}


def day_of(name: str) -> date:
    return OF_CALENDAR.get(name, DAY)


def faulty(*names: str, until: date | None = None) -> FaultySource:
    day = day_of(names[0])
    return FaultySource(TwoDays(day), {day: names}, until or day, 0.5, "America/New_York")


def purchases(source: FaultySource, day: date = DAY) -> pyarrow.Table:
    return source.read(PURCHASES, [day])


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.feed == "purchases"])
def test_only_the_day_of_the_fault_is_touched(name: str) -> None:
    """The day before is what the source delivers."""
    before = day_of(name) - timedelta(days=1)
    assert purchases(faulty(name), before).equals(TwoDays().read(PURCHASES, [before]))


@pytest.mark.parametrize(
    "name", [n for n in FAULTS if n not in ("missing_day", "column_renamed", "column_retyped", "product_deleted")]
)
def test_a_fault_changes_its_day_and_the_same_way_each_time(name: str) -> None:
    """Two reads are equal, and differ from what was delivered."""
    day = day_of(name)
    once, again = purchases(faulty(name), day), purchases(faulty(name), day)
    assert in_order(once, "event_id").equals(in_order(again, "event_id"))
    assert not once.equals(TwoDays().read(PURCHASES, [day]))


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


def test_a_season_is_of_one_department() -> None:
    """The second best of two, 80 lines a day, sells ten times as much; of one alone everything does."""
    rows = purchases(faulty("season"))
    counts = Counter(int(product[1:]) >= 15 for product in rows["product_id"].to_pylist())
    assert counts == {False: 120, True: 800}
    assert len(set(rows["event_id"].to_pylist())) == len(rows)


def judged(name: str) -> Validated:
    """What validation says of the day with a fault."""
    policy = ValidationPolicy(0.2, 0.5, time_zone="America/New_York", day_tolerance=timedelta())
    return validate(PURCHASES, purchases(faulty(name), day_of(name)), [day_of(name)], policy)


@pytest.mark.parametrize(("name", "hours"), [("clock_change", 23), ("leap_day", 24), ("year_end", 24)])
def test_moments_at_the_edges_of_a_special_day_are_of_that_day(name: str, hours: int) -> None:
    """From its first second to its last one, 23 hours apart where clocks go forward: no row is set aside."""
    moments = purchases(faulty(name), day_of(name))["event_ts"].to_pylist()
    assert max(moments) - min(moments) == timedelta(hours=hours, seconds=-1)
    found = judged(name)
    assert (len(found.quarantined), [verdict.status for verdict in found.verdicts]) == (0, ["passed"])


def test_broken_text_is_set_aside() -> None:
    """The rows with the mark, about one in fifty, and no other; the day goes on."""
    found = judged("broken_encoding")
    assert 0 < len(found.quarantined) < 0.1 * LINES
    assert [verdict.status for verdict in found.verdicts] == ["passed"]


@pytest.mark.parametrize(
    ("name", "zone", "wanted"),
    [
        ("clock_change", "America/New_York", "a day such as 2017-11-05"),
        ("clock_change", "UTC", "a time zone in which clock_change happens"),
        ("leap_day", "UTC", "a day such as 2020-02-29"),
        ("year_end", "UTC", "a day such as 2017-12-31"),
    ],
)
def test_a_fault_of_the_calendar_wants_its_day(name: str, zone: str, wanted: str) -> None:
    """On an ordinary one it is refused, and the next that would do is named."""
    with pytest.raises(ConfigurationError, match=wanted):
        FaultySource(TwoDays(), {DAY: [name]}, DAY, 0.5, zone)


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
