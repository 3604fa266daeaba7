"""Runs whose process was killed are ended, so that nothing waits for them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy

from pipeline_assets.resources.lost_runs import (
    PROCESS,
    end_all_runs,
    end_lost_runs,
    is_lost,
    this_process,
    wait_until_writable,
)

POOL = "warehouse"


def killed_process() -> str:
    """What a process that is gone called itself."""
    code = "from pipeline_assets.resources.lost_runs import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    """With pools of one, as in dagster.yaml."""
    return dg.DagsterInstance.local_temp(str(tmp_path), overrides={"concurrency": {"pools": {"default_limit": 1}}})


def started(instance: dg.DagsterInstance, run_id: str, process: str | None) -> None:
    """A run is on its way in a process, and holds the slot of the pool."""
    tags = {PROCESS: process} if process else {}
    instance.add_run(dg.DagsterRun("marts", run_id=run_id, status=dg.DagsterRunStatus.STARTED, tags=tags))
    instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
    instance.event_log_storage.claim_concurrency_slot(POOL, run_id, "dbt_models")


def test_this_process_is_there_and_another_is_gone() -> None:
    """A process that ended; an id that is used again by a younger process; a process of another host is not known to be gone."""
    ours = this_process()
    host, number, began = ours.rsplit(" ", 2)
    assert not is_lost(ours)
    assert is_lost(killed_process())
    assert is_lost(f"{host} {number} {int(began) - 1}")
    assert not is_lost(f"elsewhere {number} {int(began) - 1}")


def test_a_worker_ends_with_its_parent() -> None:
    """The parent starts a worker as the command line does, says its id, and is killed: a second later the worker is gone."""
    code = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from pipeline_assets.resources.lost_runs import end_with_parent, this_process
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    print(pool.submit(this_process).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    worker = done.stdout.strip()
    for _ in range(100):
        if is_lost(worker):
            break
        time.sleep(0.1)
    assert is_lost(worker)


def test_a_killed_run_is_ended_and_gives_its_slot_back(instance: dg.DagsterInstance) -> None:
    """Before, nobody else gets the slot; after, the run has failed with the reason, and the slot is free."""
    started(instance, "killed", killed_process())
    claim = instance.event_log_storage.claim_concurrency_slot(POOL, "next", "dbt_models")
    assert not claim.is_claimed
    assert end_lost_runs(instance) == ["killed"]
    run = instance.get_run_by_id("killed")
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert [slot.run_id for slot in instance.event_log_storage.get_concurrency_info(POOL).claimed_slots] != ["killed"]
    assert instance.event_log_storage.claim_concurrency_slot(POOL, "next", "dbt_models").is_claimed


def test_runs_of_living_processes_and_of_the_daemon_are_left_alone(instance: dg.DagsterInstance) -> None:
    """Ours is still running; the daemon's has no such tag and a monitor of its own."""
    started(instance, "ours", this_process())
    started(instance, "daemon's", None)
    assert end_lost_runs(instance) == []


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    """Somebody holds the runs for half a second: it is tried again; held for longer than is waited for, the error is SQLite's."""
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    (runs,) = tmp_path.rglob("runs.db")
    holder = sqlite3.connect(runs, isolation_level=None, check_same_thread=False)
    holder.execute("begin immediate")
    with pytest.raises(sqlalchemy.exc.OperationalError, match="database is locked"):
        wait_until_writable(instance, seconds=0.1)
    release = threading.Timer(0.5, lambda: holder.execute("rollback"))
    release.start()
    wait_until_writable(instance)
    release.join()


def test_after_a_restore_no_run_is_in_progress(instance: dg.DagsterInstance) -> None:
    """Of another host, of this one, of nobody: all are reported as failed, and the slot is free. `end_lost_runs` would leave the first (control)."""
    started(instance, "other-host", "lost-machine 1 1")
    instance.add_run(dg.DagsterRun("marts", run_id="ours", status=dg.DagsterRunStatus.STARTED))
    assert end_lost_runs(instance) == []
    assert sorted(end_all_runs(instance)) == ["other-host", "ours"]
    assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.FAILURE}
    assert instance.event_log_storage.get_concurrency_info(POOL).claimed_slots == []
