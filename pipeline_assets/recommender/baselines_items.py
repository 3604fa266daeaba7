"""Baselines of similar products: item-kNN, EASE and ALS, which is collaborative filtering. The contract is in `baselines`.

They score the `n_items` most popular products. Their own history counts by recency: log(1 + sum of 0.5 ** (age / 90 days)),
as in the retriever. Memory: one matrix of n_items x n_items, and a block of customers at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender import known as shared
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.recommender.known import Known, known_to, settle, slates_of
from pipeline_assets.recommender.retriever import neighbours

HALF_LIFE_DAYS = 90  # as the retriever and the decayed counter
FACTOR_DIGITS = 5  # of scores that are products of float32 factors, which have 7


def attached_to(known: Known, n_items: int) -> Any:
    """How much customers are attached to the `n_items` most popular products: sparse, customers x items, float64."""
    decayed = known.matrix(np.exp2(-known.age_days / HALF_LIFE_DAYS))[:, :n_items]
    decayed.data = np.log1p(decayed.data)
    return decayed


def _slates(
    known: Known, place: np.ndarray, customers: list[str], top: int, score: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """Slates from `score`, which gives the scores (block x items) of some customer codes."""
    import scipy.sparse as sp

    asked = np.flatnonzero(place >= 0)
    step = max(1, shared.BLOCK_CELLS // len(known.products))

    def scored() -> Iterator[tuple[np.ndarray, Any]]:
        for start in range(0, len(asked), step):
            part = asked[start : start + step]
            yield place[part], sp.csr_matrix(settle(score(part).astype(np.float64), FACTOR_DIGITS))

    return slates_of(scored(), known, customers, top)


def _require_positive(method: str, **values: float) -> None:
    if wrong := {name: value for name, value in values.items() if value <= 0}:
        raise ConfigurationError(method, found=wrong, wanted="above 0", fix="correct the parameter")


def item_knn(
    purchases: pd.DataFrame | Known,
    customers: list[str],
    as_of: date,
    n_items: int = 3000,
    k: int = 1000,
    top: int = 20,
) -> pd.DataFrame:
    """Products that are bought by the buyers of the customer's products: the retriever on its own (see `retriever`).

    Args:
        n_items: most popular products that are scored; k: neighbours of each.

    Raises:
        ConfigurationError: a parameter is not positive.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    _require_positive("item-kNN", n_items=n_items, k=k)
    known, place = known_to(purchases, customers, as_of)
    attached = attached_to(known, n_items)
    step = max(1, shared.BLOCK_CELLS // attached.shape[1])

    def buckets() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, attached.shape[0], step):
            pairs = attached[start : start + step].tocoo()
            yield pairs.row, pairs.col.astype(np.int32)

    similarity = neighbours(np.arange(attached.shape[1], dtype=np.int32), buckets(), k).similarity
    return _slates(known, place, customers, top, lambda part: (attached[part] @ similarity).toarray())


def item_weights(attached: Any, l2: float = 3.0) -> np.ndarray:
    """EASE's weights, items x items with a zero diagonal, from customers x items."""
    from scipy.linalg import lapack

    gram = (attached.T @ attached).toarray()
    gram[np.diag_indices_from(gram)] += l2  # positive definite, so Cholesky: half the time of a general inverse
    factor, _ = lapack.dpotrf(gram, lower=True, overwrite_a=True)
    inverse, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights: np.ndarray = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def ease(
    purchases: pd.DataFrame | Known,
    customers: list[str],
    as_of: date,
    n_items: int = 3000,
    l2: float = 3.0,
    top: int = 20,
) -> pd.DataFrame:
    """Linear item-to-item weights with a zero diagonal, in closed form (Steck, WWW 2019).

    Args:
        n_items: most popular products that are scored: time grows with its cube; l2: ridge penalty.

    Raises:
        ConfigurationError: a parameter is not positive.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    _require_positive("EASE", n_items=n_items, l2=l2)
    known, place = known_to(purchases, customers, as_of)
    attached = attached_to(known, n_items)
    weights = item_weights(attached, l2)
    return _slates(known, place, customers, top, lambda part: attached[part] @ weights)


def als(
    purchases: pd.DataFrame | Known,
    customers: list[str],
    as_of: date,
    n_items: int = 3000,
    factors: int = 256,
    l2: float = 10.0,
    alpha: float = 1.0,
    iterations: int = 15,
    seed: int = 7,
    top: int = 20,
) -> pd.DataFrame:
    """Factors of implicit feedback by alternating least squares (Hu, Koren, Volinsky, ICDM 2008), by the library `implicit`.

    Args:
        n_items: most popular products that are scored. factors, l2, alpha (confidence of an attachment), iterations: the
            library's. seed: of the first factors; one thread, so that equal inputs give equal factors.

    Raises:
        ConfigurationError: a parameter is not positive.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    _require_positive("ALS", n_items=n_items, factors=factors, l2=l2, alpha=alpha, iterations=iterations)
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    known, place = known_to(purchases, customers, as_of)
    attached = attached_to(known, n_items).astype(np.float32)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors, regularization=l2, alpha=alpha, iterations=iterations, num_threads=1, random_state=seed
        )
        model.fit(attached, show_progress=False)
    return _slates(known, place, customers, top, lambda part: model.user_factors[part] @ model.item_factors.T)
