"""Lookups of what a snapshot counted; the values of whole candidates are held in test_features.py."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.features import PAIR_FEATURES
from pipeline_assets.recommender.pair_features import Counted, PairFeatures
from pipeline_assets_tests import scenario


@pytest.fixture(scope="module")
def snapshot() -> Iterator[Snapshot]:
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, scenario.feeds())
        yield Snapshot(con, scenario.AS_OF)


def one(snapshot: Snapshot, customer_id: str, product_id: str) -> dict[str, float]:
    """The features of one pair, asked for as a candidate."""
    customers = snapshot.con.sql("select customer, customer_id from customer order by customer").df()
    customer = customers.set_index("customer_id")["customer"][customer_id]
    product = snapshot.stage.product_ids.to_pylist().index(product_id)
    named = pd.DataFrame(
        {"customer": [customer], "product": [product], "source": [0], "place": [1], "knn_score": [0.5]}
    )
    found = PairFeatures(snapshot, customers["customer"].to_numpy()).of(named)
    return {name: float(values[0]) for name, values in found.items()}


def test_keys_may_come_in_any_order_and_a_stranger_is_missing() -> None:
    """7 and 3 have values, 5 does not."""
    counted = Counted(np.array([7, 3]), {"n": np.array([70, 30])})
    assert counted.of(np.array([3, 5, 7]))["n"].tolist() == pytest.approx([30, np.nan, 70], nan_ok=True)


def test_nothing_counted_is_missing_for_everybody() -> None:
    """A shop without plans has no row at all."""
    counted = Counted(np.empty(0, dtype=np.int64), {"n": np.empty(0)})
    assert np.isnan(counted.of(np.array([0, 1]))["n"]).all()


def test_every_declared_feature_is_looked_up(snapshot: Snapshot) -> None:
    """And none besides."""
    assert set(one(snapshot, "bob", "wine")) == set(PAIR_FEATURES)


def test_gap_and_overdue_of_a_pair(snapshot: Snapshot) -> None:
    """bob's wine has ages 28 and 49: a gap of 21 days, 28 / 21 of it gone; his first milk is 48 days before his last."""
    found = one(snapshot, "bob", "wine")
    assert (found["pair_gap_days"], found["pair_overdue"]) == (21, pytest.approx(28 / 21))
    assert one(snapshot, "bob", "milk")["pair_gap_days"] == 48


def test_a_pair_that_never_was_has_types_and_no_counts(snapshot: Snapshot) -> None:
    """ann never bought lite, which is of the type MILK; she bought that on four days."""
    found = one(snapshot, "ann", "lite")
    assert np.isnan(found["pair_n_orders"])
    assert found["pair_type_days"] == 4


def test_a_coupon_needs_the_mailing_and_the_product(snapshot: Snapshot) -> None:
    """k1 was mailed to bob, for cheese."""
    assert one(snapshot, "bob", "cheese")["pair_has_coupon"] == 1
    assert one(snapshot, "bob", "milk")["pair_has_coupon"] == 0
    assert one(snapshot, "ann", "cheese")["pair_has_coupon"] == 0


def test_plans_are_those_of_the_home_store(snapshot: Snapshot) -> None:
    """bread is on display in s1, the home of ann and bob; tea is in the mailer of s2 only."""
    assert one(snapshot, "ann", "bread")["pair_store_display"] == 1
    assert one(snapshot, "ann", "tea")["pair_store_mailer"] == 0
    assert one(snapshot, "cleo", "tea")["pair_store_mailer"] == 1


def test_a_customer_without_a_home_store_has_no_plan(snapshot: Snapshot) -> None:
    """eve never bought: whether bread is on display for her is missing, not no."""
    assert np.isnan(one(snapshot, "eve", "bread")["pair_store_display"])
