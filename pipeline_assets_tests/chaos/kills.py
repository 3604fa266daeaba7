"""SIGKILL inside ingestion, validation, marts and features: a re-run reaches the same tables, and no reader ever saw a bad batch.

`make chaos` runs 50 seeded random points and writes benchmarks/results/chaos.md; e2e/test_kills.py runs a few fixed ones. A point
is a writing system call of one stage's processes, counted among those on the files of one kind (tracing.py): the process group
is killed before that call happens. A reader polls through the doors all the time, and what it sees of a day must be
what the undisturbed pass saw before or after it, nothing else.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_assets.resources.lake import local_lake
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.looking import Seen, contents, differences, orphans, through_doors
from pipeline_assets_tests.chaos.story import STAGES, Story, all_of
from pipeline_assets_tests.chaos.tracing import Call, Decision

# Most points are where a half-written state would be: the lake's tables and DuckDB's file. The others are anywhere in the data folder.
WRITERS = {"ingestion": ("lake/raw", "lake/ledger"), "validation": ("lake/",), "marts": ("marts.duckdb", "lake/"), "features": ("lake/",)}  # fmt: skip
ANYWHERE = ("",)


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


def try_point(story: Story, point: Point, name: str, before: Seen, after: Seen, final: Seen) -> Outcome:
    """Kill at a point, run again, and compare.

    Args:
        before, after: what the doors showed before the batch and after the undisturbed pass: all that readers may see.
        final: contents of every table after the undisturbed pass.
    """
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
        for line in differences(through_doors(lake, story.days), before, after):
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
    outcome.wrong += [f"other content than undisturbed: {line}" for line in differences(found, final)]
    outcome.wrong += [f"missing: {key}" for key in sorted(set(final) - set(found))]
    outcome.wrong += [f"orphan: {path}" for path in orphans(Path(lake.root))]
    outcome.seconds = time.monotonic() - started
    if not outcome.wrong:
        shutil.rmtree(shop.root)
    return outcome
