"""The page of `benchmarks.serving`, from its JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    "memory": "API, features remembered",
    "feast": "API, Feast (SQLite) read for each answer",
    "naive": "naive: FastAPI + Feast one by one + Booster.predict",
    "mlflow": "mlflow models serve (scoring only)",
}


def page(found: Mapping[str, Any]) -> str:
    """Markdown: what was measured, the ratios, and each goal with what was found."""
    model, slates = found["model"], found["slates"]
    before, after = (f"{found[name][0]:.1f}" for name in ("load_before", "load_after"))
    lines = [
        "# Serving, measured",
        "",
        f"Written by `python -m benchmarks.serving`, {found['measured_at']}. HTTP on loopback, wrk on the same two cores,",
        f"load average {before} before and {after} after.",
        f"{model['candidates']} candidates x {model['features']} features, {model['trees']} trees"
        f"{', compiled' if model['compiled'] else ''}, {model['customers']} customers; one worker each. CPU is that of the server's process tree.",
        "",
        "| server | CPU ms an answer | answers a core-second | p50 ms, 1 connection | p99 ms, 1 connection | answers/s, saturated | start s (CPU s) | RSS MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, title in NAMES.items():
        one, full, server = found[name]["one"], found[name]["saturated"], found[name]
        lines.append(
            f"| {title} | {full['cpu_ms']:.2f} | {full['requests_per_core_s']:,.0f} | {one['p50_ms']:.2f} | {one['p99_ms']:.1f} | "
            f"{full['requests_per_s']:,.0f} | {server['start_s']:.1f} ({server['start_cpu_s']:.1f}) | {', '.join(str(mb) for mb in server['rss_mb'])} |"
        )
    lines += [
        "",
        f"Slates of {slates['customers']} customers are equal on all three, in order;",
        f"scores differ by {slates['largest_score_difference']:.0e} at most (the run fails otherwise).",
        "",
        "## Load",
        "",
        "| API | offered/s | answered/s | p50 ms | p99 ms | statuses |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("memory", "feast"):
        for kind, title in (("half", "half load"), ("overload", "five times the capacity")):
            one = found[name][kind]
            counts = ", ".join(f"{n:,} x {status}" for status, n in sorted(one["statuses"].items()))
            lines.append(
                f"| {name}, {title} | {one['offered']:,.0f} | {one['requests_per_s']:,.0f} | {one['p50_ms']:.1f} | {one['p99_ms']:.1f} | {counts} |"
            )
    two = found["two_workers"]["saturated"]
    lines += [
        "",
        f"Two workers: {two['requests_per_s']:,.0f} answers/s where one gave {found['memory']['saturated']['requests_per_s']:,.0f}, "
        f"at {two['cpu_ms']:.2f} ms CPU an answer; wrk takes its part of the two cores.",
        "",
        "## Against the goals",
        "",
        "| goal | found | |",
        "|---|---|---|",
    ]
    lines += [f"| {goal} | {value} | {'met' if is_met else '**not met**'} |" for goal, value, is_met in goals(found)]
    return "\n".join(lines) + "\n"


def goals(found: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(goal, what was found, whether it is met); the ratios are of CPU an answer, in the same run."""
    cpu = {name: found[name]["saturated"]["cpu_ms"] for name in NAMES}
    rate = {name: found[name]["saturated"]["requests_per_core_s"] for name in ("memory", "feast")}
    one, half, over = (found["memory"][name] for name in ("one", "half", "overload"))
    largest = max(found[name]["rss_mb"][0] for name in ("memory", "feast"))
    start = max(found[name]["start_cpu_s"] for name in ("memory", "feast"))
    unasked = sum(n for status, n in over["statuses"].items() if status not in ("200", "429", "503"))
    single, two = found["memory"]["saturated"]["requests_per_s"], found["two_workers"]["saturated"]["requests_per_s"]
    return [
        ("at least 700 answers a core-second from memory", f"{rate['memory']:,.0f}", rate["memory"] >= 700),
        ("at least 450 with Feast in the path", f"{rate['feast']:,.0f}", rate["feast"] >= 450),
        (
            "80 times the naive path from memory",
            f"{cpu['naive'] / cpu['memory']:.0f}",
            cpu["naive"] / cpu["memory"] >= 80,
        ),
        ("50 times with Feast", f"{cpu['naive'] / cpu['feast']:.0f}", cpu["naive"] / cpu["feast"] >= 50),
        ("8 times mlflow models serve", f"{cpu['mlflow'] / cpu['memory']:.1f}", cpu["mlflow"] / cpu["memory"] >= 8),
        ("p50 of 2 ms or less, one connection", f"{one['p50_ms']:.2f} ms", one["p50_ms"] <= 2),
        ("p99 of 10 ms or less at half load", f"{half['p99_ms']:.1f} ms", half["p99_ms"] <= 10),
        (
            "p99 of what is accepted holds at five times the capacity, 429 or 503 for the rest",
            f"{over['p99_ms']:.1f} ms; {over['broken'] + unasked} other failures",
            over["p99_ms"] <= 100 and not unasked and not over["broken"],
        ),
        (
            "start-up of 3 s or less",
            f"{start:.1f} s CPU without the probe's process, {found['memory']['start_s']:.1f} s wall beside a second server",
            start <= 3,
        ),
        ("350 MB a worker or less", f"{largest} MB", largest <= 350),
        ("more workers, more throughput", f"{two / single:.2f} times with two", two > single),
    ]
