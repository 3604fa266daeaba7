"""The dbt step's own DuckDB file: prepared from a lake snapshot, built by dbt, published back to the lake.

Nobody else opens the file (a DuckDB writer excludes even readers), so the step runs in pool `warehouse` of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow

from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.sources.landing import groups

MARTS = (
    "fct_purchases",
    "fct_store_promotions",
    "fct_campaign_mailings",
    "fct_coupons",
    "dim_products",
    "dim_customers",
)
_LARGE = "fct_store_promotions"  # 20 M rows on the sample: published in groups of days


class Warehouse(dg.ConfigurableResource):
    """The DuckDB file of the dbt project, by path."""

    path: str

    def prepare(self, lake: Lake, first: date, last: date) -> None:
        """Point schema `lake` at the files of validated days up to `last`, and set the run window.

        Promotions may begin two weeks before the window, so exposures of that time are listed as well.
        """
        import duckdb

        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(self.path) as con:
            con.execute("create schema if not exists lake")
            con.execute(
                "create or replace table lake.run_window as select ?::date as first_day, ?::date as last_day",
                [first, last],
            )
            for feed in FEEDS.values():
                files = lake.files(f"validated/{feed.name}", first, last)
                con.execute(f"create or replace view lake.{feed.name} as {_reader(files, feed.arrow_schema)}")

    def publish(
        self, lake: Lake, days: Sequence[date], run_id: str
    ) -> dict[str, tuple[dict[date, int], dict[date, str]]]:
        """Copy the marts' rows of `days` to `warehouse/<mart>` in the lake.

        Returns:
            For each mart the row count and the content digest of every day.
        """
        import duckdb

        result = {}
        with duckdb.connect(self.path, read_only=True) as con:
            for mart in MARTS:
                counts: dict[date, int] = {}
                digests: dict[date, str] = {}
                for group in groups(days, 28 if mart == _LARGE else 400):
                    # every column in the order: the rows of a mart have no duplicates, so this order is canonical
                    rows = con.sql(
                        f"select * from warehouse.{mart} where event_date between '{group[0]}' and '{group[-1]}' order by all"
                    ).to_arrow_table()
                    for day, content in lake.replace_days(f"warehouse/{mart}", rows, group, run_id).items():
                        counts[day], digests[day] = content.rows, content.digest
                result[mart] = (counts, digests)
        return result


def _reader(files: list[str], schema: pyarrow.Schema) -> str:
    if not files:
        types = {
            "string": "varchar",
            "double": "double",
            "bool": "boolean",
            "date32[day]": "date",
            "timestamp[us, tz=UTC]": "timestamptz",
        }
        columns = ", ".join(f"cast(null as {types[str(field.type)]}) as {field.name}" for field in schema)
        return f"select {columns} where false"
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"select * from read_parquet([{listed}], hive_partitioning = true, hive_types = {{'event_date': date}})"
