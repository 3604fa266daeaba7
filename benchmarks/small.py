"""Figures that single decisions rest on (docs/adr/0001, 0008, 0009, 0017): the cost of an event, of a short run, of opening a table and reading
one day, of a canonical order, of a group's size.

`python -m benchmarks.small [--only NAME …]` writes benchmarks/results/small.json and, through `benchmarks.report`, the page.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measured import Meter, measure
from benchmarks.scale import commit, machine, record

if TYPE_CHECKING:
    import dagster as dg

DAYS = 304  # a range run writes two events a day
RUNS, READS = 10, 20
BUILDS = (2_000_000, 4_000_000, 8_000_000)
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
STORAGES = {
    "Dagster's own": ("dagster._core.storage.event_log", "SqliteEventLogStorage"),
    "connections kept": ("pipeline_assets.resources.event_log", "PooledSqliteEventLogStorage"),
}


def _instance(home: str, storage: str) -> dg.DagsterInstance:
    import dagster as dg
    import yaml

    module, kind = STORAGES[storage]
    config = {"event_log_storage": {"module": module, "class": kind, "config": {"base_dir": home}}}
    (Path(home) / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}, **config}))
    return dg.DagsterInstance.from_config(home)


def _range_run(meter: Meter, name: str, storage: str, batch: int) -> None:
    """A trivial asset over `DAYS` partitions in one run, on an instance of its own."""
    import dagster as dg

    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = str(batch)
    daily = dg.DailyPartitionsDefinition("2017-01-01")

    @dg.asset(partitions_def=daily, backfill_policy=dg.BackfillPolicy.single_run())
    def nothing(context) -> None:  # Dagster resolves annotations in the module, where dg is not
        context.log.debug(f"{len(context.partition_keys)} days")

    first = date(2017, 1, 1)
    with tempfile.TemporaryDirectory() as home:
        instance = _instance(home, storage)
        span = {
            "dagster/asset_partition_range_start": first.isoformat(),
            "dagster/asset_partition_range_end": (first + timedelta(days=DAYS - 1)).isoformat(),
        }
        with meter.part(name) as noted:
            done = dg.materialize([nothing], instance=instance, tags=span)
            noted["rows"] = len(instance.get_materialized_partitions(dg.AssetKey("nothing")))
        assert done.success


def events(meter: Meter) -> None:
    """One event in each of three ways."""
    for name, storage, batch in (
        ("events, Dagster's own storage", "Dagster's own", 0),
        ("events, connections kept", "connections kept", 0),
        ("events, connections kept, batches of 200", "connections kept", 200),
    ):
        _range_run(meter, name, storage, batch)


def runs(meter: Meter) -> None:
    """Runs of one trivial asset, each of which has a database of its own, on two storages."""
    import dagster as dg

    @dg.asset
    def nothing() -> None:
        pass

    for storage in STORAGES:
        with tempfile.TemporaryDirectory() as home:
            instance = _instance(home, storage)
            assert dg.materialize([nothing], instance=instance, run_config=QUIET).success  # what is made once
            with meter.part(f"short runs, {storage}") as noted:
                for _ in range(RUNS):
                    dg.materialize([nothing], instance=instance, run_config=QUIET)
                noted["rows"] = RUNS


def reads(meter: Meter) -> None:
    """One day of a table of half a year, by delta-rs's own function and by the lake's."""
    import deltalake

    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.sources.landing import land_days
    from pipeline_assets.sources.sample import LAST_DAY, SampleSource

    feed, now, day = FEEDS["purchases"], datetime.now(UTC), date(2017, 6, 1)
    days = [date(2017, 1, 1) + timedelta(days=n) for n in range(192)]
    with tempfile.TemporaryDirectory() as folder:
        lake, table = local_lake(Path(folder)), "raw/purchases"
        land_days(SampleSource(LAST_DAY, 1.0), lake, feed, days, "benchmark", now)
        wanted = [("event_date", ">=", day), ("event_date", "<=", day)]
        ways = {
            "to_pyarrow_table": lambda: deltalake.DeltaTable(lake.uri(table)).to_pyarrow_table(filters=wanted),
            "Lake.read": lambda: lake.read(table, day, day),
        }
        assert ways["to_pyarrow_table"]().equals(ways["Lake.read"]())
        for name, way in ways.items():
            with meter.part(f"reads of one day, {name}") as noted:
                for _ in range(READS):
                    way()
                noted["rows"] = READS


def opens(meter: Meter) -> None:
    """A table of 99 commits, opened with a checkpoint every ten of them, as the lake has it, and with none; then again, while nothing is committed."""
    import deltalake
    import pyarrow

    from pipeline_assets.resources import lake as lakes
    from pipeline_assets.resources.delta_tables import SETTLED_NS, opened

    days = [date(2017, 1, 1) + timedelta(days=n) for n in range(99)]
    for name, configuration in (
        ("no checkpoint", {**lakes.CONFIGURATION, "delta.checkpointInterval": "1000"}),
        ("a checkpoint every ten commits", lakes.CONFIGURATION),
    ):
        lakes.CONFIGURATION = configuration
        with tempfile.TemporaryDirectory() as folder:
            lake = lakes.local_lake(Path(folder))
            with meter.part(f"commits of a day, {name}") as noted:
                for day in days:
                    lake.replace_days("days", pyarrow.table({"n": [1], "event_date": [day]}), [day], "benchmark")
                noted["rows"] = len(days)
            with meter.part(f"opens of a table of {len(days)} commits, {name}") as noted:
                for _ in range(READS):
                    deltalake.DeltaTable(lake.uri("days"))
                noted["rows"] = READS
            time.sleep(2 * SETTLED_NS / 1e9)
            opened(lake.uri("days"))
            with meter.part(f"opens of a table that was read and did not change, {name}") as noted:
                for _ in range(READS):
                    opened(lake.uri("days"))
                noted["rows"] = READS


def order(meter: Meter) -> None:
    """Four weeks of exposures: brought into canonical order and hashed, or hashed as they are."""
    from pipeline_assets.resources.content import digest, in_order
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.sources.sample import LAST_DAY, SampleSource

    days = [date(2017, 3, 1) + timedelta(days=n) for n in range(28)]
    delivered = SampleSource(LAST_DAY, 1.0).read(FEEDS["exposures"], days)
    with meter.part("rows, hashed as they came") as noted:
        digest(delivered)
        noted["rows"] = len(delivered)
    with meter.part("rows, put in order") as noted:
        ordered = in_order(delivered, FEEDS["exposures"].key)
        noted["rows"] = len(ordered)


def groups(meter: Meter, rows_at_once: int) -> None:
    """Eight weeks of exposures landed and validated in groups of about so many rows; the peak is the process's."""
    from pipeline_assets.assets.validated import validation_policy
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.sources.landing import admit_days, land_days
    from pipeline_assets.sources.sample import LAST_DAY, SampleSource

    feed, now = FEEDS["exposures"], datetime.now(UTC)
    days = [date(2017, 3, 1) + timedelta(days=n) for n in range(56)]
    with tempfile.TemporaryDirectory() as folder:
        lake = local_lake(Path(folder))
        with meter.part(f"landing, groups of {rows_at_once:,} rows") as noted:
            landed = land_days(SampleSource(LAST_DAY, 1.0), lake, feed, days, "benchmark", now, rows_at_once)
            noted["rows"] = sum(batch.rows for batch in landed)
        with meter.part(f"validation, groups of {rows_at_once:,} rows") as noted:
            verdicts, _ = admit_days(lake, feed, days, validation_policy(), "benchmark", now, rows_at_once)
            noted["rows"] = sum(verdict.rows_read for verdict in verdicts)


def builds(meter: Meter) -> None:
    """The marts of sixteen weeks, in dbt builds of about so many validated rows."""
    import shutil

    from pipeline_assets.assets.validated import validation_policy
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.warehouse import MARTS, Published, Warehouse
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.settings import PROJECT_ROOT, with_data_dir
    from pipeline_assets.sources.landing import admit_days, land_days
    from pipeline_assets.sources.sample import LAST_DAY, SampleSource

    days, now = [date(2017, 3, 1) + timedelta(days=n) for n in range(112)], datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        lake = local_lake(with_data_dir(Path(folder)).data_dir)
        for feed in FEEDS.values():
            land_days(SampleSource(LAST_DAY, 1.0), lake, feed, days, "benchmark", now)
            admit_days(lake, feed, days, validation_policy(), "benchmark", now)
        told = set()
        for rows in BUILDS:
            shutil.rmtree(Path(folder) / "lake" / "warehouse", ignore_errors=True)
            warehouse = Warehouse(project=str(PROJECT_ROOT / "dbt"), scratch=f"{folder}/dbt", build_rows=rows)
            warehouse.unit_tests()  # dbt is imported and the project parsed
            published = Published()
            with meter.part(f"marts, builds of {rows:,} rows") as noted:
                warehouse.run(lake, days, list(MARTS), "benchmark", published)
                noted["rows"] = sum(found.rows for content in published.content.values() for found in content.values())
            told.add(json.dumps({m: {str(d): c.digest for d, c in of.items()} for m, of in published.content.items()}))
        assert len(told) == 1, "marts do not depend on the size of a build"


SMALL: dict[str, Callable[[Meter], None]] = {
    "events": events,
    "runs": runs,
    "reads": reads,
    "opens": opens,
    "order": order,
    "builds": builds,
    **{f"groups-{size}": lambda meter, size=size: groups(meter, size) for size in (400_000, 700_000, 1_500_000)},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Each measurement in a process of its own; with a name, that one in this process."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", nargs="?", choices=tuple(SMALL))
    parser.add_argument("--core", type=int, help="the one core to use (default: any)")
    parser.add_argument("--only", nargs="+", choices=tuple(SMALL), help="measure these, and keep the others' figures")
    options = parser.parse_args(arguments)
    if options.name:
        from pipeline_assets.cli import quiet

        quiet()
        SMALL[options.name](Meter(Path(os.environ["BENCH_METER"]) if "BENCH_METER" in os.environ else None))
        return 0
    runs = {}
    for name in options.only or SMALL:
        run = measure(["benchmarks.small", name], core=options.core)
        if run.returncode != 0:
            return 1
        runs[name] = asdict(run)
    record("small", ", ".join(options.only or ["now"]), {"commit": commit(), "machine": machine(), "runs": runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
