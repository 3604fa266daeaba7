"""Item cosine on a shop of three or four customers; products are small integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline_assets.recommender.retriever import item_neighbour_scores


def scores(baskets: list[list[int]], weight: float = 1.0, **sizes: int) -> tuple[list[int], npt.NDArray[np.float32]]:
    """baskets[c] lists what customer c bought; every pair has the same weight."""
    customer = np.repeat(np.arange(len(baskets), dtype=np.int32), [len(basket) for basket in baskets])
    product = np.array([p for basket in baskets for p in basket], dtype=np.int32)
    items, matrix = item_neighbour_scores(customer, product, np.full(len(product), weight), len(baskets), **sizes)
    return items.tolist(), matrix


def test_score_is_attachment_times_cosine() -> None:
    """Customers {1}, {1, 2}, {2}: cos(1, 2) = 1 / sqrt(2 x 2) = 0.5; attachment ln(1 + 3)."""
    items, matrix = scores([[1], [1, 2], [2]], weight=3.0)
    assert items == [1, 2]
    half = np.log(4) * 0.5
    np.testing.assert_allclose(matrix, [[0, half], [half, half], [half, 0]], rtol=1e-6)


def test_product_is_not_similar_to_itself() -> None:
    """A product that nobody buys with another gets no score, not even from its own buyer."""
    _, matrix = scores([[1], [2]])
    assert not matrix.any()


def test_contributions_of_several_products_add_up() -> None:
    """3 is bought by customer 1 only: cos(1, 3) = cos(2, 3) = 1 / sqrt(2 x 1); customer 0 has both 1 and 2."""
    items, matrix = scores([[1, 2], [1, 2, 3]])
    assert matrix[0, items.index(3)] == pytest.approx(2 * np.log(2) / np.sqrt(2), rel=1e-6)


def test_recent_habit_counts_more_than_an_old_one() -> None:
    """Two products with one neighbour each; the score is in proportion to ln(1 + weight)."""
    customer, product = np.array([0, 0, 1, 1, 2, 2], dtype=np.int32), np.array([1, 2, 1, 3, 2, 4], dtype=np.int32)
    items, matrix = item_neighbour_scores(customer, product, np.array([0.9, 0.1, 1, 1, 1, 1]), 3)
    of = dict(zip(items.tolist(), matrix[0], strict=True))
    assert of[3] / of[4] == pytest.approx(np.log(1.9) / np.log(1.1), rel=1e-5)


def test_only_the_most_bought_products_are_scored_and_ties_go_to_the_smaller_key() -> None:
    """Counts: 1 three times, 2, 3 and 4 once each; two places: 1, then 2."""
    items, matrix = scores([[1, 4], [1, 3], [1, 2]], n_items=2)
    assert items == [1, 2]
    assert matrix.shape == (3, 2)


def test_only_the_nearest_neighbours_count() -> None:
    """1 is with 2 twice and with 3 once; with one neighbour, buying 3 no longer says anything for 1."""
    baskets = [[1, 2], [1, 2], [1, 3], [3]]
    items, all_neighbours = scores(baskets)
    _, nearest = scores(baskets, n_neighbours=1)
    assert all_neighbours[3, items.index(1)] > 0
    assert nearest[3, items.index(1)] == 0
    assert nearest[0, items.index(1)] == all_neighbours[0, items.index(1)]  # from 2 alone


def test_customer_without_purchases_has_a_row_of_zeros() -> None:
    """The height of the result is the number of customers, not of buyers."""
    _, matrix = scores([[1, 2], [], [1, 2]])
    assert matrix.shape == (3, 2)
    assert not matrix[1].any()


def test_order_of_the_pairs_changes_nothing() -> None:
    """The same pairs backwards give the same bits."""
    customer, product = np.array([0, 0, 1, 1, 2], dtype=np.int32), np.array([1, 2, 1, 3, 2], dtype=np.int32)
    weight = np.array([0.5, 1.5, 2.5, 3.5, 4.5])
    items, matrix = item_neighbour_scores(customer, product, weight, 3)
    turned_items, turned = item_neighbour_scores(customer[::-1], product[::-1], weight[::-1], 3)
    assert items.tolist() == turned_items.tolist()
    assert matrix.tobytes() == turned.tobytes()
