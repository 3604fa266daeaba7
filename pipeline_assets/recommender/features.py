"""Features as of a business day: the one declaration of their names, and how each is computed.

The same rows are read by training (weekly cut-offs), batch scoring and the API, so they cannot differ. Model columns are
`PAIR_FEATURES + CUSTOMER_FEATURES + PRODUCT_FEATURES`, float32, NaN = missing; the list travels with the model.
Ages are in days at T = D + 1, amounts in the shop's currency, shares between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.candidates import candidates, similar_products
from pipeline_assets.recommender.packing import pack_groups
from pipeline_assets.recommender.pair_features import PairFeatures
from pipeline_assets.recommender.retriever import Fitted

PAIR_FEATURES: tuple[str, ...] = (
    "pair_n_orders",  # orders of the customer with the product
    "pair_n_orders_28d",
    "pair_n_orders_91d",
    "pair_decayed_fast",  # sum over orders of 0.5 ** (age / 21 days)
    "pair_decayed_slow",  # the same with 90 days
    "pair_order_share",  # of the customer's orders, those with the product
    "pair_days_since_last",
    "pair_days_since_first",
    "pair_gap_days",  # mean days between purchases; missing below two
    "pair_overdue",  # days since last / mean gap
    "pair_quantity_mean",
    "pair_amount_mean",
    "pair_promoted_share",  # of the pair's purchases, those while on display or in the mailer
    "pair_discount_share",
    "pair_place",  # rank within the candidate source that named it
    "pair_source",  # which source that was (index into candidates.SOURCES)
    "pair_type_days",  # days on which the customer bought the product's type
    "pair_type_decayed",
    "pair_type_share",  # of the type's decayed count, this product's part
    "pair_type_days_since_last",
    "pair_type_overdue",
    "pair_category_decayed",
    "pair_category_days_since_last",
    "pair_knn_score",  # collaborative filtering (retriever.py)
    "pair_store_display",  # 1: on display next week in the customer's home store; missing: the store has no plan
    "pair_store_mailer",  # 1: in the mailer of that store
    "pair_has_coupon",  # 1: the customer got a coupon for it that is valid next week
    "pair_decayed_share",  # of the customer's decayed_slow, this product's
    "pair_place_fast",  # rank among all that the customer ever bought by decayed_fast
    "pair_trip_rate",  # of the customer's trips since the first with the product, those with it
    "pair_trip_gap",  # mean trips between purchases; missing below two
    "pair_trip_overdue",  # trips since the last / mean trips between
    "pair_trip_decayed",  # share of the trips that had it, where each trip counts 0.95 of the next
    "pair_gap_min",  # shortest days between two purchases
    "pair_gap_std",  # of the days between purchases
    "pair_gap_median_overdue",  # days since last / median gap
    "pair_gap_max_overdue",  # days since last / longest gap
    "pair_hazard",  # chance that it is bought within seven days, from the pair's own gaps, and the product's where they are few (timing.py)
    "pair_product_hazard",  # the same from everybody's gaps with the product
    "pair_type_hazard",  # the same from everybody's gaps with products of its type
    "pair_mailed_share",  # of the pair's purchases, those while in the mailer
    "pair_n_unmailed",  # orders while it was not in a mailer
    "pair_type_mailed_share",  # of what the customer buys of its type (decayed), what is in the home store's mailer next week
    "pair_mailer_pull",  # orders of last week over those usual, of products that had next week's place in the mailer
    "pair_mailer_sales",  # orders a product and store with that place in the mailer last week
    "pair_price_ratio",  # price that the customer paid, a piece / mean price of 28 days
)
CUSTOMER_FEATURES: tuple[str, ...] = (
    "customer_n_orders",
    "customer_n_orders_28d",
    "customer_days_since_last_order",
    "customer_days_since_first_order",
    "customer_order_gap_days",
    "customer_basket_size",  # distinct products an order
    "customer_basket_amount",
    "customer_n_products",
    "customer_repeat_share",
    "customer_promoted_share",
    "customer_discount_share",
    "customer_amount_28d",
)
PRODUCT_FEATURES: tuple[str, ...] = (
    "product_orders_7d",
    "product_orders_28d",
    "product_orders_91d",
    "product_customers_91d",
    "product_trend",  # 4 x orders of 7 days / orders of 28 days
    "product_days_since_last_sale",
    "product_days_since_first_sale",
    "product_price",  # mean price of 28 days
    "product_price_ratio",  # mean price of 7 days / of all days
    "product_promoted_share",
    "product_n_buyers",
    "product_repeat_rate",  # of its buyers, those who bought it again
    "product_display_share",  # of the stores with a plan, those that display it next week
    "product_mailer_share",
    "product_is_new_in_mailer",  # in a mailer next week, not this week
    "product_type_orders_28d",
    "product_buyers_7d",  # customers
    "product_buyers_14d",  # customers who bought it 8 to 14 days ago
    "product_repeats_7d",  # of product_buyers_7d, those who had bought it before
    "product_repeat_ratio",  # product_repeats_7d / what the rates of all who had bought it before would give
    "product_unmailed_rate",  # orders a week while not in a mailer, of half a year
    "product_mailer_lift",  # orders in a week with a mailer / product_unmailed_rate
    "product_mailer_sales",  # mean over stores of pair_mailer_sales
)
HIERARCHY = ("department", "category", "type", "brand")
MODEL_FEATURES: tuple[str, ...] = PAIR_FEATURES + CUSTOMER_FEATURES + PRODUCT_FEATURES


def customer_features(snapshot: Snapshot) -> pyarrow.Table:
    """One row per known customer of the loaded bucket: customer_id and `CUSTOMER_FEATURES` (float32; all missing before the first order)."""
    columns = ", ".join(f"shopper.{name.removeprefix('customer_')}::float as {name}" for name in CUSTOMER_FEATURES)
    query = f"select customer_id, {columns} from customer left join shopper using (customer) order by customer_id"
    return snapshot.con.sql(query).to_arrow_table()


def product_features(snapshot: Snapshot) -> pyarrow.Table:
    """One row per sellable product that was ever sold or is promoted: product_id, hierarchy and `PRODUCT_FEATURES` (float32)."""
    expressions = {
        "product_trend": "4 * orders_7d / nullif(orders_28d, 0)",
        "product_price": "price_28d",
        "product_price_ratio": "price_7d / nullif(price_all, 0)",
    }
    columns = ", ".join(
        f"({expressions.get(name, name.removeprefix('product_'))})::float as {name}" for name in PRODUCT_FEATURES
    )
    found = snapshot.con.sql(
        f"""
        select product, department_key, category_key, type_key, brand_key, {columns} from item
        where n_buyers > 0 or mailer_share > 0 or display_share > 0 order by product
        """
    ).to_arrow_table()
    text = {"product_id": snapshot.stage.product_ids.take(found["product"].combine_chunks())}
    text |= {name: snapshot.stage.names.take(found[f"{name}_key"].combine_chunks()) for name in HIERARCHY}
    return pyarrow.table(text | {name: found[name] for name in PRODUCT_FEATURES})


_CUSTOMERS_AT_ONCE = 256  # whose columns are looked up together: 46 of them for 28,000 candidates stay in cache


def customer_product_features(snapshot: Snapshot, similar: Fitted | None = None) -> pyarrow.Table:
    """Packed candidates: one row per known customer of the loaded bucket: customer_id, candidate_ids (list of str), pair_features (bytes).

    `pair_features` is the little-endian float32 matrix (n candidates x `PAIR_FEATURES`), row-major; see packing.py.

    Args:
        similar: `similar_products` of the snapshot, where it is known already.
    """
    customers = snapshot.con.sql("select customer, customer_id from customer order by customer").to_arrow_table()
    keys = customers["customer"].to_numpy()
    named = candidates(snapshot, similar)
    edges, looked_up = (
        np.append(np.searchsorted(named["customer"].to_numpy(), keys), len(named)),
        PairFeatures(snapshot, keys),
    )
    matrix = np.empty((len(named), len(PAIR_FEATURES)), dtype=np.float32)
    for start in range(0, len(keys), _CUSTOMERS_AT_ONCE):
        rows = slice(*edges[[start, min(start + _CUSTOMERS_AT_ONCE, len(keys))]])
        columns = looked_up.of(named.iloc[rows])
        for column, name in enumerate(PAIR_FEATURES):
            matrix[rows, column] = columns[name]
    ids = snapshot.stage.product_ids.take(pyarrow.array(named["product"].to_numpy()))
    return pyarrow.table(
        {
            "customer_id": customers["customer_id"],
            "candidate_ids": pyarrow.ListArray.from_arrays(edges.astype(np.int32), ids),
            "pair_features": pack_groups(matrix, edges),
        }
    )


def feature_parts(snapshot: Snapshot, names: Sequence[str]) -> Iterator[dict[str, pyarrow.Table]]:
    """The tables of `names`, bucket by bucket: the rows of customers in the order of their ids, those of products all at once."""
    similar = similar_products(snapshot) if "customer_product" in names else None
    if "product" in names:
        yield {"product": product_features(snapshot)}
    for _ in snapshot.buckets():
        part = {"customer": customer_features(snapshot)} if "customer" in names else {}
        if "customer_product" in names:
            part["customer_product"] = customer_product_features(snapshot, similar)
        yield part
