"""Candidates of the scenario as of 2017-02-19: who is offered what, by which source, in which order."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import candidates as module
from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.candidates import SOURCES, candidates
from pipeline_assets_tests import scenario

ANN_MILK = sum(0.5 ** (age / 90) for age in (49, 35, 21, 7))
ANN_BREAD = sum(0.5 ** (age / 90) for age in (49, 7))


@pytest.fixture(scope="module")
def snapshot() -> Iterator[Snapshot]:
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, scenario.feeds())
        yield Snapshot(con, scenario.AS_OF)


def named(snapshot: Snapshot) -> pd.DataFrame:
    """Candidates with ids instead of dense keys, and the name of the source."""
    frame = candidates(snapshot)
    snapshot.con.register("found", frame)
    query = """select customer_id, product_id, source, place, knn_score
        from found join customer using (customer) join known_product using (product) order by customer_id, source, place"""
    result = snapshot.con.sql(query).df()
    snapshot.con.unregister("found")
    return result.assign(source=[SOURCES[source] for source in result["source"]])


def of(frame: pd.DataFrame, customer: str, source: str | None = None) -> list[str]:
    chosen = frame[frame["customer_id"] == customer]
    return chosen.loc[chosen["source"] == source if source else slice(None), "product_id"].tolist()


def test_history_is_ordered_by_decayed_count(snapshot: Snapshot) -> None:
    """ann: milk at ages 49, 35, 21, 7, bread at 49, 7. bob: milk (1, 49), wine (28, 49), rolls (1), bread (49)."""
    frame = named(snapshot)
    assert of(frame, "ann", "history") == ["milk", "bread"]
    assert of(frame, "bob", "history") == ["milk", "wine", "rolls", "bread"]


def test_history_place_is_the_rank_within_the_source(snapshot: Snapshot) -> None:
    """1 is the most attached product."""
    frame = named(snapshot)
    own = frame[(frame["customer_id"] == "bob") & (frame["source"] == "history")]
    assert own["place"].tolist() == [1, 2, 3, 4]


def test_neighbours_bring_what_similar_customers_buy(snapshot: Snapshot) -> None:
    """bob shares milk and bread with ann and has rolls and wine besides: they are new for her."""
    assert of(named(snapshot), "ann", "neighbours") == ["rolls", "wine"]


def test_neighbour_score_is_attachment_times_cosine(snapshot: Snapshot) -> None:
    """wine has 1 buyer, milk and bread have 2: cosine 1 / sqrt(2 x 1) to both; attachment is ln(1 + decayed count)."""
    frame = named(snapshot)
    score = frame[(frame["customer_id"] == "ann") & (frame["product_id"] == "wine")]["knn_score"].item()
    assert score == pytest.approx((np.log1p(ANN_MILK) + np.log1p(ANN_BREAD)) / np.sqrt(2), rel=1e-6)


def test_favourite_types_bring_their_popular_products(snapshot: Snapshot) -> None:
    """ann buys the type MILK most; lite is its other product; cleo bought lite, so milk is of her types."""
    frame = named(snapshot)
    assert of(frame, "ann", "type") == ["lite"]
    assert of(frame, "cleo", "type") == ["milk"]


def test_customer_without_history_gets_popular_products(snapshot: Snapshot) -> None:
    """Orders of 28 days: milk 3, the others 1 each in the order of their ids; tea and salt never sold."""
    frame = named(snapshot)
    assert of(frame, "eve") == ["milk", "bread", "cheese", "lite", "rolls", "soap", "wine"]
    assert of(frame, "dan") == of(frame, "eve")
    assert set(frame[frame["customer_id"] == "eve"]["source"]) == {"popular"}


def test_promotion_of_a_favourite_type_is_a_source(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ann's types BREAD and MILK, bread and milk are in next week's mailer; both are already in her history.

    Without history, neighbours and types they come from the promotion: milk first, 3 orders against 1.
    """
    for size in ("N_HISTORY", "N_NEIGHBOURS", "N_TYPE"):
        monkeypatch.setattr(module, size, 0 if size != "N_NEIGHBOURS" else 1)
    assert of(named(snapshot), "ann", "promoted") == ["milk", "bread"]


def test_product_keeps_its_first_source_and_the_place_there(snapshot: Snapshot) -> None:
    """milk is the first of popularity and the first of cleo's type MILK by sales; type is the earlier source."""
    frame = named(snapshot)
    row = frame[(frame["customer_id"] == "cleo") & (frame["product_id"] == "milk")]
    assert row["source"].tolist() == ["type"]
    assert not frame.duplicated(["customer_id", "product_id"]).any()


def test_sizes_limit_each_source(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one place for history and popularity, bob's wine is gone and eve has one product."""
    monkeypatch.setattr(module, "N_HISTORY", 1)
    monkeypatch.setattr(module, "N_POPULAR", 1)
    frame = named(snapshot)
    assert of(frame, "bob", "history") == ["milk"]
    assert of(frame, "eve") == ["milk"]


def test_every_known_customer_is_in_order_and_has_sellable_products_only(snapshot: Snapshot) -> None:
    """Sorted by customer, source, place; never fuel, cola (delisted) or jam (not known yet)."""
    frame = candidates(snapshot)
    keys = frame[["customer", "source", "place"]]
    pd.testing.assert_frame_equal(keys, keys.sort_values(["customer", "source", "place"], kind="stable"))
    ids = named(snapshot)
    assert sorted(ids["customer_id"].unique()) == ["ann", "bob", "cleo", "dan", "eve"]
    assert not {"fuel", "cola", "jam"} & set(ids["product_id"])


def test_types_are_small(snapshot: Snapshot) -> None:
    """341 candidates times thousands of customers: score as float32, source and place as small integers."""
    frame = candidates(snapshot)
    assert frame["knn_score"].dtype == np.float32
    assert (frame["source"].dtype, frame["place"].dtype) == (np.int8, np.int16)


def test_same_snapshot_gives_the_same_candidates(snapshot: Snapshot) -> None:
    """Asked twice, the same frame bit by bit."""
    pd.testing.assert_frame_equal(candidates(snapshot), candidates(snapshot), check_exact=True)
