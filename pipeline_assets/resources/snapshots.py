"""The lake's marts as DuckDB views for the pure feature code: an explicit file list of the current versions, never a glob."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.aggregates import PLAN_DAYS
from pipeline_assets.recommender.errors import BlockedPartition
from pipeline_assets.resources.lake import Lake

if TYPE_CHECKING:
    import duckdb

_FEED_OF = {  # mart -> the feed whose verdicts say which of its days may be read
    "fct_purchases": "purchases",
    "dim_products": "products",
    "dim_customers": "customers",
    "fct_campaign_mailings": "exposures",
    "fct_coupons": "exposures",
    "fct_store_promotions": "exposures",
}
_RECENT = {"fct_store_promotions": PLAN_DAYS}
MEMORY = "400MB"  # of DuckDB; what does not fit goes to the folder for what is temporary (1 GB: no faster, 140 MB more at the peak)


def require_marts(lake: Lake, first: date, last: date) -> None:
    """A passed day whose purchases are not in the marts would be counted as a day without purchases.

    Raises:
        BlockedPartition: naming the first day from `first` to `last` that has valid purchases and was never built.
    """
    built = lake.days("warehouse/fct_purchases")
    for day, verdict in sorted(lake.verdicts("purchases", first, last).items()):
        if verdict.status == "passed" and verdict.rows_valid and day not in built:
            raise BlockedPartition(
                f"warehouse/fct_purchases of {day}",
                found=f"none of the {verdict.rows_valid} valid purchases of the day",
                wanted="a built day",
                fix=f"run the job `marts` for {day}",
            )


@contextmanager
def marts_as_of(
    lake: Lake, as_of: date, threads: int, first: date | None = None, folder: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A private in-memory DuckDB with a view per mart, holding no row after `as_of` and none of a blocked day.

    A day that was good once, was delivered again and is blocked now still has its old rows in the marts; they are not read.

    Args:
        first: the earliest day that will be asked about; plans are listed from `PLAN_DAYS` before it. `as_of` by default.
        folder: where DuckDB may put what exceeds its memory.

    Raises:
        NotEnoughData: a mart has never been published.
    """
    import duckdb

    blocked = {feed: lake.blocked_days(feed, date.min, as_of) for feed in sorted(set(_FEED_OF.values()))}
    config = {"threads": threads, "memory_limit": MEMORY} | ({"temp_directory": str(folder)} if folder else {})
    with duckdb.connect(config=config) as con:
        for mart, feed in _FEED_OF.items():
            unread = "".join(f" and event_date <> date '{day}'" for day in blocked[feed])
            start = (first or as_of) - timedelta(days=_RECENT[mart]) if mart in _RECENT else None
            files = lake.files(f"warehouse/{mart}", start, as_of) or lake.files(f"warehouse/{mart}")[:1]
            if not files:  # published and never had a row, as in a shop without campaigns; or never published, which `read` refuses
                con.register(mart, lake.read(f"warehouse/{mart}"))
                continue
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            con.execute(
                f"""create view {mart} as select * from read_parquet([{listed}], hive_partitioning = true,
                hive_types = {{'event_date': date}}) where event_date <= date '{as_of}'{unread}"""
            )
        yield con
