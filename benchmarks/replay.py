"""A replay of the sample under three policies, with faults: how long it takes, what each policy's lists were worth, how each fault ended.

    python -m benchmarks.replay run --from 2017-07-01 --to 2017-12-31 --out FOLDER [--policy weekly]
    python -m benchmarks.replay page FOLDER [FOLDER ...]           results/replay.{md,png} from finished ones that were asked the same
    python -m benchmarks.replay remark FOLDER "held up by tests"   what a reader of its figures has to know, for the page
    python -m benchmarks.replay equal FOLDER OTHER                 which ledgers of two equal questions are equal

Days of the holdout are read through its door, as everywhere; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.replay_page import Lane, page
from benchmarks.scale import RESULTS, commit, machine
from pipeline_assets.recommender.plots import lines_plot
from pipeline_assets.replay.story import POLICIES, Event, Injected, ledger_digest

SMOOTHING = 7  # days: each weekday once
# Day of the period (from 0) -> fault. The period is cut where it ends.
FAULTS = {
    11: "corrupt_5", 24: "prices_x100", 38: "late_day", 52: "online_store_down", 67: "truncated_bundle", 81: "degraded_model",
    101: "season", 102: "season", 103: "season", 143: "missing_day",
}  # fmt: skip
MEASURED = "measured.json"  # in the folder of a replay


def faults_of(first: date, last: date) -> list[Injected]:
    """The faults of a period, on their days."""
    found = [Injected(name, first + timedelta(days=n)) for n, name in FAULTS.items()]
    return [fault for fault in found if fault.day <= last]


def run(first: date, last: date, more: Sequence[str], policies: Sequence[str], out: Path) -> None:
    """Replay the sample under some policies, each in a process of its own, and measure it.

    Args:
        more: options of the command that are not its defaults.
    """
    command = [sys.executable, "-m", "pipeline_assets.cli", "replay", "--from", str(first), "--to", str(last)]
    command += [part for policy in policies for part in ("--policy", policy)]
    command += [part for fault in faults_of(first, last) for part in ("--fault", f"{fault.name}@{fault.day}")]
    command += [*more, "--out", str(out)]
    load, began = machine()["load"], time.monotonic()
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {"commit": commit(), "machine": machine(), "load_before": load, "wall_s": time.monotonic() - began}
    question = asked(out)
    measured |= {
        "cpu_s": used.ru_utime + used.ru_stime,
        "share": question["values"].get("source", {}).get("customer_share", 1.0),
        "customers": question["requests"],
        "options": list(more),
        "policies": list(policies),
    }
    (out / MEASURED).write_text(json.dumps(measured, indent=1) + "\n")


def ledger(folder: Path, policy: str) -> list[Event]:
    """The events of a policy."""
    rows = [json.loads(line) for line in (folder / f"{policy}.ledger.jsonl").read_text().splitlines()]
    return [Event(date.fromisoformat(row["day"]), row["kind"], row["text"], row["facts"]) for row in rows]


def lanes_of(folder: Path) -> list[Lane]:
    """What each policy came to."""
    figures = json.loads((folder / "summary.json").read_text())["policies"]
    return [
        Lane(
            policy,
            ledger(folder, policy),
            pd.read_csv(folder / f"{policy}.realised.csv", parse_dates=["day"]).set_index("day"),
            float(pd.read_csv(folder / f"{policy}.costs.csv")["cpu_seconds"].sum()),
        )
        for policy in figures
    ]


def asked(folder: Path) -> dict[str, Any]:
    """What a replay was asked."""
    return dict(json.loads((folder / "question.json").read_text()))


def remark(folder: Path, text: str) -> None:
    """Keep what a reader of a run's figures has to know."""
    path = folder / MEASURED
    path.write_text(json.dumps({**json.loads(path.read_text()), "remark": text}, indent=1) + "\n")


def write_page(folders: Sequence[Path]) -> None:
    """results/replay.md and replay.png, of one replay or of several with a policy each."""
    questions = [asked(folder) for folder in folders]
    if any({**one, "policies": None} != {**questions[0], "policies": None} for one in questions):
        raise SystemExit("these replays were asked different things: they have no page in common")
    measured: list[dict[str, Any]] = [json.loads((folder / MEASURED).read_text()) for folder in folders]
    lanes = [lane for folder in folders for lane in lanes_of(folder)]
    lines = {each.policy: each.realised["ndcg"].rolling(SMOOTHING, min_periods=1).mean() for each in lanes}
    marks = [
        (each.policy, pd.Timestamp(event.day), "^") for each in lanes for event in each.events if event.kind == "full"
    ]
    chart = lines_plot(lines, marks, f"Realised NDCG@10 by policy, means of {SMOOTHING} days", "NDCG@10")
    (RESULTS / "replay.png").write_bytes(chart)
    (RESULTS / "replay.md").write_text(page(questions[0], measured, lanes))
    print(RESULTS / "replay.md")


def compare(one: Path, other: Path) -> int:
    """Print each policy's two digests; 1 if any differ."""
    answers = [asked(folder) for folder in (one, other)]
    if answers[0] != answers[1]:
        print("the two were asked different things")
        return 1
    differing = 0
    for policy in answers[0]["policies"]:
        digests = [ledger_digest(ledger(folder, policy)) for folder in (one, other)]
        differing += digests[0] != digests[1]
        print(f"{policy}: {digests[0][:16]} {'=' if digests[0] == digests[1] else '!='} {digests[1][:16]}")
    return min(differing, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a replay, write its page, or compare two."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    ways = parser.add_subparsers(dest="way", required=True)
    new = ways.add_parser("run")
    new.add_argument("--from", dest="first", type=date.fromisoformat, required=True)
    new.add_argument("--to", dest="last", type=date.fromisoformat, required=True)
    new.add_argument("--share", help="default: as the command has it")
    new.add_argument(
        "--policy", dest="policies", action="append", choices=list(POLICIES), help="default: all, side by side"
    )
    new.add_argument("--out", type=Path, required=True)
    ways.add_parser("page").add_argument("folders", type=Path, nargs="+")
    held = ways.add_parser("remark")
    held.add_argument("folder", type=Path)
    held.add_argument("text")
    both = ways.add_parser("equal")
    both.add_argument("folder", type=Path)
    both.add_argument("other", type=Path)
    options = parser.parse_args(arguments)
    if options.way == "run":
        policies = options.policies or list(POLICIES)
        more = ["--share", options.share] if options.share else []
        run(options.first, options.last, more, policies, options.out)
        write_page([options.out])
    elif options.way == "remark":
        remark(options.folder, options.text)
    elif options.way == "page":
        write_page(options.folders)
    else:
        return compare(options.folder, options.other)
    return 0


if __name__ == "__main__":
    sys.exit(main())
