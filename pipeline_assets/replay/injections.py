"""Faults of processes, disks and databases that a replay brings about while a day is published, and takes back.

Those of models and bundles: sabotage.py; of serving: serving_faults.py; of people and of the past: operations.py.
"""

from __future__ import annotations

import multiprocessing
import resource
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import RunFailed
from pipeline_assets.settings import get_settings

if TYPE_CHECKING:
    import dagster as dg

    from pipeline_assets.loop import Task

LOCKED_SECONDS = 7.0  # more than the five for which Dagster itself lets SQLite wait
START_SECONDS = 300.0  # a process imports Dagster and the definitions: 7 CPU s


@contextmanager
def process_faults(instance: dg.DagsterInstance, faults: Collection[str], task: Task) -> Iterator[list[str]]:
    """What goes wrong with processes while a day is published; yields what was done, in words."""
    acting = []
    with ExitStack() as over:
        if "killed_run" in faults:
            acting.append(f"killed_run: {_killed(instance, task)} run reported as failed")
        if "disk_full" in faults:
            acting.append(f"disk_full: {_without_room(instance, task)}")
        if "database_locked" in faults:
            over.enter_context(locked(get_settings().data_dir / "dagster" / "runs.db", LOCKED_SECONDS))
            acting.append("database_locked: the database of runs")
        yield acting


def _alone(task: Task, room: int | None = None) -> None:
    """A run in a process of its own; no file of it can be longer than `room` bytes."""
    from pipeline_assets.cli import quiet
    from pipeline_assets.definitions import defs
    from pipeline_assets.loop import execute
    from pipeline_assets.resources.lost_runs import end_with_parent

    end_with_parent()
    quiet()
    defs.get_repository_def()  # everything is imported and prepared before there is no room
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    execute(task)


def _killed(instance: dg.DagsterInstance, task: Task) -> int:
    """Start a run, kill its process when it has begun, and look after what it left as the next pass does; how many runs were found lost."""
    import dagster as dg

    from pipeline_assets.resources.lost_runs import end_lost_runs

    child = multiprocessing.get_context("spawn").Process(target=_alone, args=(task,))
    child.start()
    begun, end = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), time.monotonic() + START_SECONDS
    while not instance.get_run_ids(begun):
        if not child.is_alive() or time.monotonic() > end:
            child.kill()
            raise RunFailed(task.title, found="no run began", wanted="one to be killed", fix="see the log above")
        time.sleep(0.05)
    child.kill()
    child.join()
    return len(end_lost_runs(instance))


def _without_room(instance: dg.DagsterInstance, task: Task) -> str:
    """A run whose process can write no file, as on a disk without room, which needs root to make; what came of it, in words.

    Raises:
        RunFailed: it ended well.
    """
    from pipeline_assets.resources.lost_runs import end_lost_runs

    child = multiprocessing.get_context("spawn").Process(target=_alone, args=(task, 0))
    child.start()
    child.join()
    if child.exitcode == 0:
        raise RunFailed(task.title, found="it ended well without room", wanted="a failed run", fix="see the log above")
    end_lost_runs(instance)
    return "the run failed, with room the next one follows"


@contextmanager
def locked(database: Path, seconds: float) -> Iterator[None]:
    """Somebody holds an SQLite database for so long, from before the block on."""
    has_it = threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(database, isolation_level=None)
        try:
            connection.execute("begin immediate")
            has_it.set()
            time.sleep(seconds)
            connection.execute("rollback")
        finally:
            has_it.set()
            connection.close()

    holder = threading.Thread(target=hold, name="locked", daemon=True)
    holder.start()
    has_it.wait()
    try:
        yield
    finally:
        holder.join()
