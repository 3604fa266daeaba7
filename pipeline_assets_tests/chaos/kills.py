"""SIGKILL inside ingestion, validation, marts and features: a re-run reaches the same tables, and no reader ever saw a bad batch.

`make chaos` runs 50 seeded random points and writes benchmarks/results/chaos.md; e2e/test_kills.py runs a few fixed ones. A point
is a writing system call of one stage's processes, counted among those on the files of one kind (tracing.py): the process group
is killed before that call happens. A reader polls through the doors all the time, and what it sees of a day must be
what the undisturbed pass saw before or after it, nothing else.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline_assets.resources.lake import local_lake
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.expected import Expected
from pipeline_assets_tests.chaos.looking import contents, differences, orphans, through_doors
from pipeline_assets_tests.chaos.story import STAGES, Story, all_of
from pipeline_assets_tests.chaos.tracing import Call, Decision
from pipeline_assets_tests.world import day

# Most points are where a half-written state would be: the lake's tables and DuckDB's file. The others are anywhere in the data folder.
WRITERS = {"ingestion": ("lake/raw", "lake/ledger"), "validation": ("lake/",), "marts": ("marts.duckdb", "lake/"), "features": ("lake/",)}  # fmt: skip
ANYWHERE = ("",)
REACHED = 0.95  # of the counted calls: threads make their number differ a little between runs
LANES = 2  # cores


@dataclass(frozen=True)
class Point:
    """The n-th writing call, from 0, on files under `places` of the data folder, in a stage."""

    stage: str
    places: tuple[str, ...]
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


def under(data_dir: Path, places: Iterable[str]) -> Callable[[Call], bool]:
    """Whether a call is about a file of the data folder under one of `places`."""
    prefixes = tuple(f"{data_dir}/{place}" for place in places)
    return lambda call: call.path.startswith(prefixes)


def count(story: Story, stage: str, places: tuple[str, ...]) -> int:
    """How many such calls the undisturbed stage makes."""
    seen = 0
    shop = story.copy(stage, story.root / f"count-{stage}-{places[0].replace('/', '_')}")
    matches = under(shop.data_dir, places)

    def go(call: Call) -> Decision:
        nonlocal seen
        seen += matches(call)
        return "go"

    story.must(forge.run(shop, all_of(story.stages[stage]), story.log("count"), go))
    shutil.rmtree(shop.root)
    return seen


def try_point(story: Story, point: Point, name: str, expected: Expected) -> Outcome:
    """Kill at a point, run the whole pass again, and compare."""
    outcome, started = Outcome(point), time.monotonic()
    shop = story.copy(point.stage, story.root / name)
    lake, log = local_lake(shop.data_dir), shop.root / "log"
    matches, passed = under(shop.data_dir, point.places), 0

    def decide(call: Call) -> Decision:
        nonlocal passed
        if not matches(call):
            return "go"
        passed += 1
        if passed <= point.n:
            return "go"
        outcome.call = f"{call.name} {call.path.removeprefix(str(shop.data_dir) + '/')}"
        return "kill"

    def look(number: int) -> None:
        for line in differences(through_doors(lake, story.days), expected.before, expected.after):
            print(f"SAW {line}")
        (shop.root / "looks").write_text(str(number + 1))

    reader = forge.Beside(shop, look, shop.root / "reader.log")
    killed = forge.run(shop, all_of(story.stages[point.stage]), log, decide)
    if not killed.was_killed:
        outcome.wrong.append(f"was not killed: {killed.said[-300:]}")
    outcome.half_written = len(orphans(Path(lake.root)))
    again = forge.run(shop, all_of(story.whole_pass), log)
    if not again.succeeded:
        outcome.wrong.append(f"the re-run failed: {again.said[-1500:]}")
    saw = reader.stopped()
    if not saw.succeeded or saw.said:
        outcome.wrong.append(f"reader: {saw.said[:1500]}")
    outcome.looks = int((shop.root / "looks").read_text())
    found = forge.told(shop, lambda: contents(lake), shop.root / "contents.json")
    outcome.wrong += expected.unlike(found)
    outcome.wrong += [f"orphan: {path}" for path in orphans(Path(lake.root))]
    outcome.seconds = time.monotonic() - started
    if not outcome.wrong:
        shutil.rmtree(shop.root)
    return outcome


def chosen_points(story: Story, seed: int, points: int) -> list[Point]:
    """Seeded random points, as many for each stage; every fourth anywhere in the data folder, Dagster's own storage for example."""
    dice, found = random.Random(seed), []
    calls: dict[tuple[str, tuple[str, ...]], int] = {}
    for at in range(points):
        stage = STAGES[at % len(STAGES)]
        places = ANYWHERE if at // len(STAGES) % 4 == 3 else WRITERS[stage]
        if (stage, places) not in calls:
            calls[stage, places] = count(story, stage, places)
        found.append(Point(stage, places, dice.randrange(int(calls[stage, places] * REACHED))))
    return found


def in_lanes(story: Story, points: list[Point], expected: Expected) -> list[Outcome]:
    """Try the points, `LANES` at a time, each lane a process; in the order of the points."""
    lanes = []
    for lane in range(LANES):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            forge.end_with_parent()
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                for at in range(lane, len(points), LANES):
                    outcome = try_point(story, points[at], f"point-{at}", expected)
                    print(json.dumps([at, asdict(outcome)]), file=pipe, flush=True)
            os._exit(0)
        os.close(writing)
        lanes.append((child, os.fdopen(reading)))
    found: dict[int, Outcome] = {}
    for child, pipe in lanes:
        with pipe:
            for line in pipe:
                at, values = json.loads(line)
                values["point"] = points[at]
                found[at] = Outcome(**values)
                print(f"{at}: {found[at].point.stage}: {found[at].call}: {found[at].ending}", flush=True)
        os.waitpid(child, 0)
    assert len(found) == len(points), "a lane did not finish"
    return [found[at] for at in sorted(found)]


def table(outcomes: list[Outcome], seed: int) -> str:
    """The result as Markdown."""
    lines = [
        f"{len(outcomes)} points, seed {seed}: {sum(not o.wrong for o in outcomes)} as wanted.",
        "",
        "| # | stage | killed before | uncommitted files left | looks of the reader | outcome |",
        "|---|---|---|---|---|---|",
    ]
    for at, o in enumerate(outcomes, 1):
        lines.append(f"| {at} | {o.point.stage} | `{o.call}` | {o.half_written} | {o.looks} | {o.ending} |")
    return "\n".join(lines) + "\n"


def kill_at_random(root: Path, seed: int, points: int) -> list[Outcome]:
    """The whole experiment in an empty folder."""
    story = Story(root, day(27))
    story.begin()
    return in_lanes(story, chosen_points(story, seed, points), Expected.of(story))
