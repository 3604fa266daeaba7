"""When a customer buys a product again: counted in trips and in days, from lines in the order of customer, product and day.

Two clocks are better than one: days say when a thing is used up, trips when there was a chance to buy it. The hazard is the chance
that a purchase which did not come for so many weeks comes in the next seven days; products share theirs with their type, and types
with everything, as far as their own purchases are few (docs/adr/0019-what-the-ranker-knows.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_assets.recommender.stage import Columns

F64 = NDArray[np.float64]
Ints = NDArray[np.signedinteger[Any]]

WEEKS = 27  # of elapsed time that are told apart; the last one stands for half a year and more
HORIZON = 7  # days that are asked about
TRIP_DECAY = 0.95  # what a trip counts against the one after it
# Purchases that a product, a type and a customer's own gaps are worth less than: the mean of the level above counts as so many.
PRIOR_PRODUCT, PRIOR_TYPE, PRIOR_OWN = 30.0, 50.0, 3.0
_UNIT = 1 << 40  # decays are added up as whole numbers, so that the order of summation changes no bit


def trips_after(line: Columns) -> NDArray[np.int32]:
    """Of each line, how many later trips the customer made: 0 for the newest."""
    customer, trip = line["customer"], line["trip"]
    if not len(trip):
        return np.empty(0, dtype=np.int32)
    is_known = np.zeros(
        int(trip.max()) + 1, dtype=bool
    )  # trips whose products are all not known or not sellable have no line
    is_known[trip] = True
    number = np.cumsum(is_known, dtype=np.int32)[trip]
    starts = np.flatnonzero(np.r_[True, customer[1:] != customer[:-1]])
    newest = np.maximum.reduceat(number, starts)
    return np.asarray(np.repeat(newest, np.diff(np.r_[starts, len(customer)])) - number)


@dataclass(frozen=True, eq=False)
class Gaps:
    """Distinct days between two purchases of one product by one customer: their pair (a row of `pairs_of`) and length in days, > 0."""

    pair: Ints
    days: Ints


def gaps_of(line: Columns) -> Gaps:
    """The gaps of all pairs, ordered by pair. Two orders of one day have none."""
    customer, product, age = line["customer"], line["product"], line["age"].astype(np.int32)
    is_same = (customer[1:] == customer[:-1]) & (product[1:] == product[:-1])
    number = np.cumsum(np.r_[False, ~is_same], dtype=np.int32)[: len(age)]
    length = age[:-1] - age[1:]
    found = np.flatnonzero(is_same & (length > 0))
    return Gaps(number[found], length[found])


def timing_of(line: Columns, pair: Columns, gaps: Gaps) -> Columns:
    """What is known of the rhythm of each row of `pair`, in its order, as float32.

    Returns:
        trip_rate (of the trips since the first purchase); trip_gap (mean trips between purchases) and trip_overdue (trips since the last
        / trip_gap); trip_decayed (share of the customer's trips that had the product, where a trip counts 0.95 of the next one);
        gap_median_overdue and gap_max_overdue (days since the last / median and longest gap), gap_min and gap_std in days, missing below
        two days; n_longer and n_due (of the gaps those that were not over by the age of the last purchase, and of these those that were
        over seven days later).
    """
    n = len(pair["customer"])
    starts = np.r_[0, np.cumsum(pair["n_orders"])[:-1]][:n].astype(np.int64)
    after = trips_after(line)
    customers = np.flatnonzero(np.r_[True, line["customer"][1:] != line["customer"][:-1]])[: len(after)]
    trips = np.zeros(int(line["customer"].max(initial=-1)) + 1, dtype=np.int32)
    if n:
        trips[line["customer"][customers]] = np.maximum.reduceat(after, customers) + 1
    trips = trips[pair["customer"]]

    def over(function: np.ufunc, values: NDArray[Any], kind: Any = None) -> NDArray[Any]:
        return np.asarray(function.reduceat(values, starts, dtype=kind)) if n else values[:0]

    last, first = over(np.minimum, after), over(np.maximum, after)
    powers = np.rint(TRIP_DECAY ** np.arange(int(trips.max(initial=0)) + 1) * _UNIT).astype(np.int64)
    gap = _quotient(first - last, pair["n_orders"] - 1)
    columns = {
        "trip_rate": pair["n_orders"] / (first + 1),
        "trip_gap": gap,
        "trip_overdue": _quotient(last, gap),
        "trip_decayed": over(np.add, powers[after], np.int64) / np.r_[0, np.cumsum(powers)][trips],
    }
    return {name: column.astype(np.float32) for name, column in (columns | _lengths(pair, gaps)).items()}


def _lengths(pair: Columns, gaps: Gaps) -> Columns:
    n, days = len(pair["customer"]), gaps.days.astype(np.int64)
    many = np.bincount(gaps.pair, minlength=n)
    total, squares = (np.bincount(gaps.pair, weights=values, minlength=n) for values in (days, days**2))  # whole: exact
    ordered = np.sort((gaps.pair.astype(np.int64) << 16) | days) & 0xFFFF
    has = many > 0
    first, many_there = (np.cumsum(many) - many)[has], many[has]
    shortest, median, longest = (np.full(n, np.nan) for _ in range(3))
    shortest[has], longest[has] = ordered[first], ordered[first + many_there - 1]
    median[has] = (ordered[first + (many_there - 1) // 2] + ordered[first + many_there // 2]) / 2
    elapsed = pair["days_since_last"][gaps.pair]
    is_longer = days >= elapsed  # age is counted at T: a purchase on T makes a gap of just that age
    is_due = is_longer & (days < elapsed + HORIZON)
    return {
        "gap_min": shortest,
        "gap_std": np.sqrt(np.maximum(_quotient(squares, many) - _quotient(total, many) ** 2, 0)),
        "gap_median_overdue": pair["days_since_last"] / median,
        "gap_max_overdue": pair["days_since_last"] / longest,
        "n_longer": np.bincount(gaps.pair[is_longer], minlength=n),
        "n_due": np.bincount(gaps.pair[is_due], minlength=n),
    }


def _quotient(value: NDArray[Any], by: NDArray[Any]) -> F64:
    return np.asarray(np.divide(value, by, out=np.full(len(value), np.nan), where=(by != 0) & ~np.isnan(by)))


@dataclass(frozen=True, eq=False)
class Waits:
    """How long purchases let wait, of one or more buckets: counts by product and whole weeks, shape (n_products, WEEKS).

    `ended` are gaps, `open` the time since the last purchase of each pair, which is not over.
    """

    ended: NDArray[np.int32]
    open: NDArray[np.int32]

    def __add__(self, other: Waits) -> Waits:
        return Waits(self.ended + other.ended, self.open + other.open)


def waits_of(pair: Columns, gaps: Gaps, n_products: int) -> Waits:
    """The waits of a bucket's pairs."""

    def counted(product: NDArray[Any], days: NDArray[Any]) -> NDArray[np.int32]:
        cell = product.astype(np.int64) * WEEKS + _week(days)
        return np.bincount(cell, minlength=n_products * WEEKS).astype(np.int32).reshape(n_products, WEEKS)

    return Waits(counted(pair["product"][gaps.pair], gaps.days), counted(pair["product"], pair["days_since_last"]))


def _week(days: NDArray[Any]) -> NDArray[np.int64]:
    return np.minimum(days.astype(np.int64) // 7, WEEKS - 1)


class Hazards:
    """Chance of a purchase in the next seven days by the time since the last, of each product and each type.

    Args:
        waits: of all customers.
        type_key: of each product, -1 is none.
    """

    def __init__(self, waits: Waits, type_key: Ints) -> None:
        risk = (waits.ended + waits.open)[:, ::-1].cumsum(axis=1)[:, ::-1]
        ended, n_types = waits.ended, int(type_key.max(initial=-1)) + 1
        everything = risk.sum(axis=0)
        overall = np.divide(ended.sum(axis=0), everything, out=np.zeros(WEEKS), where=everything > 0)
        # the last row is of products without a type: their key is -1
        row = np.where(type_key < 0, n_types, type_key)
        order = np.argsort(row, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(row[order]) != 0])[: len(row)]
        by_type = np.zeros((2, n_types + 1, WEEKS), dtype=np.int64)
        for total, counts in zip(by_type, (ended, risk), strict=True):
            total[row[order[starts]]] = np.add.reduceat(counts[order], starts, axis=0, dtype=np.int64)
        of_type = (by_type[0] + PRIOR_TYPE * overall) / (by_type[1] + PRIOR_TYPE)
        self._type_key = type_key
        self._of_type = of_type
        self._of_product = ((ended + PRIOR_PRODUCT * of_type[type_key]) / (risk + PRIOR_PRODUCT)).astype(np.float32)

    def of(self, product: NDArray[Any], days_since_last: F64) -> tuple[F64, F64]:
        """The product's and its type's hazard; missing where the product was never bought."""
        is_known = ~np.isnan(days_since_last)
        week = _week(np.where(is_known, days_since_last, 0))
        return (
            np.where(is_known, self._of_product[product, week], np.nan),
            np.where(is_known, self._of_type[self._type_key[product], week], np.nan),
        )


def own_hazard(of_product: F64, n_longer: F64, n_due: F64) -> F64:
    """The pair's own hazard: of its gaps that were longer than now, those that ended within a week, with the product's as a prior."""
    return (n_due + PRIOR_OWN * of_product) / (n_longer + PRIOR_OWN)
