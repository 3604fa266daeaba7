"""results/training.md: what `python -m benchmarks.training` measured, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.scale import RESULTS

LIMITS = {"cpu_s": 360, "score_cpu_s": 5, "mb": 3 * 1024, "backtest_mb": 4 * 1024}  # of the issue


def write_page() -> None:
    """Write the page from results/training.json."""
    known: dict[str, Any] = json.loads((RESULTS / "training.json").read_text())
    parts = [
        "# What training costs",
        "Written by `python -m benchmarks.training page` from `training.json`. CPU seconds are user + system time of the process and its "
        "children, start-up and imports included where a line says *whole process*; memory is the high-water mark of the process during the step.",
    ]
    if "retrain" in known:
        parts.append(_retrain(known["retrain"]))
    if any(key.startswith("chunks") for key in known):
        parts.append(_chunks([known[key] for key in sorted(known) if key.startswith("chunks")]))
    if "histograms" in known:
        parts.append(_histograms(known["histograms"]))
    if backtests := [entry for key, entry in sorted(known.items()) if key.startswith("backtest")]:
        parts.append(_backtests(backtests))
    (RESULTS / "training.md").write_text("\n\n".join(parts) + "\n")


def _origin(entry: Mapping[str, Any]) -> str:
    where = entry["machine"]
    return f"As of {entry['as_of']}, commit `{entry['commit']}`, load {where['load'][0]} on {where['cores']} cores."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _verdict(value: float, limit: float) -> str:
    return "met" if value <= limit else "**missed**"


def _rows(run: Mapping[str, Any]) -> list[list[str]]:
    rows = [[part["name"], f"{part['cpu_s']:.1f}", f"{part['peak_mb']:,.0f}"] for part in run["parts"]]
    peak = max(run["peak_process_mb"], *(part["peak_mb"] for part in run["parts"]))  # a part resets the kernel's mark
    return [*rows, ["whole process", f"{run['cpu_s']:.1f}", f"{peak:,.0f}"]]


def _retrain(entry: Mapping[str, Any]) -> str:
    run, score = entry["retrain"], entry["score"]
    rank = next(part for part in score["parts"] if part["name"] == "rank")
    peak = max(part["peak_mb"] for part in run["parts"])
    goals = [
        ["training set to promoted bundle and recommendations", f"{run['cpu_s']:.0f} CPU s", f"{LIMITS['cpu_s']}",
         _verdict(run["cpu_s"], LIMITS["cpu_s"])],
        ["its peak", f"{peak / 1024:.1f} GB", "3.0", _verdict(peak, LIMITS["mb"])],
        ["scoring all customers", f"{rank['cpu_s']:.1f} CPU s", f"{LIMITS['score_cpu_s']}",
         _verdict(rank["cpu_s"], LIMITS["score_cpu_s"])],
    ]  # fmt: skip
    return "\n\n".join(
        [
            "## A retrain, asset by asset",
            f"{_origin(entry)} Each line is a Dagster run of these assets with their checks, in one process, one thread.",
            _table(["assets", "CPU s", "MB"], _rows(run)),
            f"Scoring alone: {rank['rows']:,} candidates by {score['facts']['trees']} trees, features read before.",
            _table(["", "measured", "limit", ""], goals),
        ]
    )


def _chunks(entries: list[Mapping[str, Any]]) -> str:
    rows = []
    for entry in entries:
        made, trained = entry["training-set"], entry["training"]
        a, b = made["parts"][0], trained["parts"][0]
        facts = trained["facts"]
        rows.append(
            [
                f"{entry['copies']}x",
                f"{made['facts']['weeks']}: {a['rows']:,}",
                f"{a['cpu_s']:.0f}",
                f"{made['peak_process_mb']:,.0f}",
                f"{b['rows']:,}",
                f"{facts['matrix_mb']:,}",
                str(facts["rounds"]),
                f"{b['cpu_s']:.0f}",
                f"{trained['peak_process_mb']:,.0f}",
            ]
        )
    head = [
        "customers", "training set, weeks: examples", "CPU s", "MB", "trained on examples", "as one matrix, MB", "rounds", "CPU s", "MB",
    ]  # fmt: skip
    return "\n\n".join(
        [
            "## Ten times the customers",
            f"{_origin(entries[-1])} Examples are written and read in blocks of rows and binned as they are read; no stage holds the matrix of all "
            "weeks. What grows with the rows are LightGBM's bins (a byte a value, twice) and labels, scores and gradients. Weeks do not change the peak of "
            "the training set, nor rounds that of a training, so the larger one has few.",
            _table(head, rows),
        ]
    )


def _histograms(entry: Mapping[str, Any]) -> str:
    run = entry["histograms"]
    trees = "other trees" if run["facts"]["different_trees"] else "the same trees"
    return "\n\n".join(
        [
            "## Histograms by row and by column",
            f"{_origin(entry)} {run['parts'][0]['rows']:,} examples, {run['facts']['rounds']} rounds, one thread: {trees} "
            "(docs/adr/0028-training-in-blocks.md).",
            _table(["histograms", "CPU s", "MB"], _rows(run)),
        ]
    )


def _backtests(entries: list[Mapping[str, Any]]) -> str:
    rows = []
    for entry in entries:
        run, each = entry["backtest"], entry["backtest"]["cpu_s"] / entry["days"]
        rows.append(
            [
                str(entry["days"]),
                f"{run['cpu_s']:.0f}",
                f"{each:.0f} (limit {LIMITS['cpu_s']}: {_verdict(each, LIMITS['cpu_s'])})",
                f"{run['peak_mb'] / 1024:.1f} (limit 4.0: {_verdict(run['peak_mb'], LIMITS['backtest_mb'])})",
                f"`{entry['commit']}`",
                str(entry["machine"]["load"][0]),
            ]
        )
    return "\n\n".join(
        [
            "## Backtests from an empty folder",
            f"`pipeline-assets backtest` for mornings a week apart, the last one after {entries[-1]['as_of']}, in one command on one core: the year until "
            "then is landed, validated and built once, features of the label weeks are computed once, and for each as-of day a model is trained and all "
            "customers are ranked.",
            _table(
                ["as-of days", "CPU s", "CPU s an as-of day", "peak of all its processes, GB", "commit", "load before"],
                rows,
            ),
        ]
    )
