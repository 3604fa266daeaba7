"""Columns that the model does not have, computed for the candidates of an as-of day from what was known on it: what experiments try out.

A group is a function of `Asked`; nothing it reads is newer than the day. Customers' own declarations (age, income, household, children) are
denied for features (contract/test_denied_columns.py) and not among them; a season of the year cannot be learned from one year.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline_assets.recommender.baselines_items import attached_to, item_weights
from pipeline_assets.recommender.baselines_users import basket_weights, baskets, nearest, share_of_last, similar
from pipeline_assets.recommender.features import PAIR_FEATURES

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_assets.recommender.known import Known

Ints, F64 = NDArray[np.signedinteger[Any]], NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
NEIGHBOURS, FACTORS, ITEMS, MARKOV_ITEMS = 100, 64, 3000, 1500
ALPHA = 0.5  # TIFU-KNN's share of the own vector
AT_ONCE = 250  # customers whose rows of all products are held


@dataclass(frozen=True, eq=False)
class Asked:
    """The candidates of a day, list by list (n,), and the purchases that were known.

    Args:
        customer, product: codes of `known`; -1 is nobody known, or nothing that was ever sold. owner: number of the list, ascending.
        pair: PAIR_FEATURES as stored (n x p). names: department, category, type and brand of each product code, as codes.
        response: of each row weeks in the home store's mailer since the first purchase, those in which it was bought, weeks without,
            and those in which it was bought, and whether it is in next week's (mailers.py).
    """

    known: Known
    customer: Ints
    product: Ints
    owner: Ints
    pair: NDArray[np.float32]
    names: Mapping[str, Ints]
    response: pd.DataFrame

    def feature(self, name: str) -> F64:
        """A column of the model."""
        found: F64 = self.pair[:, PAIR_FEATURES.index(name)].astype(np.float64)
        return found

    def at(self, matrix: Any) -> F64:
        """Cells of a sparse matrix, customers x products; missing where either is unknown."""
        found = np.full(len(self.product), np.nan)
        known = (self.customer >= 0) & (self.product >= 0) & (self.product < matrix.shape[1])
        found[known] = np.asarray(matrix[self.customer[known], self.product[known]]).ravel()
        return found

    def at_blocks(self, blocks: Iterable[tuple[Ints, Any]]) -> F64:
        """The same of blocks of customers x products, sparse or not."""
        found, row_of = np.full(len(self.product), np.nan), np.full(self.known.shape[0] + 1, -1)
        for codes, block in blocks:
            row_of[:] = -1
            row_of[codes] = np.arange(len(codes))
            row = np.where(self.product < block.shape[1], row_of[self.customer], -1)
            there = np.flatnonzero((row >= 0) & (self.product >= 0))
            found[there] = np.asarray(block[row[there], self.product[there]]).ravel()
        return found

    def at_product(self, left: Any, right: Any) -> F64:
        """Cells of left (customers x m) times right (m x products), a few customers at a time."""
        parts = np.array_split(np.arange(left.shape[0]), max(1, left.shape[0] // AT_ONCE))
        return self.at_blocks((part, left[part] @ right) for part in parts)

    def by_customer(self, values: NDArray[Any]) -> F64:
        """A value of each customer code, for the rows."""
        return np.where(self.customer >= 0, values[self.customer], np.nan)

    @cached_property
    def vectors(self) -> Any:
        """TIFU-KNN's vector of every customer."""
        return self.known.matrix(basket_weights(self.known))

    @cached_property
    def near(self) -> Any:
        """Ones where a customer is among the nearest of another, customers x customers."""
        import scipy.sparse as sp

        everybody = np.arange(self.known.shape[0])
        k = min(NEIGHBOURS, len(everybody) - 1)
        return sp.vstack([near for _, near in nearest(self.known, self.vectors, everybody, k)]).tocsr()

    @cached_property
    def baskets(self) -> tuple[Ints, Ints]:
        """Of each purchase, the customer's newer baskets and all of them."""
        return baskets(self.known)


def places(values: F64, owner: Ints) -> Ints:
    """Rank of each value within its list, 1 is the highest; missing ones are last."""
    order = np.lexsort((-np.nan_to_num(values, nan=-np.inf), owner))
    starts = np.flatnonzero(np.r_[True, owner[order][1:] != owner[order][:-1]])
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)])) + 1
    return found


def share_within(values: F64, group: Ints) -> F64:
    """Of the sum over a group (codes), each row's part."""
    filled = np.nan_to_num(values)
    total = np.bincount(group, weights=filled)[group]
    return np.divide(filled, total, out=np.full(len(values), np.nan), where=total > 0)


def tifu(asked: Asked) -> Columns:
    """TIFU-KNN: its own part, the neighbours', and the place of their sum."""
    own, others = asked.at(asked.vectors), asked.at_product(asked.near, asked.vectors) / NEIGHBOURS
    both = ALPHA * own + (1 - ALPHA) * others
    return {"own": own, "others": others, "place": places(both, asked.owner), "share": share_within(both, asked.owner)}


def up_cf(asked: Asked) -> Columns:
    """UP-CF: its score, the place, and the customer's own part of it."""
    popular = share_of_last(asked.known)
    everybody = np.arange(asked.known.shape[0])
    score = asked.at_blocks(
        (part, near @ popular) for part, near in similar(asked.known, everybody, min(NEIGHBOURS, len(everybody)))
    )
    return {"score": score, "own": asked.at(popular), "place": places(score, asked.owner)}


def ease(asked: Asked) -> Columns:
    """EASE of the most popular products."""
    attached = attached_to(asked.known, ITEMS)
    score = asked.at_product(attached, item_weights(attached))
    return {"score": score, "place": places(score, asked.owner)}


def svd(asked: Asked) -> Columns:
    """Affinity by a truncated singular value decomposition of who is attached to what."""
    from scipy.sparse.linalg import svds

    attached = attached_to(asked.known, ITEMS)
    left, values, right = svds(attached, k=min(FACTORS, min(attached.shape) - 1), random_state=7)
    score = asked.at_product(left * values, right)
    return {"score": score, "place": places(score, asked.owner)}


def last_basket(asked: Asked) -> Columns:
    """What was in the newest baskets, how large the newest was, and baskets since one with the product's type."""
    known, (after, total) = asked.known, asked.baskets
    sizes = np.bincount(known.customer[after == 0], minlength=known.shape[0])
    lines = np.bincount(known.customer, minlength=known.shape[0])
    all_baskets = np.zeros(known.shape[0])
    all_baskets[known.customer] = total
    kinds = asked.names["type"]
    width = int(kinds.max()) + 2
    cell, since = known.customer * width + kinds[known.product] + 1, np.full(known.shape[0] * width, np.nan)
    np.fmin.at(since, cell, after.astype(float))
    wanted = np.where(asked.product >= 0, kinds[asked.product], -1) + 1
    of_type = np.where(asked.customer >= 0, since[asked.customer * width + wanted], np.nan)
    counts = {f"of_{n}": asked.at(known.matrix((after < n).astype(float))) for n in (1, 2, 3, 5, 10)}
    ratio = asked.by_customer(sizes * all_baskets / np.maximum(lines, 1))
    return {**counts, "size_ratio": ratio, "since_type": of_type}


def visits(asked: Asked) -> Columns:
    """How often the customer comes, lately, and what that makes of the product's share of baskets."""
    import pandas as pd

    known = asked.known
    trips = pd.DataFrame({"customer": known.customer, "order": known.order, "age": known.age_days})
    trips = trips.drop_duplicates(["customer", "order"]).sort_values(["customer", "age"])
    n, who, age = known.shape[0], trips["customer"].to_numpy(), trips["age"].to_numpy()
    counts = {f"of_{days}d": np.bincount(who[age < days], minlength=n).astype(float) for days in (7, 14, 28, 91)}
    rate = np.bincount(who, weights=0.5 ** (age / 21), minlength=n) * 7 * np.log(2) / 21
    weeks = trips.assign(week=age // 7).query("week < 13").drop_duplicates(["customer", "week"])
    active = np.bincount(weeks["customer"], minlength=n) / 13
    lines = np.bincount(known.customer[known.age_days < 7], minlength=n)
    usual = np.bincount(known.customer[known.age_days < 91], minlength=n) / 13
    stocked = np.divide(lines, usual, out=np.full(n, np.nan), where=usual > 0)
    found = {name: asked.by_customer(values) for name, values in counts.items()}
    found |= {
        "rate": asked.by_customer(rate),
        "active_weeks": asked.by_customer(active),
        "stocked": asked.by_customer(stocked),
    }
    share = asked.feature("pair_trip_decayed")
    return {**found, "expected": found["rate"] * share, "chance": 1 - (1 - np.minimum(share, 1)) ** found["rate"]}


def hierarchy(asked: Asked) -> Columns:
    """The customer's purchases of the product's brand, department, and of its brand within its type: share and recency."""
    known, columns = asked.known, {}
    weight = np.exp2(-known.age_days / 90)
    brand_type = asked.names["type"] * (int(asked.names["brand"].max()) + 2) + asked.names["brand"] + 1
    levels = {"brand": asked.names["brand"], "department": asked.names["department"], "brand_type": brand_type}
    for name, codes in levels.items():
        width = int(codes.max()) + 2
        cell = known.customer * width + codes[known.product] + 1
        size = known.shape[0] * width
        decayed, since = np.bincount(cell, weights=weight, minlength=size), np.full(size, np.nan)
        np.fmin.at(since, cell, known.age_days.astype(float))
        total = np.bincount(known.customer, weights=weight, minlength=known.shape[0])
        wanted = asked.customer * width + np.where(asked.product >= 0, codes[asked.product], -1) + 1
        is_known = asked.customer >= 0
        columns[f"{name}_share"] = np.where(is_known, decayed[wanted] / total[asked.customer], np.nan)
        columns[f"{name}_since"] = np.where(is_known, since[wanted], np.nan)
    return columns


def trend_nearby(asked: Asked) -> Columns:
    """Of the nearest customers, those who bought it in the last 7 and 28 days, and how that changed."""
    known = asked.known
    week, month = (
        asked.at_product(asked.near, known.matrix((known.age_days < d).astype(float)).sign()) for d in (7, 28)
    )
    before = month - week
    trend = np.divide(week * 3, before, out=np.full(len(week), np.nan), where=before > 0)
    return {"week": week / NEIGHBOURS, "month": month / NEIGHBOURS, "trend": trend}


def weeks_before(asked: Asked) -> Columns:
    """In which of the last eight weeks the product was bought, and in how many of 13 and 26."""
    week = asked.known.age_days // 7
    found = {f"of_{n}": asked.at(asked.known.matrix((week == n).astype(float)).sign()) for n in range(8)}
    many = {days: sum(asked.known.matrix((week == n).astype(float)).sign() for n in range(days)) for days in (13, 26)}
    return {**found, **{f"in_{days}": asked.at(counted) for days, counted in many.items()}}


def next_week(asked: Asked) -> Columns:
    """What people buy in the week after a week in which they bought what the customer bought last week: first-order transitions."""
    week = asked.known.age_days // 7
    sets = [asked.known.matrix((week == n).astype(float))[:, :MARKOV_ITEMS].sign() for n in range(27)]
    together = sum((sets[n + 1].T @ sets[n]).toarray() for n in range(26))
    before = np.maximum(sum(np.asarray(one.sum(axis=0)).ravel() for one in sets[1:]), 1.0)
    usual = sum(np.asarray(one.sum(axis=0)).ravel() for one in sets[:26]) / (26 * asked.known.shape[0])
    lift = together / before[:, None] - usual[None, :]
    np.fill_diagonal(lift, 0.0)
    own = together.diagonal() / before
    score = asked.at_product(sets[0], lift)
    return {
        "score": score,
        "again": np.where(
            (asked.product >= 0) & (asked.product < MARKOV_ITEMS),
            own[np.minimum(asked.product, MARKOV_ITEMS - 1)],
            np.nan,
        ),
    }


def within_list(asked: Asked) -> Columns:
    """What a product is beside the customer's other candidates, and beside those of its type."""
    hazard, trips = asked.feature("pair_hazard"), asked.feature("pair_trip_decayed")
    kinds = np.where(asked.product >= 0, asked.names["type"][asked.product], -1)
    kind = np.unique(np.stack([asked.owner, kinds]), axis=1, return_inverse=True)[1].ravel()
    expected = np.bincount(asked.owner, weights=np.nan_to_num(hazard))[asked.owner]
    return {
        "hazard_place": places(hazard, asked.owner), "hazard_share": share_within(hazard, asked.owner), "expected": expected,
        "trips_place": places(trips, asked.owner), "order_place": places(asked.feature("pair_order_share"), asked.owner),
        "type_place": places(hazard, kind), "type_share": share_within(hazard, kind), "type_many": np.bincount(kind)[kind],
    }  # fmt: skip


def mailer_response(asked: Asked) -> Columns:
    """How often the customer bought the product in weeks with and without the home store's mailer, as next week's plan has it."""
    found = asked.response
    mailed, answered, plain, taken = (found[name].to_numpy(float) for name in ("mailed", "answered", "plain", "taken"))
    with np.errstate(divide="ignore", invalid="ignore"):
        overall = (answered + taken) / (mailed + plain)
        in_mailer, without = (answered + 4 * overall) / (mailed + 4), (taken + 4 * overall) / (plain + 4)
    planned = found["is_planned"].to_numpy(bool)
    return {
        "mailed_weeks": mailed, "answer_rate": in_mailer, "plain_rate": without, "planned_rate": np.where(planned, in_mailer, without),
        "pull": in_mailer / np.maximum(without, 1e-3),
    }  # fmt: skip


GROUPS: Mapping[str, Callable[[Asked], Columns]] = {
    "tifu": tifu, "up_cf": up_cf, "ease": ease, "svd": svd, "last_basket": last_basket, "visits": visits, "hierarchy": hierarchy,
    "trend_nearby": trend_nearby, "weeks_before": weeks_before, "next_week": next_week, "within_list": within_list,
    "mailer_response": mailer_response,
}  # fmt: skip
