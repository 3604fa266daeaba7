"""What is interrupted: a shop with a past, and a batch of days of every kind that comes on top of it.

    past        the generated shop up to its newest day L: landed, validated, built, features of the weekly cut-offs and of L
    the batch   L-2 delivered again as it was: no effect
                L-1 delivered again with nothing but bad rows: blocked from now on
                L delivered again with other prices and products: a correction, and the features that know L are stale
                L+1, L+3 new; L+2 new, with every 20th row bad: quarantined

A pass is the plan of `pipeline-assets run` up to the features, with its runs in the planning process, so that one kill
ends both. What a pass does follows from what it finds: a pass after a kill has to find out what is left to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from pipeline_assets.loop import Loop, Task, execute
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.shop import NEWEST, Shop
from pipeline_assets_tests.world import FIRST_DAY

PAST, DONE = "past", "done"
# stage -> where its writers write, in the data folder
STAGES = {
    "ingestion": ("lake/raw", "lake/ledger/batches"),
    "validation": ("lake/validated", "lake/quarantine", "lake/ledger/verdicts"),
    "marts": ("lake/warehouse", "dbt/marts.duckdb"),
    "features": ("lake/features",),
}


def span(first: date, last: date) -> tuple[date, ...]:
    """The days from `first` to `last`."""
    return tuple(first + timedelta(days=n) for n in range((last - first).days + 1))


class UpToFeatures(Loop):
    """The plan without training and serving; its runs are made here, one after the other."""

    def _run(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            execute(task)

    def _one(self, job: str, title: str, day: date, *keys: str) -> None:
        self._say(f"{job} of {day} is not part of this")


def bring_up() -> None:
    """One pass over what has arrived, with the settings of this process."""
    import dagster as dg

    from pipeline_assets.settings import get_settings

    with dg.DagsterInstance.get() as instance:
        UpToFeatures(get_settings(), instance, lambda line: print(line, flush=True)).run()


@dataclass(frozen=True)
class Story:
    """A folder with the shop as it was in the past, and as an undisturbed pass over the batch left it."""

    root: Path
    last: date = NEWEST

    @property
    def days(self) -> tuple[date, ...]:
        """The days that readers watch."""
        return span(self.last - timedelta(days=6), self.last + timedelta(days=3))

    def at(self, moment: str) -> Shop:
        """The shop in the past, with the batch in front of its door, or when the batch is done."""
        return Shop(self.root / moment)

    def lake(self, moment: str) -> Lake:
        return local_lake(self.at(moment).data_dir)

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def begin(self, past: Shop | None = None) -> None:
        """Make the past (or take it from a shop that has one), deliver the batch, and do the undisturbed pass."""
        shop = self.at(PAST)
        if past is None:
            shop.deliver(FIRST_DAY, self.last)
            self.must(forge.run(shop, bring_up, self.log("past")))
        else:
            past.copied(shop.root)
        same, bad, corrected, *new = span(self.last - timedelta(days=2), self.last + timedelta(days=3))
        shop.deliver(corrected, faults={corrected: "drifted"})
        shop.deliver(bad, faults={bad: "all_bad"})
        shop.deliver(same)
        shop.deliver(new[0], new[-1], faults={new[1]: "some_bad"})
        self.must(forge.run(shop.copied(self.root / DONE), bring_up, self.log("undisturbed")))

    @staticmethod
    def must(ended: forge.Ended) -> None:
        """An undisturbed run that fails is a fault of the story, not a finding."""
        assert ended.succeeded, ended.said[-6000:]

    def copy(self, to: Path) -> Shop:
        """The shop of the past, free to have another future; the drops are shared, nobody writes them."""
        to.mkdir(parents=True)
        (to / "drops").symlink_to(self.at(PAST).drops)
        shutil.copytree(self.at(PAST).data_dir, to / "data")
        return Shop(to)


def stage_of(path: str) -> str | None:
    """The stage whose writers write at a path of the data folder."""
    return next((stage for stage, places in STAGES.items() if path.startswith(places)), None)
