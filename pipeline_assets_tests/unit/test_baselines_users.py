"""TIFU-KNN and UP-CF on a shop of a few orders."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import baselines, known
from pipeline_assets_tests.unit.test_baselines import AS_OF, SHOP, listed, purchases, score


def test_tifu_own_vector_decays_by_basket_and_by_group() -> None:
    """m = 2, three baskets a, b, c: groups (a) and (b, c), n = 2.

    a: r_g / 1 / 2, b: r_b / 2 / 2, c: 1 / 2 / 2; with alpha = 1 the score is the own vector.
    """
    shop = purchases(("ann", "2017-06-01", "a"), ("ann", "2017-06-02", "b"), ("ann", "2017-06-03", "c"))
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, m=2, r_b=0.5, r_g=0.8, alpha=1.0, top=3)
    assert score(slates, "ann", "a") == pytest.approx(0.8 / 1 / 2)
    assert score(slates, "ann", "b") == pytest.approx(0.5 / 2 / 2)
    assert score(slates, "ann", "c") == pytest.approx(1.0 / 2 / 2)


def test_tifu_adds_the_mean_of_the_nearest_customers() -> None:
    """One basket each: Ann a, Bob a + b, Dan x + y. Ann's nearest is Bob: b scores 0.5 x 1, a 0.5 x 1 + 0.5 x 1."""
    shop = purchases(("ann", "2017-06-01", "a"), ("bob", "2017-06-01", "ab"), ("dan", "2017-06-01", "xy"))
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, alpha=0.5, k=1, top=2)
    assert listed(slates, "ann") == "ab"
    assert score(slates, "ann", "a") == pytest.approx(0.5 + 0.5)
    assert score(slates, "ann", "b") == pytest.approx(0.5)


def test_tifu_takes_the_mean_of_its_neighbours() -> None:
    """Ann's two nearest are Bob (a, b) and Cleo (a, c): b scores 0.5 x (1 + 0) / 2."""
    shop = purchases(
        ("ann", "2017-06-01", "a"), ("bob", "2017-06-01", "ab"), ("cleo", "2017-06-01", "ac"),
        ("dan", "2017-06-01", "xy"),
    )  # fmt: skip
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, alpha=0.5, k=2, top=3)
    assert listed(slates, "ann") == "abc"
    assert score(slates, "ann", "a") == pytest.approx(0.5 + 0.5 * (1 + 1) / 2)
    assert score(slates, "ann", "b") == pytest.approx(0.5 * (1 + 0) / 2)


def test_tifu_distance_ties_go_to_the_smaller_customer_id() -> None:
    """Bob (a, b) and Cleo (a, c) are equally far from Ann (a); with one neighbour it is Bob."""
    shop = purchases(("cleo", "2017-06-01", "ac"), ("bob", "2017-06-01", "ab"), ("ann", "2017-06-01", "a"))
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, alpha=0.5, k=1, top=2)
    assert listed(slates, "ann") == "ab"


def test_tifu_same_order_id_of_two_customers_is_two_baskets() -> None:
    """Ids may repeat between customers: with r_b = 0.5 Ann's older a weighs 0.5 / 2, whatever Bob's order o0 is."""
    shop = purchases(("ann", "2017-06-01", "a"), ("ann", "2017-06-02", "b"))
    other = purchases(("bob", "2017-06-20", "b"))
    slates = baselines.tifu_knn(pd.concat([shop, other]), ["ann"], AS_OF, r_b=0.5, alpha=1.0, top=2)
    assert score(slates, "ann", "a") == pytest.approx(0.5 / 2)


def test_tifu_blocks_give_the_same_slates(monkeypatch: pytest.MonkeyPatch) -> None:
    """One customer at a time or all at once: the block size only bounds memory."""
    rng = np.random.default_rng(2)
    shop = purchases(
        *((f"c{c:02}", f"2017-06-{d:02}", "".join(rng.choice(list("abcdefghij"), 3, replace=False)))
          for c in range(15) for d in (3, 9, 17, 24))
    )  # fmt: skip
    customers = sorted(shop["customer_id"].unique())
    at_once = baselines.tifu_knn(shop, customers, AS_OF, k=4, top=6)
    monkeypatch.setattr(known, "BLOCK_CELLS", 1)
    pd.testing.assert_frame_equal(baselines.tifu_knn(shop, customers, AS_OF, k=4, top=6), at_once)


def test_tifu_list_for_one_customer_equals_his_list_among_all() -> None:
    """Who else is asked for does not matter; neighbours come from all purchases."""
    together = baselines.tifu_knn(SHOP, ["ann", "bob", "cleo"], AS_OF, k=1, top=4)
    alone = baselines.tifu_knn(SHOP, ["bob"], AS_OF, k=1, top=4)
    assert listed(alone, "bob") == listed(together, "bob")


def test_up_cf_is_own_popularity_in_the_last_baskets_where_nobody_is_similar() -> None:
    """Ann alone, r = 2 of her three baskets: b is in 2 of 2, c in 1 of 2, a in none of them and so not personal."""
    shop = purchases(("ann", "2017-06-01", "ab"), ("ann", "2017-06-10", "b"), ("ann", "2017-06-20", "bc"))
    slates = baselines.up_cf(shop, ["ann"], AS_OF, r=2, top=3)
    assert listed(slates, "ann") == "bca"
    assert score(slates, "ann", "b") == pytest.approx(2 / 2)
    assert score(slates, "ann", "c") == pytest.approx(1 / 2)
    assert score(slates, "ann", "a") < 0


def test_up_cf_adds_similar_customers_by_the_asymmetric_cosine() -> None:
    """Ann has a, Bob a to d: 1 in common / (1 ** 0.25 * 4 ** 0.75) = 0.3536, squared 0.125; a is own 1 + 0.125, b 0.125."""
    shop = purchases(("ann", "2017-06-01", "a"), ("bob", "2017-06-01", "abcd"), ("dan", "2017-06-01", "xy"))
    slates = baselines.up_cf(shop, ["ann"], AS_OF, alpha=0.25, q=2, k=2, top=2)
    assert score(slates, "ann", "a") == pytest.approx(1 + 4**-1.5)
    assert score(slates, "ann", "b") == pytest.approx(4**-1.5)
