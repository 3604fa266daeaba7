"""Skew between offline and online values, and between two sets of slates."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.monitoring.skew import compare_values, score_skew
from pipeline_assets.recommender.errors import FeatureMismatch, NotEnoughData, SchemaError

NAMES = ("times_bought", "days_since")
OFFLINE = np.array([[1.0, np.nan], [2.0, 5.0]], dtype=np.float32)


def slates(products: dict[str, list[str]], score: float = 1.0) -> pd.DataFrame:
    """Long slates from customer -> products in order; the scores fall by 0.1 a rank."""
    rows = [(c, i + 1, p, score - 0.1 * i) for c, listed in products.items() for i, p in enumerate(listed)]
    return pd.DataFrame(rows, columns=["customer_id", "rank", "product_id", "score"])


def test_equal_values_have_no_skew() -> None:
    """NaN equals NaN."""
    result = compare_values(OFFLINE, OFFLINE.copy(), NAMES)
    assert (result.rows, result.mismatches, result.mismatch_share) == (2, 0, 0.0)
    assert result.is_within_objective


def test_one_of_four_values_differs() -> None:
    """times_bought 2 against 3: 1 of 2 values of the feature, 1 of 4 in all, off by 1."""
    online = OFFLINE.copy()
    online[1, 0] = 3.0
    result = compare_values(OFFLINE, online, NAMES)
    assert result.mismatch_share == 0.25
    assert not result.is_within_objective
    assert [(f.name, f.mismatches, f.mismatch_share, f.max_absolute_difference) for f in result.features] == [
        ("times_bought", 1, 0.5, 1.0),
        ("days_since", 0, 0.0, 0.0),
    ]


def test_one_bit_is_a_difference() -> None:
    """The next float32 after 2 is not 2: a tree can split between them."""
    online = OFFLINE.copy()
    online[1, 0] = np.nextafter(np.float32(2), np.float32(3))
    assert compare_values(OFFLINE, online, NAMES).mismatches == 1


def test_missing_against_present_differs_without_a_distance() -> None:
    """A value served where the offline one is missing is skew; there is no number for how far."""
    online = np.array([[1.0, 0.0], [2.0, 5.0]], dtype=np.float32)
    feature = compare_values(OFFLINE, online, NAMES).features[1]
    assert feature.mismatches == 1
    assert math.isnan(feature.max_absolute_difference)


def test_every_kind_of_nan_is_missing() -> None:
    """NaN with other bits (a sign, a payload) is still NaN."""
    online = OFFLINE.copy()
    online[0, 1] = np.array([0xFFC00001], dtype=np.uint32).view(np.float32)[0]
    assert compare_values(OFFLINE, online, NAMES).mismatches == 0


def test_skew_works_on_transposed_memory() -> None:
    """A column-major matrix (as pandas gives) compares like a row-major one."""
    assert compare_values(np.asfortranarray(OFFLINE), OFFLINE, NAMES).mismatches == 0


@pytest.mark.parametrize(
    "online",
    [OFFLINE.astype(np.float64), OFFLINE[:1], OFFLINE[:, :1]],
    ids=["float64", "one row less", "one feature less"],
)
def test_other_types_and_shapes_are_refused(online: np.ndarray) -> None:
    """A cast or a broadcast could hide skew."""
    with pytest.raises(FeatureMismatch, match="online values"):
        compare_values(OFFLINE, online, NAMES)


def test_nothing_compared_is_not_no_skew() -> None:
    """Zero rows prove nothing."""
    empty = np.empty((0, 2), dtype=np.float32)
    with pytest.raises(NotEnoughData):
        compare_values(empty, empty, NAMES)


def test_equal_slates_have_no_score_skew() -> None:
    """PSI 0, full overlap, no distance; b is in both slates: top item share 1."""
    same = slates({"c1": ["a", "b"], "c2": ["b", "c"]})
    skew = score_skew(same, same, top_n=2)
    assert (skew.psi, skew.top_n_overlap, skew.item_share_distance) == (0.0, 1.0, 0.0)
    assert skew.current_top_item_share == 1.0


def test_overlap_is_the_mean_over_shared_customers() -> None:
    """c1 keeps 1 of 2, c2 none of 2, c3 is only there today: (1/2 + 0) / 2 = 1/4."""
    before = slates({"c1": ["a", "b"], "c2": ["b", "c"]})
    now = slates({"c1": ["a", "x"], "c2": ["x", "y"], "c3": ["a", "b"]})
    skew = score_skew(before, now, top_n=2)
    assert skew.shared_customers == 2
    assert skew.top_n_overlap == 0.25


def test_a_list_that_shrank_does_not_overlap_fully() -> None:
    """One product left of two, the same one: 1 of the longer list's 2."""
    assert score_skew(slates({"c1": ["a", "b"]}), slates({"c1": ["a"]}), top_n=2).top_n_overlap == 0.5


def test_item_shares_show_a_collapse() -> None:
    """Every customer gets x: its share of slates goes from 1/2 to 1; slots a, b to x, x are disjoint, distance 1."""
    before = slates({"c1": ["a"], "c2": ["b"]})
    now = slates({"c1": ["x"], "c2": ["x"]})
    skew = score_skew(before, now, top_n=1)
    assert (skew.reference_top_item_share, skew.current_top_item_share) == (0.5, 1.0)
    assert skew.item_share_distance == 1.0


def test_scores_that_became_constant_have_a_large_psi() -> None:
    """100 different scores to one: far above the 0.25 that counts as a large change."""
    customers = {f"c{i}": ["a"] for i in range(100)}
    before = slates(customers).assign(score=np.linspace(0, 1, 100))
    assert score_skew(before, slates(customers, score=0.5)).psi > 1.0


def test_scores_that_became_nan_have_a_large_psi() -> None:
    """Missing scores are a bin of their own."""
    before = slates({f"c{i}": ["a"] for i in range(100)})
    assert score_skew(before, before.assign(score=np.nan)).psi > 1.0


def test_ranks_beyond_the_top_do_not_count() -> None:
    """Only rank 1 is looked at; the slates differ at rank 2."""
    assert score_skew(slates({"c": ["a", "b"]}), slates({"c": ["a", "z"]}), top_n=1).top_n_overlap == 1.0


def test_slates_of_other_customers_cannot_be_compared() -> None:
    """No shared customer is an error, not an overlap of 0."""
    with pytest.raises(NotEnoughData, match="no shared customer"):
        score_skew(slates({"c1": ["a"]}), slates({"c2": ["a"]}))


def test_empty_and_malformed_slates_are_named() -> None:
    """The message says which side."""
    good = slates({"c": ["a"]})
    with pytest.raises(NotEnoughData, match="current slates"):
        score_skew(good, good.head(0))
    with pytest.raises(SchemaError, match=r"reference slates.*score"):
        score_skew(good.drop(columns="score"), good)
