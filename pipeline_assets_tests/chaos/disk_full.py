"""The disk is full in the middle of a stage: the last good state stays readable, the error says so, and with room a re-run ends well.

Part of `make chaos`; e2e/test_chaos.py does it once.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field

from pipeline_assets.resources.lake import local_lake
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.expected import Expected
from pipeline_assets_tests.chaos.kills import what_is_left
from pipeline_assets_tests.chaos.looking import differences, through_doors
from pipeline_assets_tests.chaos.small_disk import small_disk
from pipeline_assets_tests.chaos.story import PAST, STAGES, Story, bring_up, stage_of
from pipeline_assets_tests.chaos.tracing import Call, Decision
from pipeline_assets_tests.shop import Shop

SAYS_SO = (
    "No space left on device",
    "os error 28",
    "disk is full",
    "database or disk is full",
    " 0 MB free on its disk",
)


@dataclass(frozen=True)
class Full:
    """`free` bytes are left on the disk under `place` of the data folder (`.`: all of it) at the n-th writing call of a stage."""

    stage: str
    n: int
    place: str
    free: int


# The lake alone on the disk: Delta's writers meet the end of it. All on one: Dagster's own storage meets it, too.
CASES = (
    *(Full(stage, n, "lake", 0) for stage in STAGES for n in (0, 8)),
    *(Full(stage, 3, ".", 0) for stage in ("ingestion", "features")),
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
    return re.sub(r"\x1b\[[0-9;]*m", "", lines[-1]).strip() if lines else ""


def fill(story: Story, case: Full, name: str, expected: Expected) -> Outcome:
    """Make a pass on a disk that becomes full, look through the doors, make room, make a pass again, and compare."""
    outcome, root, passed = Outcome(case), story.root / name, 0
    (root / "data" / case.place).mkdir(parents=True)
    (root / "drops").symlink_to(story.at(PAST).drops)
    shop = Shop(root)
    lake, inside = local_lake(shop.data_dir), f"{shop.data_dir}/"
    with small_disk(root / "data" / case.place) as disk:
        shutil.copytree(story.at(PAST).data_dir, root / "data", dirs_exist_ok=True)

        def decide(call: Call) -> Decision:
            nonlocal passed
            if call.path.startswith(inside) and stage_of(call.path.removeprefix(inside)) == case.stage:
                if passed == case.n:
                    disk.leave(case.free)
                passed += 1
            return "go"

        ended = forge.run(shop, bring_up, root / "full.log", decide)
        if ended.succeeded:
            outcome.wrong.append("there was room enough")
        outcome.error = last_error(ended.said)
        if not outcome.error:
            outcome.wrong.append(f"the error does not say that the disk is full: {ended.said[-300:]}")
        seen = forge.told(shop, lambda: through_doors(lake, story.days), root / "seen.json")
        outcome.wrong += [f"saw {line}" for line in differences(seen, expected.before, expected.after)]
        disk.free()
        again = forge.run(shop, bring_up, root / "again.log")
        if not again.succeeded:
            outcome.wrong.append(f"the re-run failed: {again.said[-1500:]}")
        outcome.wrong += what_is_left(root, expected)
    if not outcome.wrong:
        shutil.rmtree(root)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """The result as Markdown."""
    lines = ["| stage | full at its call | on the disk | bytes left | error | outcome |", "|---|---|---|---|---|---|"]
    for o in outcomes:
        on = "the lake" if o.case.place == "lake" else "everything"
        lines.append(f"| {o.case.stage} | {o.case.n} | {on} | {o.case.free:,} | `{o.error[:400]}` | {o.ending} |")
    return "\n".join(lines) + "\n"
