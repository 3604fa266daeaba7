"""Counts of pairs and types from lines: a pair is a stretch, ages are at the day after, -1 is no type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline_assets.recommender.pairs import lines_as_of, pairs_of, standing_of, to_table, types_of
from pipeline_assets.recommender.stage import Columns

UNIT = 10**9
TYPE_OF = np.array([7, 7, -1], dtype=np.int32)  # products 0 and 1 are of one type, 2 of none


def lines(*rows: tuple[int, int, int, float, float]) -> Columns:
    """Rows of customer, product, day, amount and discount; every line is an order of one piece on promotion."""
    customer, product, day, amount, discount = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "customer": customer.astype(np.int32),
        "product": product.astype(np.int32),
        "day": day.astype(np.int32),
        "quantity": np.full(len(rows), UNIT, dtype=np.int64),
        "amount": np.rint(amount * UNIT).astype(np.int64),
        "discount": np.rint(discount * UNIT).astype(np.int64),
        "is_promoted": np.ones(len(rows), dtype=np.int8),
        "is_mailed": np.ones(len(rows), dtype=np.int8),
    }


def as_of(day: int, sellable: tuple[bool, ...] = (True, True, True)) -> Columns:
    """Customer 0 buys product 0 on days 1 and 9, product 1 on day 9; customer 1 buys product 2 on day 5, for nothing."""
    bought = lines((0, 0, 1, 3.0, 1.0), (0, 0, 9, 1.0, 0.0), (0, 1, 9, 2.0, 0.0), (1, 2, 5, 0.0, 0.0))
    return lines_as_of(bought, day, np.array(sellable), TYPE_OF, TYPE_OF)


def row(columns: Columns, at: int, *names: str) -> list[Any]:
    return [columns[name][at] for name in names]


def test_lines_after_the_day_and_of_products_not_sold_are_left_out() -> None:
    """As of day 8 two lines are known; without product 0 one of them. Age counts from day 9."""
    assert as_of(8)["age"].tolist() == [8, 4]
    assert as_of(8, (False, True, True))["product"].tolist() == [2]


def test_a_pair_is_counted_over_its_stretch() -> None:
    """Product 0 at ages 9 and 1: two orders, 4.0 paid of 5.0; decayed 0.5 ** (9 / 90) + 0.5 ** (1 / 90)."""
    pair = pairs_of(as_of(9))
    assert row(pair, 0, "customer", "product", "n_orders", "days_since_last", "days_since_first") == [0, 0, 2, 1, 9]
    assert row(pair, 0, "amount_mean", "quantity_mean", "promoted_share") == [2.0, 1.0, 1.0]
    assert pair["discount_share"][0] == pytest.approx(1 / 5)
    assert pair["decayed_slow"][0] == pytest.approx(0.5 ** (9 / 90) + 0.5 ** (1 / 90), rel=1e-8)


def test_a_product_stands_among_all_that_the_customer_buys() -> None:
    """Customer 0: products 0 (ages 9 and 1) and 1 (age 1); of customer 1 there is nothing else."""
    standing, old, new = standing_of(pairs_of(as_of(9))), 0.5 ** (9 / 90), 0.5 ** (1 / 90)
    assert standing["decayed_share"].tolist() == pytest.approx(
        [(old + new) / (old + 2 * new), new / (old + 2 * new), 1], rel=1e-6
    )
    assert standing["place_fast"].tolist() == [1, 2, 1]


def test_equal_decay_goes_to_the_smaller_key() -> None:
    """Two products bought once on one day."""
    bought = lines((0, 0, 5, 1.0, 0.0), (0, 1, 5, 1.0, 0.0))
    line = lines_as_of(bought, 9, np.ones(3, dtype=bool), TYPE_OF, TYPE_OF)
    assert standing_of(pairs_of(line))["place_fast"].tolist() == [1, 2]


def test_nothing_paid_has_no_discount_share() -> None:
    """0 of 0 is missing, and null for SQL."""
    pair = pairs_of(as_of(9))
    assert np.isnan(pair["discount_share"][2])
    assert to_table(pair)["discount_share"].null_count == 1


def test_windows_end_with_their_last_day() -> None:
    """Bought on day 0: in 28 days as of day 27, no longer as of day 28."""
    for day, count in ((27, 1), (28, 0)):
        known = lines_as_of(lines((0, 0, 0, 1.0, 0.0)), day, np.array([True]), TYPE_OF, TYPE_OF)
        assert pairs_of(known)["n_orders_28d"].tolist() == [count]


def test_a_type_counts_days_once() -> None:
    """Products 0 and 1 of type 7 on days 1 and 9, twice on day 9: two days, eight between; no row for no type."""
    line = as_of(9)
    types = types_of(line, pairs_of(line))
    assert types["type_key"].tolist() == [7]
    assert row(types, 0, "customer", "type_days", "type_days_since_last", "type_gap_days") == [0, 2, 1, 8.0]
    assert types["type_decayed"][0] == pytest.approx(0.5 ** (9 / 90) + 2 * 0.5 ** (1 / 90), rel=1e-8)


def test_no_line_gives_no_row() -> None:
    """The tables of an empty bucket have their columns."""
    line = as_of(0)
    pair = pairs_of(line)
    assert {len(column) for column in (*pair.values(), *types_of(line, pair).values())} == {0}
