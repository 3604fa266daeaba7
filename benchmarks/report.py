"""The page and the chart of the figures: results/*.json to results/scale.md and scale.png. `python -m benchmarks.report`."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import RESULTS

_WRITTEN = (
    "Written by `python -m benchmarks.report` from the JSON files beside it. How they were made and what they mean: "
    "[../README.md](../README.md)."
)
STAGES = ("ingest", "validate", "marts", "features")
Entry = Mapping[str, Any]


def exponent(small: float, large: float, factor: float) -> float:
    """b in cost ~ size ** b, from two sizes `factor` apart: 1 is linear, 0 does not grow."""
    return math.log(large / small) / math.log(factor)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table; numbers are written with the digits that can be trusted."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(cell(value) for value in row)} |" for row in rows] + [""]


def parts_of(stage: Entry, name: str) -> float:
    """CPU seconds of a stage's parts of that name."""
    return float(sum(part["cpu_s"] for part in stage["parts"] if part["name"] == name))


def grouped(known: Mapping[str, Entry]) -> dict[tuple[str, str, str], dict[tuple[int, int], Entry]]:
    """(label, first, last) -> (scale, cut-offs) -> entry."""
    found: dict[tuple[str, str, str], dict[tuple[int, int], Entry]] = {}
    for entry in known.values():
        key = (str(entry["label"] or "now"), str(entry["first"]), str(entry["last"]))
        found.setdefault(key, {})[(int(entry["scale"]), int(entry["cutoffs"]))] = entry
    return found


def scale_section(title: str, entries: Mapping[tuple[int, int], Entry]) -> list[str]:
    """Cost per stage at each scale, and how it grows."""
    lines = [f"## {title}", ""]
    order = sorted(entries)
    header = ["stage", *(f"{s}x CPU s" + (f" ({n} cut-offs)" if n > 1 else "") for s, n in order), *(f"{s}x peak MB" for s, _ in order)]  # fmt: skip
    rows: list[list[object]] = []
    for stage in STAGES:
        found = [entries[key]["stages"].get(stage) for key in order]
        rows.append(
            [stage, *(f["cpu_s"] if f else "–" for f in found), *(round(f["peak_mb"]) if f else "–" for f in found)]
        )
    whole = [list(entries[key]["stages"].values()) for key in order]
    totals = [sum(stage["cpu_s"] for stage in stages) for stages in whole]
    peaks = [round(max(stage["peak_mb"] for stage in stages)) for stages in whole]
    rows.append(["**all**", *totals, *peaks])
    lines += table(header, rows)
    lines += growth([(s, entries[(s, n)]) for s, n in order if n == 1])
    lines += details(entries, order)
    return lines


def growth(entries: Sequence[tuple[int, Entry]]) -> list[str]:
    """CPU exponents between scales; the purchases' own besides, because exposures are the shop's and do not grow."""
    if len(entries) < 2:
        return []
    steps = list(itertools.pairwise(entries))
    if len(entries) > 2:
        steps.append((entries[0], entries[-1]))
    rows: list[list[object]] = []
    for name, cost in GROWTH.items():
        values: list[object] = []
        for (small, one), (large, other) in steps:
            costs = cost(one["stages"]), cost(other["stages"])
            values.append(exponent(*costs, large / small) if all(costs) else "–")
        rows.append([name, *values])
    header = ["CPU exponent", *(f"{one[0]}x → {other[0]}x" for one, other in steps)]
    return table(header, rows) + per_line(*entries[-2:])


def per_line(small: tuple[int, Entry], large: tuple[int, Entry]) -> list[str]:
    """What a million more purchase lines cost, from the difference of two scales: what does not grow is not in it."""
    stages = [entry["stages"] for _, entry in (small, large)]
    if any(set(STAGES) - set(of) for of in stages):
        return []
    lines = [of["validate"]["facts"]["valid.purchases"] / 1e6 for of in stages]
    costs = [[of[name]["cpu_s"] for name in STAGES] for of in stages]
    each = [(b - a) / (lines[1] - lines[0]) for a, b in zip(*costs, strict=True)]
    told = ", ".join(f"{name} {cost:.1f}" for name, cost in zip(STAGES, each, strict=True))
    return [
        f"CPU s for a million more purchase lines, from {small[0]}x to {large[0]}x: {told}; together {sum(each):.1f}.",
        "",
    ]


def _stage(name: str, part: str | None = None) -> Any:
    def cost(stages: Mapping[str, Entry]) -> float:
        if name not in stages:
            return 0.0
        return parts_of(stages[name], part) if part else float(stages[name]["cpu_s"])

    return cost


GROWTH = {
    "ingest": _stage("ingest"),
    "ingest, purchases alone": _stage("ingest", "purchases"),
    "validate": _stage("validate"),
    "validate, purchases alone": _stage("validate", "purchases"),
    "marts": _stage("marts"),
    "features": _stage("features"),
    "features, the cut-off alone": lambda stages: sum(
        part["cpu_s"] for part in stages.get("features", {"parts": []})["parts"] if part["name"].startswith("as of")
    ),
    "all": lambda stages: float(sum(stage["cpu_s"] for stage in stages.values())) if len(stages) == 4 else 0.0,
}


def details(entries: Mapping[tuple[int, int], Entry], order: Sequence[tuple[int, int]]) -> list[str]:
    """Rows, wall time, disk and the parts of each stage."""
    rows: list[list[object]] = []
    for key in order:
        for name in (stage for stage in STAGES if stage in entries[key]["stages"]):
            stage = entries[key]["stages"][name]
            parts = [p for p in stage["parts"] if not p["name"].startswith("as of")]
            told = "; ".join(f"{p['name']} {p['cpu_s']:.1f}" for p in parts)
            cutoffs = [p["cpu_s"] for p in stage["parts"] if p["name"].startswith("as of")]
            if cutoffs:
                told += (
                    f"; {len(cutoffs)} cut-offs {sum(cutoffs):.1f} (least {min(cutoffs):.1f}, most {max(cutoffs):.1f})"
                )
            rows.append(
                [f"{key[0]}x {name}", sum(p["rows"] or 0 for p in stage["parts"]), float(stage["wall_s"]), stage["disk_mb"], told]
            )  # fmt: skip
    return table(["run", "rows", "wall s", "disk MB after", "CPU s of its parts (the rest is start-up)"], rows)


def chart(entries: Mapping[tuple[int, int], Entry], path: Path) -> None:
    """CPU and peak memory against scale, both logarithmic."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    points = sorted((s, e) for (s, n), e in entries.items() if n == 1)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for stage in STAGES:
        found = [(s, e["stages"][stage]) for s, e in points if stage in e["stages"]]
        scales = [s for s, _ in found]
        left.plot(scales, [f["cpu_s"] for _, f in found], "o-", label=stage)
        right.plot(scales, [f["peak_mb"] for _, f in found], "o-", label=stage)
    first = points[0][1]["stages"]
    base = sum(stage["cpu_s"] for stage in first.values())
    scales = [s for s, _ in points]
    left.plot(scales, [sum(st["cpu_s"] for st in e["stages"].values()) for _, e in points], "ko-", label="all")
    left.plot(scales, [base * s for s in scales], "k:", label="linear")
    left.set_yscale("log")
    right.set_ylim(0, 2400)
    right.axhline(2048, color="k", linestyle=":", label="2 GB")
    for axes, title in ((left, "CPU seconds"), (right, "peak memory, MB")):
        axes.set(xscale="log", title=title, xlabel="customers, times the sample")
        axes.set_xticks(scales, [f"{s}x" for s in scales])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def nightly_section(known: Mapping[str, Entry]) -> list[str]:
    """A day from landing to features, per day of each process."""
    lines = ["## A nightly day, landing to features", ""]
    for label, entry in known.items():
        rows: list[list[object]] = []
        for way, run in entry["runs"].items():
            days: dict[str, dict[str, float]] = {}
            for part in run["parts"]:
                day, _, what = part["name"].partition(" ")
                days.setdefault(day, {})[what] = part["cpu_s"]
            start = run["cpu_s"] - sum(part["cpu_s"] for part in run["parts"])
            for number, (day, costs) in enumerate(days.items()):
                state, extra = ("cold", start) if number == 0 else ("warm", 0.0)
                told = "; ".join(f"{what} {cpu:.1f}" for what, cpu in costs.items())
                told += f"; start {start:.1f}" if extra else ""
                rows.append([way, day, state, sum(costs.values()) + extra, round(run["peak_mb"]), told])
        lines += [f"Commit {entry['commit']}, {label}.", ""]
        lines += table(["way", "day", "process", "CPU s", "peak MB of the process", "of which"], rows)
    return lines


def validation_section(known: Mapping[str, Entry]) -> list[str]:
    """Rows per CPU second of each case."""
    lines = ["## Validation alone", ""]
    for entry in known.values():
        rows: list[list[object]] = []
        for name, run in entry["cases"].items():
            feed, kind, way = name.split()
            best = min((part["cpu_s"] for part in run["parts"]), default=None)
            speed: object = round(run["facts"]["rows"] / best, -3) if best else f"stopped after {entry['cap_s']} CPU s"
            rows.append([feed, kind, way, run["facts"]["rows"], speed, round(run["peak_mb"])])
        lines += [
            f"Commit {entry['commit']}; Arrow in, Arrow out; the best of three repeats (pandera on bad and ruined rows: once).",
            "",
        ]
        lines += table(["feed", "rows are", "way", "rows", "rows per CPU s", "peak MB"], rows)
    return lines


def peers_section(known: Mapping[str, Entry]) -> list[str]:
    """The naive ways beside ours, all of one run."""
    lines = ["## The naive ways, and ours in the same run", ""]
    for entry in known.values():
        year, pandas = entry["ours"], entry["pandas"]
        mine = {part["name"]: part["cpu_s"] for part in year["aggregates"]["parts"]}
        full = {part["name"]: part["cpu_s"] for part in year["features"]["parts"]}
        mine["ingest"] = parts_of(year["ingest"], "purchases") + parts_of(year["ingest"], "exposures")
        mine |= {f"validate {feed}": parts_of(year["validate"], feed) for feed in ("purchases", "exposures")}
        mine["marts"] = float(sum(part["cpu_s"] for part in year["marts"]["parts"]))
        rows: list[list[object]] = []
        for part in pandas["parts"]:
            ours, whole = mine[part["name"]], full.get(part["name"], "–")
            ratio = part["cpu_s"] / ours
            rows.append([part["name"], part["rows"], part["cpu_s"], ours, ratio, whole, round(part["peak_mb"])])
        cutoffs = [part for part in pandas["parts"] if part["name"].startswith("as of")]
        theirs = sum(part["cpu_s"] for part in cutoffs)
        read = mine["read purchases"]
        counted = sum(mine[part["name"]] for part in cutoffs)
        lines += [f"Commit {entry['commit']}; load of the machine at the end {entry['machine']['load']}.", ""]
        lines += table(
            ["whole tables in pandas", "rows", "its CPU s", "our CPU s", "ratio", "all our features", "its peak MB"],
            rows,
        )
        lines += [
            f"Aggregates at {len(cutoffs)} cut-offs together: pandas {theirs:.1f} CPU s, ours {counted:.1f}, {theirs / counted:.1f} times; with reading and "
            f"encoding the year once ({read:.1f}, pandas has its tables in memory) {theirs / (counted + read):.1f} times.",
            "",
            f"Pandas peaks at {pandas['peak_mb']:,.0f} MB, ours at {max(year[stage]['peak_mb'] for stage in STAGES):,.0f}. Equal outputs: "
            f"{pandas['facts']['rows.fct_purchases']:,} purchases in its mart, ours {year['marts']['facts']['rows.fct_purchases']:,}; pairs, orders and "
            "decayed sums at each cut-off.",
            "",
        ]  # fmt: skip
        costs = [run["cpu_s"] for run in entry["process_per_partition"]]
        mean, one_run = sum(costs) / len(costs), sum(year[stage]["cpu_s"] for stage in STAGES[:3])
        lines += [
            f"One process per partition (`dagster asset materialize --partition D`, ingest to marts): {len(costs)} days at "
            f"{mean:.1f} CPU s each; {mean * 365:,.0f} CPU s for 365 days (**extrapolated**), {mean * 365 / one_run:.0f} times our {one_run:,.0f}.",
            "",
            "The backfill of this run, ingest to features at 52 cut-offs: "
            + ", ".join(f"{stage} {year[stage]['cpu_s']:.1f}" for stage in STAGES)
            + f"; **{sum(year[stage]['cpu_s'] for stage in STAGES):.0f} CPU s**.",
            "",
        ]
    return lines


def small_section(known: Mapping[str, Entry]) -> list[str]:
    """What single decisions rest on."""
    lines = ["## Single decisions", ""]
    for entry in known.values():
        rows = [
            [part["name"], part["rows"], part["cpu_s"], round(part["peak_mb"])]
            for run in entry["runs"].values()
            for part in run["parts"]
        ]
        lines += [f"Commit {entry['commit']}. Events: one range run of a trivial asset, two events a day.", ""]
        lines += table(["what", "days or rows", "CPU s", "peak MB of the process"], rows)
    return lines


def main() -> int:
    """Write the page and the chart."""
    files = {name: RESULTS / f"{name}.json" for name in ("scale", "nightly", "validation", "peers", "small")}
    known = {name: json.loads(path.read_text()) if path.exists() else {} for name, path in files.items()}
    lines = ["# Figures", "", _WRITTEN, ""]
    groups = grouped(known["scale"])
    for label, first, last in sorted(groups, key=lambda key: (key[0] != "now", key[1:])):
        entries = groups[label, first, last]
        commits = ", ".join(sorted({str(entry["commit"]) for entry in entries.values()}))
        title = {"now": "Scale", "before": "Scale, before the changes of issue 3"}.get(label, f"Scale, {label}")
        lines += scale_section(f"{title}: {first} to {last} (commit {commits})", entries)
        if label == "now" and len({scale for scale, _ in entries}) > 1:
            chart(entries, RESULTS / f"scale-{first}-{last}.png")
            lines += [f"![CPU and memory against scale](scale-{first}-{last}.png)", ""]
    lines += nightly_section(known["nightly"]) if known["nightly"] else []
    lines += validation_section(known["validation"]) if known["validation"] else []
    lines += peers_section(known["peers"]) if known["peers"] else []
    lines += small_section(known["small"]) if known["small"] else []
    (RESULTS / "scale.md").write_text("\n".join(lines).rstrip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
