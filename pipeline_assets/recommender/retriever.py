"""Collaborative filtering: which products people with a taste like the customer's buy. A candidate source, a feature and a baseline's core.

`Retriever` is the interface, `ItemCosine` what is used: item-to-item cosine over who buys what. Source: Deshpande and Karypis, "Item-based
top-N recommendation algorithms", ACM TOIS 22(1), 2004. Another retriever is a class with `n_items` and `fit` (docs/adr/0027-retriever.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

I32 = NDArray[np.int32]

# The most bought: rarer items have too few buyers for a similarity, and cost grows with the square. What another number names is in the table of
# candidate sources of every evaluation report, what it costs in `python -m benchmarks.scale --stages features`.
N_ITEMS = 1500
N_NEIGHBOURS = 40


Bought = tuple[
    NDArray[np.signedinteger], I32
]  # distinct pairs of some customers: row of the customer, key of the product


class Fitted(Protocol):
    """What a retriever learned of all customers: it scores products for any of them."""

    @property
    def items(self) -> I32:
        """Keys of the products that it scores, shape (m,), ascending."""
        ...

    def positions(self, product: I32) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where each product is in `items`, and whether it is there at all."""
        ...

    def scores(
        self, customer: NDArray[np.signedinteger], product: I32, weight: NDArray[np.float64], n_customers: int
    ) -> NDArray[np.float32]:
        """Scores of the products for some customers from what they bought, shape (n_customers, m): 0 = nothing in common, higher is closer.

        Args:
            customer: row of each distinct bought pair in the result, shape (n_pairs,).
            product: key of each pair's product.
            weight: how much the customer is attached to the product (recency-decayed count), > 0.
        """
        ...


class Retriever(Protocol):
    """A way to find products that a customer does not know yet. The same input has to give the same bits, in any number of buckets."""

    @property
    def n_items(self) -> int:
        """How many products it scores: the most bought ones."""
        ...

    def fit(self, items: I32, buckets: Iterable[Bought]) -> Fitted:
        """Learn from everybody's distinct bought pairs, bucket by bucket of customers.

        Args:
            items: keys of the products to score, ascending.
        """
        ...


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Which products are like which: the part of the scores that all customers share."""

    items: I32  # the scored products' keys, shape (m,), ascending
    similarity: sparse.csr_matrix  # (m, m), float64; column i holds the nearest neighbours of item i

    def positions(self, product: I32) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where each product is in `items`, and whether it is there at all."""
        return _positions(self.items, product)

    def scores(
        self, customer: NDArray[np.signedinteger], product: I32, weight: NDArray[np.float64], n_customers: int
    ) -> NDArray[np.float32]:
        """Score the products for some customers from what they bought.

        Args:
            customer: row of each distinct bought pair in the result, shape (n_pairs,).
            product: key of each pair's product.
            weight: how much the customer is attached to the product (recency-decayed count), > 0.
            n_customers: the height of the result.

        Returns:
            Shape (n_customers, m), 0 = nothing in common.
        """
        from scipy import sparse

        position, inside = self.positions(product)
        where, shape = (customer[inside], position[inside]), (n_customers, len(self.items))
        # sparse on purpose: few neighbours are left, and its fixed order of summation makes equal inputs give equal bits
        attached = sparse.csr_matrix((np.log1p(weight[inside]), where), shape=shape)
        attached.sort_indices()
        scores = attached @ self.similarity
        dense = np.zeros(shape, dtype=np.float32)
        dense[np.repeat(np.arange(n_customers), np.diff(scores.indptr)), scores.indices] = scores.data
        return dense


def most_bought(product: I32, buyers: NDArray[np.int64], n_items: int = N_ITEMS) -> I32:
    """The keys of the `n_items` products with the most buyers, ascending; ties go to the smaller key."""
    return np.sort(product[np.lexsort((product, -buyers))][:n_items]).astype(np.int32)


def neighbours(items: I32, buckets: Iterable[Bought], n_neighbours: int = N_NEIGHBOURS) -> Neighbours:
    """Cosines of the items, added up over buckets of customers.

    Args:
        items: keys, ascending.
        buckets: the distinct bought pairs of some customers each: row of the customer in the bucket, key of the product.
    """
    from scipy import sparse

    together = np.zeros((len(items), len(items)), dtype=np.float32)
    for customer, product in buckets:
        position, inside = _positions(items, product)
        bought = np.zeros((int(customer.max(initial=-1)) + 1, len(items)), dtype=np.float32)
        bought[customer[inside], position[inside]] = 1.0
        together += bought.T @ bought  # whole numbers below 2 ** 24: exact in float32, whatever the order of summation
    norms = np.sqrt(np.diagonal(together))
    similarity = together / np.maximum(np.outer(norms, norms), 1e-9)
    np.fill_diagonal(similarity, 0.0)
    if len(items) > n_neighbours:
        weakest_kept = np.partition(similarity, -n_neighbours, axis=1)[:, -n_neighbours][:, None]
        similarity[similarity < weakest_kept] = 0.0
    return Neighbours(items, sparse.csr_matrix(similarity.T.astype(np.float64)))


def _positions(items: I32, product: I32) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    # a table of all keys: looking 700,000 of them up one by one in sorted items costs 20 times as much
    known = items[items <= product.max(initial=-1)]
    table = np.full(int(product.max(initial=-1)) + 1, -1, dtype=np.intp)
    table[known] = np.arange(len(known))
    position = table[product]
    inside = position >= 0
    position[~inside] = 0
    return position, inside


def item_neighbour_scores(
    customer: I32,
    product: I32,
    weight: NDArray[np.float64],
    n_customers: int,
    n_items: int = N_ITEMS,
    n_neighbours: int = N_NEIGHBOURS,
) -> tuple[I32, NDArray[np.float32]]:
    """`Neighbours.scores` of customers who are all in one bucket: the scored products' keys (m,), and scores (n_customers, m)."""
    products, buyers = np.unique(product, return_counts=True)
    found = neighbours(most_bought(products, buyers, n_items), [(customer, product)], n_neighbours)
    return found.items, found.scores(customer, product, weight, n_customers)


@dataclass(frozen=True)
class ItemCosine:
    """The retriever that is used: cosine of who buys two products, the nearest neighbours of each."""

    n_items: int = N_ITEMS
    n_neighbours: int = N_NEIGHBOURS

    def fit(self, items: I32, buckets: Iterable[Bought]) -> Neighbours:
        return neighbours(items, buckets, self.n_neighbours)


RETRIEVER: Retriever = ItemCosine()
