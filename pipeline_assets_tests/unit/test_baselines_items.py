"""Item-kNN, EASE and ALS on a shop of a few orders."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_assets.recommender import baselines
from pipeline_assets_tests.unit.test_baselines import AS_OF, listed, purchases, score


def test_item_knn_scores_by_cosine_of_buyers() -> None:
    """Today Ann bought a, Bob a and b: cosine(a, b) = 1 / sqrt(2 * 1), and Ann's a weighs log(1 + 1)."""
    shop = purchases(("ann", "2017-06-30", "a"), ("bob", "2017-06-30", "ab"))
    slates = baselines.item_knn(shop, ["ann"], AS_OF, top=2)
    assert listed(slates, "ann") == "ba"
    assert score(slates, "ann", "b") == pytest.approx(np.log(2) / np.sqrt(2), abs=1e-4)


def test_ease_is_the_ridge_regression_of_each_product_on_the_others() -> None:
    """Column b of the weights solves (X_a'X_a + l2) w = X_a'X_b for the only other product a: w = g_ab / (g_aa + l2)."""
    shop = purchases(("ann", "2017-06-30", "a"), ("bob", "2017-06-30", "ab"))
    slates = baselines.ease(shop, ["ann"], AS_OF, l2=2.0, top=2)
    unit = np.log(2) ** 2  # of one purchase today, squared
    assert score(slates, "ann", "b") == pytest.approx(np.log(2) * unit / (2 * unit + 2.0), abs=1e-4)


def test_als_finds_the_group_that_a_customer_belongs_to() -> None:
    """Six customers buy a to d, six w to z; Ann has a, b, c: with two factors d is worth more to her than w to z."""
    shop = purchases(
        *((f"left{n}", "2017-06-30", "abcd") for n in range(6)),
        *((f"right{n}", "2017-06-30", "wxyz") for n in range(6)),
        ("ann", "2017-06-30", "abc"),
    )
    slates = baselines.als(shop, ["ann"], AS_OF, factors=2, l2=0.1, top=4)
    assert set(listed(slates, "ann")) == set("abcd")
