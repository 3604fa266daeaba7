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
from collections.abc import Collection
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
REACHED = 0.95  # of the counted calls: threads make their number differ a little between runs


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


def try_point(story: Story, point: Point, name: str, expected: Expected) -> Outcome:
    """Kill at a point, make another pass, and compare."""
    outcome, started = Outcome(point), time.monotonic()
    shop = story.copy(story.root / name)
    lake, inside, passed = local_lake(shop.data_dir), f"{shop.data_dir}/", 0

    def decide(call: Call) -> Decision:
        nonlocal passed
        if not call.path.startswith(inside):
            return "go"
        relative = call.path.removeprefix(inside)
        if point.stage not in (ANYWHERE, stage_of(relative)):
            return "go"
        passed += 1
        if passed <= point.n:
            return "go"
        outcome.call = f"{call.name} {relative}"
        return "kill"

    def look(number: int) -> None:
        for line in differences(through_doors(lake, story.days), expected.before, expected.after):
            print(f"SAW {line}", flush=True)
        (shop.root / "looks").write_text(str(number + 1))

    reader = forge.Beside(shop, look, shop.root / "reader.log")
    killed = forge.run(shop, bring_up, shop.root / "killed.log", decide, calls_of(point.stage))
    if not killed.was_killed:
        outcome.wrong.append(f"was not killed: {killed.said[-300:]}")
    outcome.half_written = len(orphans(Path(lake.root)))
    again = forge.run(shop, bring_up, shop.root / "again.log")
    if not again.succeeded:
        outcome.wrong.append(f"the re-run failed: {again.said[-1500:]}")
    saw = reader.stopped()
    if not saw.succeeded or saw.said:
        outcome.wrong.append(f"reader: {saw.said[:1500]}")
    looks = shop.root / "looks"
    outcome.looks = int(looks.read_text()) if looks.exists() else 0
    outcome.wrong += what_is_left(shop.root, expected)
    outcome.seconds = time.monotonic() - started
    if not outcome.wrong:
        shutil.rmtree(shop.root)
    return outcome


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


def chosen_points(calls: Counter[str], seed: int, points: int) -> list[Point]:
    """Seeded random points: four of five inside the writers of a stage, as many for each; the fifth anywhere."""
    dice, names = random.Random(seed), [*STAGES, ANYWHERE]
    stages = [names[at % len(names)] for at in range(points)]
    return [Point(stage, dice.randrange(int(calls[stage] * REACHED))) for stage in stages]


def in_lanes(story: Story, points: list[Point], expected: Expected, n_lanes: int) -> list[Outcome]:
    """Try the points, `n_lanes` at a time, each lane a process; in the order of the points. A point that has an outcome keeps it."""
    lanes = []
    for lane in range(n_lanes):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            forge.end_with_parent()
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                for at in range(lane, len(points), n_lanes):
                    kept = story.root / f"outcome-{at}-{points[at].stage}-{points[at].n}.json"
                    if not kept.exists():
                        outcome = try_point(story, points[at], f"point-{at}-{os.getpid()}", expected)
                        kept.write_text(json.dumps(asdict(outcome)))
                    print(json.dumps([at, json.loads(kept.read_text())]), file=pipe, flush=True)
            os._exit(0)
        os.close(writing)
        lanes.append((child, os.fdopen(reading)))
    found: dict[int, Outcome] = {}
    for child, pipe in lanes:
        with pipe:
            for line in pipe:
                at, values = json.loads(line)
                found[at] = Outcome(**{**values, "point": points[at]})
                print(f"{at}: {found[at].point.stage}: {found[at].call}: {found[at].ending}", flush=True)
        os.waitpid(child, 0)
    assert len(found) == len(points), "a lane did not finish"
    return [found[at] for at in sorted(found)]


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
