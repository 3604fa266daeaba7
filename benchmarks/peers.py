"""The naive ways, beside ours in the same run: whole tables in pandas, and one process per partition.

`python -m benchmarks.peers` backfills the year to features at its 52 weekly cut-offs and then does it the
naive ways, one after the other on the same core. Writes results/peers.json.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

from benchmarks.measured import Run, measure
from benchmarks.scale import FIRST, LAST, commit, environment, machine, record, run_stage
from benchmarks.stages import STAGES, weekly_cutoffs

# Of the 52 weekly cut-offs, five evenly spread ones.
CUTOFFS = [date(2017, 1, 8) + timedelta(weeks=week) for week in (5, 15, 25, 36, 46)]
PARTITIONS = [date(2017, 11, 6), date(2017, 11, 7), date(2017, 11, 8)]  # weekdays without a new promotion plan
SELECT = "group:raw or group:validated or group:warehouse"


def _said(what: str, run: Run) -> Run:
    parts = ", ".join(f"{part['name']} {part['cpu_s']:.1f}" for part in run.parts)
    print(
        f"{what}: {run.cpu_s:.1f} CPU s, {run.wall_s:.1f} s, {run.peak_mb:.0f} MB ({parts})",
        file=sys.stderr,
        flush=True,
    )
    return run


def equal(pandas: Mapping[str, float], ours: Mapping[str, float]) -> bool:
    """The same pairs and orders, and the same decayed sum to nine digits (the pipeline adds whole billionths, pandas floats)."""
    whole = all(pandas[name] == ours[name] for name in ("pairs", "n_orders"))
    return whole and math.isclose(pandas["decayed_slow"], ours["decayed_slow"], rel_tol=1e-8)


def process_per_partition(folder: Path, core: int | None) -> list[Run]:
    """`dagster asset materialize` of ingest to marts for each day, as a cron entry per partition would run it."""
    runs = []
    for day in PARTITIONS:
        command = ["dagster", "asset", "materialize", "--select", SELECT, "--partition", str(day)]
        run = measure([*command, "-m", "pipeline_assets.definitions"], environment(folder), core)
        runs.append(_said(f"one process for {day}", run))
        if run.returncode != 0:
            raise SystemExit(f"dagster asset materialize ended with {run.returncode}")
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the peers and ours at the same cut-offs, and record them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--last", type=date.fromisoformat, default=LAST)
    parser.add_argument("--core", type=int, help="the one core to use (default: any)")
    options = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="bench-peers-"))
    cutoffs = [day for day in CUTOFFS if day <= options.last]
    days = [str(day) for day in cutoffs]
    try:
        (work / "ours").mkdir()
        ours: dict[str, Run] = {}
        for stage in (*STAGES, "aggregates"):
            at = cutoffs if stage == "aggregates" else weekly_cutoffs(FIRST, options.last)
            ours[stage] = _said(
                f"ours, {stage}", run_stage(stage, work / "ours", 1, FIRST, options.last, at, options.core)
            )
            if ours[stage].returncode != 0:
                return 1
        naive = ["benchmarks.naive", "--out", str(work / "naive"), "--last", str(options.last), "--days", *days]
        pandas = _said("pandas, whole tables", measure(naive, environment(work), options.core))
        if pandas.returncode != 0:
            return 1
        differing = [
            day for day in days if not equal(pandas.facts[f"pairs.{day}"], ours["aggregates"].facts[f"pairs.{day}"])
        ]
        if differing:
            raise SystemExit(f"pandas and the pipeline differ at {differing}")
        (work / "ours" / "dagster").mkdir(exist_ok=True)
        partitions = process_per_partition(work / "ours", options.core)
        record(
            "peers",
            "now",
            {
                "commit": commit(),
                "machine": machine(),
                "cutoffs": days,
                "pandas": asdict(pandas),
                "ours": {stage: asdict(run) for stage, run in ours.items()},
                "process_per_partition": [asdict(run) for run in partitions],
            },
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
