"""What baselines share: purchases up to a day as integer codes, and lists of the best products filled with popular ones.

A list is personal first, score > 0, and then filled with popular products, score = -(position by popularity). Ties go to
the more popular product and then to the smaller product_id, so the same purchases in any row order give the same lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import CUSTOMER_ID, EVENT_DATE, ORDER_ID, PRODUCT_ID, RANK, SCORE
from pipeline_assets.recommender.errors import ConfigurationError, NotEnoughData, SchemaError

FILL_DAYS = 28  # four whole weeks: every weekday equally often, short enough to follow the season
DIGITS = 12  # kept of a sum: values that differ only by the order of summation become ties, which popularity breaks
BLOCK_CELLS = 4_000_000  # dense customer x product cells at a time (float64: 32 MB), which bounds memory


@dataclass(frozen=True, eq=False)
class Known:
    """Purchases up to a day, as codes. Product code 0 is the most popular product, 1 the next: codes break ties.

    Rows of one customer and product are together, by order and age, whatever the order of the purchases was.
    """

    as_of: date
    customers: pd.Index  # code -> customer_id, ascending
    products: pd.Index  # code -> product_id, by popularity
    customer: np.ndarray  # (rows,) code
    product: np.ndarray  # (rows,) code
    order: np.ndarray  # (rows,) code of the order_id, ascending; ids may repeat between customers
    age_days: np.ndarray  # (rows,) whole days before as_of, 0 is the day itself

    @property
    def shape(self) -> tuple[int, int]:
        """Customers and products."""
        return len(self.customers), len(self.products)

    def by_popularity(self, days: int) -> Known:
        """The same purchases with products coded by orders in the last `days`, then ever, then by product_id."""
        if days < 1:
            raise ConfigurationError("days", found=days, wanted="at least 1", fix="pass a window of one day or more")
        recent = np.bincount(self.product[self.age_days < days], minlength=len(self.products))
        ever = np.bincount(self.product, minlength=len(self.products))
        by_id = np.argsort(self.products.to_numpy(), kind="stable")
        order = by_id[np.lexsort((-ever[by_id], -recent[by_id]))]
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        return replace(self, products=self.products[order], product=position[self.product])

    def matrix(self, weights: np.ndarray) -> Any:
        """Sum of `weights` (one a row) by customer and product: a sparse matrix, customers x products, float64."""
        import scipy.sparse as sp

        is_new = np.diff(self.customer, prepend=-1).astype(bool) | np.diff(self.product, prepend=-1).astype(bool)
        first = np.flatnonzero(is_new)
        sums = np.add.reduceat(weights, first)  # rows are in one order, so sums are too
        return sp.csr_matrix((sums, (self.customer[first], self.product[first])), shape=self.shape)


def known_on(purchases: pd.DataFrame, as_of: date, days: int = FILL_DAYS) -> Known:
    """The rows with event_date <= `as_of` as codes, products by popularity in the last `days`.

    Raises:
        ConfigurationError: `days` is below 1.
        NotEnoughData: nothing was bought by `as_of`.
    """
    dates = pd.to_datetime(purchases[EVENT_DATE])
    is_known = dates <= pd.Timestamp(as_of)
    rows = purchases.loc[is_known]
    if rows.empty:
        raise NotEnoughData(f"purchases up to {as_of}", found="no rows", wanted="at least one", fix="land earlier days")
    age = (pd.Timestamp(as_of) - dates[is_known]).dt.days.to_numpy()
    customer, customers = pd.factorize(rows[CUSTOMER_ID], sort=True)
    product, products = pd.factorize(rows[PRODUCT_ID], sort=True)
    order, _ = pd.factorize(rows[ORDER_ID], sort=True)
    at = np.lexsort((age, order, product, customer))
    codes = (customer[at], product[at], order[at], age[at])
    return Known(as_of, pd.Index(customers), pd.Index(products), *codes).by_popularity(days)


def known_to(
    purchases: pd.DataFrame | Known, customers: list[str], as_of: date, days: int = FILL_DAYS
) -> tuple[Known, np.ndarray]:
    """The purchases as codes, and for each customer code the place in `customers` (-1: not asked for).

    Args:
        purchases: rows, or the codes of them as of the same day, where several methods share them.

    Raises:
        ConfigurationError, NotEnoughData: as `known_on`; or the codes are of another day.
        SchemaError: a customer is listed twice.
    """
    if len(set(customers)) != len(customers):
        raise SchemaError("customers", found="a repeated id", wanted="each once", fix="deduplicate the list")
    if not isinstance(purchases, Known):
        known = known_on(purchases, as_of, days)
    elif purchases.as_of != as_of:
        raise ConfigurationError("known", found=purchases.as_of, wanted=as_of, fix="encode the purchases of that day")
    else:
        known = purchases if days == FILL_DAYS else purchases.by_popularity(days)
    return known, np.asarray(pd.Index(customers).get_indexer(known.customers))


def settle(values: np.ndarray, digits: int = DIGITS) -> np.ndarray:
    """Round to `digits` decimals of the binary mantissa, so that small scores keep their order too."""
    mantissa, exponent = np.frexp(values)
    settled: np.ndarray = np.ldexp(mantissa.round(digits), exponent)
    return settled


def best_of(scores: Any, top: int) -> pd.DataFrame:
    """The `top` highest positive scores of each row of a sparse block, ties to the smaller column: row, product, score."""
    rows, products, values = [], [], []
    for row in range(scores.shape[0]):
        column = scores.indices[scores.indptr[row] : scores.indptr[row + 1]]
        score = scores.data[scores.indptr[row] : scores.indptr[row + 1]]
        least = np.partition(score, len(score) - top)[len(score) - top] if len(score) > top else 0.0
        kept = np.flatnonzero((score >= least) & (score > 0))
        best = kept[np.lexsort((column[kept], -score[kept]))][:top]
        rows.append(np.full(len(best), row))
        products.append(column[best])
        values.append(score[best])
    return pd.DataFrame(
        {"row": np.concatenate(rows), "product": np.concatenate(products), SCORE: np.concatenate(values)}
    )


def slates_of(blocks: Iterable[tuple[np.ndarray, Any]], known: Known, customers: list[str], top: int) -> pd.DataFrame:
    """Slates from scores, a block of customers at a time: places in `customers`, and a CSR matrix (block x products)."""
    found = [best_of(scores, top).assign(row=lambda f, at=place: at[f["row"]]) for place, scores in blocks]
    columns = ["row", "product", SCORE]
    return filled(pd.concat(found)[columns] if found else pd.DataFrame(columns=columns), known, customers, top)


def filled(personal: pd.DataFrame, known: Known, customers: list[str], top: int) -> pd.DataFrame:
    """Slates of the best `top` of `personal` (row = place in `customers`, product = code, score > 0), filled with popular ones.

    Raises:
        NotEnoughData: there are fewer than `top` products.
    """
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
