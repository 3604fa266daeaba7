"""Validation alone: rows per CPU second, and what happens when every row is bad; beside plain pandera in the same run.

`python -m benchmarks.validation` runs each case as a process of its own and writes benchmarks/results/validation.json.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measured import Meter, measure
from benchmarks.stages import between

if TYPE_CHECKING:
    import pyarrow

    from pipeline_assets.schemas.feeds import Feed

REPEATS = 3
KINDS = ("good", "bad", "ruined")
CPU_CAP_S = 60  # pandera collects one failure case per bad cell and does not come back: it is stopped
DAYS = {  # about 1.2 and 2.2 million rows
    "purchases": between(date(2017, 1, 1), date(2017, 11, 12)),
    "exposures": between(date(2017, 1, 1), date(2017, 1, 28)),
}


def _rows(feed: Feed, kind: str) -> pyarrow.Table:
    """Rows of the sample as landed; `bad` breaks one rule in each of them, `ruined` a rule of every text and number."""
    import pyarrow
    import pyarrow.compute as pc

    from pipeline_assets.sources.sample import LAST_DAY, SampleSource

    rows = SampleSource(LAST_DAY, 0.5).read(feed, DAYS[feed.name])
    if kind == "good":
        return rows
    for field in feed.arrow_schema:
        values = rows[field.name]
        if pyarrow.types.is_floating(field.type):
            values = pc.subtract(pc.multiply(values, -1.0), 1.0)
        elif pyarrow.types.is_string(field.type) and (kind == "ruined" or field.name == "channel"):
            values = pyarrow.array([""] * len(rows), pyarrow.string())
        if kind == "ruined" or field.name in ("quantity", "channel"):
            rows = rows.set_column(rows.schema.get_field_index(field.name), field, values)
    return rows


def ours(feed: Feed, rows: pyarrow.Table) -> tuple[int, int]:
    """(valid, not valid) by the pipeline's own function, from Arrow to Arrow."""
    from pipeline_assets.assets.validated import validation_policy
    from pipeline_assets.schemas.validation import validate

    result = validate(feed, rows, DAYS[feed.name], validation_policy())
    valid = sum(verdict.rows_valid for verdict in result.verdicts)
    return valid, len(rows) - valid


def pandera(feed: Feed, rows: pyarrow.Table) -> tuple[int, int]:
    """(valid, not valid) by `schema.validate(lazy=True)`, from Arrow to Arrow."""
    import pandas as pd
    import pandera.errors
    import pyarrow

    from pipeline_assets.schemas.validation import to_pandas

    frame = to_pandas(feed, rows)
    try:
        valid, bad = feed.schema.validate(frame, lazy=True), frame.iloc[:0]
    except pandera.errors.SchemaErrors as errors:
        named = pd.to_numeric(errors.failure_cases["index"], errors="coerce").dropna().astype(int).unique()
        valid, bad = frame.drop(index=named), frame.loc[named]
    return len(pyarrow.Table.from_pandas(valid)), len(pyarrow.Table.from_pandas(bad))


WAYS: dict[str, Callable[[Feed, pyarrow.Table], tuple[int, int]]] = {"ours": ours, "pandera": pandera}


def one_case(feed_name: str, way: str, kind: str) -> int:
    """Measure one case in this process; imports are not part of it."""
    import pandera.errors  # noqa: F401

    import pipeline_assets.assets.validated
    from pipeline_assets.schemas.feeds import FEEDS

    pipeline_assets.assets.validated.validation_policy()
    meter = Meter(Path(os.environ["BENCH_METER"]) if "BENCH_METER" in os.environ else None)
    feed = FEEDS[feed_name]
    rows = _rows(feed, kind)
    meter.facts["rows"] = len(rows)
    meter.write()
    for repeat in range(1 if kind != "good" and way == "pandera" else REPEATS):
        with meter.part(f"validate {repeat}") as noted:
            noted["rows"] = len(rows)
            meter.facts["valid"], meter.facts["not_valid"] = WAYS[way](feed, rows)
    meter.write()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every case, or the one that is named, and record what it costs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--case", nargs=3, metavar=("FEED", "WAY", "KIND"))
    parser.add_argument("--core", type=int, help="the one core to use (default: any)")
    options = parser.parse_args(arguments)
    if options.case:
        feed, way, rows = options.case
        return one_case(feed, way, rows)
    from benchmarks.scale import commit, machine, record

    cases, now = {}, commit()
    for rows in KINDS:
        for feed in DAYS:
            for way in WAYS:
                run = measure(
                    ["benchmarks.validation", "--case", feed, way, rows], core=options.core, cpu_cap_s=CPU_CAP_S
                )
                cases[f"{feed} {rows} {way}"] = asdict(run)
                best = min((part["cpu_s"] for part in run.parts), default=None)
                told = f"{run.facts['rows'] / best:,.0f} rows per CPU s" if best else f"stopped at {CPU_CAP_S} CPU s"
                print(f"{feed}, {rows} rows, {way}: {told}, peak {run.peak_mb:.0f} MB", file=sys.stderr, flush=True)
                if best is None and run.returncode > 0:
                    return 1
                record("validation", "cases", {"commit": now, "machine": machine(), "cap_s": CPU_CAP_S, "cases": cases})
    return 0


if __name__ == "__main__":
    sys.exit(main())
