"""Baselines of similar customers: TIFU-KNN and UP-CF. The contract is in `baselines`.

Time grows with the square of the number of customers, memory does not: distances are made a block of customers at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender import known as shared
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.recommender.known import DIGITS, Known, known_to, settle, slates_of


def _blocks(known: Known, asked: np.ndarray) -> Iterator[np.ndarray]:
    """Customers `asked` for, a few at a time: none of the dense blocks has more than `BLOCK_CELLS` cells."""
    step = max(1, shared.BLOCK_CELLS // max(known.shape))
    return (asked[start : start + step] for start in range(0, len(asked), step))


def _nearest(distance: np.ndarray, k: int) -> np.ndarray:
    """Which k columns of each row are smallest; ties go to the first column. `distance` (rows, columns)."""
    kth = np.partition(distance, k - 1, axis=1)[:, [k - 1]]
    near: np.ndarray = distance < kth
    free = k - near.sum(axis=1, keepdims=True)
    tied = distance == kth
    near |= tied & (np.cumsum(tied, axis=1) <= free)
    return near


def _settled(scores: Any) -> Any:
    """The sparse block of scores, rounded."""
    scores.data = settle(scores.data)
    return scores


def baskets(known: Known) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the baskets of its customer that are newer than its own, and how many the customer has."""
    rows = pd.DataFrame({"customer": known.customer, "age": known.age_days, "order": known.order})
    distinct = rows.drop_duplicates(["customer", "order"]).sort_values(["customer", "age", "order"])
    distinct["after"] = distinct.groupby("customer").cumcount()
    distinct["total"] = distinct.groupby("customer")["order"].transform("size")
    # A merge, not an index lookup: order ids may repeat between customers.
    both = rows.merge(distinct, how="left", on=["customer", "order"])
    return both["after"].to_numpy(), both["total"].to_numpy()


def basket_weights(known: Known, m: int = 3, r_b: float = 0.9, r_g: float = 0.9) -> np.ndarray:
    """Weight of each purchase row in the customer's TIFU vector.

    The customer's g baskets, oldest first, are cut into n = ceil(g / m) groups of m, the oldest group taking the rest.
    A basket weighs r_b ** (baskets after it in its group) / (size of its group) * r_g ** (groups after its own) / n.
    """
    after, total = baskets(known)
    group = after // m
    group_size = np.minimum(m, total - group * m)
    weights: np.ndarray = r_b ** (after % m) / group_size * r_g**group / np.ceil(total / m)
    return weights


def nearest(known: Known, vectors: Any, asked: np.ndarray, k: int) -> Iterator[tuple[np.ndarray, Any]]:
    """The `k` customers whose vectors are nearest to those `asked` for: their codes, and a sparse block of ones (codes x customers)."""
    import scipy.sparse as sp

    squares = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
    transposed = vectors.T.tocsr()
    for part in _blocks(known, asked):
        if k == 0:  # nobody else
            yield part, sp.csr_matrix((len(part), known.shape[0]))
            continue
        distance = squares[None, :] - 2 * (vectors[part] @ transposed).toarray()  # + own square: same for the row
        distance = distance.round(DIGITS)
        distance[np.arange(len(part)), part] = np.inf  # not oneself
        yield part, sp.csr_matrix(_nearest(distance, k).astype(np.float64))


def similar(
    known: Known, asked: np.ndarray, k: int = 100, alpha: float = 0.25, q: float = 30
) -> Iterator[tuple[np.ndarray, Any]]:
    """The `k` customers who are most similar to those `asked` for, themselves included: codes, and similarity ** q (codes x customers)."""
    import scipy.sparse as sp

    ever = known.matrix(np.ones(len(known.customer))).sign()
    size = np.asarray(ever.sum(axis=1)).ravel()
    transposed = ever.T.tocsr()
    for part in _blocks(known, asked):
        found = (ever[part] @ transposed).toarray() / np.outer(size[part] ** alpha, size ** (1 - alpha))
        found = found.round(DIGITS)
        yield part, sp.csr_matrix(np.where(_nearest(-found, k), found, 0.0) ** q)


def share_of_last(known: Known, r: int = 40) -> Any:
    """Of each customer's last `r` baskets, the share that had the product: sparse, customers x products."""
    after, total = baskets(known)
    return known.matrix(np.where(after < r, 1.0 / np.minimum(total, r), 0.0))


def tifu_knn(
    purchases: pd.DataFrame | Known,
    customers: list[str],
    as_of: date,
    m: int = 3,
    r_b: float = 0.9,
    r_g: float = 0.9,
    alpha: float = 0.5,
    k: int = 100,
    top: int = 20,
) -> pd.DataFrame:
    """Temporally decayed basket vectors, blended with those of similar customers (Hu et al., SIGIR 2020).

    score = alpha * own vector + (1 - alpha) * mean vector of the k nearest customers by Euclidean distance. Customers
    without a purchase get the popular list: their empty vector has no meaningful neighbours. The defaults were tuned on
    this task's sample (docs/design/evaluation.md).

    Args:
        m: baskets in a group; r_b, r_g: decay from basket to basket in a group and from group to group, in (0, 1].
        alpha: share of the own vector; k: neighbours (all others, where there are fewer).

    Raises:
        ConfigurationError: a parameter is out of range.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    if m < 1 or k < 1 or not (0 < r_b <= 1 and 0 < r_g <= 1 and 0 <= alpha <= 1):
        raise ConfigurationError(
            "TIFU-KNN", found=f"m={m}, k={k}, r_b={r_b}, r_g={r_g}, alpha={alpha}",
            wanted="m, k >= 1; r_b, r_g in (0, 1]; alpha in [0, 1]", fix="correct the parameter that is out of range",
        )  # fmt: skip
    known, place = known_to(purchases, customers, as_of)
    vectors = known.matrix(basket_weights(known, m, r_b, r_g))
    k = min(k, known.shape[0] - 1)
    others = (1 - alpha) / k if k else 0.0  # nobody else: the own vector is all there is
    scored = (
        (place[part], _settled(alpha * vectors[part] + (near @ vectors) * others))
        for part, near in nearest(known, vectors, np.flatnonzero(place >= 0), k)
    )
    return slates_of(scored, known, customers, top)


def up_cf(
    purchases: pd.DataFrame | Known,
    customers: list[str],
    as_of: date,
    r: int = 40,
    alpha: float = 0.25,
    q: float = 30,
    k: int = 100,
    top: int = 20,
) -> pd.DataFrame:
    """UP-CF@r: recency-aware popularity with the user, of all similar users (Faggioli, Polato, Aiolli, UMAP 2020).

    The popularity of a product with a customer is its share of her last r baskets. A customer's score is the sum of it
    over the k customers most similar to her, herself included, weighted by similarity ** q. Similarity is the asymmetric
    cosine of what was ever bought: |common| / (|own| ** alpha * |other's| ** (1 - alpha)).

    Args:
        r: baskets that count; alpha: asymmetry, in [0, 1]; q: locality, above 0, large = the nearest only; k: users.

    Raises:
        ConfigurationError: a parameter is out of range.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    if r < 1 or k < 1 or not (0 <= alpha <= 1 and q > 0):
        raise ConfigurationError(
            "UP-CF", found=f"r={r}, k={k}, alpha={alpha}, q={q}",
            wanted="r, k >= 1; alpha in [0, 1]; q above 0", fix="correct the parameter that is out of range",
        )  # fmt: skip
    known, place = known_to(purchases, customers, as_of)
    popular, k = share_of_last(known, r), min(k, known.shape[0])
    scored = (
        (place[part], _settled(near @ popular))
        for part, near in similar(known, np.flatnonzero(place >= 0), k, alpha, q)
    )
    return slates_of(scored, known, customers, top)
