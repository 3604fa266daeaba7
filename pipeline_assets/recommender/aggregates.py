"""As-of aggregates in DuckDB: everything that features and candidates count, from rows known at the end of day D.

`Snapshot` is the one entrance: it copies the rows with `event_date <= D` of sellable products into temporary tables with
integer keys, so that nothing computed from it can see the future. Ages are in days at the recommendation day T = D + 1
(a purchase on D has age 1). Sums of fractions are sums of whole billionths (`exact_sum`): adding floats in another order, because
of other rows in the marts, other buckets or another number of threads, would change the last bit and with it the digest of a day.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.pairs import lines_as_of, pairs_of, standing_of, to_table, types_of
from pipeline_assets.recommender.stage import EPOCH, PLAN_DAYS, Columns, Stage, columns_of
from pipeline_assets.recommender.timing import Waits, gaps_of, timing_of, waits_of

if TYPE_CHECKING:
    import duckdb

HALF_YEAR = 182  # days in which mailers are compared with other weeks: 26 whole weeks
PULL_PRIOR = 20

# Of all customers. Keys of types and categories are in the order of their names.
_COMMON = f"""
create or replace temp macro exact_sum(x) as sum((x * 1e9)::bigint) / 1e9;
create temp table product as
    select * exclude (is_sellable) from (
        select product, arg_max(department_key, event_date) as department_key, arg_max(category_key, event_date) as category_key,
            arg_max(type_key, event_date) as type_key, arg_max(brand_key, event_date) as brand_key,
            arg_max(is_sellable, event_date) as is_sellable
        from known_version where event_date <= $as_of group by product
    ) where is_sellable order by product;
create temp table shown as
    select product, store, max(case when is_now then is_display else 0 end) as on_display, max(mailer) filter (is_now) as mailer_now,
        max(mailer) filter (valid_to < $target) as mailer_before, (mailer_now is not null)::tinyint as in_mailer,
        (mailer_before is not null)::tinyint as was_in_mailer
    from (
        select product, store, valid_to, is_display, mailer, valid_from <= $target and valid_to >= $target as is_now from $plan
        where event_date between $as_of - {PLAN_DAYS} and $as_of and valid_to >= $target - 7
    ) semi join product using (product) group by product, store;
create temp table mailed as
    select distinct customer, campaign_id
    from fct_campaign_mailings join known_customer using (customer_id)
    where event_date <= $as_of and valid_from <= $target + 6 and valid_to >= $target;
"""

# Of the customers of one bucket, from their lines and pairs (pairs.py).
_COUNTED = """
create temp table home_store as
    select customer, arg_max(store, (n, store)) as store
    from (select customer, store, count(distinct trip) as n from line where store >= 0 group by all) group by customer;
create temp table category_affinity as
    select customer, category_key, exact_sum(decayed_slow) as category_decayed, min(days_since_last) as category_days_since_last
    from pair where category_key >= 0 group by customer, category_key;
create temp table shopper as
    select customer, n_orders, n_orders_28d, days_since_last_order, days_since_first_order,
        (days_since_first_order - days_since_last_order) / nullif(days - 1, 0) as order_gap_days,
        lines / n_orders as basket_size, amount / 1e9 / n_orders as basket_amount, n_products, 1 - n_products / lines as repeat_share,
        promoted_share, discount / 1e9 / nullif(discount / 1e9 + amount / 1e9, 0) as discount_share, amount_28d / 1e9 as amount_28d
    from (
        select customer, count(*) as lines, min(age) as days_since_last_order, max(age) as days_since_first_order,
            count(distinct age) as days, sum(amount) as amount, sum(discount) as discount, avg(is_promoted) as promoted_share,
            sum(case when age <= 28 then amount end) as amount_28d
        from line group by customer
    ) join (
        select customer, count(*) as n_orders, count(*) filter (age <= 28) as n_orders_28d
        from (select customer, trip, min(age) as age from line group by customer, trip) group by customer
    ) using (customer) join (select customer, count(*) as n_products from pair group by customer) using (customer);
"""

_PART = f"""
    select * from (
        select product, count(*) as orders, count(*) filter (age <= 7) as orders_7d, count(*) filter (age <= 28) as orders_28d,
            count(*) filter (age <= 91) as orders_91d, min(age) as days_since_last, max(age) as days_since_first,
            sum(amount)::hugeint as amount, sum(quantity)::hugeint as quantity,
            sum(case when age <= 28 then amount end)::hugeint as amount_28d, sum(case when age <= 28 then quantity end)::hugeint as quantity_28d,
            sum(case when age <= 7 then amount end)::hugeint as amount_7d, sum(case when age <= 7 then quantity end)::hugeint as quantity_7d,
            sum(is_promoted)::bigint as promoted, count(*) filter (age <= {HALF_YEAR} and is_mailed = 1) as mailed,
            count(*) filter (age <= {HALF_YEAR} and is_mailed = 0) as unmailed,
            coalesce(bit_or(1::bigint << ((age - 1) // 7)) filter (age <= {HALF_YEAR} and is_mailed = 1), 0) as mailed_weeks
        from line group by product
    ) join (
        select product, count(*) as buyers, count(*) filter (n_orders > 1) as repeaters, count(*) filter (days_since_last <= 91) as buyers_91d,
            count(*) filter (days_since_last <= 7) as buyers_7d, sum(in_second_week)::bigint as buyers_14d,
            count(*) filter (days_since_last <= 7 and days_since_first > 7) as repeats_7d,
            sum((least(7 * n_orders / (days_since_first + 14), 1) * 1e9)::bigint) filter (days_since_first > 7)::hugeint as expected_7d
        from pair group by product
    ) using (product)
"""

# Orders of four weeks by product and store: what plans are compared with.
_SOLD = """
    select product, store, count(*) filter (age <= 7) as week, count(*) filter (age > 7) as before
    from line where age <= 28 and store >= 0 group by product, store
"""
_MORE_SOLD = f"select product, store, sum(week) as week, sum(before) as before from (from sold_part union all {_SOLD}) group by product, store"

# With what other buckets counted: one row a product, whatever the number of buckets.
_MORE = f"""
    select product, sum(orders) as orders, sum(orders_7d) as orders_7d, sum(orders_28d) as orders_28d, sum(orders_91d) as orders_91d,
        min(days_since_last) as days_since_last, max(days_since_first) as days_since_first, sum(amount) as amount, sum(quantity) as quantity,
        sum(amount_28d) as amount_28d, sum(quantity_28d) as quantity_28d, sum(amount_7d) as amount_7d, sum(quantity_7d) as quantity_7d,
        sum(promoted) as promoted, sum(mailed) as mailed, sum(unmailed) as unmailed, bit_or(mailed_weeks) as mailed_weeks,
        sum(buyers) as buyers, sum(repeaters) as repeaters, sum(buyers_91d) as buyers_91d, sum(buyers_7d) as buyers_7d,
        sum(buyers_14d) as buyers_14d, sum(repeats_7d) as repeats_7d, sum(expected_7d) as expected_7d
    from (select * from item_part union all by name {_PART}) group by product
"""

# Of the customers of one bucket, whose candidates are next.
_LOADED = """
create temp table customer as
    select customer, customer_id from known_customer where first_day <= $as_of and bucket = $bucket order by customer;
create temp table mailing as
    select customer, campaign_id from mailed join customer using (customer);
create temp table offer as
    select distinct campaign_id, product
    from fct_coupons join known_product using (product_id) semi join product using (product)
    where event_date <= $as_of and campaign_id in (select campaign_id from mailing);
"""

# What the places in mailers did last week: orders a product and store, and against the three weeks before. A place is new or rare at
# first, so both sides of the ratio count 20 orders more.
_ITEM = f"""
create temp table pulled as
    select mailer_before as mailer_now, (coalesce(sum(week), 0) + {PULL_PRIOR}) / (coalesce(sum(before), 0) / 3 + {PULL_PRIOR}) as mailer_pull,
        coalesce(sum(week), 0) / count(*) as mailer_sales
    from shown left join sold_part using (product, store) where mailer_before is not null group by mailer_before;
create temp table item as
    with sold as (
        select product, orders_7d::bigint as orders_7d, orders_28d::bigint as orders_28d, orders_91d::bigint as orders_91d,
            buyers_91d::bigint as customers_91d, days_since_last as days_since_last_sale, days_since_first as days_since_first_sale,
            amount_28d / 1e9 / nullif(quantity_28d / 1e9, 0) as price_28d, amount_7d / 1e9 / nullif(quantity_7d / 1e9, 0) as price_7d,
            amount / 1e9 / nullif(quantity / 1e9, 0) as price_all, promoted / orders as promoted_share,
            buyers::bigint as n_buyers, repeaters / buyers as repeat_rate, buyers_7d::bigint as buyers_7d, buyers_14d::bigint as buyers_14d,
            repeats_7d::bigint as repeats_7d, repeats_7d / nullif(expected_7d / 1e9, 0) as repeat_ratio, unmailed / {HALF_YEAR // 7} as unmailed_rate,
            mailed / nullif(bit_count(mailed_weeks), 0) / nullif(unmailed_rate, 0) as mailer_lift
        from item_part
    ), shown_now as (
        select product, sum(on_display) as display_stores, sum(in_mailer) as mailer_stores,
            max(case when in_mailer = 1 and was_in_mailer = 0 then 1 else 0 end) as is_new_in_mailer,
            exact_sum(mailer_sales) / count(mailer_sales) as mailer_sales
        from shown left join pulled using (mailer_now) group by product
    ), stores as (select nullif(count(distinct store), 0) as n from shown)
    select product.*, orders_7d, orders_28d, orders_91d, customers_91d, days_since_last_sale, days_since_first_sale,
        price_28d, price_7d, price_all, promoted_share, n_buyers, repeat_rate,
        coalesce(display_stores, 0) / stores.n as display_share, coalesce(mailer_stores, 0) / stores.n as mailer_share,
        coalesce(is_new_in_mailer, 0) as is_new_in_mailer, mailer_sales, buyers_7d, buyers_14d, repeats_7d, repeat_ratio, unmailed_rate, mailer_lift,
        sum(orders_28d) over (partition by type_key) as type_orders_28d
    from product left join sold using (product) left join shown_now using (product) cross join stores;
"""

# Of a bucket, until its candidates are made: tables, and arrays that are shown to SQL as views.
_TABLES, _ARRAYS = ("home_store", "category_affinity", "shopper"), ("pair", "affinity")


class Snapshot:
    """Temporary tables of what is known at the end of `as_of`, in a connection that has the marts as views.

    Args:
        con: has `fct_purchases`, `dim_products`, `dim_customers`, `fct_store_promotions`, `fct_campaign_mailings` and
            `fct_coupons` (columns: dbt/models/marts/marts.yml). Its temporary tables are replaced.
        as_of: business day D.
        stage: purchases encoded for several days; without it, for this day.

    Tables of all customers: product, shown, item. Tables of one bucket of customers, the one that was loaded last: customer, pair,
    home_store, mailing, offer, affinity, category_affinity, shopper.

    Raises:
        NotEnoughData: no purchase of a sellable product is known by then.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, as_of: date, stage: Stage | None = None) -> None:
        self.con, self.as_of, self.stage = con, as_of, stage or Stage(con, as_of)
        self.waits: Waits  # of all customers
        for name in ("line", *_ARRAYS):
            con.unregister(name)  # those of the snapshot before, 0.2 GB
        self._run(_COMMON)
        known = con.sql("select product, type_key, category_key from product").fetchnumpy()
        self.is_sellable = np.zeros(len(self.stage.product_ids), dtype=bool)
        self.is_sellable[known["product"]] = True
        self.keys_of = {
            name: np.full(len(self.is_sellable), -1, dtype=np.int32) for name in ("type_key", "category_key")
        }
        for name, keys in self.keys_of.items():
            keys[known["product"]] = np.ma.filled(known[name], -1)
        for bucket in range(self.stage.n_buckets):
            self._count(bucket)
            con.execute(f"create or replace temp table item_part as {_MORE if bucket else _PART}")
            con.execute(f"create or replace temp table sold_part as {_MORE_SOLD if bucket else _SOLD}")
            if self.stage.n_buckets > 1:
                self.stage.keep(bucket, (*_TABLES, *_ARRAYS))
        con.unregister("line")
        self._run(_ITEM)
        self._counted: int = self.stage.n_buckets - 1
        self._bucket: int | None = None
        self.load(self._counted)
        if not con.execute("select count(*) from item_part").fetchall()[0][0]:
            raise NotEnoughData(
                f"features as of {as_of}",
                found="no purchase of a sellable product",
                wanted="at least one",
                fix="materialise the warehouse first",
            )

    def _count(self, bucket: int) -> None:
        """The tables of one bucket's customers, from its lines, which are read once."""
        line = lines_as_of(self.stage.lines(bucket), (self.as_of - EPOCH).days, self.is_sellable, **self.keys_of)
        pair, gaps = pairs_of(line), gaps_of(line)
        waits = waits_of(pair, gaps, len(self.is_sellable))
        self.waits = self.waits + waits if bucket else waits
        self.con.register("line", to_table(line))
        self._show({"pair": pair | standing_of(pair) | timing_of(line, pair, gaps), "affinity": types_of(line, pair)})
        self._run(_COUNTED)

    def _show(self, arrays: dict[str, Columns]) -> None:
        self.arrays = arrays
        for name, columns in arrays.items():
            self.con.register(name, to_table(columns))

    def load(self, bucket: int) -> None:
        """Make `bucket` the one that the tables of customers hold."""
        if bucket != self._counted:
            for name in _TABLES:
                self._run(f"create temp table {name} as select * from {self.stage.kept(bucket, name)}")
            self._show({name: columns_of(self.con.sql(f"from {self.stage.kept(bucket, name)}")) for name in _ARRAYS})
            self._counted = bucket
        if bucket != self._bucket:
            self._run(_LOADED, bucket)
            self._bucket = bucket

    def buckets(self) -> Iterator[int]:
        """Load one bucket after the other, in the order of their customers' ids."""
        for bucket in range(self.stage.n_buckets):
            self.load(bucket)
            yield bucket

    def _run(self, script: str, bucket: int = 0) -> None:
        """Run statements, replacing the tables that they create."""
        values = {"as_of": self.as_of, "target": self.as_of + timedelta(days=1), "bucket": bucket}
        for statement in filter(str.strip, script.replace("$plan", self.stage.plan).split(";\n")):
            words = statement.split(maxsplit=4)
            if words[:3] == ["create", "temp", "table"]:
                self.con.execute(f"drop table if exists temp.{words[3]}")
            used = {name: value for name, value in values.items() if f"${name}" in statement}
            self.con.execute(statement, used or None)
