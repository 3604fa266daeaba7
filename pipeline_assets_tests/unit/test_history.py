"""History from the lake, and days that settle: the same verdicts and digests whatever the order of validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow
import pytest

from pipeline_assets.recommender.errors import BlockedPartition, SchemaError
from pipeline_assets.resources.lake import BATCHES, Lake
from pipeline_assets.schemas.batches import BatchPolicy
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import ValidationPolicy, Verdict
from pipeline_assets.sources.base import EXTRA_COLUMNS
from pipeline_assets.sources.history import read_history, unsettled
from pipeline_assets.sources.landing import BLOCKED, admit_days, land_days
from pipeline_assets_tests import scenario

FIRST = date(2017, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(10)]
TIMES_100 = DAYS[8]  # its prices are in cents
NOON = datetime(2017, 2, 1, 12, tzinfo=UTC)
# three rows a day are enough to be compared here
POLICY = ValidationPolicy(0.2, 0.5, first_day=FIRST, batch=BatchPolicy(min_rows=3))
PURCHASES, PRODUCTS = FEEDS["purchases"], FEEDS["products"]


class Shop:
    """Three lines a day at a price of 2, and three products on the first day; one day is a hundred times as dear."""

    def __init__(self, dear: Sequence[date] = (TIMES_100,), extra: Sequence[str] = ()) -> None:
        self.dear, self.extra = dear, extra

    def arrived_days(self) -> list[date]:
        return DAYS

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        frame = scenario.feeds()[feed.name].iloc[:3]
        days_of = [frame.assign(event_date=FIRST).iloc[: 3 * (FIRST in days)]] if feed.name == "products" else []
        found = pd.concat(days_of or [self._of(frame, day) for day in days])
        table = scenario.delivered(feed.name, found)
        return table.replace_schema_metadata({EXTRA_COLUMNS: '["weight"]'}) if self.extra else table

    def _of(self, frame: pd.DataFrame, day: date) -> pd.DataFrame:
        price = 200.0 if day in self.dear else 2.0
        ids = [f"{day}-{n}" for n in range(3)]
        return frame.assign(event_date=day, event_id=ids, amount=price, product_id=["milk", "lite", "never"])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path))


def admit(
    lake: Lake, days: Sequence[date], minutes: int = 0, policy: ValidationPolicy = POLICY
) -> tuple[list[Verdict], list[str]]:
    """Purchases of some days; later calls are recorded later."""
    return admit_days(lake, PURCHASES, days, policy, f"r{minutes}", NOON + timedelta(minutes=minutes))


def state(lake: Lake) -> tuple[dict[date, tuple[str, tuple[str, ...]]], list[tuple[str, float]]]:
    """Status and blocking rules of every day, and what is validated."""
    verdicts = lake.verdicts("purchases", DAYS[0], DAYS[-1])
    rows = lake.read("validated/purchases").select(["event_id", "amount"]).to_pylist()
    return {d: (v.status, v.blocked_by) for d, v in sorted(verdicts.items())}, sorted(
        (row["event_id"], row["amount"]) for row in rows
    )


ORDERS = {
    "together": [DAYS],
    "day by day": [[day] for day in DAYS],
    "backwards": [[day] for day in reversed(DAYS)],
    "the bad day first": [[TIMES_100], DAYS[:4], DAYS[4:8], [DAYS[9]]],
    "in two interleaved halves": [DAYS[0::2], DAYS[1::2]],
    "twice": [DAYS[5:], DAYS, DAYS],
}


@pytest.mark.parametrize("order", ORDERS)
def test_order_of_validation_does_not_matter(tmp_path: Path, order: str) -> None:
    """Ten days, the ninth at a hundred times the price: it is blocked and without rows, the other nine pass with three each."""
    lake = Lake(root=str(tmp_path))
    land_days(Shop(), lake, PURCHASES, DAYS, "r", NOON)
    for minutes, days in enumerate(ORDERS[order]):
        admit(lake, days, minutes)
    verdicts, rows = state(lake)
    assert verdicts == dict.fromkeys(DAYS, ("passed", ())) | {TIMES_100: ("blocked", ("shift_amount",))}
    assert rows == sorted((f"{day}-{n}", 2.0) for day in DAYS if day != TIMES_100 for n in range(3))


def test_a_day_that_passed_is_judged_again_when_its_history_arrives(lake: Lake) -> None:
    """Alone it passes, because nothing is known; with seven days before it, it is blocked and its rows are withdrawn."""
    land_days(Shop(), lake, PURCHASES, DAYS, "r", NOON)
    assert [v.status for v in admit(lake, [TIMES_100])[0]] == ["passed"]
    verdicts, digests = admit(lake, DAYS[:8], 1)
    assert [(v.event_date, v.status) for v in verdicts[8:]] == [(TIMES_100, "blocked")]
    assert digests[8:] == [BLOCKED]
    assert TIMES_100 not in set(lake.read("validated/purchases")["event_date"].to_pylist())


def test_a_blocked_day_is_judged_again_when_the_days_before_are_corrected(lake: Lake) -> None:
    """Prices went up for good on the first day; what looked like a fault is the rule, and the day passes with its three rows."""
    land_days(Shop(), lake, PURCHASES, DAYS[:9], "r", NOON)
    admit(lake, DAYS[:9])
    land_days(Shop(dear=DAYS), lake, PURCHASES, DAYS[:8], "r", NOON)
    verdicts, digests = admit(lake, DAYS[:8], 1)
    assert [(v.event_date, v.status, v.rows_valid) for v in verdicts[8:]] == [(TIMES_100, "passed", 3)]
    lake.require_passed(["purchases"], DAYS[:9])
    assert len(digests[8]) == 64


def test_a_run_that_started_earlier_can_judge_again(lake: Lake) -> None:
    """Two runs at once: the dear day was judged a minute after this run started, and what this run says of it counts."""
    land_days(Shop(), lake, PURCHASES, DAYS, "r", NOON)
    admit(lake, [TIMES_100], minutes=1)
    admit(lake, DAYS[:8], minutes=0)
    assert lake.verdicts("purchases", TIMES_100, TIMES_100)[TIMES_100].status == "blocked"


def test_settled_days_are_left_alone(lake: Lake) -> None:
    """A day again changes nothing, so nothing has to be judged again."""
    land_days(Shop(), lake, PURCHASES, DAYS, "r", NOON)
    admit(lake, DAYS)
    assert unsettled(lake, PURCHASES, DAYS, POLICY) == []
    assert len(admit(lake, [DAYS[0]], 1)[0]) == 1


def test_an_accepted_day_passes(lake: Lake) -> None:
    """A person looked at the price and named the day."""
    land_days(Shop(), lake, PURCHASES, DAYS, "r", NOON)
    verdicts, _ = admit(lake, DAYS, policy=replace(POLICY, accepted_days=frozenset({TIMES_100})))
    assert {v.status for v in verdicts} == {"passed"}
    assert "200" in verdicts[8].warnings[0]


def products(lake: Lake, days: Sequence[date]) -> None:
    land_days(Shop(), lake, PRODUCTS, days, "r", NOON)
    admit_days(lake, PRODUCTS, days, POLICY, "r", NOON)


def test_unknown_products_are_flagged_where_the_products_feed_has_no_gap(lake: Lake) -> None:
    """`never` is not in the catalogue: one of three lines a day, kept."""
    land_days(Shop(dear=[]), lake, PURCHASES, DAYS, "r", NOON)
    products(lake, DAYS[:4])
    verdicts, _ = admit(lake, [DAYS[3]])
    assert (verdicts[0].flagged, verdicts[0].rows_valid) == ({"product_unknown": 1}, 3)
    verdicts, _ = admit(lake, [DAYS[4]])
    assert verdicts[0].flagged == {}  # its products day is not known: nothing can be said


def test_quarantining_unknown_products_needs_the_products_feed_without_a_gap(lake: Lake) -> None:
    """Day 4 of products is missing: validating purchases of it is refused, before anything is recorded."""
    policy = replace(POLICY, references="quarantine", max_bad_share=0.5)
    land_days(Shop(dear=[]), lake, PURCHASES, DAYS, "r", NOON)
    products(lake, DAYS[:4])
    assert admit(lake, [DAYS[3]], policy=policy)[0][0].rules == {"product_unknown": 1}
    with pytest.raises(BlockedPartition, match="products of 2017-01-05"):
        admit(lake, [DAYS[4]], policy=policy)
    assert lake.verdicts("purchases", DAYS[4], DAYS[4]) == {}


def test_additional_columns_are_told_by_name(lake: Lake) -> None:
    """In the batch's ledger row and in the verdict of the day; the day passes."""
    land_days(Shop(extra=["weight"]), lake, PURCHASES, DAYS[:1], "r", NOON)
    assert lake.read(BATCHES)["extra_columns"].to_pylist() == [["weight"]]
    assert read_history(lake, PURCHASES, DAYS[:1], POLICY).extra_columns == {FIRST: ["weight"]}
    (verdict,), _ = admit(lake, DAYS[:1])
    assert (verdict.status, verdict.warnings) == (
        "passed", ("purchases of 2017-01-01 has columns that the contract does not have: weight",)
    )  # fmt: skip


def test_additional_columns_are_refused_where_a_shop_wants_that(lake: Lake) -> None:
    """Nothing is landed, and the column is named."""
    with pytest.raises(SchemaError, match="weight"):
        land_days(Shop(extra=["weight"]), lake, PURCHASES, DAYS[:1], "r", NOON, refuse_extra=True)
    assert not lake.exists("raw/purchases")
    land_days(Shop(), lake, PURCHASES, DAYS[:1], "r", NOON, refuse_extra=True)
    assert lake.read(BATCHES)["extra_columns"].to_pylist() == [[]]
