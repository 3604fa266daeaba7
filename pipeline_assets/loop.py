"""The whole loop from one command: what `make run` does. It plans what is missing and runs the same jobs that the UI and the sensors run.

Two worker processes at most, because the heavy steps are independent (feeds, as-of days) and a laptop has two cores; each runs
whole Dagster runs in process, so a worker's imports are paid once and not per step (docs/design/performance.md: 7 CPU s a step otherwise).
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import RunFailed, SourceError
from pipeline_assets.resources.feature_build import encoded_once
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.resources.lake_lock import shared
from pipeline_assets.resources.lost_runs import (
    PROCESS,
    end_lost_runs,
    end_with_parent,
    this_process,
    wait_until_writable,
)
from pipeline_assets.resources.pipeline_metrics import write_metrics
from pipeline_assets.resources.retention_run import KILLED_WRITERS
from pipeline_assets.resources.sources import build_source
from pipeline_assets.resources.training_data import TRAINING_SET, training_cutoffs
from pipeline_assets.resources.versions import stale_days, sweep
from pipeline_assets.resources.warehouse import MARTS
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.settings import Settings, get_settings
from pipeline_assets.settings_base import usable_cores
from pipeline_assets.sources.base import Source
from pipeline_assets.sources.batch import ReopeningSource
from pipeline_assets.sources.landing import groups, unjudged
from pipeline_assets.sources.late import redelivered, stale_features

if TYPE_CHECKING:
    import dagster as dg

Say = Callable[[str], None]
WORKERS = min(2, usable_cores())  # processes at once: each takes up to 1.4 GB
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@contextmanager
def _storage_of_runs(place: Path) -> Iterator[None]:
    """Dagster's databases that cannot be read or written are an error that says so, and how much room there is.

    Raises:
        RunFailed: with SQLite's words; on a full disk these are only "disk I/O error".
    """
    import sqlalchemy

    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        raise RunFailed(
            f"Dagster's storage in {place}",
            found=f"{error.orig}, {shutil.disk_usage(place).free / 1e6:.0f} MB free on its disk",
            wanted="databases that can be read and written",
            fix="make room on the disk, or end who holds the database; then run again: what finished is kept",
        ) from error


@dataclass(frozen=True)
class Task:
    """One Dagster run: a job for one day, or for a range of days in one run, of all or some of its assets.

    `is_each`: a run for each of the days, one after the other, as they have others between them.
    """

    job: str
    title: str
    days: tuple[date, ...]
    assets: tuple[str, ...] = field(default=())
    is_each: bool = False


def execute(task: Task, instance: dg.DagsterInstance | None = None) -> tuple[str, float, float]:
    """Run one task in this process; returns its title, seconds and the process's peak memory in GB.

    Args:
        instance: where the caller has one open; opening it costs 0.1 CPU s, most of it Alembic's.

    A blocked day is not a failure here: its verdict is recorded, nothing reads the day, and the loop goes on without it.

    Raises:
        RunFailed: naming the first step that failed, and why.
    """
    import dagster as dg

    from pipeline_assets.definitions import defs

    started = time.monotonic()
    if task.is_each:
        with encoded_once(local_lake(get_settings().data_dir), task.days):
            runs = (execute(replace(task, days=(day,), is_each=False), instance) for day in task.days)
            _, _, peaks = zip(*runs, strict=True)
        return task.title, time.monotonic() - started, max(peaks)
    tags = {"started_by": "command line", PROCESS: this_process()}
    partition = task.days[0].isoformat()
    if len(task.days) > 1:
        tags |= {
            "dagster/asset_partition_range_start": partition,
            "dagster/asset_partition_range_end": task.days[-1].isoformat(),
        }
    opened = nullcontext(instance) if instance else dg.DagsterInstance.get()
    with _storage_of_runs(get_settings().data_dir), opened as instance:
        wait_until_writable(instance)
        result = defs.resolve_job_def(task.job).execute_in_process(
            run_config=_QUIET,
            instance=instance,
            partition_key=partition if len(task.days) == 1 else None,
            tags=tags,
            asset_selection=[dg.AssetKey(key.split("/")) for key in task.assets] or None,
            raise_on_error=False,
        )
    failures = result.filter_events(lambda event: event.is_step_failure)
    blocked = [event for event in failures if str(event.step_key).endswith("day_is_passed")]  # a verdict, not a fault
    # a run may also fail before its first step, for example because a resource cannot be opened
    faults = [event for event in failures if event not in blocked] or (
        [] if result.success or failures else result.filter_events(lambda event: event.is_failure)
    )
    if faults:
        first = faults[0]
        error = getattr(first.event_specific_data, "error", None)
        cause = (error.cause or error) if error else None
        raise RunFailed(
            f"job {task.job}, {task.title}, step {first.step_key or 'none'}",
            found=cause.message.strip() if cause else first.message or "no error was recorded",
            wanted="a finished step",
            fix=f"see run {result.run_id} in `make dev`; what finished is kept, and the next run goes on there",
        )
    return task.title, time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def _in_one_line(message: str) -> str:
    """An error of a library as part of ours: without its line breaks and colours (delta-rs has both)."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", message).split())


def _start_worker(settings: Settings) -> None:
    from pipeline_assets.cli import quiet

    end_with_parent()
    assert get_settings() == settings, "a worker has the settings of its parent, through the environment"
    quiet()
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # dbt's log; the parent says how far it is


class Loop:
    """One pass over the days that have arrived; safe to repeat, and to interrupt at any point."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, say: Say) -> None:
        self._settings, self._instance, self._say = settings, instance, say
        self._pool: ProcessPoolExecutor | None = None

    def run(self) -> date:
        """Bring everything up to the newest complete day; returns that day.

        Raises:
            Busy: an erasure does not end.
            SourceError: no day has arrived.
            RunFailed: from the first run that failed; a later pass goes on there.
        """
        with _storage_of_runs(self._settings.data_dir), shared(local_lake(self._settings.data_dir).root):
            try:
                return self._bring_up()
            finally:
                self._write_metrics()

    def prepare(self, last: date, cutoffs: Callable[[Lake], Sequence[date]]) -> None:
        """Land, validate and build what is missing up to `last`, and features as of the days of `cutoffs`. Nothing is trained or served.

        Args:
            cutoffs: asked when the data are there.

        Raises:
            SourceError: `last` has not arrived.
            RunFailed: from the first run that failed; a later pass goes on there.
        """
        with _storage_of_runs(self._settings.data_dir), shared(local_lake(self._settings.data_dir).root):
            source, days = self._arrived()
            if last not in days:
                raise SourceError(
                    f"business day {last}",
                    found=f"{len(days)} days have arrived, from {days[0]} to {days[-1]}",
                    wanted="a day that has arrived",
                    fix="choose another day, or move calendar.until",
                )
            days = [day for day in days if day <= last]
            self._tidy()
            try:
                self._ingest(days, self._late(source, last))
                self._features(cutoffs(local_lake(self._settings.data_dir)))
            finally:
                self._end_workers()

    def _write_metrics(self) -> None:
        """What the run did, for Prometheus; a full disk or a silent gateway is told and changes nothing."""
        lake, now = local_lake(self._settings.data_dir), datetime.now(UTC)
        try:
            write_metrics(lake, self._instance, self._settings, now)
        except OSError as error:
            self._say(f"  metrics were not written: {error}")

    def _arrived(self) -> tuple[Source, list[date]]:
        source = build_source(self._settings, datetime.now().astimezone())
        days = source.arrived_days()
        if not days:
            raise SourceError(
                "source",
                found="no day has arrived",
                wanted="at least one business day",
                fix="check source.path and the clock",
            )
        return source, days

    def _tidy(self) -> None:
        """Report runs that were killed, and remove what killed writers left."""
        if lost := end_lost_runs(self._instance):
            self._say(f"{len(lost)} runs were killed and never ended; they are reported as failed")
        if removed := sweep(local_lake(self._settings.data_dir), datetime.now(UTC) - KILLED_WRITERS):
            self._say(f"removed {len(removed)} files that a killed run had left")

    def _bring_up(self) -> date:
        source, days = self._arrived()
        day = days[-1]
        self._tidy()
        try:
            self._ingest(days, self._late(source, day))
            self._features(training_cutoffs(local_lake(self._settings.data_dir), day, self._settings))
            self._end_workers()
            self._one("training", "train, evaluate, decide", day, "training/model", "evaluation/promotion")
            self._one(
                "publish",
                "serve the day and watch it",
                day,
                "deployment/release",
                "monitoring/drift_report",
                "monitoring/quality_report",
                "monitoring/skew_report",
                "monitoring/slo_report",
                "monitoring/retraining_decision",
            )
        finally:
            self._end_workers()
        for table, stale in stale_days(local_lake(self._settings.data_dir), [TRAINING_SET]).items():
            self._say(f"{table} is stale: {'; '.join(stale[max(stale)])}; the next training replaces it")
        return day

    def _late(self, source: Source, newest: date) -> list[date]:
        """Landed days that were delivered again."""
        if not isinstance(source, ReopeningSource):
            return []
        lake, look_back = local_lake(self._settings.data_dir), self._settings.calendar.late_days
        late = redelivered(source.changed_days, lake, newest, look_back)
        for day, feeds in late.items():
            self._say(f"  LATE {day}: {', '.join(feeds)} changed after the day was landed")
        return list(late)

    def _end_workers(self) -> None:
        """Give back the workers' memory: a heavy stage must not find the previous one's peak still held (4 GB in all)."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _missing(self, days: Sequence[date], *keys: str) -> list[date]:
        import dagster as dg

        done = [self._instance.get_materialized_partitions(dg.AssetKey(key.split("/"))) for key in keys]
        return [day for day in days if not all(day.isoformat() in partitions for partitions in done)]

    def _ingest(self, days: Sequence[date], late: Sequence[date]) -> None:
        lake = local_lake(self._settings.data_dir)
        passed = set(lake.passed_days(FEEDS, days[0], days[-1]))
        landed = self._missing(days, *(f"validated/{feed}" for feed in FEEDS))
        killed = [day for feed in FEEDS.values() for day in unjudged(lake, feed, days[0], days[-1])]
        feeds = sorted({*landed, *late, *killed, *(day for day in days if day not in passed)})  # blocked: tried again
        self._say(f"land and validate: {len(days)} days, {len(feeds)} to do")
        for group in groups(feeds, len(feeds) or 1):
            alone = tuple(f"{layer}/exposures" for layer in ("raw", "validated"))  # as heavy as the others together
            others = tuple(f"{layer}/{feed}" for layer in ("raw", "validated") for feed in FEEDS if feed != "exposures")
            span = f"{group[0]} to {group[-1]}"
            self._run(
                [
                    Task("ingest", f"exposures, {span}", tuple(group), alone),
                    Task("ingest", f"other feeds, {span}", tuple(group), others),
                ]
            )
        passed = set(lake.passed_days(FEEDS, days[0], days[-1]))
        for day in days:
            if day not in passed:
                self._say(f"  BLOCKED {day}: {why_blocked(lake, day)}")
        stale = stale_days(lake, [f"warehouse/{mart}" for mart in MARTS]).values()
        outdated = {day for of_mart in stale for day in of_mart}
        marts = sorted(day for day in {*self._missing(days, "warehouse/fct_purchases"), *outdated} if day in passed)
        self._say(f"marts: {len(days)} days, {len(marts)} to do")
        for group in groups(marts, len(marts) or 1):
            self._run([Task("marts", f"dbt build, {group[0]} to {group[-1]}", tuple(group))])

    def _features(self, days: Sequence[date]) -> None:
        stale = stale_features(local_lake(self._settings.data_dir), days)
        missing = sorted(
            {*stale, *self._missing(days, "features/customer", "features/product", "features/customer_product")}
        )
        self._say(f"features: {len(days)} as-of days (weekly cut-offs and the newest day), {len(missing)} to do")
        parts = [tuple(missing[start::WORKERS]) for start in range(min(WORKERS, len(missing)))]
        self._run([Task("features", f"{len(part)} days up to {part[-1]}", part, is_each=True) for part in parts])

    def _one(self, job: str, title: str, day: date, *keys: str) -> None:
        missing = self._missing([day], *keys)
        self._say(f"{title}: as of {day}, {len(missing)} to do")
        self._run([Task(job, f"as of {day}", (day,))] if missing else [])

    def _run(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        if self._pool is None:
            # spawn: a forked child would inherit DuckDB, Arrow and gRPC threads in an undefined state
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(WORKERS, spawn, initializer=_start_worker, initargs=(self._settings,))
        for number, done in enumerate(as_completed([self._pool.submit(execute, task) for task in tasks]), 1):
            title, seconds, gigabytes = done.result()
            self._say(f"  {number}/{len(tasks)} {title}: {seconds:.0f} s, peak {gigabytes:.1f} GB")


def why_blocked(lake: Lake, day: date) -> str:
    """The reasons of the verdicts that block a day."""
    reasons = [
        reason for feed in FEEDS for verdict in lake.verdicts(feed, day, day).values() for reason in verdict.reasons
    ]
    return "; ".join(reasons) or "a feed has no verdict"


def feed_totals(lake: Lake, start: date, end: date) -> list[dict[str, object]]:
    """Days and rows per feed, from the verdicts."""
    rows = []
    for feed in FEEDS:
        verdicts = lake.verdicts(feed, start, end).values()
        rows.append(
            {
                "feed": feed,
                "days": len(verdicts),
                "blocked": sum(v.status != "passed" for v in verdicts),
                "read": sum(v.rows_read for v in verdicts),
                "valid": sum(v.rows_valid for v in verdicts),
                "quarantined": sum(v.rows_quarantined for v in verdicts),
            }
        )
    return rows
