"""A nightly day, from landing to features: in a fresh process (cold), and the next ones in the same process (warm).

`python -m benchmarks.nightly --history FOLDER`: the folder of a 1x backfill (made when there is none). It is copied, the days from
2017-11-10 on are taken away, and then arrive one by one: Friday cold, Saturday warm, Sunday warm with the weekly promotion plan
(about 400,000 exposures). A second cold process takes the Sunday alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measured import Run, measure
from benchmarks.scale import commit, environment, machine, record, run_stage

FIRST, FRIDAY = (
    date(2017, 1, 1),
    date(2017, 11, 10),
)  # the last week before the holdout: nearly all history, the dearest days


def _until(history: Path, folder: Path, day: date) -> Path:
    """A copy of a backfilled folder in which `day` has not arrived yet."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(history, folder, ignore=shutil.ignore_patterns("dagster"))
    _jobs(folder, "cut", [day], None)
    return folder


def _jobs(folder: Path, way: str, days: Sequence[date], core: int | None) -> Run:
    run = measure(["benchmarks.jobs", way, *map(str, days)], environment(folder), core)
    told = ", ".join(f"{part['name']} {part['cpu_s']:.1f}" for part in run.parts)
    print(f"{way}: {run.cpu_s:.1f} CPU s, {run.peak_mb:.0f} MB ({told})", file=sys.stderr, flush=True)
    if run.returncode != 0:
        raise SystemExit(f"benchmarks.jobs {way} ended with {run.returncode}")
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the days and record them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--history", type=Path, help="folder of a 1x backfill (benchmarks.scale --data-dir)")
    parser.add_argument("--core", type=int, help="the one core to use (default: any)")
    parser.add_argument(
        "--whole", action="store_true", help="also job every_day, which needs a trained model (minutes)"
    )
    parser.add_argument("--friday", type=date.fromisoformat, default=FRIDAY, help="the first day (default %(default)s)")
    parser.add_argument("--label", default="now")
    options = parser.parse_args(arguments)
    thursday, saturday, sunday = (options.friday + timedelta(days=n) for n in (-1, 1, 2))
    work = Path(tempfile.mkdtemp(prefix="bench-nightly-"))
    try:
        history = options.history or work / "history"
        if options.history is None:
            for stage in ("ingest", "validate", "marts"):
                if run_stage(stage, history, 1, FIRST, sunday, [], options.core).returncode != 0:
                    return 1
        days = [options.friday, saturday, sunday]
        entry: dict[str, Any] = {"commit": commit(), "machine": machine(), "runs": {}}

        def keep(name: str, run: Run) -> None:
            entry["runs"][name] = asdict(run)
            record("nightly", options.label, entry)  # after each: what follows takes minutes

        for way in ("library", "day"):
            keep(way, _jobs(_until(history, work / way, options.friday), way, days, options.core))
            keep(f"{way}, Sunday cold", _jobs(_until(history, work / way, sunday), way, [sunday], options.core))
        if options.whole:
            folder = _until(history, work / "whole", options.friday)
            _jobs(folder, "champion", [thursday], options.core)
            keep("every_day", _jobs(folder, "every_day", [options.friday, saturday], options.core))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
