"""The real Dagster jobs in this process, one after the other: the same stages with their checks, events and metadata.

`python -m benchmarks.jobs backfill --last 2017-12-31`, or `day 2017-11-10 2017-11-11`, with PIPELINE_DATA_DIR naming the folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.measured import Meter
from benchmarks.stages import between, weekly_cutoffs

FIRST = date(2017, 1, 1)


def run_job(meter: Meter, name: str, job: str, days: Sequence[date], *assets: str) -> None:
    """One job for some days, as a part."""
    from pipeline_assets.loop import Task, execute

    with meter.part(name) as noted:
        execute(Task(job, name, tuple(days), assets))
        noted["days"] = len(days)


def backfill(meter: Meter, last: date) -> None:
    """A range run per stage for the whole span, then a run per weekly cut-off."""
    from pipeline_assets.schemas.feeds import FEEDS

    days = between(FIRST, last)
    for layer, stage in (("raw", "ingest"), ("validated", "validate")):
        run_job(meter, stage, "ingest", days, *(f"{layer}/{feed}" for feed in FEEDS))
    run_job(meter, "marts", "marts", days)
    for day in weekly_cutoffs(FIRST, last):
        run_job(meter, f"as of {day}", "features", [day])


def nightly(meter: Meter, days: Sequence[date]) -> None:
    """Days one by one, each from landing to features."""
    for day in days:
        run_job(meter, f"{day} ingest", "ingest", [day])
        run_job(meter, f"{day} features", "features", [day])


def library_days(meter: Meter, days: Sequence[date]) -> None:
    """The same days through the functions alone: what is left without Dagster's runs, events and checks."""
    from benchmarks.stages import STAGES

    for day in days:
        for stage, function in STAGES.items():
            inner = Meter(None)
            with meter.part(f"{day} {stage}"):
                function(inner, 1, [day])


def champion(meter: Meter, days: Sequence[date]) -> None:
    """A trained and published model as of each day, so that `every_day` has one to serve."""
    for day in days:
        run_job(meter, f"{day} features", "features", [day])
        run_job(meter, f"{day} training", "training", [day])
        run_job(meter, f"{day} publish", "publish", [day])


def whole_days(meter: Meter, days: Sequence[date]) -> None:
    """Days one by one through job `every_day`: from landing to live recommendations, monitoring included."""
    for day in days:
        run_job(meter, f"{day} every_day", "every_day", [day])


def cut(meter: Meter, days: Sequence[date]) -> None:
    """Take away the first given day and all later ones from every table, as if they had not arrived."""
    from deltalake import DeltaTable, write_deltalake

    from pipeline_assets.settings import get_settings

    (day,) = days
    root = get_settings().data_dir
    for log in sorted((root / "lake").rglob("_delta_log")):
        table = DeltaTable(str(log.parent))
        if "event_date" not in [field.name for field in table.schema().fields]:
            continue
        if table.metadata().partition_columns:
            table.delete(f"event_date >= '{day}'")
        else:  # a ledger: `delete` would write files that pyarrow reads as string_view and cannot filter
            write_deltalake(table, table.to_pyarrow_table(filters=[("event_date", "<", day)]), mode="overwrite")


WAYS = {"day": nightly, "library": library_days, "champion": champion, "every_day": whole_days, "cut": cut}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of them and record its parts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("way", choices=["backfill", *WAYS])
    parser.add_argument("days", nargs="*", type=date.fromisoformat)
    parser.add_argument("--last", type=date.fromisoformat)
    options = parser.parse_args(arguments)
    meter = Meter(Path(os.environ["BENCH_METER"]) if "BENCH_METER" in os.environ else None)
    from pipeline_assets.cli import quiet
    from pipeline_assets.settings import get_settings

    quiet()
    (get_settings().data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    if options.way == "backfill":
        backfill(meter, options.last)
    else:
        WAYS[options.way](meter, options.days)
    meter.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
