"""Collaborative filtering: item-to-item cosine over who buys what. A candidate source, a feature and a baseline's core.

Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 22(1), 2004.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N_ITEMS = 2000  # the most bought; rarer items have too few buyers for a similarity (1 CPU s; 3,000 items cost 3)
N_NEIGHBOURS = 40


def item_neighbour_scores(
    customer: NDArray[np.int32],
    product: NDArray[np.int32],
    weight: NDArray[np.float64],
    n_customers: int,
    n_items: int = N_ITEMS,
    n_neighbours: int = N_NEIGHBOURS,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Score the most bought products for every customer from the products they bought.

    Args:
        customer, product: dense keys of distinct bought pairs, shape (n_pairs,).
        weight: how much the customer is attached to the product (recency-decayed count), > 0.
        n_customers: number of customers, the height of the result.

    Returns:
        The scored products' keys, shape (m,), ascending, m <= n_items; and scores, shape (n_customers, m), 0 = nothing in common.
    """
    from scipy import sparse

    products, counts = np.unique(product, return_counts=True)
    most = products[np.lexsort((products, -counts))][:n_items]
    items = np.sort(most).astype(np.int32)
    position = np.searchsorted(items, product)
    inside = (position < len(items)) & (items[np.minimum(position, len(items) - 1)] == product)
    where, shape = (customer[inside], position[inside]), (n_customers, len(items))
    bought = np.zeros(shape, dtype=np.float32)
    bought[where] = 1.0
    norms = np.sqrt(bought.sum(axis=0))
    together = bought.T @ bought  # whole numbers below 2 ** 24: exact in float32, whatever the order of summation
    similarity = together / np.maximum(np.outer(norms, norms), 1e-9)
    np.fill_diagonal(similarity, 0.0)
    if len(items) > n_neighbours:
        weakest_kept = np.partition(similarity, -n_neighbours, axis=1)[:, -n_neighbours][:, None]
        similarity[similarity < weakest_kept] = 0.0
    # sparse on purpose: few neighbours are left, and its fixed order of summation makes equal inputs give equal bits
    attached = sparse.csr_matrix((np.log1p(weight[inside]), where), shape=shape)
    scores = attached @ sparse.csr_matrix(similarity.T.astype(np.float64))
    return items, np.asarray(scores.todense(), dtype=np.float32)
