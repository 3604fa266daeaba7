"""Purchases as codes: order, sums and the days they know."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from pipeline_assets.recommender import known
from pipeline_assets.recommender.errors import ConfigurationError, NotEnoughData
from pipeline_assets_tests.unit.test_baselines import AS_OF, SHOP, purchases


def test_products_are_coded_by_popularity() -> None:
    """From 3 to 30 June: a 2, d 2, e 2 orders, b 1, c 1; of all time a 3, b 2; then by name."""
    assert known.known_on(SHOP, AS_OF).products.tolist() == list("adebc")


def test_another_window_codes_products_again() -> None:
    """In the last 6 days e sold twice, a and d once; the rows still name the same products."""
    first = known.known_on(SHOP, AS_OF)
    again = first.by_popularity(6)
    assert again.products.tolist() == list("eadbc")
    assert again.products[again.product].tolist() == first.products[first.product].tolist()


def test_matrix_sums_the_rows_of_a_pair() -> None:
    """Ann bought a twice: 2, and b once."""
    shop = purchases(("ann", "2017-06-01", "ab"), ("ann", "2017-06-02", "a"))
    found = known.known_on(shop, AS_OF)
    matrix = found.matrix(np.ones(3))
    assert matrix.toarray()[0, found.products.get_indexer(["a", "b"])].tolist() == [2.0, 1.0]


def test_purchases_after_the_day_are_not_known() -> None:
    """Only the order of 1 June exists on that day; before it there is nothing."""
    assert known.known_on(SHOP, date(2017, 6, 1)).customers.tolist() == ["ann"]
    with pytest.raises(NotEnoughData):
        known.known_on(SHOP, date(2017, 5, 31))


def test_codes_of_another_day_are_refused() -> None:
    """Purchases encoded as of 30 June know too much for 1 June."""
    with pytest.raises(ConfigurationError, match="2017-06-30"):
        known.known_to(known.known_on(SHOP, AS_OF), ["ann"], date(2017, 6, 1))


def test_best_of_breaks_ties_by_the_smaller_column_and_drops_what_is_not_positive() -> None:
    """Of 2, 3, 3, 2, -1, 0 the best three are columns 1, 2 and 0."""
    found = known.best_of(sp.csr_matrix([[2.0, 3.0, 3.0, 2.0, -1.0, 0.0]]), 3)
    assert found["product"].tolist() == [1, 2, 0]
    assert known.best_of(sp.csr_matrix([[-1.0, 2.0]]), 2)["product"].tolist() == [1]


def test_settle_makes_ties_of_sums_that_differ_by_rounding() -> None:
    """0.1 + 0.2 and 0.3 differ in the last bit."""
    found = known.settle(np.array([0.1 + 0.2, 0.3, 1e-20]))
    assert found[0] == found[1]
    assert found[2] == pytest.approx(1e-20)


def test_lists_are_filled_with_popular_products_that_are_not_in_them() -> None:
    """Ann's own is e (code 2 of a, d, e, b, c): e, then a and d."""
    found = known.known_on(SHOP, AS_OF)
    own = pd.DataFrame({"row": [0], "product": [2], "score": [1.0]})
    assert known.filled(own, found, ["ann"], 3)["product_id"].tolist() == ["e", "a", "d"]
