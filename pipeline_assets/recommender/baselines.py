"""The simple methods that a model has to beat: popularity, personal counters and TIFU-KNN.

Every function takes purchases, customers and a day, and returns slates (customer_id, rank 1..top, product_id, score)
for exactly those customers, `top` products each. Only rows with event_date <= as_of are used. A list is personal first,
score > 0, and then filled with popular products, score = -(position by popularity). Ties go to the more popular product
and then to the smaller product_id, so the same purchases in any row order give the same slates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import CUSTOMER_ID, EVENT_DATE, ORDER_ID, PRODUCT_ID, RANK, SCORE
from pipeline_assets.recommender.errors import ConfigurationError, NotEnoughData, SchemaError

FILL_DAYS = 28  # four whole weeks: every weekday equally often, short enough to follow the season
DIGITS = 12  # kept of a sum: values that differ only by the order of summation become ties, which popularity breaks
BLOCK_CELLS = 4_000_000  # dense customer x product cells at a time (float64: 32 MB), which bounds memory


@dataclass(frozen=True)
class _Known:
    """Purchases up to a day, as codes. Product code 0 is the most popular product, 1 the next: codes break ties."""

    customers: pd.Index  # code -> customer_id, ascending
    products: pd.Index  # code -> product_id, by popularity
    customer: np.ndarray  # (rows,) code
    product: np.ndarray  # (rows,) code
    age_days: np.ndarray  # (rows,) whole days before as_of, 0 is the day itself
    recent: np.ndarray  # (products,) orders with the product in the last `days`


def _known(
    purchases: pd.DataFrame, customers: list[str], as_of: date, days: int = FILL_DAYS
) -> tuple[pd.DataFrame, _Known]:
    """The rows up to `as_of`, and their codes; refuses a list of customers that names one twice."""
    if len(set(customers)) != len(customers):
        raise SchemaError("customers", found="a repeated id", wanted="each once", fix="deduplicate the list")
    if days < 1:
        raise ConfigurationError("days", found=days, wanted="at least 1", fix="pass a window of one day or more")
    dates = pd.to_datetime(purchases[EVENT_DATE])
    is_known = dates <= pd.Timestamp(as_of)
    rows = purchases.loc[is_known]
    if rows.empty:
        raise NotEnoughData(f"purchases up to {as_of}", found="no rows", wanted="at least one", fix="land earlier days")
    age = (pd.Timestamp(as_of) - dates[is_known]).dt.days.to_numpy()
    customer, customers = pd.factorize(rows[CUSTOMER_ID], sort=True)
    product, products = pd.factorize(rows[PRODUCT_ID], sort=True)
    recent = np.bincount(product[age < days], minlength=len(products))
    ever = np.bincount(product, minlength=len(products))
    order = np.lexsort((np.arange(len(products)), -ever, -recent))  # within `days`, then ever, then product_id
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    known = _Known(pd.Index(customers), pd.Index(products)[order], customer, position[product], age, recent[order])
    return rows, known


def _settle(values: np.ndarray) -> np.ndarray:
    """Round to `DIGITS` significant (binary mantissa) digits, so that small scores keep their order too."""
    mantissa, exponent = np.frexp(values)
    settled: np.ndarray = np.ldexp(mantissa.round(DIGITS), exponent)
    return settled


def _slates(personal: pd.DataFrame, known: _Known, customers: list[str], top: int) -> pd.DataFrame:
    """Best `top` of `personal` (row = position in `customers`, product = code, score > 0), filled with popular ones."""
    if top < 1 or len(known.products) < top:
        raise NotEnoughData(
            "products ever bought", found=len(known.products), wanted=f"at least top = {top} >= 1", fix="lower `top`"
        )
    n = len(customers)
    # At most top - 1 of a short list are popular ones, so 2 * top popular products always suffice to fill it.
    popular = np.arange(min(2 * top, len(known.products)))
    repeated = np.tile(popular, n)
    fill = pd.DataFrame({"row": np.repeat(np.arange(n), len(popular)), "product": repeated, SCORE: -repeated - 1.0})
    best = personal.sort_values(["row", SCORE, "product"], ascending=[True, False, True]).groupby("row").head(top)
    both = pd.concat([best, fill], ignore_index=True).drop_duplicates(["row", "product"])
    both = both.sort_values(["row", SCORE, "product"], ascending=[True, False, True])
    both[RANK] = both.groupby("row").cumcount() + 1
    both = both[both[RANK] <= top]
    return pd.DataFrame(
        {
            CUSTOMER_ID: np.asarray(customers, dtype=object)[both["row"].to_numpy(dtype=np.int64)],
            RANK: both[RANK].to_numpy(dtype=np.int64),
            PRODUCT_ID: known.products[both["product"].to_numpy(dtype=np.int64)].to_numpy(),
            SCORE: both[SCORE].to_numpy(dtype=np.float64),
        }
    )


def _personal(known: _Known, weights: np.ndarray, customers: list[str]) -> pd.DataFrame:
    """Sum of `weights` by customer and product, for the wanted customers."""
    row = pd.Index(customers).get_indexer(known.customers)[known.customer]
    wanted = row >= 0
    key = row[wanted].astype(np.int64) * len(known.products) + known.product[wanted]
    order = np.lexsort((weights[wanted], key))  # one order of summation, whatever the order of the rows
    pairs, inverse = np.unique(key[order], return_inverse=True)
    sums = np.bincount(inverse, weights=weights[wanted][order], minlength=len(pairs))
    score = _settle(sums.astype(np.float64))
    frame = pd.DataFrame({"row": pairs // len(known.products), "product": pairs % len(known.products), SCORE: score})
    return frame[frame[SCORE] > 0]


def popularity(
    purchases: pd.DataFrame, customers: list[str], as_of: date, days: int = FILL_DAYS, top: int = 20
) -> pd.DataFrame:
    """The same list for everybody: products in most orders of the last `days`, then of all time.

    Raises:
        ConfigurationError: `days` is below 1.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    _, known = _known(purchases, customers, as_of, days)
    nobody = pd.DataFrame({"row": np.empty(0, np.int64), "product": np.empty(0, np.int64), SCORE: np.empty(0)})
    return _slates(nobody, known, customers, top)


def personal_frequency(purchases: pd.DataFrame, customers: list[str], as_of: date, top: int = 20) -> pd.DataFrame:
    """The products that the customer put in most orders; score = number of orders.

    Raises:
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    _, known = _known(purchases, customers, as_of)
    return _slates(_personal(known, np.ones(len(known.customer)), customers), known, customers, top)


def decayed_frequency(
    purchases: pd.DataFrame, customers: list[str], as_of: date, half_life_days: float = 90, top: int = 20
) -> pd.DataFrame:
    """Like `personal_frequency`; an order counts 0.5 ** (age in days / half_life_days).

    Raises:
        ConfigurationError: `half_life_days` is not positive.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    if half_life_days <= 0:
        raise ConfigurationError("half_life_days", found=half_life_days, wanted="above 0", fix="pass days, such as 90")
    _, known = _known(purchases, customers, as_of)
    return _slates(_personal(known, np.exp2(-known.age_days / half_life_days), customers), known, customers, top)


def _basket_weights(rows: pd.DataFrame, known: _Known, m: int, r_b: float, r_g: float) -> np.ndarray:
    """Weight of each purchase row in the customer's TIFU vector.

    The customer's g baskets, oldest first, are cut into n = ceil(g / m) groups of m, the oldest group taking the rest.
    A basket weighs r_b ** (baskets after it in its group) / (size of its group) * r_g ** (groups after its own) / n.
    """
    baskets = pd.DataFrame({"customer": known.customer, "age": known.age_days, "order": rows[ORDER_ID].to_numpy()})
    distinct = baskets.drop_duplicates(["customer", "order"]).sort_values(["customer", "age", "order"])
    after = distinct.groupby("customer").cumcount().to_numpy()  # baskets after this one
    total = distinct.groupby("customer")["order"].transform("size").to_numpy()
    group = after // m
    group_size = np.minimum(m, total - group * m)
    distinct["weight"] = r_b ** (after % m) / group_size * r_g**group / np.ceil(total / m)
    # A merge, not an index lookup: order ids may repeat between customers.
    return np.asarray(baskets.merge(distinct, how="left", on=["customer", "order"])["weight"], dtype=np.float64)


def _neighbour_blocks(vectors: Any, rows: np.ndarray, k: int, block: int) -> Iterator[tuple[np.ndarray, Any]]:
    """For each block of `rows`: the rows and the 0/1 matrix (block x customers) of their k nearest other customers.

    Euclidean distance; ties go to the smaller customer code.
    """
    import scipy.sparse as sp

    squares = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
    transposed = vectors.T.tocsr()
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        distance = squares[None, :] - 2 * (vectors[part] @ transposed).toarray()  # + own square: same for the whole row
        distance = distance.round(DIGITS)
        distance[np.arange(len(part)), part] = np.inf  # not oneself
        kth = np.partition(distance, k - 1, axis=1)[:, [k - 1]]
        near = distance < kth
        free = k - near.sum(axis=1, keepdims=True)
        tied = distance == kth
        near |= tied & (np.cumsum(tied, axis=1) <= free)
        yield part, sp.csr_matrix(near.astype(np.float64))


def tifu_knn(
    purchases: pd.DataFrame,
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

    score = alpha * own vector + (1 - alpha) * mean vector of the k nearest customers. Customers without a purchase get
    the popular list: their empty vector has no meaningful neighbours. The defaults were tuned on this task's sample.

    Args:
        m: baskets in a group; r_b, r_g: decay from basket to basket in a group and from group to group, in (0, 1].
        alpha: share of the own vector; k: neighbours (all others, where there are fewer).

    Raises:
        ConfigurationError: a parameter is out of range.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    import scipy.sparse as sp

    if m < 1 or k < 1 or not (0 < r_b <= 1 and 0 < r_g <= 1 and 0 <= alpha <= 1):
        raise ConfigurationError(
            "TIFU-KNN", found=f"m={m}, k={k}, r_b={r_b}, r_g={r_g}, alpha={alpha}",
            wanted="m, k >= 1; r_b, r_g in (0, 1]; alpha in [0, 1]", fix="correct the parameter that is out of range",
        )  # fmt: skip
    rows, known = _known(purchases, customers, as_of)
    weights = _basket_weights(rows, known, m, r_b, r_g)
    shape = (len(known.customers), len(known.products))
    order = np.lexsort((weights, known.product, known.customer))  # one order of summation
    vectors = sp.csr_matrix((weights[order], (known.customer[order], known.product[order])), shape=shape)
    position = pd.Index(customers).get_indexer(known.customers)  # customer code -> place in the list, -1: not asked for
    asked = np.flatnonzero(position >= 0)
    k = min(k, shape[0] - 1)
    block = max(1, BLOCK_CELLS // max(shape))

    def score_blocks() -> Iterator[tuple[np.ndarray, Any]]:
        if k == 0:  # nobody else: the own vector is all there is
            yield asked, alpha * vectors[asked]
            return
        for part, near in _neighbour_blocks(vectors, asked, k, block):
            yield part, alpha * vectors[part] + (near @ vectors) * ((1 - alpha) / k)

    found = [_best(scores, top).assign(row=lambda f, p=part: position[p[f["row"]]]) for part, scores in score_blocks()]
    columns = ["row", "product", SCORE]
    return _slates(pd.concat(found)[columns] if found else pd.DataFrame(columns=columns), known, customers, top)


def _best(scores: Any, top: int) -> pd.DataFrame:
    """The `top` highest positive scores of each row of a sparse block, ties to the smaller product code."""
    scores.data = _settle(scores.data)
    dense = scores.toarray()
    take = min(top, dense.shape[1])
    threshold = np.partition(dense, dense.shape[1] - take, axis=1)[:, [dense.shape[1] - take]]
    row, product = np.nonzero((dense >= threshold) & (dense > 0))
    frame = pd.DataFrame({"row": row, "product": product, SCORE: dense[row, product]})
    return frame.sort_values(["row", SCORE, "product"], ascending=[True, False, True]).groupby("row").head(top)
