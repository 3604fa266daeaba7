"""One stage of the pipeline in this process, through the functions that the assets call. Started by scale.py and nightly.py.

`python -m benchmarks.stages ingest --copies 10 --first 2017-01-01 --last 2017-12-31`, with PIPELINE_DATA_DIR naming the folder.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measured import Meter

if TYPE_CHECKING:
    from pipeline_assets.schemas.feeds import Feed

RUN_ID = "benchmark"


def between(first: date, last: date) -> list[date]:
    """Every day from `first` to `last`."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def in_order_of_reference(feeds: Mapping[str, Feed]) -> list[Feed]:
    """What others refer to comes first, as in the asset graph: purchases are judged by the known products."""
    return [feeds[name] for name in ("products", "customers", "purchases", "exposures")]


def weekly_cutoffs(first: date, last: date) -> list[date]:
    """Sundays with a whole week before them: 52 in the sample year."""
    return [day for day in between(first, last) if day.isoweekday() == 7 and (day - first).days >= 7]


def ingest(meter: Meter, copies: int, days: Sequence[date]) -> None:
    """Land every feed; what the source itself costs (the sample's mapping and the replication) is a fact besides."""
    from benchmarks.measured import cpu_seconds
    from benchmarks.replicated import ReplicatedSource
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.settings import get_settings
    from pipeline_assets.sources.landing import land_days
    from pipeline_assets.sources.sample import LAST_DAY, SampleSource

    settings = get_settings()
    source = ReplicatedSource(SampleSource(LAST_DAY, settings.validation.max_unparsed_share), copies)
    read, spent = source.read, [0.0]

    def timed(*arguments: object) -> object:
        before = cpu_seconds()
        rows = read(*arguments)  # type: ignore[arg-type]
        spent[0] += cpu_seconds() - before
        return rows

    source.read = timed  # type: ignore[assignment, method-assign]
    lake = local_lake(settings.data_dir)
    for feed in in_order_of_reference(FEEDS):
        spent[0] = 0.0
        with meter.part(feed.name) as noted:
            batches = land_days(source, lake, feed, days, RUN_ID, datetime.now(UTC))
            noted["rows"] = sum(batch.rows for batch in batches)
        meter.facts[f"source_cpu_s.{feed.name}"] = round(spent[0], 2)


def validate(meter: Meter, copies: int, days: Sequence[date]) -> None:
    """Admit every feed."""
    from pipeline_assets.assets.validated import validation_policy
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.settings import get_settings
    from pipeline_assets.sources.landing import admit_days

    lake = local_lake(get_settings().data_dir)
    for feed in in_order_of_reference(FEEDS):
        with meter.part(feed.name) as noted:
            verdicts, _ = admit_days(lake, feed, days, validation_policy(), RUN_ID, datetime.now(UTC))
            noted["rows"] = sum(verdict.rows_read for verdict in verdicts)
        meter.facts[f"valid.{feed.name}"] = sum(verdict.rows_valid for verdict in verdicts)
        meter.facts[f"blocked.{feed.name}"] = [str(v.event_date) for v in verdicts if v.status != "passed"]


def marts(meter: Meter, copies: int, days: Sequence[date]) -> None:
    """dbt builds in groups of days, each published; what dbt itself takes of it is a fact besides."""
    from benchmarks.measured import cpu_seconds
    from pipeline_assets.resources.dbt_runner import DbtProjectRunner
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.warehouse import MARTS, Published, Warehouse
    from pipeline_assets.settings import PROJECT_ROOT, get_settings

    settings = get_settings()
    warehouse = Warehouse(project=str(PROJECT_ROOT / "dbt"), scratch=str(settings.data_dir / "dbt"))
    published, spent, build = Published(), [0.0, 0], DbtProjectRunner.build

    def timed(runner: DbtProjectRunner, *arguments: str) -> object:
        before = cpu_seconds()
        results = build(runner, *arguments)
        spent[0] += cpu_seconds() - before
        spent[1] += 1
        return results

    DbtProjectRunner.build = timed  # type: ignore[assignment, method-assign]
    try:
        with meter.part("build and publish") as noted:
            warehouse.run(local_lake(settings.data_dir), days, list(MARTS), RUN_ID, published)
            noted["rows"] = sum(found.rows for content in published.content.values() for found in content.values())
    finally:
        DbtProjectRunner.build = build  # type: ignore[method-assign]
    meter.facts |= {"dbt_cpu_s": round(spent[0], 2), "dbt_builds": spent[1]}
    for mart, content in published.content.items():
        meter.facts[f"rows.{mart}"] = sum(found.rows for found in content.values())


def features(meter: Meter, copies: int, days: Sequence[date]) -> None:
    """The three feature tables as of the given days, as one run writes them."""
    from pipeline_assets.resources.feature_build import FEATURES, build_features
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.snapshots import require_marts
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.settings import get_settings

    lake = local_lake(get_settings().data_dir)
    with meter.part("guards"):
        lake.require_passed(list(FEEDS), days)
        require_marts(lake, get_settings().calendar.first_day, max(days))
    written = build_features(lake, days, RUN_ID)
    for day in days:  # the first one pays for reading the purchases
        with meter.part(f"as of {day}") as noted:
            rows = {name: content["dagster/row_count"] for _, name, content in itertools.islice(written, len(FEATURES))}
            noted["rows"] = sum(rows.values())
        meter.facts[f"features.{day}"] = rows
    for _ in written:
        raise AssertionError("the run wrote more than one row of tables a day")


def aggregates(meter: Meter, copies: int, days: Sequence[date]) -> None:
    """Only what naive.py computes: pair, affinity, customer and product aggregates, without candidates, neighbours and packing."""
    from pipeline_assets.recommender.aggregates import Snapshot
    from pipeline_assets.recommender.stage import Stage
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.snapshots import marts_as_of
    from pipeline_assets.settings import get_settings

    lake = local_lake(get_settings().data_dir)
    with marts_as_of(lake, max(days), threads=1, first=min(days)) as con:
        with meter.part("read purchases"):
            stage = Stage(con, max(days), first=min(days))
        for day in days:
            with meter.part(f"as of {day}") as noted:
                Snapshot(con, day, stage)
                query = "select count(*), sum(n_orders)::bigint, sum(decayed_slow) from pair"
                pairs, orders, decayed = con.execute(query).fetchall()[0]
                noted["rows"] = pairs
            meter.facts[f"pairs.{day}"] = {"pairs": pairs, "n_orders": orders, "decayed_slow": decayed}


STAGES: dict[str, Callable[[Meter, int, Sequence[date]], None]] = {
    "ingest": ingest,
    "validate": validate,
    "marts": marts,
    "features": features,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage for the days (features: the cut-offs) that are given."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("stage", choices=[*STAGES, "aggregates"])
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--first", type=date.fromisoformat)
    parser.add_argument("--last", type=date.fromisoformat)
    parser.add_argument("--days", type=date.fromisoformat, nargs="*")
    options = parser.parse_args(arguments)
    meter = Meter(Path(os.environ["BENCH_METER"]) if "BENCH_METER" in os.environ else None)
    from pipeline_assets.cli import quiet

    quiet()
    {**STAGES, "aggregates": aggregates}[options.stage](
        meter, options.copies, options.days or between(options.first, options.last)
    )
    meter.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
