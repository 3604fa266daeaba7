"""What the samples of benchmarks/soak.py say: figures, page and chart, from soak.json alone. `python -m benchmarks.soak_page` writes them again."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import table
from benchmarks.scale import RESULTS

LONG_LIVED = ("launcher", "daemon", "supervisor", "code_server", "webserver", "api")
SENSORS = ("daemon", "supervisor", "code_server")  # the daemon asks, the code server evaluates
MAX_IDLE_CPU = 0.05  # of a core, what the sensors may cost while nothing happens
SETTLED_SECONDS = 30.0  # after the last run ended: a worker takes a moment to go
TREND_MB_AN_HOUR = 60.0  # of a long-lived process, in the second half: above it, it is said to grow
Sample = Mapping[str, Any]


def idle_pairs(found: Mapping[str, Any]) -> list[tuple[Sample, Sample]]:
    """Neighbouring samples between which nothing arrived, and before and after which no run was in progress."""
    moments = [moment for moment, _ in found["arrivals"]]
    pairs = []
    for before, after in itertools.pairwise(found["samples"]):
        is_quiet = before["in_progress"] == after["in_progress"] == 0
        is_same = all(before[name] == after[name] for name in ("succeeded", "failed"))
        if is_quiet and is_same and not any(before["t"] <= moment <= after["t"] for moment in moments):
            pairs.append((before, after))
    return pairs


def idle_cpu(found: Mapping[str, Any]) -> dict[str, float]:
    """Share of a core by role, over the idle stretches; `seconds` is how long they were together."""
    pairs = idle_pairs(found)
    seconds = sum(after["t"] - before["t"] for before, after in pairs)
    shares = {"seconds": seconds}
    for role in LONG_LIVED:
        used = sum(_of(after, role, "cpu_s") - _of(before, role, "cpu_s") for before, after in pairs)
        shares[role] = used / seconds if seconds else float("nan")
    return shares


def sensors_share(shares: Mapping[str, float]) -> float:
    """What the sensors cost of a core while idle."""
    return sum(shares[role] for role in SENSORS)


def not_back(found: Mapping[str, Any]) -> list[float]:
    """Moments when nothing had been in progress for `SETTLED_SECONDS` and there were more processes than at first."""
    base, quiet_since, moments = None, None, []
    for sample in found["samples"]:
        count = sum(usage["processes"] for role, usage in sample["roles"].items() if role != "probe")
        quiet_since = None if sample["in_progress"] else sample["t"] if quiet_since is None else quiet_since
        if quiet_since is None or sample["t"] - quiet_since < SETTLED_SECONDS:
            continue
        base = count if base is None else base
        if count > base:
            moments.append(sample["t"])
    return moments


def trend(found: Mapping[str, Any], role: str, name: str) -> float:
    """Slope per hour of a role's `name` in the second half of the idle samples (least squares)."""
    after = [a for _, a in idle_pairs(found)]
    later = after[len(after) // 2 :]
    if len(later) < 2:
        return float("nan")
    hours, values = np.array([s["t"] / 3600 for s in later]), np.array([_of(s, role, name) for s in later])
    return float(np.polyfit(hours, values, 1)[0])


def disk_a_day(found: Mapping[str, Any]) -> dict[str, float]:
    """MB by folder that a business day added: last minus first, by days that arrived between."""
    first, last = found["disk"][0], found["disk"][-1]
    days = sum(first["t"] < moment <= last["t"] for moment, _ in found["arrivals"]) or 1
    return {name: (size - first["mb"].get(name, 0.0)) / days for name, size in last["mb"].items()}


def _of(sample: Sample, role: str, name: str) -> float:
    return float(sample["roles"].get(role, {}).get(name, 0.0))


def write_page(folder: Path) -> str:
    """Write soak.md and soak.png beside soak.json; returns the page."""
    found = json.loads((folder / "soak.json").read_text())
    text = page(found)
    (folder / "soak.md").write_text(text)
    chart(found, folder / "soak.png")
    return text


def page(found: Mapping[str, Any]) -> str:
    """Markdown."""
    own, samples = found["by_itself"], found["samples"]
    lines = [
        "# An hour on its own",
        "",
        f"Written by `make soak`, {found['measured_at']}. {found['machine']}, of which the tree may use {len(found['cores_allowed'])}; load average "
        f"{found['load_before'][0]} before and {found['load_after'][0]} after. `pipeline-assets dev` with everything switched on, and the API:",
        f"{found['minutes']:g} minutes, a business day each {found['day_seconds']:g} s, the weekly training by `{found['training_cron']}`; "
        f"{len(samples)} samples. Nobody touched anything.",
        "",
        "![Memory, CPU and disk](soak.png)",
        "",
        "## What must hold",
        "",
        *table(["", "found", "wanted", ""], [[*row[:3], "met" if row[3] else "**missed**"] for row in judged(found)]),
        "## Processes",
        "",
        *_processes(found),
        "## Disk",
        "",
        *table(["in the data folder", "MB first", "MB last", "MB a business day"], _disk_rows(found)),
        f"Rows of Dagster's event index: {samples[0]['events']:,} at first, {samples[-1]['events']:,} at last.",
        "",
        "## What it did by itself",
        "",
        *_done(found),
        "",
        "## What failed",
        "",
        *([f"- run of `{row['job']}`, {row['day']}: {row['why']}" for row in own["failed_runs"]] or ["No run failed."]),
        *(f"- tick, {count} times: {text}" for text, count in own["tick_errors"].items()),
        *(f"- still alive after the stop: `{line}`" for line in found["stop"]["left"]),
        "",
    ]
    return "\n".join(lines)


def judged(found: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What must hold: name, what was found, what is wanted, whether it holds."""
    own, stop, shares, back = found["by_itself"], found["stop"], idle_cpu(found), not_back(found)
    cost, left, failed = sensors_share(shares), len(stop["left"]), len(own["failed_runs"])
    largest, role = max((trend(found, role, "rss_mb"), role) for role in LONG_LIVED)
    published, arrived = len(own["published"]), len(found["arrivals"])
    refused = sum(count for status, count in found["traffic"]["statuses"].items() if status != "200")
    ticks = sum(own["tick_errors"].values())
    idle = f"{cost:.1%} of a core over {shares['seconds']:.0f} s"
    after = f"{left} of {found['processes_seen']}, {stop['seconds']} s after Ctrl-C"
    return [
        (
            "sensors while idle: daemon, code server and its supervisor",
            idle,
            f"≤ {MAX_IDLE_CPU:.0%}",
            cost <= MAX_IDLE_CPU,
        ),
        ("processes left after the stop", after, "0", not left),
        ("idle samples with more processes than at first", str(len(back)), "0", not back),
        (
            "growth of a long-lived process, second half",
            f"{role} {largest:+.0f} MB an hour",
            f"≤ {TREND_MB_AN_HOUR:.0f}",
            largest <= TREND_MB_AN_HOUR,
        ),
        ("days published, of those that arrived", f"{published} of {arrived}", "all but one", published >= arrived - 1),
        ("failed runs", str(failed), "0", not failed),
        ("failed ticks", str(ticks), "0", not ticks),
        ("requests without a 200", str(refused), "0", not refused),
    ]


def _processes(found: Mapping[str, Any]) -> list[str]:
    samples, shares = found["samples"], idle_cpu(found)
    first, last = samples[0], samples[-1]
    rows: list[list[object]] = []
    for role in LONG_LIVED:
        sizes = (_of(first, role, "rss_mb"), max(_of(s, role, "rss_mb") for s in samples), _of(last, role, "rss_mb"))
        memory = [*(f"{size:.0f}" for size in sizes), f"{trend(found, role, 'rss_mb'):+.0f}"]
        files = [f"{_of(sample, role, 'files'):.0f}" for sample in (first, last)]
        rows.append([role, f"{100 * shares[role]:.1f}", f"{_of(last, role, 'cpu_s'):.0f}", *memory, *files])
    workers, megabytes = (max(_of(sample, "run", name) for sample in samples) for name in ("processes", "rss_mb"))
    whole = max(sum(usage["rss_mb"] for usage in sample["roles"].values()) for sample in samples)
    header = [
        "process",
        "idle CPU, % of a core",
        "CPU s in all",
        "MB first",
        "largest",
        "last",
        "MB an hour, second half",
    ]
    return [
        *table([*header, "open files first", "last"], rows),
        f"Runs are processes of their own: {workers:.0f} at a time at most, {megabytes:,.0f} MB together at most. The whole tree had {whole:,.0f} MB at most.",
        "",
    ]


def _done(found: Mapping[str, Any]) -> list[str]:
    own, traffic = found["by_itself"], found["traffic"]
    published = own["published"]
    ticks = [f"{name}: {_counts(counts)}" for name, counts in sorted(own["ticks"].items())]
    reports = [f"{name}: {_counts(verdicts)}" for name, verdicts in own["reports"].items()]
    releases = Counter(row["state"] for row in own["releases"])
    gate = [": ".join([f"{row['day']} {row['outcome']}", *row["reasons"][:1]]) for row in own["gate"]]
    times = f"p50 {traffic['p50_ms']:.1f} ms, p99 {traffic['p99_ms']:.0f} ms"
    return [
        f"- Days published: {len(published)}" + (f", {published[0]} to {published[-1]}." if published else "."),
        f"- Runs: {_counts(own['runs'])}.",
        f"- Gate: {'; '.join(gate) or 'nothing was trained'}.",
        f"- Releases by state: {_counts(releases)}.",
        f"- Verdicts of the reports: {'; '.join(reports)}.",
        f"- Ticks: {'; '.join(ticks)}.",
        f"- Alerts: {_counts(own['alerts'])}.",
        f"- Requests: {_counts(traffic['statuses'])}; answers by level: {_counts(traffic['levels'])}; by model: {_counts(traffic['models'])}; {times}.",
    ]


def _counts(found: Mapping[str, int]) -> str:
    """`3 x skipped, 1 x success`; largest first."""
    return ", ".join(f"{n:,} x {name}" for name, n in sorted(found.items(), key=lambda item: -item[1])) or "none"


def _disk_rows(found: Mapping[str, Any]) -> list[list[object]]:
    first, last, growth = found["disk"][0]["mb"], found["disk"][-1]["mb"], disk_a_day(found)
    rows = [[name, f"{first.get(name, 0.0):.1f}", f"{last[name]:.1f}", f"{growth[name]:.2f}"] for name in last]
    total = [f"{sum(first.values()):.1f}", f"{sum(last.values()):.1f}", f"{sum(growth.values()):.2f}"]
    return [*rows, ["**all**", *total]]


def chart(found: Mapping[str, Any], path: Path) -> None:
    """Three rows over the minutes: memory, CPU as a share of a core, disk; a line where a day arrived."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    samples: Sequence[Sample] = found["samples"]
    minutes = [sample["t"] / 60 for sample in samples]
    figure, (memory, cpu, disk) = plt.subplots(3, 1, figsize=(9, 8), sharex=True, constrained_layout=True)
    for role in (*LONG_LIVED, "run"):
        memory.plot(minutes, [_of(s, role, "rss_mb") for s in samples], label=role.replace("_", " "))
    for role in LONG_LIVED[1:]:
        used = [_of(a, role, "cpu_s") - _of(b, role, "cpu_s") for b, a in itertools.pairwise(samples)]
        walls = [a["t"] - b["t"] for b, a in itertools.pairwise(samples)]
        cpu.plot(minutes[1:], [100 * u / w for u, w in zip(used, walls, strict=True)], label=role.replace("_", " "))
    when = [row["t"] / 60 for row in found["disk"]]
    disk.plot(when, [sum(row["mb"].values()) for row in found["disk"]], color="black", label="data folder and logs")
    for axis, title in ((memory, "MB"), (cpu, "% of a core"), (disk, "MB on disk")):
        axis.set_ylabel(title)
        axis.legend(fontsize=7, loc="upper left", ncols=3)
        for moment, _ in found["arrivals"]:
            axis.axvline(moment / 60, color="grey", alpha=0.4, linewidth=0.6)
    disk.set_xlabel("minutes; grey lines: a business day arrives")
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    print(write_page(RESULTS))
    sys.exit(0)
