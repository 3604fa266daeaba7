"""Features of a customer with a product: `PAIR_FEATURES` of candidates, by looking up what the snapshot counted.

Keys are whole numbers in order, so a lookup is a binary search among neighbours, which is cheaper than joins of the same tables (what features
of a day cost: `python -m benchmarks.scale --stages features`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.pairs import UNIT
from pipeline_assets.recommender.stage import Columns
from pipeline_assets.recommender.timing import Hazards, own_hazard

F64 = NDArray[np.float64]
_ONLY_COUNTED = ("n_longer", "n_due", "in_second_week")  # of a pair: features are made of them


class Counted:
    """Rows by an ascending key of whole numbers; a key that is not there has missing values.

    Args:
        keys: without repetitions, in any order.
        columns: values of the rows.
    """

    def __init__(self, keys: NDArray[np.int64], columns: Columns) -> None:
        order = None if (keys[1:] > keys[:-1]).all() else np.argsort(keys)
        self._keys = keys if order is None else keys[order]
        self._columns = columns if order is None else {name: column[order] for name, column in columns.items()}

    def of(self, wanted: NDArray[np.int64], *names: str) -> dict[str, F64]:
        """The columns of each wanted key, all of them or those that are named."""
        columns, n = {name: self._columns[name] for name in names or self._columns}, len(self._keys)
        if not n:
            return {name: np.full(len(wanted), np.nan) for name in columns}
        at = np.minimum(np.searchsorted(self._keys, wanted), n - 1)
        is_missing = self._keys[at] != wanted
        # what is not asked for is not converted: there are three times as many pairs as candidates
        values = {name: np.ma.filled(column[at].astype(np.float64), np.nan) for name, column in columns.items()}
        for found in values.values():
            found[is_missing] = np.nan
        return values


class PairFeatures:
    """What is looked up for the candidates of one bucket's customers.

    Args:
        customer: keys of the bucket's customers, ascending.
    """

    def __init__(self, snapshot: Snapshot, customer: NDArray[np.int32]) -> None:
        con, pair = snapshot.con, snapshot.arrays["pair"]
        self._customer = customer
        self._n_products, self._n_names = len(snapshot.stage.product_ids), max(len(snapshot.stage.names), 1)
        identity = ("customer", "product", "type_key", "category_key")
        self._pair = Counted(self._pair_key(pair["customer"], pair["product"]), _without(pair, identity))
        self._type = self._by_name(snapshot.arrays["affinity"], "type_key")
        self._category = self._by_name(con.sql("from category_affinity").fetchnumpy(), "category_key")
        self._keys_of = snapshot.keys_of
        shopper = con.sql("select customer, n_orders from shopper").fetchnumpy()
        self._shopper = Counted(shopper["customer"].astype(np.int64), {"n_orders": shopper["n_orders"]})
        home = con.sql("from home_store").fetchnumpy()
        self._home = Counted(home["customer"].astype(np.int64), {"store": home["store"]})
        shown = con.sql(
            """select store, product, on_display, in_mailer, mailer_pull, mailer_sales
            from shown semi join home_store using (store) left join pulled using (mailer_now)"""
        ).fetchnumpy()
        self._stores = np.unique(shown["store"])
        self._shown = Counted(self._pair_key(shown["store"], shown["product"]), _without(shown, ("store", "product")))
        self._type_mailed = self._mailed(pair)
        self._hazards = Hazards(snapshot.waits, self._keys_of["type_key"])
        price = con.sql("select product, price_28d from item where price_28d is not null").fetchnumpy()
        self._price = np.full(self._n_products, np.nan)
        self._price[price["product"]] = price["price_28d"]
        self._offers = _offers(snapshot, customer, self._n_products)

    def _pair_key(self, first: NDArray[Any], product: NDArray[Any]) -> NDArray[np.int64]:
        return np.asarray(first.astype(np.int64) * self._n_products + product)

    def _by_name(self, found: Columns, name: str) -> Counted:
        return Counted(
            found["customer"].astype(np.int64) * self._n_names + found[name], _without(found, ("customer", name))
        )

    def _mailed(self, pair: Columns) -> Counted:
        """What is in the home store's mailer next week of what each customer buys of each type, in decayed counts."""
        customer = pair["customer"].astype(np.int64)
        starts = np.flatnonzero(np.r_[True, customer[1:] != customer[:-1]])[: len(customer)]
        store = self._home.of(customer[starts])["store"]
        store = np.repeat(np.where(np.isnan(store), -1, store), np.diff(np.r_[starts, len(customer)]))
        in_mailer = self._shown.of(self._pair_key(store, pair["product"]), "in_mailer")["in_mailer"]
        is_mailed = (in_mailer == 1) & (pair["type_key"] >= 0)
        cell, at = np.unique(
            customer[is_mailed] * self._n_names + pair["type_key"][is_mailed],
            return_inverse=True,
        )
        weight = np.rint(pair["decayed_slow"][is_mailed] * UNIT)  # whole numbers: exact in any order
        return Counted(cell, {"decayed": np.bincount(at, weights=weight, minlength=len(cell)) / UNIT})

    def of(self, named: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """The columns of `PAIR_FEATURES`, by name, NaN where there is nothing to say.

        Args:
            named: as `candidates.candidates` returns it, or rows of it.
        """
        customer, product = named["customer"].to_numpy().astype(np.int64), named["product"].to_numpy()
        pair = self._pair.of(self._pair_key(customer, product))
        type_cell = customer * self._n_names + self._keys_of["type_key"][product]
        of_type = self._type.of(type_cell)
        of_category = self._category.of(customer * self._n_names + self._keys_of["category_key"][product])
        store = self._home.of(customer)["store"]
        has_plan = np.isin(store, self._stores)
        shown = self._shown.of(self._pair_key(np.where(has_plan, store, -1), product))
        with np.errstate(divide="ignore", invalid="ignore"):
            of_product, by_type = self._hazards.of(product, pair["days_since_last"])
            gap = _quotient(pair["days_since_first"] - pair["days_since_last"], pair["n_orders"] - 1)
            columns = {
                **{f"pair_{name}": values for name, values in pair.items() if name not in _ONLY_COUNTED},
                "pair_order_share": pair["n_orders"] / self._shopper.of(customer)["n_orders"],
                "pair_gap_days": gap,
                "pair_overdue": _quotient(pair["days_since_last"], gap),
                "pair_place": named["place"].to_numpy(),
                "pair_source": named["source"].to_numpy(),
                "pair_type_days": of_type["type_days"],
                "pair_type_decayed": of_type["type_decayed"],
                "pair_type_share": pair["decayed_slow"] / of_type["type_decayed"],
                "pair_type_days_since_last": of_type["type_days_since_last"],
                "pair_type_overdue": _quotient(of_type["type_days_since_last"], of_type["type_gap_days"]),
                "pair_category_decayed": of_category["category_decayed"],
                "pair_category_days_since_last": of_category["category_days_since_last"],
                "pair_knn_score": named["knn_score"].to_numpy(),
                "pair_store_display": np.where(has_plan, np.nan_to_num(shown["on_display"]), np.nan),
                "pair_store_mailer": np.where(has_plan, np.nan_to_num(shown["in_mailer"]), np.nan),
                "pair_hazard": own_hazard(of_product, pair["n_longer"], pair["n_due"]),
                "pair_product_hazard": of_product,
                "pair_type_hazard": by_type,
                "pair_type_mailed_share": np.nan_to_num(self._type_mailed.of(type_cell)["decayed"])
                / of_type["type_decayed"],
                "pair_mailer_pull": shown["mailer_pull"],
                "pair_mailer_sales": shown["mailer_sales"],
                "pair_price_ratio": _quotient(pair["amount_mean"] / pair["quantity_mean"], self._price[product]),
            }
        row = np.searchsorted(self._customer, customer)
        columns["pair_has_coupon"] = np.zeros(len(named), dtype=bool)
        for customers, products in self._offers:
            columns["pair_has_coupon"] |= customers[row] & products[product]
        return columns


def _without(columns: Columns, names: tuple[str, ...]) -> Columns:
    return {name: column for name, column in columns.items() if name not in names}


def _quotient(value: F64, by: F64) -> F64:
    """Missing where it would be divided by nothing."""
    return value / np.where(by == 0, np.nan, by)


def _offers(
    snapshot: Snapshot, customer: NDArray[np.int32], n_products: int
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Of each campaign with coupons: which customers got it, and for which products; a pair of both has a coupon."""
    offer, mailing = (snapshot.con.sql(f"from {name}").fetchnumpy() for name in ("offer", "mailing"))
    found = []
    for campaign in np.unique(offer["campaign_id"]):
        customers, products = np.zeros(len(customer), dtype=bool), np.zeros(n_products, dtype=bool)
        customers[np.searchsorted(customer, mailing["customer"][mailing["campaign_id"] == campaign])] = True
        products[offer["product"][offer["campaign_id"] == campaign]] = True
        found.append((customers, products))
    return found
