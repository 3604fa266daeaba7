"""SIGKILL inside ingestion, validation, marts and features: a re-run reaches the same tables, and no reader ever saw a bad batch.

`make chaos` runs 50 seeded random points and writes benchmarks/results/chaos.md; e2e/test_chaos.py runs a few fixed ones. A point
is a writing system call of the pipeline's process, counted among those of one stage's writers (tracing.py): the process group
is killed before that call happens. A reader polls through the doors all the time, and what it sees of a day must be
what the undisturbed pass showed before or after it, nothing else.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.versions import sweep
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.expected import Expected
from pipeline_assets_tests.chaos.looking import Seen, contents, differences, orphans, through_doors
from pipeline_assets_tests.chaos.story import STAGES, Story, bring_up, stage_of
from pipeline_assets_tests.chaos.tracing import ALL, OF_FILES, Call, Decision
from pipeline_assets_tests.shop import Shop

ANYWHERE = "anywhere"  # in the data folder: Dagster's storage of runs and events, too
REACHED = 0.9  # of the counted calls: threads make their number differ a little between runs


@dataclass(frozen=True)
class Point:
    """The n-th writing call, from 0, of a stage's writers, or anywhere."""

    stage: str
    n: int


@dataclass
class Outcome:
    """What happened at one point; `wrong` is empty when all held."""

    point: Point
    call: str = "not reached"
    half_written: int = 0  # files that the kill left and no commit names
    looks: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ending(self) -> str:
        return "; ".join(self.wrong)[:300] or "same tables, no bad look, no orphan"


def count(story: Story) -> Counter[str]:
    """How many writing calls an undisturbed pass makes, by stage, and in the whole data folder."""
    counted: Counter[str] = Counter()
    shop = story.copy(story.root / f"count-{os.getpid()}")
    inside = f"{shop.data_dir}/"

    def go(call: Call) -> Decision:
        if call.path.startswith(inside):
            counted[ANYWHERE] += 1
            stage = stage_of(call.path.removeprefix(inside))
            if stage and call.name in calls_of(stage):
                counted[stage] += 1
        return "go"

    story.must(forge.run(shop, bring_up, story.log("count"), go, ALL))
    shutil.rmtree(shop.root)
    return counted


def calls_of(stage: str) -> Collection[str]:
    """The system calls that a point of a stage is chosen among."""
    return ALL if stage == ANYWHERE else OF_FILES


def try_points(story: Story, points: Sequence[Point], name: str, expected: Expected) -> list[Outcome]:
    """Kill at each point in turn, every pass going on where the one before was killed; then a pass to the end, and compare.

    A reader looks on all the time. What is wrong at the end is said of each point of the row.
    """
    shop = story.copy(story.root / name)
    lake, inside = local_lake(shop.data_dir), f"{shop.data_dir}/"
    looks = shop.root / "looks"
    looks.write_text("0")

    def look(number: int) -> None:
        for line in differences(through_doors(lake, story.days), expected.before, expected.after):
            print(f"SAW {line}", flush=True)
        looks.write_text(str(number + 1))

    reader = forge.Beside(shop, look, shop.root / "reader.log")
    outcomes, wrong = [], list[str]()
    for point in points:
        outcome, passed, started, before = Outcome(point), 0, time.monotonic(), int(looks.read_text())

        def decide(call: Call, point: Point = point, outcome: Outcome = outcome) -> Decision:
            nonlocal passed
            relative = call.path.removeprefix(inside)
            if relative == call.path or point.stage not in (ANYWHERE, stage_of(relative)):
                return "go"
            passed += 1
            if passed <= point.n:
                return "go"
            outcome.call = f"{call.name} {relative}"
            return "kill"

        killed = forge.run(shop, bring_up, shop.root / "killed.log", decide, calls_of(point.stage))
        if not killed.was_killed:
            wrong.append(f"was not killed in {point.stage}: {killed.said[-300:]}")
        outcome.half_written = len(orphans(Path(lake.root)))
        outcome.looks = int(looks.read_text() or before) - before
        outcome.seconds = time.monotonic() - started
        outcomes.append(outcome)
    again = forge.run(shop, bring_up, shop.root / "again.log")
    if not again.succeeded:
        wrong.append(f"the re-run failed: {again.said[-1500:]}")
    saw = reader.stopped()
    if not saw.succeeded or saw.said:
        wrong.append(f"reader: {saw.said[:1500]}")
    outcomes[-1].looks = int(looks.read_text()) - sum(o.looks for o in outcomes[:-1])
    wrong += what_is_left(shop.root, expected)
    for outcome in outcomes:
        outcome.wrong = wrong
    if not wrong:
        shutil.rmtree(shop.root)
    return outcomes


def what_is_left(root: Path, expected: Expected) -> list[str]:
    """What is wrong after a re-run: other contents than undisturbed, or files that are nobody's.

    `pipeline-assets run` leaves a young file that no commit names to its writer, which may still be at work, for a day. Here
    nobody is: the same sweep is made with no such time, and must take nothing that is needed.
    """
    lake, now = local_lake(root / "data"), datetime.now(UTC)
    shop = Shop(root)

    def found() -> Seen:
        sweep(lake, now)
        return contents(lake)

    after = forge.told(shop, found, root / "contents.json")
    return expected.unlike(after) + [f"orphan: {path}" for path in orphans(Path(lake.root))]


def chosen_points(calls: Counter[str], seed: int, points: int) -> list[list[Point]]:
    """Seeded random points in rows: one inside the writers of each stage, in the order of the stages; every fifth point is alone and
    anywhere in the data folder."""
    dice, rows = random.Random(seed), list[list[Point]]()
    while (missing := points - sum(map(len, rows))) > 0:
        rows.append([Point(stage, dice.randrange(int(calls[stage] * REACHED))) for stage in STAGES][:missing])
        if missing > len(STAGES):
            rows.append([Point(ANYWHERE, dice.randrange(int(calls[ANYWHERE] * REACHED)))])
    return rows


def in_lanes(story: Story, rows: list[list[Point]], expected: Expected, n_lanes: int) -> list[Outcome]:
    """Try the rows, `n_lanes` at a time, each lane a process; in their order. A row that has an outcome keeps it."""
    lanes = []
    for lane in range(n_lanes):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            forge.end_with_parent()
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                for at in range(lane, len(rows), n_lanes):
                    kept = story.root / f"row-{at}.json"
                    if not kept.exists():
                        outcomes = try_points(story, rows[at], f"row-{at}-{os.getpid()}", expected)
                        kept.write_text(json.dumps([asdict(outcome) for outcome in outcomes]))
                    print(json.dumps([at, json.loads(kept.read_text())]), file=pipe, flush=True)
            os._exit(0)
        os.close(writing)
        lanes.append((child, os.fdopen(reading)))
    found: dict[int, list[Outcome]] = {}
    for child, pipe in lanes:
        with pipe:
            for line in pipe:
                at, row = json.loads(line)
                found[at] = [Outcome(**{**values, "point": Point(**values["point"])}) for values in row]
                for outcome in found[at]:
                    print(f"{at}: {outcome.point.stage}: {outcome.call}: {outcome.ending}", flush=True)
        os.waitpid(child, 0)
    assert len(found) == len(rows), "a lane did not finish"
    return [outcome for at in sorted(found) for outcome in found[at]]


def table(outcomes: list[Outcome], seed: int) -> str:
    """The result as Markdown."""
    looks = sum(o.looks for o in outcomes)
    lines = [
        f"{len(outcomes)} points, seed {seed}: {sum(not o.wrong for o in outcomes)} as wanted; {looks} looks of readers.",
        "",
        "| # | stage | killed before | files left that no commit names | looks | outcome |",
        "|---|---|---|---|---|---|",
    ]
    for at, o in enumerate(outcomes, 1):
        lines.append(f"| {at} | {o.point.stage} | `{o.call}` | {o.half_written} | {o.looks} | {o.ending} |")
    return "\n".join(lines) + "\n"
