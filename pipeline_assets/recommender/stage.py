"""Purchases with dense integer keys, encoded once for all as-of days of a run, and split into buckets of customers.

String keys cost more than everything that is counted by them: 0.5 CPU s an as-of day at the end of the sample year. A bucket is
a range of customers in the order of their ids, so that tables written bucket by bucket are in one canonical order whatever
the number of buckets (docs/adr/0018-feature-buckets.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

# Lines of one bucket; a customer counts for 500 more, for scores and candidates (50 kB). The sample's year is 2.7 M: one bucket, 0.8 GB.
BUCKET_ROWS = 3_000_000
_FLUSH_ROWS = 30_000  # rows that a bucket's writer holds: 90 buckets at 100 times the sample, 45 bytes a row, 0.1 GB

_KEYS = """
create temp table known_product as
    select (row_number() over (order by product_id) - 1)::integer as product, product_id
    from (select distinct product_id from dim_products where event_date <= $last and is_sellable);
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
"""

# Money and quantities in whole billionths (aggregates.py).
_LINES = """
    select bucket, customer, product, hash(order_id) as order_id, store_id, event_date,
        (quantity * 1e9)::bigint as quantity, (amount * 1e9)::bigint as amount, (discount * 1e9)::bigint as discount,
        greatest(is_on_display, is_in_mailer)::tinyint as is_promoted
    from fct_purchases join known_product using (product_id) join known_customer using (customer_id)
    where event_date <= date '{last}'
"""


class Stage:
    """Encoded purchases up to `last`, in a connection that has the marts as views.

    Args:
        con: as for `aggregates.Snapshot`. Its temporary tables known_product, known_customer and, for one bucket, staged are replaced.
        last: the newest as-of day that will be asked for.
        folder: empty, for the buckets' files. Without it there is one bucket, in memory.
        bucket_rows: about how many lines make a bucket.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, last: date, folder: Path | None = None, bucket_rows: int = BUCKET_ROWS
    ) -> None:
        self._con, self._folder = con, folder
        for name in ("known_product", "known_customer", "staged"):
            con.execute(f"drop table if exists temp.{name}")
        for statement in _KEYS.split(";\n"):
            if statement.strip():
                values = {"last": last, "bucket_rows": bucket_rows if folder else 1 << 62}
                con.execute(statement, {name: value for name, value in values.items() if f"${name}" in statement})
        lines = _LINES.format(last=last)
        (highest,) = con.execute("select max(bucket) from known_customer").fetchall()[0]
        self.n_buckets = (highest or 0) + 1
        if self.n_buckets == 1:
            # neighbours in memory are neighbours in the hash tables of every aggregate: twice as fast as unordered
            con.execute(f"create temp table staged as {lines} order by customer, product, event_date")
        else:
            self._split(lines)

    def _split(self, lines: str) -> None:
        assert self._folder is not None, "several buckets are asked for with a folder"
        self._con.execute(f"set partitioned_write_flush_threshold = {_FLUSH_ROWS}")
        self._con.execute(f"set partitioned_write_max_open_files = {self.n_buckets}")
        unordered = self._folder / "unordered"
        self._con.execute(f"copy ({lines}) to '{unordered}' (format parquet, partition_by (bucket))")
        for bucket in range(self.n_buckets):
            part = unordered / f"bucket={bucket}"
            if part.exists():
                source = f"select * from read_parquet('{part}/*.parquet', hive_partitioning = false)"
                self._con.execute(f"copy ({source} order by customer, product, event_date) to '{self._file(bucket)}'")
                for file in part.iterdir():
                    file.unlink()
            else:  # customers without a purchase
                self._con.execute(f"copy (select * exclude (bucket) from ({lines}) limit 0) to '{self._file(bucket)}'")

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

    def lines(self, bucket: int) -> str:
        """What to select from for the purchases of a bucket: customer, product, order_id, store_id, event_date, quantity, ..."""
        return "staged" if self.n_buckets == 1 else f"read_parquet('{self._file(bucket)}')"
