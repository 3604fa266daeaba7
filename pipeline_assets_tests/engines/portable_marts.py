"""The sample's marts on DuckDB, PostgreSQL and Spark, compared mart by mart and day by day.

`python -m pipeline_assets_tests.engines.portable_marts postgres --first 2017-01-01 --last 2017-12-31 --lake data/lake`
`python -m pipeline_assets_tests.engines.portable_marts spark --environment ENV --first 2017-01-01 --last 2017-01-28`

Without `--lake` the days are landed and validated first. Ends with an error when anything differs; `--write` adds the figures to
benchmarks/results/portable-marts.json and writes the page of that name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline_assets.resources.content import contents
from pipeline_assets.resources.engines import select_feed
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.warehouse import MARTS, PROMOTION_DAYS, Published, Warehouse, snapshot
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.settings import PROJECT_ROOT, get_settings
from pipeline_assets.sources.sample import FIRST_DAY, SampleSource

RESULTS = PROJECT_ROOT / "benchmarks/results/portable-marts.json"
Table = dict[str, dict[str, Any]]  # mart -> rows, digests by day, sums of columns


def between(first: date, last: date) -> list[date]:
    """Every day from `first` to `last`."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def validated_lake(root: Path, days: Sequence[date]) -> Lake:
    """A lake with the sample's validated rows of `days`."""
    from pipeline_assets.assets.validated import validation_policy
    from pipeline_assets.sources.landing import admit_days, land_days

    lake = Lake(root=str(root))
    source = SampleSource(max(days), get_settings().validation.max_unparsed_share)
    now = datetime.now(UTC)
    for feed in FEEDS.values():
        land_days(source, lake, feed, days, "engines", now)
        admit_days(lake, feed, days, validation_policy(), "engines", now)
    return lake


def beside(lake: Lake, root: Path) -> Lake:
    """Another lake with the same validated rows and verdicts, and marts of its own."""
    root.mkdir(parents=True)
    for name in ("validated", "ledger"):
        (root / name).symlink_to(Path(lake.root, name).absolute())
    return Lake(root=str(root))


def measured(lake: Lake, days: Sequence[date]) -> Table:
    """Rows, digests and order-independent sums of each published mart."""
    import duckdb

    found: Table = {}
    for mart in MARTS:
        kept = lake.files(f"warehouse/{mart}", days[0], days[-1])
        digests: dict[date, str] = {}
        for commit in lake.commits(f"warehouse/{mart}"):
            digests |= {
                day: content.digest for day, content in commit.days.items() if content.rows and day in set(days)
            }
        if not kept:
            found[mart] = {"rows": 0, "digests": {}, "columns": {}}
            continue
        listed = ", ".join(f"'{file}'" for file in kept)
        with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as con:
            found[mart] = _sums(
                con, f"read_parquet([{listed}], hive_partitioning = true, hive_types = {{'event_date': date}})"
            )
        found[mart]["digests"] = digests
    return found


def _sums(con: Any, source: str) -> dict[str, Any]:
    """Row count, and of each column its nulls and the sum of its values' hashes."""
    columns = [str(row[0]) for row in con.sql(f"describe select * from {source}").fetchall()]
    wanted = ", ".join(f"count(*) - count({c}), sum(hash({c})::hugeint)::varchar" for c in columns)
    rows, *values = con.sql(f"select count(*), {wanted} from {source}").fetchall()[0]
    return {"rows": rows, "columns": {c: values[2 * n : 2 * n + 2] for n, c in enumerate(columns)}}


def build(lake: Lake, days: Sequence[date], target: str, scratch: Path) -> float:
    """Build and publish all marts on a target; wall seconds."""
    warehouse = Warehouse(project=str(PROJECT_ROOT / "dbt"), scratch=str(scratch), target=target)
    started = time.monotonic()
    warehouse.run(lake, days, list(MARTS), "engines", Published())
    return time.monotonic() - started


@contextlib.contextmanager
def postgres_variables() -> Iterator[None]:
    """A server of the tests, with the memory that a warehouse would give to a query."""
    from pipeline_assets_tests.postgres import SUPERUSER, running_postgres

    with running_postgres() as server:
        server.database("marts")
        server.execute(
            "alter database marts set work_mem = '256MB'", "alter database marts set maintenance_work_mem = '256MB'"
        )
        os.environ |= {
            "PIPELINE_PG_HOST": str(server.socket),
            "PIPELINE_PG_USER": SUPERUSER,
            "PIPELINE_PG_DATABASE": "marts",
        }
        yield


def on_postgres(lake: Lake, days: Sequence[date], folder: Path) -> tuple[Table, float]:
    """Through the same warehouse resource as the asset; only the target differs."""
    own = beside(lake, folder / "postgres")
    with postgres_variables():
        seconds = build(own, days, "postgres", folder / "dbt-postgres")
    return measured(own, days), seconds


def on_spark(lake: Lake, days: Sequence[date], folder: Path, environment: Path) -> tuple[Table, float]:
    """dbt in Spark's own environment; the last week is built twice, so that the incremental way is seen as well."""
    import duckdb

    taken = snapshot(
        lake, days[0], days[-1], {f"validated/{feed}": lake.version(f"validated/{feed}") for feed in FEEDS}
    )
    spark = folder / "spark"
    (spark / "lake").mkdir(parents=True)
    started = time.monotonic()
    with duckdb.connect() as con:
        for feed in FEEDS:
            con.execute(f"copy ({select_feed(feed, taken)}) to '{spark}/lake/{feed}.parquet' (format parquet)")
        script = PROJECT_ROOT / "pipeline_assets_tests/engines/spark_build.py"
        windows = [f"{days[0]}:{days[-1]}", f"{days[-7]}:{days[-1]}"]
        python = environment / "bin/python"
        done = subprocess.run([str(python), str(script), str(PROJECT_ROOT / "dbt"), str(spark), *windows], check=False)
        if done.returncode:
            raise SystemExit(f"dbt build on Spark ended with {done.returncode}; its log is above")
        seconds = time.monotonic() - started
        found: Table = {}
        for mart, declared in MARTS.items():
            if not list((spark / "spark/warehouse.db" / mart).glob("*/*.parquet")):
                found[mart] = {"rows": 0, "digests": {}, "columns": {}}
                continue
            source = f"read_parquet('{spark}/spark/warehouse.db/{mart}/*/*.parquet', hive_partitioning = true, hive_types = {{'event_date': date}})"
            found[mart] = _sums(con, source)
            rows = con.sql(f"select * from {source} order by event_date, {', '.join(declared.grain)}").to_arrow_table()
            by_day = contents(rows, days)
            found[mart]["digests"] = {day: content.digest for day, content in by_day.items() if content.rows}
    return found, seconds


def differences(expected: Table, found: Table) -> list[str]:
    """One line per mart and thing that differs."""
    return [
        f"{mart}: {what} differ"
        for mart in MARTS
        for what in ("rows", "columns", "digests")
        if expected[mart][what] != found[mart][what]
    ]


def page(figures: dict[str, Any]) -> str:
    """The committed table: one per engine, over the ranges that were built."""
    lines = [
        "# Marts on other engines",
        "",
        "Written by `pipeline_assets_tests/engines/portable_marts.py --write` (`make engines` compares without writing). What it means is in",
        "[ADR 3](../../docs/adr/0003-portable-sql.md). Wall seconds on a shared 2-core machine, of build and publishing, beside DuckDB's in the same run: they",
        "show that it works, not which engine is faster. *Equal*: rows, nulls and hash sums of every column, and the content digest of every day.",
        "",
    ]
    for target in sorted({figure["target"] for figure in figures.values()}):
        ranges = [figure for _, figure in sorted(figures.items()) if figure["target"] == target]
        lines += [f"## {ranges[0]['version']}", "", "| days | DuckDB s | this engine s |", "|---|---|---|"]
        lines += [f"| {f['first']} to {f['last']} | {f['duckdb_seconds']} | {f['seconds']} |" for f in ranges]
        lines += ["", "| mart | rows | days with rows | equal |", "|---|---|---|---|"]
        for mart in MARTS:
            parts = [figure["marts"][mart] for figure in ranges]
            rows, days = (sum(part[what] for part in parts) for what in ("rows", "days"))
            lines.append(f"| {mart} | {rows:,} | {days} | {'yes' if all(part['equal'] for part in parts) else 'NO'} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build on DuckDB and on one other engine, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=["postgres", "spark"])
    parser.add_argument("--first", type=date.fromisoformat, default=date(2017, 1, 1))
    parser.add_argument("--last", type=date.fromisoformat, default=date(2017, 1, 28))
    parser.add_argument("--lake", type=Path, help="a lake that holds the validated days already")
    parser.add_argument("--environment", type=Path, help="spark: the environment of requirements-spark.lock")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(arguments)
    days = between(given.first, given.last)
    with tempfile.TemporaryDirectory(prefix="engines-") as name:
        folder = Path(name)
        os.environ["PIPELINE_WAREHOUSE_PATH"] = str(folder / "marts.duckdb")
        early = max(given.first - timedelta(days=PROMOTION_DAYS), FIRST_DAY)
        lake = Lake(root=str(given.lake)) if given.lake else validated_lake(folder / "lake", between(early, given.last))
        reference = beside(lake, folder / "duckdb")
        duckdb_seconds = build(reference, days, "duckdb", folder / "dbt-duckdb")
        expected = measured(reference, days)
        if given.target == "postgres":
            found, seconds = on_postgres(lake, days, folder)
        else:
            found, seconds = on_spark(lake, days, folder, given.environment)
        wrong = differences(expected, found)
    figure = {
        "target": given.target,
        "first": str(given.first),
        "last": str(given.last),
        "version": {
            "postgres": "PostgreSQL 18.4, dbt-postgres 1.11.0",
            "spark": "Spark 4.3.0 local[2], dbt-spark 1.11.0",
        }[given.target],
        "duckdb_seconds": round(duckdb_seconds),
        "seconds": round(seconds),
        "marts": {
            mart: {
                "rows": found[mart]["rows"],
                "days": len(found[mart]["digests"]),
                "equal": not any(line.startswith(f"{mart}:") for line in wrong),
            }
            for mart in MARTS
        },
    }
    print(json.dumps(figure, indent=1))
    if given.write:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known[f"{given.target} from {given.first}"] = figure
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(page(known))
    print("\n".join(wrong) or f"{given.target} = duckdb on {len(days)} days")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
