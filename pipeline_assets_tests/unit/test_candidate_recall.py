"""Which source finds what is bought: on a made-up list, and on the scenario as of 2017-02-19."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.candidate_recall import candidate_recall, sources_section
from pipeline_assets.recommender.candidates import SOURCES, candidates, similar_products, sources_of
from pipeline_assets.recommender.retriever import I32, Bought, Fitted, ItemCosine
from pipeline_assets_tests import scenario


def pairs(*rows: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_id", "product_id", "source"])


def bought(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["customer_id", "product_id"])


def test_targets_are_counted_first_alone_and_at_all() -> None:
    """ann bought a, b, c and d. Source x names a, b; y names b, c; z names c and e, which nobody bought. d is named by nobody.

    x has 2 of 4, y 2, z 1. First: a, b are x's, c is y's. Alone: a is x's; b and c have two sources each. Together 3 of 4.
    """
    named = pairs(
        ("ann", "a", 0), ("ann", "b", 0), ("ann", "b", 1), ("ann", "c", 1), ("ann", "c", 2), ("ann", "e", 2),
        ("bob", "a", 0),  # bought nothing: does not count
    )  # fmt: skip
    targets = bought(("ann", "a"), ("ann", "b"), ("ann", "c"), ("ann", "d"))
    found = candidate_recall(named, targets, ["x", "y", "z"]).set_index("source")
    assert found["targets"].to_dict() == {"x": 2 / 4, "y": 2 / 4, "z": 1 / 4, "all": 3 / 4}
    assert found["first"].to_dict() == {"x": 2 / 4, "y": 1 / 4, "z": 0, "all": 3 / 4}
    assert found["alone"].to_dict() == {"x": 1 / 4, "y": 0, "z": 0, "all": 3 / 4}
    assert found["candidates"].to_dict() == {"x": 2, "y": 2, "z": 2, "all": 4}


def test_shares_are_of_all_targets_of_all_customers() -> None:
    """ann's one target is named, bob's is not: half; a source that names nothing is there with zeros."""
    found = candidate_recall(pairs(("ann", "a", 0)), bought(("ann", "a"), ("bob", "b")), ["x", "y"])
    assert found["targets"].tolist() == [1 / 2, 0, 1 / 2]
    assert found["candidates"].tolist() == [1 / 2, 0, 1 / 2]


def test_the_section_shows_shares_in_percent() -> None:
    """One target of four is 25 %; the row of all sources is there."""
    recall = candidate_recall(
        pairs(("ann", "a", 0)), bought(("ann", "a"), ("ann", "b"), ("ann", "c"), ("ann", "d")), ["x"]
    )
    section = sources_section(recall, "Monday to Sunday")
    assert section.tables[""].to_dict("list") == {
        "source": ["x", "all"], "candidates": [1, 1], "targets": ["25.00%"] * 2, "first": ["25.00%"] * 2, "alone": ["25.00%"] * 2,
    }  # fmt: skip
    assert "Monday to Sunday" in section.note


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    con = duckdb.connect(config={"threads": 1})
    scenario.register_marts(con, scenario.feeds())
    return Snapshot(con, scenario.AS_OF)


def test_candidates_are_the_first_source_of_each_product(snapshot: Snapshot) -> None:
    """The list of all sources, cut to the first of each product, is the list of candidates."""
    named = sources_of(snapshot)
    first = named.groupby(["customer_id", "product_id"])["source"].min()
    frame = candidates(snapshot)
    customers = snapshot.con.sql("select customer_id from known_customer order by customer").fetchnumpy()["customer_id"]
    products = snapshot.stage.product_ids.to_pylist()
    keys = zip(customers[frame["customer"]], [products[key] for key in frame["product"]], strict=True)
    assert dict(zip(keys, frame["source"], strict=True)) == first.to_dict()


def test_history_and_promotions_name_anns_milk(snapshot: Snapshot) -> None:
    """She bought it, it is the best seller of her favourite type, it is in the mailer, and it is popular: everybody but neighbours, who bring new products."""
    named = sources_of(snapshot)
    of_milk = named[(named["customer_id"] == "ann") & (named["product_id"] == "milk")]["source"]
    assert sorted(SOURCES[source] for source in of_milk) == ["history", "popular", "promoted", "type"]


class TheSoap:
    """A retriever of a few lines: whoever bought anything is offered the last product, which is as close to everybody."""

    n_items = 3

    def fit(self, items: I32, buckets: object) -> Fitted:
        for _ in buckets:  # type: ignore[attr-defined]
            pass
        return Last(items)


class Last:
    def __init__(self, items: I32) -> None:
        self.items = items

    def positions(self, product: I32) -> tuple[np.ndarray, np.ndarray]:
        where = np.searchsorted(self.items, product).clip(max=len(self.items) - 1)
        inside = self.items[where] == product
        return np.where(inside, where, 0), inside

    def scores(self, customer: np.ndarray, product: I32, weight: np.ndarray, n_customers: int) -> np.ndarray:
        scores = np.zeros((n_customers, len(self.items)), dtype=np.float32)
        scores[np.unique(customer), -1] = 1
        return scores


def test_another_retriever_takes_the_place(snapshot: Snapshot) -> None:
    """Its products are the neighbours, where they are new, and its scores the feature; the other sources stay as they were."""
    usual, other = sources_of(snapshot), sources_of(snapshot, similar_products(snapshot, TheSoap()))
    neighbours = SOURCES.index("neighbours")
    last = snapshot.stage.product_ids.to_pylist()[int(similar_products(snapshot, TheSoap()).items[-1])]
    assert set(other[other["source"] == neighbours]["product_id"]) == {last}
    pd.testing.assert_frame_equal(
        usual[usual["source"] != neighbours].reset_index(drop=True),
        other[other["source"] != neighbours].reset_index(drop=True),
    )
    frame = candidates(snapshot, similar_products(snapshot, TheSoap()))
    assert set(frame["knn_score"]) == {0.0, 1.0}


def test_item_cosine_learns_what_its_buckets_hold() -> None:
    """Customers {1}, {1, 2}, {2} in one bucket or in three: cos(1, 2) = 1 / 2 either way."""
    one: list[Bought] = [(np.array([0, 1, 1, 2]), np.array([1, 1, 2, 2], dtype=np.int32))]
    three: list[Bought] = [
        (np.array([0]), np.array([1], dtype=np.int32)),
        (np.array([0, 0]), np.array([1, 2], dtype=np.int32)),
        (np.array([0]), np.array([2], dtype=np.int32)),
    ]
    items = np.array([1, 2], dtype=np.int32)
    for buckets in (one, three):
        similarity = ItemCosine().fit(items, buckets).similarity.toarray()
        np.testing.assert_allclose(similarity, [[0, 0.5], [0.5, 0]], rtol=1e-6)
