"""Checks on feeds, features and the online store: each seen passing and failing, on tables of a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pyarrow
import pytest

from pipeline_assets.checks.data import feature_checks, feed_checks, online_equals_offline
from pipeline_assets.recommender.features import CUSTOMER_FEATURES
from pipeline_assets.resources.content import in_days
from pipeline_assets.resources.feature_store import FeatureStoreResource, known_at
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets.schemas.validation import ValidationPolicy
from pipeline_assets.sources.landing import admit_days, land_days
from pipeline_assets_tests import scenario
from pipeline_assets_tests.checking import run_check, values

DAY = scenario.day("01-02")
NOON = datetime(2017, 1, 3, 12, tzinfo=UTC)
SOME_FEEDS = ("purchases", "exposures")  # the checks of the four come from one factory
POLICY = ValidationPolicy(max_bad_share=0.2, max_unparsed_share=0.5)


class OneFrame:
    """A source that delivers what it was given."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._table = table

    def arrived_days(self) -> list[date]:
        return [DAY]

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        return self._table


def delivery(feed: str) -> pyarrow.Table:
    """Two or more rows of a feed, all of `DAY`: what ann and bob bought, and the first rows of the others."""
    frame = scenario.feeds()[feed]
    frame = frame[frame["event_date"] == DAY] if feed == "purchases" else frame.iloc[:2].assign(event_date=DAY)
    return scenario.delivered(feed, frame)


def landed(lake: Lake, feed: str, table: pyarrow.Table | None = None) -> None:
    """Land and admit one delivery."""
    land_days(OneFrame(delivery(feed) if table is None else table), lake, FEEDS[feed], [DAY], "run", NOON)
    admit_days(lake, FEEDS[feed], [DAY], POLICY, "run", NOON)


def without_first_row(lake: Lake, table: str) -> None:
    """Somebody removes a row behind the pipeline's back."""
    lake.replace_days(table, in_days(lake.read(table, DAY, DAY), DAY).slice(1), [DAY], "somebody")


def check_of(name: str, asset: str) -> dg.AssetChecksDefinition:
    """A check of checks/data.py by its name and asset."""
    (found,) = (
        check
        for check in (*feed_checks, *feature_checks)
        for key in check.check_keys
        if (key.name, key.asset_key.to_user_string()) == (name, asset)
    )
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


@pytest.mark.parametrize("feed", SOME_FEEDS)
def test_batch_is_whole(lake: Lake, feed: str) -> None:
    """As many rows in raw as the newest batch had; one less is found."""
    check = check_of("batch_is_whole", f"raw/{feed}")
    landed(lake, feed)
    rows = len(delivery(feed))
    assert run_check(check, {"lake": lake}, DAY).passed
    without_first_row(lake, f"raw/{feed}")
    failed = run_check(check, {"lake": lake}, DAY)
    assert (failed.passed, failed.blocking) == (False, True)
    assert values(failed)["different"] == {"2017-01-02": {"landed": rows, "stored": rows - 1}}


@pytest.mark.parametrize("feed", SOME_FEEDS)
def test_every_row_is_accounted_for(lake: Lake, feed: str) -> None:
    """read = valid + quarantined; a row that is in neither is found."""
    check = check_of("every_row_is_accounted_for", f"validated/{feed}")
    landed(lake, feed)
    rows = len(delivery(feed))
    assert values(run_check(check, {"lake": lake}, DAY))["valid"] == rows
    without_first_row(lake, f"validated/{feed}")
    failed = run_check(check, {"lake": lake}, DAY)
    assert (failed.passed, failed.blocking) == (False, True)
    assert values(failed)["different"] == {"2017-01-02": {"read": rows, "valid": rows - 1, "quarantined": 0}}


@pytest.mark.parametrize("feed", SOME_FEEDS)
def test_day_is_passed(lake: Lake, feed: str) -> None:
    """A passed verdict passes; of a range, the day without a verdict is named."""
    check = check_of("day_is_passed", f"validated/{feed}")
    landed(lake, feed)
    assert run_check(check, {"lake": lake}, DAY).passed
    failed = run_check(check, {"lake": lake}, DAY, DAY + timedelta(days=1))
    assert (failed.passed, failed.blocking) == (False, True)
    assert values(failed)["blocked"] == {"2017-01-03": ["no verdict"]}


def test_day_is_passed_gives_the_reasons_of_a_blocked_day(lake: Lake) -> None:
    """All quantities 0: the verdict's own sentence is on the check."""
    table = delivery("purchases")
    zero = pyarrow.array([0.0] * len(table))
    landed(lake, "purchases", table.set_column(table.schema.get_field_index("quantity"), "quantity", zero))
    (reasons,) = values(run_check(check_of("day_is_passed", "validated/purchases"), {"lake": lake}, DAY))[
        "blocked"
    ].values()
    assert "5 of 5 rows of purchases on 2017-01-02 (100.0%) break a rule" in reasons[0]


def feature_rows(name: str, ids: Sequence[str], known: datetime) -> pyarrow.Table:
    """Rows of a feature table: every number 1, a pack of three bytes."""
    columns: dict[str, list[Any]] = {}
    for field in FEATURE_TABLES[name]:
        kind = str(field.type)
        one: Any = 1.0 if kind == "float" else b"123" if kind == "binary" else ["p"] if kind.startswith("list") else "x"
        columns[field.name] = [one] * len(ids)
    key = FEATURE_TABLES[name].names[0]
    stamps = {"feature_ts": [known] * len(ids), "event_date": [DAY] * len(ids)}
    return pyarrow.table({**columns, key: list(ids), **stamps}, FEATURE_TABLES[name])


@pytest.mark.parametrize("name", FEATURE_TABLES)
def test_schema_and_key(lake: Lake, name: str) -> None:
    """Declared columns, one row per key, known at the end of the day: passes; a repeated key does not."""
    check = check_of("schema_and_key", f"features/{name}")
    lake.replace_days(f"features/{name}", feature_rows(name, ["a", "b"], known_at(DAY)), [DAY], "run")
    assert run_check(check, {"lake": lake}, DAY).passed
    lake.replace_days(f"features/{name}", feature_rows(name, ["a", "a"], known_at(DAY)), [DAY], "run")
    failed = run_check(check, {"lake": lake}, DAY)
    assert (failed.passed, failed.blocking) == (False, True)
    assert values(failed)["repeated_keys"] == 1


def test_schema_and_key_finds_features_known_too_early(lake: Lake) -> None:
    """Stamped with the day itself instead of the next midnight, two rows would be seen a day before they were known."""
    rows = feature_rows("customer", ["a", "b"], known_at(DAY) - timedelta(days=1))
    lake.replace_days("features/customer", rows, [DAY], "run")
    failed = run_check(check_of("schema_and_key", "features/customer"), {"lake": lake}, DAY)
    assert (failed.passed, values(failed)["wrong_timestamps"]) == (False, 2)


def test_schema_and_key_finds_another_type(lake: Lake) -> None:
    """float64 where float32 is declared: the column, what was wanted and what was found."""
    rows = feature_rows("customer", ["a"], known_at(DAY))
    at = rows.schema.get_field_index("customer_n_orders")
    lake.replace_days("features/customer", rows.set_column(at, "customer_n_orders", pyarrow.array([1.0])), [DAY], "run")
    failed = run_check(check_of("schema_and_key", "features/customer"), {"lake": lake}, DAY)
    assert (failed.passed, values(failed)["columns"]) == (False, {"customer_n_orders": ["float", "double"]})


def test_schema_and_key_finds_an_empty_day(lake: Lake) -> None:
    """A day on which nobody has features is no day of features."""
    lake.replace_days("features/customer", feature_rows("customer", [], known_at(DAY)), [DAY], "run")
    assert not run_check(check_of("schema_and_key", "features/customer"), {"lake": lake}, DAY).passed


class OnlineInMemory(FeatureStoreResource):
    """An online store that holds what it is given; the real one is read in e2e/test_closed_loop.py."""

    rows: ClassVar[dict[str, dict[str, Any]]] = {}  # Dagster makes its own copy of a resource

    def put(self, customer_id: str, known: datetime, pack: bytes = b"123", **features: float) -> None:
        """The online row of a customer; features that are not named are 1."""
        row = {name: features.get(name, 1.0) for name in CUSTOMER_FEATURES}
        self.rows[customer_id] = {**row, "pair_features": pack, "known": known}

    def open(self) -> Any:
        return None

    def online_timestamps(
        self, store: Any, customer_ids: Sequence[str], view: str = "customer"
    ) -> dict[str, datetime | None]:
        return {c: self.rows[c]["known"] if c in self.rows else None for c in customer_ids}

    def read_online(self, store: Any, customer_ids: Sequence[str]) -> dict[str, list[Any]]:
        rows = [self.rows.get(c, {}) for c in customer_ids]
        return {name: [row.get(name) for row in rows] for name in (*CUSTOMER_FEATURES, "pair_features")}


@pytest.fixture
def online(lake: Lake) -> OnlineInMemory:
    """Customers a and b, online as they are in the lake."""
    for name in ("customer", "customer_product"):
        lake.replace_days(f"features/{name}", feature_rows(name, ["a", "b"], known_at(DAY)), [DAY], "run")
    store = OnlineInMemory()
    store.rows.clear()
    store.put("a", known_at(DAY))
    store.put("b", known_at(DAY))
    return store


def parity(lake: Lake, online: OnlineInMemory) -> dg.AssetCheckEvaluation:
    return run_check(online_equals_offline, {"lake": lake, "feature_store": online}, DAY)


def test_online_equals_offline(lake: Lake, online: OnlineInMemory) -> None:
    """Two customers compared, none differing."""
    evaluation = parity(lake, online)
    found = values(evaluation)
    assert (evaluation.passed, found["compared"], found["different_values"], found["different_packs"]) == (
        True,
        2,
        0,
        0,
    )


def test_a_value_that_differs_online_is_found(lake: Lake, online: OnlineInMemory) -> None:
    """One feature of b is 2 instead of 1."""
    online.put("b", known_at(DAY), customer_n_orders=2.0)
    evaluation = parity(lake, online)
    assert (evaluation.passed, evaluation.blocking, values(evaluation)["different_values"]) == (False, True, 1)


def test_a_pack_that_differs_online_is_found(lake: Lake, online: OnlineInMemory) -> None:
    """One byte of b's packed candidates."""
    online.put("b", known_at(DAY), pack=b"124")
    evaluation = parity(lake, online)
    assert (evaluation.passed, values(evaluation)["different_packs"]) == (False, 1)


def test_a_customer_who_is_missing_online_is_found(lake: Lake, online: OnlineInMemory) -> None:
    """b was never published."""
    del online.rows["b"]
    evaluation = parity(lake, online)
    assert (evaluation.passed, values(evaluation)["missing"]) == (False, 1)


def test_newer_online_values_are_no_difference(lake: Lake, online: OnlineInMemory) -> None:
    """b was published for a later day already: kept, and not compared with this one."""
    online.put("b", known_at(DAY) + timedelta(days=1), customer_n_orders=2.0)
    evaluation = parity(lake, online)
    assert (evaluation.passed, values(evaluation)["compared"], values(evaluation)["kept_newer"]) == (True, 1, 1)
