"""The disk is full in the middle of a stage: the last good state stays readable, the error says so, and with room a re-run ends well.

Part of `make chaos`; e2e/test_kills.py does it once.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_assets.resources.lake import local_lake
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.expected import Expected
from pipeline_assets_tests.chaos.looking import contents, differences, orphans, through_doors
from pipeline_assets_tests.chaos.small_disk import small_disk
from pipeline_assets_tests.chaos.story import Story, all_of
from pipeline_assets_tests.shop import Shop

SAYS_SO = ("No space left on device", "os error 28", "disk is full", "database or disk is full")


@dataclass(frozen=True)
class Full:
    """`free` bytes are left on the disk under `place` of the data folder (`.`: all of it) when a stage begins."""

    stage: str
    place: str
    free: int


# The lake alone on the disk: Delta's writers meet the end of it. All on one: DuckDB's file and Dagster's own storage may, too.
CASES = (
    Full("ingestion", "lake", 0),
    Full("ingestion", "lake", 48 * 1024),
    Full("ingestion", ".", 256 * 1024),
    Full("validation", "lake", 0),
    Full("validation", "lake", 48 * 1024),
    Full("marts", "lake", 0),
    Full("marts", "lake", 24 * 1024),
    Full("marts", ".", 512 * 1024),
    Full("features", "lake", 0),
    Full("features", "lake", 24 * 1024),
    Full("features", ".", 0),
)


@dataclass
class Outcome:
    """What happened in one case; `wrong` is empty when all held."""

    case: Full
    error: str = ""
    wrong: list[str] = field(default_factory=list)

    @property
    def ending(self) -> str:
        return "; ".join(self.wrong)[:300] or "last good state readable, same tables once there was room, no orphan"


def last_error(said: str) -> str:
    """The line that a person would look for: the last one that says what happened."""
    lines = [line for line in said.splitlines() if any(words in line for words in SAYS_SO)]
    return lines[-1].strip() if lines else ""


def fill(story: Story, case: Full, name: str, expected: Expected) -> Outcome:
    """Run a stage on a disk that becomes full, look through the doors, make room, run the pass, and compare."""
    outcome = Outcome(case)
    root = story.root / name
    source = story.at(case.stage).data_dir
    (root / "data" / case.place).mkdir(parents=True)
    (root / "drops").symlink_to(story.at(case.stage).drops)
    shop, log = Shop(root), root / "log"
    with small_disk(root / "data" / case.place) as disk:
        shutil.copytree(source, root / "data", dirs_exist_ok=True)
        lake = local_lake(shop.data_dir)
        disk.leave(case.free)
        ended = forge.run(shop, all_of(story.stages[case.stage]), log)
        if ended.succeeded:
            outcome.wrong.append("the stage had room enough")
        outcome.error = last_error(ended.said)
        if not outcome.error:
            outcome.wrong.append(f"the error does not say that the disk is full: {ended.said[-300:]}")
        seen = forge.told(shop, lambda: through_doors(lake, story.days), root / "seen.json")
        outcome.wrong += [f"saw {line}" for line in differences(seen, expected.before, expected.after)]
        disk.free()
        again = forge.run(shop, all_of(story.whole_pass), log)
        if not again.succeeded:
            outcome.wrong.append(f"the re-run failed: {again.said[-1500:]}")
        found = forge.told(shop, lambda: contents(lake), root / "contents.json")
        outcome.wrong += expected.unlike(found)
        outcome.wrong += [f"orphan: {path}" for path in orphans(Path(lake.root))]
    if not outcome.wrong:
        shutil.rmtree(root)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """The result as Markdown."""
    lines = ["| stage | on the full disk | bytes left | error | outcome |", "|---|---|---|---|---|"]
    for o in outcomes:
        on = "the lake" if o.case.place == "lake" else "everything"
        lines.append(f"| {o.case.stage} | {on} | {o.case.free:,} | `{o.error[:160]}` | {o.ending} |")
    return "\n".join(lines) + "\n"
