"""What is shown: expectations are arithmetic on lists of letters, one letter a product."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import exposure
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets_tests.unit.test_metrics import pairs, slates

POPULARITY = pd.Series({"a": 1 / 2, "b": 1 / 4, "c": 1 / 8, "d": 1 / 8, "e": 1 / 16})
PRODUCTS = pd.DataFrame(
    {"department": ["DAIRY", "DAIRY", "BAKERY", "DRUG", "DRUG"], "brand": ["Own", "Own", "Own", "Other", None]},
    index=pd.Index(list("abcde"), name="product_id"),
)
SHOP = exposure.Shop(POPULARITY, PRODUCTS)


def test_popularity_share_counts_customers_not_orders() -> None:
    """Two of two customers bought a, one bought b; Ann's second a changes nothing."""
    shares = exposure.popularity_share(pd.concat([pairs(ann="ab", bob="a"), pairs(ann="a")]))
    assert shares.to_dict() == {"a": 2 / 2, "b": 1 / 2}


def test_novelty_is_the_mean_surprise_in_bits() -> None:
    """1/2 and 1/8 are 1 and 3 bits; z, which nobody bought, counts as the rarest, 4 bits."""
    shown = exposure.shown_measures(slates(ann="ac", bob="z"), SHOP)
    assert shown["novelty"].tolist() == pytest.approx([(1 + 3) / 2, 4])


def test_tail_share_counts_slots_outside_the_head() -> None:
    """Of five products the head is the best one, a: Ann has one of two slots in the tail, Bob all."""
    shown = exposure.shown_measures(slates(ann="ab", bob="c"), SHOP)
    assert shown["tail_share"].tolist() == [1 / 2, 1.0]


def test_departments_counts_distinct_departments_within_k() -> None:
    """The first two of Ann's list are of one department, the third does not count."""
    assert exposure.shown_measures(slates(ann="abc", bob="ac"), SHOP, k=2)["departments"].tolist() == [1, 2]


def test_coverage_counts_distinct_products_within_k() -> None:
    """a, b, c within the first two places, of 12 products sold."""
    assert exposure.coverage(slates(ann="abz", bob="bc"), 12, k=2).value == pytest.approx(3 / 12)


def test_coverage_bounds_are_of_the_jackknife() -> None:
    """a is only Ann's, b and c only Bob's: leaving one out loses 1 or 2; half of (0.25 + 0.25), the root is 0.5 products."""
    found = exposure.coverage(slates(ann="ad", bob="bcd"), 10)
    spread = np.sqrt(1 / 2 * (0.5**2 + 0.5**2)) / 10
    assert (found.low, found.high) == pytest.approx((0.4 - 1.96 * spread, 0.4 + 1.96 * spread), abs=1e-5)


def test_coverage_of_a_shop_without_sales_is_refused() -> None:
    """Dividing by nothing sold is an error, not 0."""
    with pytest.raises(NotEnoughData):
        exposure.coverage(slates(ann="a"), 0)


def test_exposure_compares_slots_with_purchases() -> None:
    """Slots: Own 2 of 4, Other 1, unknown e 1. Purchases: Own 1 of 2, Other 1: ratios 1 and 0.5, none for unknown."""
    found = exposure.exposure(slates(ann="abde"), pairs(ann="a", bob="d"), PRODUCTS["brand"])
    assert found.loc["Own", ["slots", "purchases", "ratio"]].tolist() == [0.5, 0.5, 1.0]
    assert found.loc["Other", "ratio"] == 0.5
    assert found.loc["unknown", "slots"] == 0.25
    assert np.isnan(found.loc["unknown", "ratio"])


def test_popularity_fifths_split_products_not_purchases() -> None:
    """Five products, one a fifth; c and d sold the same, c comes first by name."""
    assert exposure.popularity_fifths(POPULARITY).to_dict() == {
        "a": "1 (most bought)", "b": "2", "c": "3", "d": "4", "e": "5",
    }  # fmt: skip
