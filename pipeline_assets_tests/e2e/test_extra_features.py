"""Extra columns of experiments: what a reader can count by hand, from purchases of four weeks."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd

from benchmarks import extra_features
from benchmarks.extra_features import GROUPS, Asked, places, share_within
from pipeline_assets.recommender.features import PAIR_FEATURES
from pipeline_assets.recommender.known import known_on

DAY = date(2017, 3, 5)


def asked(purchases: list[tuple[str, str, str, int]], pairs: list[tuple[str, str]]) -> Asked:
    """Candidates of DAY from purchases (customer, product, order, days ago); all products are of one type, brand and department."""
    frame = pd.DataFrame(purchases, columns=["customer_id", "product_id", "order_id", "ago"])
    frame["event_date"] = [DAY - timedelta(days=ago) for ago in frame.pop("ago")]
    known = known_on(frame, DAY)
    customers, products = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    names = {name: np.zeros(known.shape[1], dtype=np.int64) for name in ("department", "type", "brand")}
    rows = pd.DataFrame(
        {"mailed": 0, "answered": 0, "plain": 1, "taken": 1, "is_planned": False}, index=range(len(pairs))
    )
    pair = np.full((len(pairs), len(PAIR_FEATURES)), 0.5, dtype=np.float32)
    owner = np.unique(customers, return_inverse=True)[1]
    return Asked(
        known, known.customers.get_indexer(customers), known.products.get_indexer(products), owner, pair, names, rows
    )


def test_places_and_shares_are_within_a_list() -> None:
    """Highest first, a missing value last; shares of a list add up to 1."""
    owner, values = np.array([0, 0, 0, 1]), np.array([0.2, np.nan, 0.6, 5.0])
    assert places(values, owner).tolist() == [2, 3, 1, 1]
    np.testing.assert_allclose(share_within(values, owner), [0.25, 0, 0.75, 1])


def test_newest_baskets_are_counted_back_from_the_day() -> None:
    """Milk is in both baskets, bread in the older one only; eggs in none."""
    known = [("a", "milk", "2", 1), ("a", "milk", "1", 9), ("a", "bread", "1", 9), ("b", "eggs", "3", 2)]
    found = GROUPS["last_basket"](asked(known, [("a", "milk"), ("a", "bread"), ("a", "eggs")]))
    assert found["of_1"].tolist() == [1, 0, 0]
    assert found["of_2"].tolist() == [2, 1, 0]
    weeks = GROUPS["weeks_before"](asked(known, [("a", "milk"), ("a", "bread"), ("a", "eggs")]))
    assert (weeks["of_0"].tolist(), weeks["of_1"].tolist()) == ([1, 0, 0], [1, 1, 0])


def test_customers_alike_buy_it_this_week() -> None:
    """Of two customers each is all that the other has for a neighbour: b bought bread this week, a did not."""
    known = [("a", "milk", "1", 9), ("b", "milk", "2", 9), ("b", "bread", "3", 1)]
    found = GROUPS["trend_nearby"](asked(known, [("a", "bread"), ("b", "bread"), ("a", "milk")]))
    assert (found["week"] * extra_features.NEIGHBOURS).tolist() == [1, 0, 0]
    assert (found["month"] * extra_features.NEIGHBOURS).tolist() == [1, 0, 1]


def test_purchases_after_the_day_change_no_column() -> None:
    """Leakage: what is bought on the next day is not known."""
    known = [("a", "milk", "1", 9), ("a", "bread", "1", 9), ("b", "milk", "2", 3), ("b", "bread", "3", 1)]
    pairs = [("a", "milk"), ("a", "bread"), ("b", "bread")]
    before, after = asked(known, pairs), asked([*known, ("a", "bread", "9", -1), ("a", "eggs", "9", -1)], pairs)
    for group in ("tifu", "up_cf", "last_basket", "visits", "hierarchy", "trend_nearby", "weeks_before", "next_week"):
        for name, values in GROUPS[group](before).items():
            np.testing.assert_array_equal(values, GROUPS[group](after)[name], err_msg=f"{group}.{name}")
