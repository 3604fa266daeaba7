"""Two passes at once over the same batch, and a pass whose database is locked for a while: one effect, and it waits.

Part of `make chaos`.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.expected import Expected
from pipeline_assets_tests.chaos.kills import what_is_left
from pipeline_assets_tests.chaos.story import Story, bring_up

LOCKED_SECONDS = 8.0  # Dagster lets SQLite wait 5 s for its runs


@dataclass
class Outcome:
    """What was tried and how it ended; `wrong` is empty when all held."""

    what: str
    ended: str = ""
    wrong: list[str] = field(default_factory=list)


def two_at_once(story: Story, expected: Expected) -> Outcome:
    """A double trigger: two workers make the same pass at the same time.

    Either may lose a race and fail; what they leave must be what one of them alone leaves, after one more pass if one failed.
    """
    outcome = Outcome("two workers make the same pass at the same time")
    shop = story.copy(story.root / "rivals")
    logs = [shop.root / f"rival-{n}.log" for n in range(2)]
    children = [forge.start(shop, bring_up, log) for log in logs]
    ended = [forge.ended(child, log) for child, log in zip(children, logs, strict=True)]
    failures = [one.said.strip().splitlines()[-1][:200] for one in ended if not one.succeeded]
    if failures:
        again = forge.run(shop, bring_up, shop.root / "again.log")
        if not again.succeeded:
            outcome.wrong.append(f"the re-run failed: {again.said[-1500:]}")
    outcome.wrong += what_is_left(shop.root, expected)
    outcome.ended = (
        f"one failed and the next pass mended it: `{failures[0]}`" if failures else "both finished; one effect"
    )
    if not outcome.wrong:
        shutil.rmtree(shop.root)
    return outcome


def locked_database(story: Story, expected: Expected) -> Outcome:
    """Another process holds Dagster's databases while a pass begins."""
    outcome = Outcome(f"Dagster's databases are locked for {LOCKED_SECONDS:.0f} s while a pass begins")
    shop = story.copy(story.root / "locked")
    paths, holds = databases(shop.data_dir / "dagster"), shop.root / "holds"

    def hold() -> None:  # in a process of its own: a fork would inherit what SQLite knows of its own locks
        held = [sqlite3.connect(path, isolation_level=None) for path in paths]
        for connection in held:
            connection.execute("begin immediate")
        holds.touch()
        time.sleep(LOCKED_SECONDS)

    holder = forge.start(shop, hold, shop.root / "holder.log")
    while not holds.exists():
        time.sleep(0.05)
    child = forge.start(shop, bring_up, shop.root / "locked.log")
    forge.ended(holder, shop.root / "holder.log")
    ended = forge.ended(child, shop.root / "locked.log")
    if not ended.succeeded:
        outcome.wrong.append(f"it did not wait: {ended.said[-1500:]}")
    outcome.wrong += what_is_left(shop.root, expected)
    outcome.ended = "it waited and finished"
    if not outcome.wrong:
        shutil.rmtree(shop.root)
    return outcome


def databases(storage: Path) -> list[Path]:
    """Dagster's databases of runs and of events."""
    found = [path for path in sorted(storage.rglob("*.db")) if path.name in ("runs.db", "index.db")]
    assert len(found) == 2, f"wanted runs.db and index.db in {storage}, found {found}"
    return found


def table(outcomes: list[Outcome]) -> str:
    """The result as Markdown."""
    lines = ["| what | how it ended |", "|---|---|"]
    lines += [f"| {o.what} | {'; '.join(o.wrong)[:300] or o.ended} |" for o in outcomes]
    return "\n".join(lines) + "\n"
