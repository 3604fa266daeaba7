"""Faults of processes, databases and people that a replay brings about, and takes back. Those of models and bundles: sabotage.py."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pipeline_assets.recommender.errors import RunFailed
from pipeline_assets.replay.traffic import STORE_FAULTS
from pipeline_assets.settings import get_settings

if TYPE_CHECKING:
    import dagster as dg

    from pipeline_assets.loop import Task
    from pipeline_assets.replay.traffic import Api

LOCKED_SECONDS = 7.0  # more than the five for which Dagster itself lets SQLite wait
START_SECONDS = 300.0  # a process imports Dagster and the definitions: 7 CPU s


@contextmanager
def serving_faults(api: Api, faults: Collection[str]) -> Iterator[list[str]]:
    """Break what serving needs for a morning; yields what is broken, in words."""
    with ExitStack() as whole_again:
        acting = [name for name in STORE_FAULTS if name in faults]
        if acting:
            api.store_fault = acting[0]
            whole_again.callback(setattr, api, "store_fault", "")
        if "release_table_unreachable" in faults:
            whole_again.callback(api.look_afresh)
            whole_again.enter_context(_away(Path(str(sa.make_url(get_settings().release_url).database))))
            acting.append(f"release_table_unreachable: the API found it {api.look_afresh()}")
        yield acting


@contextmanager
def _away(database: Path) -> Iterator[None]:
    """A folder where an SQLite file is: it cannot be opened."""
    kept = database.with_name(f"{database.name}.away")
    database.rename(kept)
    database.mkdir()
    try:
        yield
    finally:
        database.rmdir()
        kept.rename(database)


@contextmanager
def process_faults(instance: dg.DagsterInstance, faults: Collection[str], task: Task) -> Iterator[list[str]]:
    """What goes wrong with processes while a day is published; yields what was done, in words."""
    acting = []
    with ExitStack() as over:
        if "killed_run" in faults:
            acting.append(f"killed_run: {_killed(instance, task)} run reported as failed")
        if "database_locked" in faults:
            over.enter_context(locked(get_settings().data_dir / "dagster" / "runs.db", LOCKED_SECONDS))
            acting.append("database_locked: the database of runs")
        yield acting


def _alone(task: Task) -> None:
    """A run in a process of its own."""
    from pipeline_assets.cli import quiet
    from pipeline_assets.loop import execute
    from pipeline_assets.resources.lost_runs import end_with_parent

    end_with_parent()
    quiet()
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


def rolled_back() -> str:
    """A person ends what is on trial; returns what was done."""
    from pipeline_assets.resources.rollout_run import roll_back
    from pipeline_assets.serving.release_state import open_state
    from pipeline_assets.serving.rollout_state import view

    settings = get_settings()
    trial = view(open_state(settings.release_url)).rollout
    if trial is None:
        return "nothing is on trial"
    live = roll_back(settings, "fault rollback_in_rollout", "replay", datetime.now(UTC))
    return f"version {trial.model_version} in {trial.state.stage}, version {live.model_version} stays"
