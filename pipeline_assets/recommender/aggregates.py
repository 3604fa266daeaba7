"""As-of aggregates in DuckDB: everything that features and candidates count, from rows known at the end of day D.

`Snapshot` is the one entrance: it copies the rows with `event_date <= D` of sellable products into temporary tables with
dense integer keys, so that nothing computed from it can see the future. Ages are in days at the recommendation day T = D + 1
(a purchase on D has age 1). Sums of fractions are sums of whole billionths (`exact_sum`): adding floats in another order, because
of other rows in the marts or another number of threads, would change the last bit and with it the digest of a day.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import NotEnoughData

if TYPE_CHECKING:
    import duckdb

# Half-lives in days: 90 is the best single decay for a personal counter on the sample (docs/design/evaluation.md); 21 follows changes of habit.
SLOW, FAST = 90, 21

_BASE = """
create or replace temp macro exact_sum(x) as sum((x * 1e9)::bigint) / 1e9;
create temp table product as
    select (row_number() over (order by product_id) - 1)::integer as product, product_id,
        department, category, type, brand
    from (
        select product_id, arg_max(department, event_date) as department, arg_max(category, event_date) as category,
            arg_max(type, event_date) as type, arg_max(brand, event_date) as brand,
            arg_max(is_sellable, event_date) as is_sellable
        from dim_products where event_date <= $as_of group by product_id
    ) where is_sellable;
create temp table customer as
    select (row_number() over (order by customer_id) - 1)::integer as customer, customer_id
    from (
        select customer_id from dim_customers where event_date <= $as_of
        union
        select customer_id from fct_purchases where event_date <= $as_of
    );
create temp table line as
    select customer, product, category, type, hash(order_id) as order_id, store_id, quantity, amount, discount,
        greatest(is_on_display, is_in_mailer) as is_promoted, ($as_of - event_date + 1)::integer as age
    from fct_purchases join product using (product_id) join customer using (customer_id)
    where event_date <= $as_of;
create temp table home_store as
    select customer, arg_max(store_id, (n, store_id)) as store_id
    from (select customer, store_id, count(distinct order_id) as n from line where store_id is not null group by all) group by customer;
create temp table shown as
    select product, store_id, max(valid_from <= $target and valid_to >= $target) as is_now,
        max(case when valid_from <= $target and valid_to >= $target and display_placement is not null then 1 else 0 end) as on_display,
        max(case when valid_from <= $target and valid_to >= $target and mailer_placement is not null then 1 else 0 end) as in_mailer,
        max(case when valid_to < $target and mailer_placement is not null then 1 else 0 end) as was_in_mailer
    from fct_store_promotions join product using (product_id)
    where event_date <= $as_of and valid_to >= $target - 7
    group by product, store_id;
create temp table mailing as
    select distinct customer, campaign_id
    from fct_campaign_mailings join customer using (customer_id)
    where event_date <= $as_of and valid_from <= $target + 6 and valid_to >= $target;
create temp table offer as
    select distinct campaign_id, product
    from fct_coupons join product using (product_id)
    where event_date <= $as_of and campaign_id in (select campaign_id from mailing);
"""

_PAIR = f"""
create temp table pair as
    select customer, product, any_value(type) as type, any_value(category) as category, count(*) as n_orders,
        count(*) filter (age <= 28) as n_orders_28d, count(*) filter (age <= 91) as n_orders_91d,
        exact_sum(exp(-age * ln(2) / {FAST})) as decayed_fast, exact_sum(exp(-age * ln(2) / {SLOW})) as decayed_slow,
        min(age) as days_since_last, max(age) as days_since_first, exact_sum(quantity) / count(*) as quantity_mean, exact_sum(amount) / count(*) as amount_mean,
        avg(is_promoted) as promoted_share, exact_sum(discount) / nullif(exact_sum(discount) + exact_sum(amount), 0) as discount_share
    from line group by customer, product;
create temp table affinity as
    select customer, type, any_value(category) as category, count(*) as type_days, exact_sum(decayed) as type_decayed,
        min(age) as type_days_since_last, (max(age) - min(age)) / nullif(count(*) - 1, 0) as type_gap_days
    from (
        select customer, type, age, any_value(category) as category, exact_sum(exp(-age * ln(2) / {SLOW})) as decayed
        from line group by customer, type, age
    ) group by customer, type;
create temp table category_affinity as
    select customer, category, exact_sum(exp(-age * ln(2) / {SLOW})) as category_decayed, min(age) as category_days_since_last
    from line group by customer, category;
"""

_CUSTOMER = """
create temp table shopper as
    select customer, count(distinct order_id) as n_orders, count(distinct order_id) filter (age <= 28) as n_orders_28d,
        min(age) as days_since_last_order, max(age) as days_since_first_order,
        (max(age) - min(age)) / nullif(count(distinct age) - 1, 0) as order_gap_days,
        count(*) / count(distinct order_id) as basket_size, exact_sum(amount) / count(distinct order_id) as basket_amount,
        count(distinct product) as n_products, 1 - count(distinct product) / count(*) as repeat_share,
        avg(is_promoted) as promoted_share, exact_sum(discount) / nullif(exact_sum(discount) + exact_sum(amount), 0) as discount_share,
        exact_sum(case when age <= 28 then amount end) as amount_28d
    from line group by customer;
"""

_ITEM = """
create temp table item as
    with sold as (
        select product, count(*) filter (age <= 7) as orders_7d, count(*) filter (age <= 28) as orders_28d,
            count(*) filter (age <= 91) as orders_91d, count(distinct customer) filter (age <= 91) as customers_91d,
            min(age) as days_since_last_sale, max(age) as days_since_first_sale,
            exact_sum(case when age <= 28 then amount end) / nullif(exact_sum(case when age <= 28 then quantity end), 0) as price_28d,
            exact_sum(case when age <= 7 then amount end) / nullif(exact_sum(case when age <= 7 then quantity end), 0) as price_7d,
            exact_sum(amount) / nullif(exact_sum(quantity), 0) as price_all, avg(is_promoted) as promoted_share
        from line group by product
    ), buyers as (
        select product, count(*) as n_buyers, avg(case when n_orders > 1 then 1 else 0 end) as repeat_rate from pair group by product
    ), shown_now as (
        select product, sum(on_display) as display_stores, sum(in_mailer) as mailer_stores,
            max(case when in_mailer = 1 and was_in_mailer = 0 then 1 else 0 end) as is_new_in_mailer
        from shown group by product
    ), stores as (select nullif(count(distinct store_id), 0) as n from shown)
    select product.*, orders_7d, orders_28d, orders_91d, customers_91d, days_since_last_sale, days_since_first_sale,
        price_28d, price_7d, price_all, promoted_share, n_buyers, repeat_rate,
        coalesce(display_stores, 0) / stores.n as display_share, coalesce(mailer_stores, 0) / stores.n as mailer_share,
        coalesce(is_new_in_mailer, 0) as is_new_in_mailer,
        sum(orders_28d) over (partition by type) as type_orders_28d
    from product left join sold using (product) left join buyers using (product) left join shown_now using (product) cross join stores;
"""


class Snapshot:
    """Temporary tables of what is known at the end of `as_of`, in a connection that has the marts as views.

    Args:
        con: has `fct_purchases`, `dim_products`, `dim_customers`, `fct_store_promotions`, `fct_campaign_mailings` and
            `fct_coupons` (columns: dbt/models/marts/marts.yml). Its temporary tables are replaced.
        as_of: business day D.

    Tables: product, customer, line, home_store, shown, mailing, offer, pair, affinity, category_affinity, shopper, item.

    Raises:
        NotEnoughData: no purchase of a sellable product is known by then.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, as_of: date) -> None:
        self.con, self.as_of = con, as_of
        for name in (
            "product",
            "customer",
            "line",
            "home_store",
            "shown",
            "mailing",
            "offer",
            "pair",
            "affinity",
            "category_affinity",
            "shopper",
            "item",
        ):
            con.execute(f"drop table if exists temp.{name}")
        target = as_of + timedelta(days=1)
        for statement in (_BASE + _PAIR + _CUSTOMER + _ITEM).split(";\n"):
            if statement.strip():
                used = {
                    name: value for name, value in (("as_of", as_of), ("target", target)) if f"${name}" in statement
                }
                con.execute(statement, used or None)
        found = con.execute("select count(*) from line").fetchall()[0][0]
        if not found:
            raise NotEnoughData(
                f"features as of {as_of}",
                found="no purchase of a sellable product",
                wanted="at least one",
                fix="materialise the warehouse first",
            )
