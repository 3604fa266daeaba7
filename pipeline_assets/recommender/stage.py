"""Purchases and promotions with dense integer keys, encoded once for all as-of days of a run, and split into buckets of customers.

String keys cost more than everything that is counted by them: 0.5 CPU s an as-of day at the end of the sample year. A bucket is
a range of customers in the order of their ids, so that tables written bucket by bucket are in one canonical order whatever
the number of buckets (docs/adr/0018-feature-buckets.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

if TYPE_CHECKING:
    import duckdb

# Lines of one bucket; a customer counts for 500 more, for scores and candidates (50 kB). The sample's year is 2.7 M: one bucket, 0.8 GB.
BUCKET_ROWS = 3_000_000
_FLUSH_ROWS = 30_000  # rows that a bucket's writer holds: 90 buckets at 100 times the sample, 45 bytes a row, 0.1 GB

PLAN_DAYS = 21  # a plan is known at most two weeks before it ends; older rows of the largest mart are not looked at
# Days are small integers, whole days since 1970-01-01, wherever they are counted with.
EPOCH = date(1970, 1, 1)

_KEYS = """
create temp table known_product as
    select (row_number() over (order by product_id) - 1)::integer as product, product_id
    from (select distinct product_id from dim_products where event_date <= $last and is_sellable);
create temp table known_name as
    select (row_number() over (order by name) - 1)::integer as key, name from (
        select distinct unnest([department, category, type, brand]) as name from dim_products where event_date <= $last
    ) where name is not null;
create temp table known_version as
    select product, event_date, is_sellable, departments.key as department_key, categories.key as category_key,
        types.key as type_key, brands.key as brand_key
    from dim_products join known_product using (product_id)
    left join known_name as departments on departments.name = department left join known_name as categories on categories.name = category
    left join known_name as types on types.name = type left join known_name as brands on brands.name = brand
    where event_date <= $last;
create temp table known_store as
    select (row_number() over (order by store_id) - 1)::integer as store, store_id from (
        select store_id from fct_purchases where event_date <= $last
        union select store_id from fct_store_promotions where event_date between $first - {PLAN_DAYS} and $last
    ) where store_id is not null;
create temp table known_customer as
    select (row_number() over (order by customer_id) - 1)::integer as customer, customer_id, first_day,
        (dense_rank() over (order by before // $bucket_rows) - 1)::integer as bucket
    from (
        select customer_id, min(event_date) as first_day, sum(sum(n) + 500) over (order by customer_id) - sum(n) - 500 as before
        from (
            select customer_id, min(event_date) as event_date, 0 as n from dim_customers where event_date <= $last group by customer_id
            union all
            select customer_id, min(event_date), count(*) from fct_purchases where event_date <= $last group by customer_id
        ) group by customer_id
    );
""".replace("{PLAN_DAYS}", str(PLAN_DAYS))

_PLAN = """
    select product, store, valid_from, valid_to, event_date,
        (display_placement is not null)::tinyint as is_display, case when mailer_placement is not null then hash(mailer_placement) end as mailer
    from fct_store_promotions join known_product using (product_id) left join known_store using (store_id)
    where event_date between date '{first}' - {days} and date '{last}'
"""

# Money and quantities in whole billionths (aggregates.py).
_LINES = """
    select bucket, customer, product, hash(order_id) as order_id, coalesce(store, -1) as store,
        (event_date - date '1970-01-01')::integer as day,
        (quantity * 1e9)::bigint as quantity, (amount * 1e9)::bigint as amount, (discount * 1e9)::bigint as discount,
        greatest(is_on_display, is_in_mailer)::tinyint as is_promoted, is_in_mailer::tinyint as is_mailed
    from fct_purchases join known_product using (product_id) join known_customer using (customer_id) left join known_store using (store_id)
    where event_date <= date '{last}'
"""

# `trip` numbers the orders of a bucket by customer and time: whole numbers instead of keys that are looked up again every day.
_ORDERED = """
    with bought as materialized ({lines}), trips as (
        select customer, order_id, (row_number() over (order by customer, min(day), order_id) - 1)::integer as trip
        from bought group by customer, order_id
    )
    select bought.* exclude (bucket, order_id), trip from bought join trips using (customer, order_id) order by customer, product, day
"""

Columns = dict[str, NDArray[Any]]


class Stage:
    """What is encoded once for the as-of days from `first` to `last`, in a connection that has the marts as views.

    Args:
        con: as for `aggregates.Snapshot`. Its temporary tables known_product, known_name, known_version, known_store, known_customer
            and plan are replaced.
        last: the newest as-of day that will be asked for; `first` the oldest, the same by default.
        folder: empty, for files of buckets and of the plan. Without it there is one bucket, and all is in memory.
        bucket_rows: about how many lines make a bucket.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        last: date,
        folder: Path | None = None,
        bucket_rows: int = BUCKET_ROWS,
        first: date | None = None,
    ) -> None:
        self._con, self._folder, first = con, folder, first or last
        values = {"last": last, "first": first, "bucket_rows": bucket_rows if folder else 1 << 62}
        for statement in filter(str.strip, _KEYS.split(";\n")):
            con.execute(f"drop table if exists temp.{statement.split(maxsplit=4)[3]}")
            con.execute(statement, {name: value for name, value in values.items() if f"${name}" in statement})
        self.plan = self._plan(_PLAN.format(first=first, last=last, days=PLAN_DAYS))
        self.product_ids = self._names("select product_id from known_product order by product")
        self.names = self._names("select name from known_name order by key")
        lines = _LINES.format(last=last)
        (highest,) = con.execute("select max(bucket) from known_customer").fetchall()[0]
        self.n_buckets = (highest or 0) + 1
        self._lines: Columns = {}
        if self.n_buckets == 1:
            self._lines = columns_of(con.sql(_ORDERED.format(lines=lines)))
        else:
            self._split(lines)

    def _names(self, query: str) -> pyarrow.Array:
        found = self._con.sql(query).to_arrow_table().column(0).combine_chunks()
        return found.cast(pyarrow.string())

    def _plan(self, plan: str) -> str:
        """What to select from for promotions with keys: each is read at three weekly as-of days, so runs of many keep them in a file."""
        if self._folder is None:
            self._con.execute(f"create or replace temp table plan as {plan}")
            return "plan"
        self._con.execute(f"copy ({plan}) to '{self._folder}/plan.parquet'")
        return f"read_parquet('{self._folder}/plan.parquet')"

    def _split(self, lines: str) -> None:
        assert self._folder is not None, "several buckets are asked for with a folder"
        self._con.execute(f"set partitioned_write_flush_threshold = {_FLUSH_ROWS}")
        self._con.execute(f"set partitioned_write_max_open_files = {self.n_buckets}")
        unordered = self._folder / "unordered"
        self._con.execute(f"copy ({lines}) to '{unordered}' (format parquet, partition_by (bucket))")
        for bucket in range(self.n_buckets):
            part = unordered / f"bucket={bucket}"
            if part.exists():
                source = f"select *, 0 as bucket from read_parquet('{part}/*.parquet', hive_partitioning = false)"
                self._con.execute(f"copy ({_ORDERED.format(lines=source)}) to '{self._file(bucket)}'")
                for file in part.iterdir():
                    file.unlink()
            else:  # customers without a purchase
                self._con.execute(
                    f"copy ({_ORDERED.format(lines=f'from ({lines}) limit 0')}) to '{self._file(bucket)}'"
                )

    def _file(self, bucket: int) -> Path:
        assert self._folder is not None, "several buckets are asked for with a folder"
        return self._folder / f"{bucket}.parquet"

    def keep(self, bucket: int, tables: Sequence[str]) -> None:
        """Put the connection's temporary `tables` of a bucket aside, until others of that name are made and these are `kept`."""
        for name in tables:
            self._con.execute(f"copy {name} to '{self._folder}/{name}-{bucket}.parquet'")

    def kept(self, bucket: int, name: str) -> str:
        """What to select from for a table that was put aside; with one bucket it is where it was."""
        return name if self.n_buckets == 1 else f"read_parquet('{self._folder}/{name}-{bucket}.parquet')"

    def lines(self, bucket: int) -> Columns:
        """The purchases of a bucket, ordered by customer, product and day: the columns of `_LINES` but for the bucket."""
        return (
            self._lines
            if self.n_buckets == 1
            else columns_of(self._con.sql(f"from read_parquet('{self._file(bucket)}')"))
        )


def columns_of(found: duckdb.DuckDBPyRelation) -> Columns:
    """The columns of a query, by name. Only floats may be null, as NaN."""
    columns = found.fetchnumpy().items()
    return {name: np.ma.filled(c, np.nan) if c.dtype.kind == "f" else np.asarray(c) for name, c in columns}
