"""Popularity and personal counters on a shop of a few orders."""

from __future__ import annotations

import pytest

from pipeline_assets.recommender import baselines
from pipeline_assets_tests.unit.test_baselines import AS_OF, SHOP, listed, purchases, score


def test_popularity_counts_orders_and_breaks_ties_by_product_id() -> None:
    """From 3 to 30 June: a 2, d 2, e 2 orders, b 1, c 1; of all time a 3, b 2; then d before e by name."""
    assert listed(baselines.popularity(SHOP, ["zoe"], AS_OF, top=5), "zoe") == "adebc"


def test_popularity_prefers_recent_days_then_all_time() -> None:
    """In the last 6 days (25 to 30 June) e sold twice, a and d once each; of all time a sold 3 and d 2."""
    assert listed(baselines.popularity(SHOP, ["zoe"], AS_OF, days=6, top=5), "zoe") == "eadbc"


def test_window_of_days_includes_its_first_day_only() -> None:
    """2 days are 29 and 30 June: a on the 29th counts, b and b on the 28th do not."""
    shop = purchases(("ann", "2017-06-28", "b"), ("bob", "2017-06-28", "b"), ("ann", "2017-06-29", "a"))
    assert listed(baselines.popularity(shop, ["ann"], AS_OF, days=2, top=2), "ann") == "ab"


def test_personal_frequency_counts_own_orders_then_fills_with_popularity() -> None:
    """Ann: b 2 orders; a and c 1, a is more popular; then the popular ones she never bought, d before e."""
    slates = baselines.personal_frequency(SHOP, ["ann"], AS_OF, top=5)
    assert listed(slates, "ann") == "bacde"
    assert score(slates, "ann", "b") == 2.0
    assert score(slates, "ann", "d") == -2.0  # second in popularity


def test_decay_halves_the_weight_every_half_life() -> None:
    """a 20 days ago twice = 2 x 1/4 with a half-life of 10 days; b today = 1."""
    shop = purchases(("ann", "2017-06-10", "a"), ("ann", "2017-06-10", "a"), ("ann", "2017-06-30", "b"))
    slates = baselines.decayed_frequency(shop, ["ann"], AS_OF, half_life_days=10, top=2)
    assert listed(slates, "ann") == "ba"
    assert score(slates, "ann", "a") == pytest.approx(2 * 0.25)
    assert score(slates, "ann", "b") == pytest.approx(1.0)


def test_very_old_purchases_still_rank_before_popular_products() -> None:
    """60 half-lives are a weight of 1e-18, which is still a personal purchase: z before the popular a."""
    shop = purchases(("ann", "2017-05-01", "z"), ("bob", "2017-06-30", "a"))
    assert listed(baselines.decayed_frequency(shop, ["ann"], AS_OF, half_life_days=1, top=2), "ann") == "za"
