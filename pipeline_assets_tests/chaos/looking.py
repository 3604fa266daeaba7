"""What readers see of a lake, and what lies in it: contents by table and day, through the doors and without them.

Belongs here: reading. Does not: running or killing anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow

from pipeline_assets.recommender.errors import BlockedPartition, NotEnoughData
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.snapshots import marts_as_of
from pipeline_assets.resources.training_data import require_features
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.tables import FEATURE_TABLES

Seen = dict[str, str]  # "<table> <day>" -> content: number of rows and a hash that the order of rows does not change
_OF_A_RUN = ("run_id", "recorded_at", "batch_id")  # differ between runs over the same data
_CONTENT = "count(*) || ' rows ' || coalesce(sum(hash(rows)::hugeint), 0)"


def _by_day(con: duckdb.DuckDBPyConnection, table: str, rows: pyarrow.Table) -> Seen:
    """Content by day of an Arrow table with a column event_date."""
    rows = rows.drop_columns([name for name in _OF_A_RUN if name in rows.column_names])
    con.register("rows", rows)
    found = con.execute(f"select event_date, {_CONTENT} from rows group by event_date").fetchall()
    con.unregister("rows")
    return {f"{table} {day}": content for day, content in found}


def through_doors(lake: Lake, days: tuple[date, ...]) -> Seen:
    """What a reader sees that keeps to the doors: verdicts before rows, marts of days that are not blocked, features that exist.

    The verdict is read before the rows, as every consumer does. What is not visible is not in the answer.
    """
    seen: Seen = {}
    with duckdb.connect(config={"threads": 1}) as con:
        for feed in FEEDS:
            passed = lake.passed_days([feed], days[0], days[-1])
            try:
                rows = lake.read(f"validated/{feed}", days[0], days[-1]) if passed else None
            except NotEnoughData:
                rows = None
            if rows is not None:
                found = _by_day(con, f"validated/{feed}", rows)
                # a passed day without rows is a day without rows, not a day that cannot be seen
                seen |= {f"validated/{feed} {day}": found.get(f"validated/{feed} {day}", "0 rows 0") for day in passed}
        for name in FEATURE_TABLES:
            for day in days:
                try:
                    require_features(lake, [day])
                except BlockedPartition:
                    continue
                seen |= _by_day(con, f"features/{name}", lake.read(f"features/{name}", day, day))
    try:
        with marts_as_of(lake, days[-1], threads=1) as con:
            for (mart,) in con.execute("select view_name from duckdb_views() where not internal").fetchall():
                found = con.execute(
                    f"select event_date, {_CONTENT} from {mart} as rows where event_date >= ? group by all", [days[0]]
                )
                seen |= {f"{mart} {day}": content for day, content in found.fetchall()}
    except NotEnoughData:
        pass
    return seen


def tables(root: Path) -> list[str]:
    """The Delta tables of a lake on disk."""
    return sorted(str(log.parent.relative_to(root)) for log in root.rglob("_delta_log"))


def contents(lake: Lake) -> Seen:
    """What is in every table, by day: the rows without ids and moments of runs; of ledgers the newest entry of a key."""
    seen: Seen = {}
    with duckdb.connect(config={"threads": 1}) as con:
        for table in tables(Path(lake.root)):
            rows = lake.read(table)
            if table.startswith("ledger/") and "feed" in rows.column_names:
                kept = _newest(con, rows)
                seen |= {f"{table} {key}": value for key, value in kept.items()}
            elif "event_date" in rows.column_names:
                seen |= _by_day(con, table, rows)
    return seen


def _newest(con: duckdb.DuckDBPyConnection, rows: pyarrow.Table) -> Mapping[str, str]:
    con.register("rows", rows)
    newest = con.sql(
        "select * from rows qualify row_number() over (partition by feed, event_date order by recorded_at desc) = 1"
    ).to_arrow_table()
    con.unregister("rows")
    return {
        f"{row['feed']} {row['event_date']}": json.dumps(
            {name: value for name, value in sorted(row.items()) if name not in ("run_id", "recorded_at")}, default=str
        )
        for row in newest.to_pylist()
    }


def orphans(root: Path) -> list[str]:
    """Files below a lake that no commit of their table names, and what interrupted commits left in the logs."""
    found = []
    for table in tables(root):
        named = {f"{table}/{path}" for path in _named(root / table / "_delta_log")}
        for path in (root / table).rglob("*"):
            relative = str(path.relative_to(root))
            if path.is_dir():
                continue
            if "_delta_log" in path.parts:
                if not path.name.endswith((".json", ".checkpoint.parquet", "_last_checkpoint")):
                    found.append(relative)
            elif relative not in named:
                found.append(relative)
    inside = tuple(f"{table}/" for table in tables(root))
    found += [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not str(path.relative_to(root)).startswith(inside)
    ]
    return sorted(found)


def _named(log: Path) -> Iterable[str]:
    """Data files that any commit of a log added; checkpoints repeat what commits say."""
    from urllib.parse import unquote

    for commit in log.glob("*.json"):
        for line in commit.read_text().splitlines():
            action: dict[str, Any] = json.loads(line)
            if "add" in action:
                yield unquote(action["add"]["path"])


def differences(found: Seen, *allowed: Seen) -> list[str]:
    """What is in `found` and in none of `allowed`."""
    return sorted(
        f"{key}: {value[:60]}" for key, value in found.items() if value not in [each.get(key) for each in allowed]
    )
