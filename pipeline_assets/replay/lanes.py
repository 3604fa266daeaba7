"""The processes of a replay: one lands the days, builds features and looks for drift; one per policy trains, serves and watches (policy_lane.py).

What is the same for every policy is computed once: the data lane has the lake's tables of data and features, and a policy's lake has links
to them. A lane moves its clock to the business day and tells what happened.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_assets.recommender.errors import RunFailed
from pipeline_assets.replay.story import Event, event
from pipeline_assets.settings import get_settings, tool_environment, with_data_dir, with_until, with_values

if TYPE_CHECKING:
    import dagster as dg

    from pipeline_assets.loop import Task

DATA = "data"  # the folder of the data lane; a policy's folder has its name
DRIFT = "monitoring/drift_report"  # of inputs, so the same for every policy
SHARED = ("raw", "validated", "quarantine", "warehouse", "features", "ledger/batches", "ledger/verdicts", DRIFT)


@dataclass(frozen=True)
class Told:
    """What a lane did for a day: events for the ledger, and what it cost."""

    events: tuple[Event, ...]
    cpu_seconds: float
    wall_seconds: float


def share(data: Path, own: Path) -> None:
    """Links in the lake of a policy to the tables of the data lane."""
    for name in SHARED:
        there, here = data / "lake" / name, own / "lake" / name
        if there.exists() and not here.is_symlink():
            here.parent.mkdir(parents=True, exist_ok=True)
            here.symlink_to(there, target_is_directory=True)


def enter(folder: Path, values: Mapping[str, Mapping[str, Any]], first: date) -> None:
    """Make this process a lane: everything it writes is in `folder`, and these settings hold."""
    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.lost_runs import end_with_parent

    end_with_parent()
    quiet()
    with_data_dir(folder)
    with_values({**values, "calendar": {**values.get("calendar", {}), "clock": "replay"}})
    with_until(first)
    (folder / "dagster").mkdir(parents=True, exist_ok=True)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # dbt's log; the parent says how far it is


def open_instance() -> dg.DagsterInstance:
    """Dagster as configured, without files for what steps print: nobody reads them, and each run would start four processes to copy them."""
    import dagster as dg
    from dagster._core.instance.ref import InstanceRef

    nothing = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    return dg.DagsterInstance.from_ref(
        InstanceRef.from_dir(tool_environment(get_settings())["DAGSTER_HOME"], overrides={"compute_logs": nothing})
    )


class Stopwatch:
    """CPU seconds of this process and its children, and wall seconds, since it was made.

    Args:
        beside: CPU seconds of children that have not ended, which the system counts when they have.
    """

    def __init__(self, beside: Callable[[], float] = lambda: 0.0) -> None:
        self._beside = beside
        self._cpu, self._wall = _cpu_seconds() + beside(), time.monotonic()

    def told(self, events: Sequence[Event]) -> Told:
        """The events and their cost."""
        return Told(tuple(events), _cpu_seconds() + self._beside() - self._cpu, time.monotonic() - self._wall)


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in (own, children))


# The data lane


def prepare(day: date) -> Told:
    """Land and build everything up to `day`, and features of the weeks that a model as of it reads."""
    from pipeline_assets.loop import Loop
    from pipeline_assets.resources.training_data import training_cutoffs

    watch, settings = Stopwatch(), with_until(day)
    with open_instance() as instance:
        loop = Loop(settings, instance, lambda line: None)
        loop.prepare(day, lambda lake: training_cutoffs(lake, day, settings))
    return watch.told([])


def land(days: Sequence[date]) -> list[Told]:
    """What arrives on the mornings after consecutive `days`, in one run: the days themselves, and days that were delivered again; features made
    of them, and the drift reports of days that have some.

    A run over several days gives the same tables as one a day, at a fraction of the cost. A day with a fault is to come alone.

    Returns:
        One a day, the cost in equal parts.
    """
    with open_instance() as instance:
        return _landed(days, instance)


def backfill(day: date) -> Told:
    """The past is landed again on the evening of `day`: fault `backfilled_twice`."""
    from pipeline_assets.replay.operations import landed_again

    watch = Stopwatch()
    with_until(day)
    with open_instance() as instance:
        events, told = landed_again(day, lambda task: run_task(day, task, instance))
    return watch.told([*events, event(day, "fault", f"backfilled_twice: {told}")])


def _landed(days: Sequence[date], instance: dg.DagsterInstance) -> list[Told]:
    from pipeline_assets.loop import Task, why_blocked
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.sources import build_source
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.sources.batch import ReopeningSource
    from pipeline_assets.sources.landing import groups
    from pipeline_assets.sources.late import redelivered, stale_features

    first, last = days[0], days[-1]
    watch, settings, events = Stopwatch(), with_until(last), []
    lake, now = local_lake(settings.data_dir), datetime.now(UTC)
    source = build_source(settings, now)
    late = (
        redelivered(source.changed_days, lake, last, settings.calendar.late_days)
        if isinstance(source, ReopeningSource)
        else {}
    )
    events += [event(first, "late", f"{', '.join(feeds)} of {other} changed") for other, feeds in late.items()]
    arrived = sorted(set(days) & set(source.arrived_days()))
    events += [event(day, "missing", "the day has not arrived") for day in days if day not in arrived]
    for group in groups(sorted({*late, *arrived}), len(late) + len(days)):
        events += run_task(first, Task("ingest", f"{group[0]} to {group[-1]}", tuple(group)), instance)
    passed = lake.passed_days(FEEDS, first, last)
    events += [event(day, "blocked", why_blocked(lake, day)) for day in arrived if day not in passed]
    week = [first - timedelta(days=n) for n in range(7)]
    if features := sorted({*stale_features(lake, week), *passed}):
        events += run_task(first, Task("features", f"up to {features[-1]}", tuple(features), is_each=True), instance)
    for group in groups(sorted({*passed} & lake.days("features/customer_product")), len(days)):
        events += run_task(
            first, Task("first_days", f"drift, {group[0]} to {group[-1]}", tuple(group), (DRIFT,)), instance
        )
    told = watch.told([])
    return [
        Told(tuple(e for e in events if e.day == day), told.cpu_seconds / len(days), told.wall_seconds / len(days))
        for day in days
    ]


def run_task(day: date, task: Task, instance: dg.DagsterInstance) -> list[Event]:
    """One Dagster run in this process; a failed one is an event, as it is an alert in production."""
    from pipeline_assets.loop import execute

    try:
        execute(task, instance)
    except RunFailed as error:
        return [event(day, "run_failed", str(error))]
    return []
