"""What `make chaos` tries, and the page that it writes: benchmarks/results/chaos.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

from pipeline_assets_tests.chaos import backfills, disk_full, forge, kills, rivals
from pipeline_assets_tests.chaos.expected import Expected
from pipeline_assets_tests.chaos.story import Story

SEED, POINTS, DAYS, EVERY = 2017, 50, 90, 9
LAST = date(2017, 3, 19)  # a weekly cut-off, so that its features are stale when it is corrected
RESULT = Path("benchmarks/results/chaos.md")


def options() -> argparse.Namespace:
    """What to try, and where."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_assets_tests.chaos", description=__doc__)
    parser.add_argument("--points", type=int, default=POINTS, help="random kills (default %(default)s)")
    parser.add_argument("--lanes", type=int, default=2, help="kills at a time (default %(default)s)")
    parser.add_argument("--days", type=int, default=DAYS, help="days of the backfills (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="(default %(default)s)")
    parser.add_argument(
        "--only", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), help="(default: all)"
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="(default %(default)s)")
    parser.add_argument("--folder", type=Path, help="kept: a run that was stopped goes on there (default: a new one)")
    return parser.parse_args()


def experiments(chosen: argparse.Namespace, root: Path) -> int:
    """Everything that was asked for; 1 when something did not end as wanted. This process never opens a table itself (forge.py)."""

    forge.warm_up()
    parts, wrong = [], []
    for name in chosen.only:
        started, cpu, kept = time.monotonic(), sum(os.times()[:4]), root / f"{name}.json"
        if not kept.exists():
            text, faults = EXPERIMENTS[name](root, chosen)
            spent = (
                f"{time.monotonic() - started:.0f} s, {sum(os.times()[:4]) - cpu:.0f} CPU s on {os.cpu_count()} cores."
            )
            kept.write_text(json.dumps([f"{text}\n{spent}\n", faults]))
        text, faults = json.loads(kept.read_text())
        parts.append(text)
        wrong += faults
    chosen.out.write_text("\n".join([HEAD, *parts]))
    print(chosen.out.read_text())
    return 1 if wrong else 0


def the_story(root: Path) -> tuple[Story, Expected]:
    """Past, batch and undisturbed pass, once a folder."""
    story = Story(root / "story", LAST)
    if not (story.root / "told").exists():
        shutil.rmtree(story.root, ignore_errors=True)
        story.root.mkdir(parents=True)
        story.begin()
        (story.root / "told").touch()
    return story, Expected.of(story)


def killed(root: Path, chosen: argparse.Namespace) -> tuple[str, list[str]]:
    """SIGKILL at random points."""
    story, expected = the_story(root)
    counted = story.root / "calls.json"
    if not counted.exists():
        counted.write_text(json.dumps(kills.count(story)))
    points = kills.chosen_points(Counter(json.loads(counted.read_text())), chosen.seed, chosen.points)
    outcomes = kills.in_lanes(story, points, expected, chosen.lanes)
    text = f"## SIGKILL inside writers\n\n{KILLS}\n{kills.table(outcomes, chosen.seed)}"
    return text, [fault for o in outcomes for fault in o.wrong]


def filled(root: Path, _: argparse.Namespace) -> tuple[str, list[str]]:
    """Full disks."""
    story, expected = the_story(root)
    outcomes = [
        disk_full.fill(story, case, f"full-{n}-{os.getpid()}", expected) for n, case in enumerate(disk_full.CASES)
    ]
    return f"## Disk full\n\n{FULL}\n{disk_full.table(outcomes)}", [fault for o in outcomes for fault in o.wrong]


def raced(root: Path, _: argparse.Namespace) -> tuple[str, list[str]]:
    """Two workers at once, a locked database."""
    story, expected = the_story(root)
    outcomes = [rivals.two_at_once(story, expected), rivals.locked_database(story, expected)]
    return f"## Rivals\n\n{rivals.table(outcomes)}", [fault for o in outcomes for fault in o.wrong]


def backfilled(root: Path, chosen: argparse.Namespace) -> tuple[str, list[str]]:
    """Days in random order."""
    seeds = (chosen.seed, chosen.seed + 1)
    outcome = backfills.backfill_twice(root / f"backfills-{os.getpid()}", chosen.days, EVERY, seeds)
    return f"## Backfills in random order\n\n{backfills.table(outcome, seeds)}", outcome.wrong


EXPERIMENTS: dict[str, Callable[[Path, argparse.Namespace], tuple[str, list[str]]]] = {
    "kills": killed,
    "disk": filled,
    "rivals": raced,
    "backfills": backfilled,
}
HEAD = """# Chaos

Written by `make chaos` (pipeline_assets_tests/chaos/). The generated shop of pipeline_assets_tests/world.py, the real jobs, real processes.
"""
KILLS = """A batch of six days (one bad, one corrected, one delivered again unchanged, three new, one of them with bad rows) on top of 77. The
process is killed with SIGKILL before a writing system call chosen at random, then `pipeline-assets run` plans and runs again (up to features):
in rows of four, one kill in each stage, every pass going on where the one before was killed, or alone and anywhere; then a pass to its end. A reader polls
`validated`, marts and features through the doors from before the kill until after the re-run. As wanted: every table as in an undisturbed
run, every look shows a day as it was before or after the batch, no file that no commit names is left.
"""
FULL = """The data folder, or the lake alone, is a tmpfs with so many bytes left when the stage begins. As wanted: the stage fails and says why, the
doors show the last good state, and with room a re-run ends with the tables of an undisturbed run and no orphan.
"""
