"""What is interrupted: a shop with a past, and a batch of days of every kind that comes on top of it.

    past        the generated shop, landed, validated, built and with features up to its newest day
    the batch   L-2 delivered again with nothing but bad rows: blocked from now on
                L-1 delivered again with other prices and products: the correction replaces what was there
                L   delivered again as it was: no effect
                L+1, L+3 new; L+2 new, with every 20th row bad: quarantined

Stages are runs of the same jobs as in production, in processes of their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

from pipeline_assets.loop import Task, execute
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.shop import Shop
from pipeline_assets_tests.world import FIRST_DAY

STAGES = ("ingestion", "validation", "marts", "features")


def span(first: date, last: date) -> tuple[date, ...]:
    """The days from `first` to `last`."""
    return tuple(first + timedelta(days=n) for n in range((last - first).days + 1))


def layer(name: str) -> tuple[str, ...]:
    """The feeds' assets of a layer."""
    return tuple(f"{name}/{feed}" for feed in FEEDS)


def all_of(tasks: Sequence[Task]) -> Callable[[], None]:
    """Work for a child: the runs, one after the other."""

    def work() -> None:
        for task in tasks:
            execute(task)

    return work


@dataclass(frozen=True)
class Story:
    """A folder with the drops, the past and what the batch makes of it, stage by stage."""

    root: Path
    last: date  # newest day of the past

    @property
    def days(self) -> tuple[date, ...]:
        """The days that readers watch: a week before the batch, and the batch."""
        return span(self.last - timedelta(days=6), self.last + timedelta(days=3))

    @property
    def batch(self) -> tuple[date, ...]:
        return span(self.last - timedelta(days=2), self.last + timedelta(days=3))

    @cached_property
    def stages(self) -> dict[str, list[Task]]:
        """The runs of each stage; together they are what a pass over the batch does."""
        corrected, newest = self.batch[1], self.batch[-1]
        return {
            "ingestion": [Task("ingest", "land", self.batch, layer("raw"))],
            "validation": [Task("ingest", "validate", self.batch, layer("validated"))],
            "marts": [Task("marts", "build", self.batch[1:])],
            "features": [Task("features", "correct", (corrected,)), Task("features", "newest", (newest,))],
        }

    @property
    def whole_pass(self) -> list[Task]:
        return [task for stage in STAGES for task in self.stages[stage]]

    def at(self, moment: str) -> Shop:
        """The shop as it was before a stage of the undisturbed pass, or at its end (`done`)."""
        return Shop(self.root / moment)

    def lake(self, moment: str) -> Lake:
        return local_lake(self.at(moment).data_dir)

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def begin(self, past: Shop | None = None) -> None:
        """Make the past (or take it from a shop that has one), deliver the batch, and do the undisturbed pass."""
        first = self.at(STAGES[0])
        if past is None:
            first.deliver(FIRST_DAY, self.last)
            days = span(FIRST_DAY, self.last)
            made = [Task("ingest", "past", days), Task("features", "yesterday", days[-2:])]
            self.must(forge.run(first, all_of(made), self.log("past")))
        else:
            past.copied(first.root)
        bad, _, _, _, some_bad, newest = self.batch
        first.deliver(bad, newest, faults={bad: "all_bad", self.batch[1]: "drifted", some_bad: "some_bad"})
        for stage, after in zip(STAGES, (*STAGES[1:], "done"), strict=True):
            shop = self.at(stage).copied(self.root / after)
            self.must(forge.run(shop, all_of(self.stages[stage]), self.log(stage)))

    @staticmethod
    def must(ended: forge.Ended) -> None:
        """An undisturbed run that fails is a fault of the story, not a finding."""
        assert ended.succeeded, ended.said[-6000:]

    def copy(self, moment: str, to: Path) -> Shop:
        """The shop of a moment, free to have another future; the drops are shared, nobody writes them."""
        to.mkdir(parents=True)
        (to / "drops").symlink_to(self.at(moment).drops)
        shutil.copytree(self.at(moment).data_dir, to / "data")
        return Shop(to)
