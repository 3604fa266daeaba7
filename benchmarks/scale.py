"""Ingest, validation, marts and features at 1x, 10x, 100x the customers: one process a stage, one core.

`python -m benchmarks.scale --scale 10` writes benchmarks/results/scale.json; `python -m benchmarks.report` makes the page of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

from benchmarks.measured import ROOT, Run, measure
from benchmarks.stages import STAGES, weekly_cutoffs

RESULTS = ROOT / "benchmarks" / "results"
FIRST, LAST = date(2017, 1, 1), date(2017, 12, 31)


def environment(data_dir: Path) -> dict[str, str]:
    """What places a process, and every tool under it, in `data_dir`."""
    from pipeline_assets.settings import load_settings, tool_environment

    place = {"PIPELINE_DATA_DIR": str(data_dir)}
    return place | tool_environment(load_settings(place))


def run_stage(
    stage: str, data_dir: Path, copies: int, first: date, last: date, cutoffs: Sequence[date], core: int | None
) -> Run:
    """One stage as a process of its own."""
    span = ["--first", str(first), "--last", str(last)]
    if stage in ("features", "aggregates"):
        span = ["--days", *map(str, cutoffs)]
    return measure(["benchmarks.stages", stage, "--copies", str(copies), *span], environment(data_dir), core)


def disk_mb(folder: Path) -> float:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def machine() -> dict[str, object]:
    """Where the figures are from."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown",
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    load = os.getloadavg()
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(pages / 2**30), "load": [round(x, 1) for x in load]}


def record(name: str, key: str, entry: dict[str, object]) -> None:
    """Put one entry into results/<name>.json, beside the others."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[key] = entry
    path.write_text(json.dumps(known, indent=1, sort_keys=True, default=str) + "\n")


def measured_before(keys: Sequence[str], stages: Sequence[str], now: str) -> dict[str, object]:
    """Stages that an entry of the same commit has and that are not run again: cut-offs differ, the stages before them do not."""
    path = RESULTS / "scale.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, object] = {}
    for key in keys:
        if known.get(key, {}).get("commit") == now:
            found |= {name: stage for name, stage in known[key]["stages"].items() if name not in (*stages, *found)}
    return {name: stage for name, stage in found.items() if name != "features"}


def commit() -> str:
    """The commit that is measured, with `+` when code differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages at one scale and record their cost."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--scale", type=int, default=1, help="how many times the sample's customers (default %(default)s)"
    )
    parser.add_argument("--first", type=date.fromisoformat, default=FIRST)
    parser.add_argument("--last", type=date.fromisoformat, default=LAST)
    parser.add_argument(
        "--cutoffs", choices=("last", "weekly"), default="last", help="features at the last day, or every Sunday"
    )
    parser.add_argument("--stages", nargs="*", choices=tuple(STAGES), default=list(STAGES))
    parser.add_argument("--core", type=int, help="the one core to use (default: any)")
    parser.add_argument("--data-dir", type=Path, help="keep the data here (default: a folder that is removed)")
    parser.add_argument(
        "--label", default="", help="goes into the entry's key, to keep a measurement beside a newer one"
    )
    options = parser.parse_args(arguments)
    folder = options.data_dir or Path(tempfile.mkdtemp(prefix=f"bench-{options.scale}x-"))
    folder.mkdir(parents=True, exist_ok=True)
    cutoffs = [options.last] if options.cutoffs == "last" else weekly_cutoffs(options.first, options.last)
    slice_ = f"{options.label or 'now'}:{options.first}..{options.last}:{options.scale}x"
    key, now = f"{slice_}:{options.cutoffs}", commit()
    entry: dict[str, object] = {
        "scale": options.scale,
        "first": options.first,
        "last": options.last,
        "cutoffs": len(cutoffs),
        "label": options.label,
        "commit": now,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "stages": measured_before([f"{slice_}:{way}" for way in ("last", "weekly")], options.stages, now),
    }
    try:
        for stage in options.stages:
            print(f"{options.scale}x {stage} {options.first}..{options.last}", file=sys.stderr, flush=True)
            run = run_stage(stage, folder, options.scale, options.first, options.last, cutoffs, options.core)
            entry["stages"][stage] = asdict(run) | {"disk_mb": round(disk_mb(folder))}  # type: ignore[index]
            record("scale", key, entry)
            print(
                f"{stage}: {run.cpu_s:.1f} CPU s, {run.wall_s:.1f} s, {run.peak_mb:.0f} MB", file=sys.stderr, flush=True
            )
            if run.returncode != 0:
                return 1
    finally:
        if options.data_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
