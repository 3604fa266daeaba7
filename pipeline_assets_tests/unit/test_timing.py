"""Trips, gaps and hazards of a few purchases; ages are at T, so a purchase on T ends a gap of just that age."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline_assets.recommender.pairs import pairs_of
from pipeline_assets.recommender.stage import Columns
from pipeline_assets.recommender.timing import (
    PRIOR_OWN,
    PRIOR_PRODUCT,
    PRIOR_TYPE,
    TRIP_DECAY,
    Hazards,
    gaps_of,
    own_hazard,
    timing_of,
    trips_after,
    waits_of,
)

NAN = float("nan")


def bought(*rows: tuple[int, int, int, int]) -> Columns:
    """Lines of customer, product, trip and age, in the order of customer, product and day."""
    customer, product, trip, age = (np.array(column) for column in zip(*rows, strict=True))
    ones = np.ones(len(rows), dtype=np.int64)
    return {
        "customer": customer.astype(np.int32), "product": product.astype(np.int32), "trip": trip.astype(np.int32),
        "age": age.astype(np.int16), "type_key": np.zeros(len(rows), np.int32), "category_key": np.zeros(len(rows), np.int32),
        "quantity": ones, "amount": ones, "discount": ones, "is_promoted": ones, "is_mailed": ones,
    }  # fmt: skip


def habit() -> Columns:
    """Customer 0 buys product 0 at ages 30, 20 and 6, on trips 0, 1 and 4; product 1 on trips 2 and 4. Customer 1 comes once."""
    return bought((0, 0, 0, 30), (0, 0, 1, 20), (0, 0, 4, 6), (0, 1, 2, 15), (0, 1, 4, 6), (1, 1, 7, 3))


def timing(line: Columns) -> Columns:
    return timing_of(line, pairs_of(line), gaps_of(line))


def values(columns: Columns, name: str) -> list[Any]:
    return list(columns[name].tolist())


def test_trips_are_counted_back_from_the_newest() -> None:
    """Trip 3 had nothing that is known: four trips are left of customer 0, numbered 3 to 0; customer 1 has a newest one too."""
    assert trips_after(habit()).tolist() == [3, 2, 0, 1, 0, 0]


def test_trip_features_of_a_habit() -> None:
    """Product 0: 3 of 4 trips, 3 trips in 2 gaps, none since; product 1: 2 of 2 trips. One purchase has no gap."""
    found, d = timing(habit()), TRIP_DECAY
    assert values(found, "trip_rate") == pytest.approx([3 / 4, 2 / 2, 1])
    assert values(found, "trip_gap") == pytest.approx([3 / 2, 1, NAN], nan_ok=True)
    assert values(found, "trip_overdue") == pytest.approx([0, 0, NAN], nan_ok=True)
    everything = 1 + d + d**2 + d**3
    assert values(found, "trip_decayed") == pytest.approx([(1 + d**2 + d**3) / everything, (1 + d) / everything, 1])


def test_gaps_are_days_between_distinct_days() -> None:
    """Product 0: 10 and 14 days, 6 passed; product 1: 9 days. Customer 1 has none."""
    found = timing(habit())
    assert values(found, "gap_min") == pytest.approx([10, 9, NAN], nan_ok=True)
    assert values(found, "gap_std") == pytest.approx([2, 0, NAN], nan_ok=True)
    assert values(found, "gap_median_overdue") == pytest.approx([6 / 12, 6 / 9, NAN], nan_ok=True)
    assert values(found, "gap_max_overdue") == pytest.approx([6 / 14, 6 / 9, NAN], nan_ok=True)


def test_two_orders_of_one_day_are_no_gap() -> None:
    """Ages 8, 8 and 1: one gap of 7 days."""
    gaps = gaps_of(bought((0, 0, 0, 8), (0, 0, 1, 8), (0, 0, 2, 1)))
    assert (gaps.pair.tolist(), gaps.days.tolist()) == ([0], [7])


@pytest.mark.parametrize(
    ("age", "due"), [(10, 1), (4, 1), (3, 0), (11, 0)], ids=["on T", "on the last day", "a day later", "it is over"]
)
def test_a_gap_is_due_when_it_would_end_in_the_window(age: int, due: int) -> None:
    """One gap of 10 days: with an age of 4 to 10 at T the next purchase would come on T .. T + 6."""
    assert values(timing(bought((0, 0, 0, age + 10), (0, 0, 1, age))), "n_due") == [due]


def hazards(line: Columns, type_key: list[int]) -> Hazards:
    pair = pairs_of(line)
    return Hazards(waits_of(pair, gaps_of(line), len(type_key)), np.array(type_key))


def test_hazard_is_of_those_who_waited_so_long() -> None:
    """Product 0 of type 0: gaps of 10 and 14 days and 6 days open; product 1: 9 days, then 6 and 3 open.

    In the second week (7 to 13 days) 3 waits were there and 2 ended, of everything and of the only type; of product 0 it was 1 of 2.
    """
    of_product, of_type = hazards(habit(), [0, 0]).of(np.array([0]), np.array([7.0]))
    expected = (2 + PRIOR_TYPE * 2 / 3) / (3 + PRIOR_TYPE)
    assert of_type.tolist() == pytest.approx([expected])
    assert of_product.tolist() == pytest.approx([(1 + PRIOR_PRODUCT * expected) / (2 + PRIOR_PRODUCT)])


def test_a_product_without_a_type_has_a_hazard_and_one_never_bought_has_none() -> None:
    """-1 is no type; NaN is no purchase."""
    of_product, of_type = hazards(habit(), [-1, 0]).of(np.array([0, 1]), np.array([7.0, NAN]))
    assert of_product[0] > 0
    assert np.isnan([of_product[1], of_type[1]]).all()


def test_waits_of_buckets_add_up() -> None:
    """Customer 0 and customer 1 apart are the two together."""
    line = habit()
    apart = []
    for chosen in (line["customer"] == 0, line["customer"] == 1):
        part = {name: column[chosen] for name, column in line.items()}
        apart.append(waits_of(pairs_of(part), gaps_of(part), 2))
    both, whole = apart[0] + apart[1], waits_of(pairs_of(line), gaps_of(line), 2)
    assert (both.ended == whole.ended).all()
    assert (both.open == whole.open).all()


def test_own_gaps_outweigh_the_product_when_there_are_many() -> None:
    """None: the product's 0.2; 9 of 9 due: (9 + 3 * 0.2) / 12."""
    found = own_hazard(np.array([0.2, 0.2]), np.array([0, 9]), np.array([0, 9]))
    assert found.tolist() == pytest.approx([0.2, (9 + PRIOR_OWN * 0.2) / (9 + PRIOR_OWN)])
