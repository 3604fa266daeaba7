"""Features as of a business day: the one declaration of their names, and how each is computed.

The same rows are read by training (weekly cut-offs), batch scoring and the API, so they cannot differ. Model columns are
`PAIR_FEATURES + CUSTOMER_FEATURES + PRODUCT_FEATURES`, float32, NaN = missing; the list travels with the model.
Ages are in days at T = D + 1, amounts in the shop's currency, shares between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.candidates import candidates, similar_products
from pipeline_assets.recommender.packing import F32, pack_groups
from pipeline_assets.recommender.retriever import Neighbours

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
)
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
    return snapshot.con.sql(
        f"""
        select product_id, department, category, type, brand, {columns} from item
        where n_buyers > 0 or mailer_share > 0 or display_share > 0 order by product_id
        """
    ).to_arrow_table()


def customer_product_features(snapshot: Snapshot, similar: Neighbours | None = None) -> pyarrow.Table:
    """Packed candidates: one row per known customer of the loaded bucket: customer_id, candidate_ids (list of str), pair_features (bytes).

    `pair_features` is the little-endian float32 matrix (n candidates x `PAIR_FEATURES`), row-major; see packing.py.

    Args:
        similar: `similar_products` of the snapshot, where it is known already.
    """
    named = candidates(snapshot, similar)
    named["position"] = np.arange(len(named), dtype=np.int32)
    snapshot.con.register("named", named)
    columns = ", ".join(f"{name}::float as {name}" for name in PAIR_FEATURES)
    reader = snapshot.con.sql(f"select position, {columns} from ({_PAIR_QUERY})").to_arrow_reader(_ROWS_AT_ONCE)
    matrix = np.empty((len(named), len(PAIR_FEATURES)), dtype=np.float32)
    for batch in (
        reader
    ):  # rows come in the order of the joins; a few at a time, so that the rows that are being filled stay in cache
        block = np.empty((len(batch), len(PAIR_FEATURES)), dtype=np.float32)
        for column, name in enumerate(PAIR_FEATURES):
            block[:, column] = batch[name].to_numpy(zero_copy_only=False)  # nulls become NaN
        matrix[batch["position"].to_numpy()] = block
    snapshot.con.unregister("named")
    return _packed(snapshot, named, matrix)


_ROWS_AT_ONCE = 2048  # 27 columns of them are 0.2 MB; 8192 rows fill the matrix at less than half the speed


_PAIR_QUERY = """
    select named.position,
        pair.n_orders as pair_n_orders, pair.n_orders_28d as pair_n_orders_28d, pair.n_orders_91d as pair_n_orders_91d,
        pair.decayed_fast as pair_decayed_fast, pair.decayed_slow as pair_decayed_slow,
        pair.n_orders / shopper.n_orders as pair_order_share,
        pair.days_since_last as pair_days_since_last, pair.days_since_first as pair_days_since_first,
        (pair.days_since_first - pair.days_since_last) / nullif(pair.n_orders - 1, 0) as pair_gap_days,
        pair.days_since_last / nullif(pair_gap_days, 0) as pair_overdue,
        pair.quantity_mean as pair_quantity_mean, pair.amount_mean as pair_amount_mean,
        pair.promoted_share as pair_promoted_share, pair.discount_share as pair_discount_share,
        named.place as pair_place, named.source as pair_source,
        affinity.type_days as pair_type_days, affinity.type_decayed as pair_type_decayed,
        pair.decayed_slow / affinity.type_decayed as pair_type_share,
        affinity.type_days_since_last as pair_type_days_since_last,
        affinity.type_days_since_last / nullif(affinity.type_gap_days, 0) as pair_type_overdue,
        category_affinity.category_decayed as pair_category_decayed,
        category_affinity.category_days_since_last as pair_category_days_since_last,
        named.knn_score as pair_knn_score,
        case when plan.store_id is not null then coalesce(shown.on_display, 0) end as pair_store_display,
        case when plan.store_id is not null then coalesce(shown.in_mailer, 0) end as pair_store_mailer,
        case when coupon.product is not null then 1 else 0 end as pair_has_coupon
    from named
    join item using (product)
    left join pair on pair.customer = named.customer and pair.product = named.product
    left join shopper on shopper.customer = named.customer
    left join affinity on affinity.customer = named.customer and affinity.type_key = item.type_key
    left join category_affinity on category_affinity.customer = named.customer and category_affinity.category_key = item.category_key
    left join home_store on home_store.customer = named.customer
    left join (select distinct store_id from shown) as plan on plan.store_id = home_store.store_id
    left join shown on shown.store_id = home_store.store_id and shown.product = named.product
    left join (
        select distinct named.customer, named.product
        from named join mailing on mailing.customer = named.customer
        join offer on offer.campaign_id = mailing.campaign_id and offer.product = named.product
    ) as coupon on coupon.customer = named.customer and coupon.product = named.product
"""


def _packed(snapshot: Snapshot, named: pd.DataFrame, matrix: F32) -> pyarrow.Table:
    customers = snapshot.con.sql("select customer, customer_id from customer order by customer").to_arrow_table()
    keys = customers["customer"].to_numpy()
    edges = np.append(np.searchsorted(named["customer"].to_numpy(), keys), len(named))
    products = snapshot.con.sql("select product, product_id from product order by product").to_arrow_table()
    positions = np.searchsorted(products["product"].to_numpy(), named["product"].to_numpy())
    ids = products["product_id"].combine_chunks().take(pyarrow.array(positions))
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
