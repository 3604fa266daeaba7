"""What each customer did with each product, counted from lines in the order of customer, product and day.

In that order a pair is a stretch of lines, and every count is a sum over stretches, which is cheaper than hash tables of the same (pairs of a day
beside those of pandas: `python -m benchmarks.peers`). Sums are of whole billionths (aggregates.py), so they are exact.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from pipeline_assets.recommender.stage import Columns

# Half-lives in days: 90 is the best single decay for a personal counter on the sample (docs/design/evaluation.md); 21 follows changes of habit.
SLOW, FAST = 90, 21
UNIT = 1e9


@functools.lru_cache(maxsize=8)
def _weights(half_life_days: int, oldest: int) -> NDArray[np.int64]:
    """Billionths that a purchase of each age counts: 0.5 ** (age / half-life)."""
    return np.array(
        [round(math.exp(-age * math.log(2) / half_life_days) * UNIT) for age in range(oldest + 1)], np.int64
    )


def lines_as_of(lines: Columns, day: int, is_sellable: NDArray[np.bool_], type_key: Any, category_key: Any) -> Columns:
    """The lines up to `day` of products that are sellable on it, with age in days at the day after.

    Args:
        lines: of a bucket.
        day: in days since 1970-01-01.
        is_sellable, type_key, category_key: of each product key; a key of -1 is none.
    """
    kept = np.flatnonzero((lines["day"] <= day) & is_sellable[lines["product"]])
    chosen = lines if len(kept) == len(lines["day"]) else {name: column[kept] for name, column in lines.items()}
    product = chosen["product"]
    return {
        **{name: column for name, column in chosen.items() if name != "day"},
        "type_key": type_key[product],
        "category_key": category_key[product],
        "age": (day + 1 - chosen["day"]).astype(np.int16),
    }


def pairs_of(line: Columns) -> Columns:
    """One row per customer and product, ordered by them.

    Returns:
        customer, product, type_key, category_key; n_orders and the same within 28 and 91 days; decayed_fast and decayed_slow (sums of
        0.5 ** (age / half-life)); days_since_last, days_since_first; means of quantity and amount; promoted_share, mailed_share;
        n_unmailed (orders while not in a mailer); discount_share (missing where nothing was paid or taken off); in_second_week (1: bought at
        an age of 8 to 14 days).
    """
    customer, product, age = line["customer"], line["product"], line["age"]
    starts = np.flatnonzero(np.r_[True, (customer[1:] != customer[:-1]) | (product[1:] != product[:-1])])[: len(age)]
    ends = np.r_[starts[1:], len(age)][: len(starts)]

    def summed(values: NDArray[Any], kind: Any = np.int64) -> NDArray[Any]:
        return np.add.reduceat(values, starts, dtype=kind) if len(starts) else np.empty(0, kind)

    n_orders, n_mailed = (ends - starts).astype(np.int32), summed(line["is_mailed"], np.int32)
    oldest = int(age.max(initial=0))
    amount, discount = summed(line["amount"]) / UNIT, summed(line["discount"]) / UNIT
    full_price = discount + amount
    share = np.divide(discount, full_price, out=np.full(len(starts), np.nan), where=full_price != 0)
    return {
        **{name: line[name][starts] for name in ("customer", "product", "type_key", "category_key")},
        "n_orders": n_orders,
        "n_orders_28d": summed(age <= 28, np.int32),
        "n_orders_91d": summed(age <= 91, np.int32),
        "decayed_fast": (summed(_weights(FAST, oldest)[age]) / UNIT).astype(np.float32),
        "decayed_slow": summed(_weights(SLOW, oldest)[age]) / UNIT,
        "days_since_last": age[ends - 1],
        "days_since_first": age[starts],
        "quantity_mean": (summed(line["quantity"]) / UNIT / n_orders).astype(np.float32),
        "amount_mean": (amount / n_orders).astype(np.float32),
        "promoted_share": (summed(line["is_promoted"], np.int32) / n_orders).astype(np.float32),
        "mailed_share": (n_mailed / n_orders).astype(np.float32),
        "n_unmailed": n_orders - n_mailed,
        "discount_share": share.astype(np.float32),
        "in_second_week": np.minimum(summed((age > 7) & (age <= 14), np.int8), 1),
    }


def standing_of(pair: Columns) -> Columns:
    """What each product is among all that the customer buys, in the order of `pair`.

    Returns:
        decayed_share (of the customer's decayed_slow, this product's); place_fast (rank by decayed_fast, 1 is best, ties to the smaller key).
    """
    customer = pair["customer"]
    starts = np.flatnonzero(np.r_[True, customer[1:] != customer[:-1]])[: len(customer)]
    sizes = np.diff(np.r_[starts, len(customer)])
    weight = np.rint(pair["decayed_slow"] * UNIT).astype(np.int64)
    total = np.repeat(np.add.reduceat(weight, starts), sizes) if len(starts) else weight
    # positive floats are ordered like the whole numbers that their bits are
    order = np.argsort(
        customer.astype(np.int64) << 31 | (0x7FFFFFFF - pair["decayed_fast"].view(np.int32)), kind="stable"
    )
    place = np.empty(len(customer), dtype=np.int32)
    place[order] = np.arange(1, len(customer) + 1) - np.repeat(starts, sizes)
    return {"decayed_share": (weight / total).astype(np.float32), "place_fast": place}


def to_table(columns: Columns) -> pyarrow.Table:
    """The columns as DuckDB reads them; NaN is null."""
    return pyarrow.table({name: pyarrow.array(column, from_pandas=True) for name, column in columns.items()})


def types_of(line: Columns, pair: Columns) -> Columns:
    """One row per customer and product type, ordered by them.

    Returns:
        customer, type_key; type_days (distinct days); type_decayed (sum of the pairs' decayed_slow); type_days_since_last; type_gap_days
        (mean days between two of the days, missing below two).
    """
    n_types = int(pair["type_key"].max(initial=0)) + 1
    order = np.flatnonzero(pair["type_key"] >= 0)
    key = pair["customer"][order].astype(np.int64) * n_types + pair["type_key"][order]
    by_key = np.argsort(key)
    key, order = key[by_key], order[by_key]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])[: len(key)]
    typed = line["type_key"] >= 0
    day = (line["customer"][typed].astype(np.int64) * n_types + line["type_key"][typed]) << 16 | line["age"][typed]
    day.sort()
    day = day[np.flatnonzero(np.r_[True, day[1:] != day[:-1]])[: len(day)]] >> 16
    days = np.diff(np.r_[np.searchsorted(day, key[starts]), len(day)])

    def over(function: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        return function.reduceat(values[order], starts) if len(starts) else values[:0]

    last, first = over(np.minimum, pair["days_since_last"]), over(np.maximum, pair["days_since_first"])
    gap = np.divide(first - last, days - 1, out=np.full(len(starts), np.nan), where=days > 1)
    return {
        "customer": pair["customer"][order[starts]],
        "type_key": pair["type_key"][order[starts]],
        "type_days": days,
        "type_decayed": over(np.add, np.rint(pair["decayed_slow"] * UNIT).astype(np.int64)) / UNIT,
        "type_days_since_last": last,
        "type_gap_days": gap,
    }
