"""Runs of the command line whose process was killed. Nobody reports their end: they would stay STARTED and keep their pool's slot,
and the next run would wait for it without end. Dagster's own monitoring looks after the runs that its daemon launched.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

PROCESS = "pipeline_assets/process"  # tag of a run: where it is executed


def this_process() -> str:
    """Host, process id and when the process began, in clock ticks since the machine did: ids are used again."""
    return f"{socket.gethostname()} {os.getpid()} {_began(os.getpid())}"


def _began(process: int) -> str | None:
    """Field 22 of /proc/<id>/stat; the name before it may have spaces. None: there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def is_lost(process: str) -> bool:
    """Whether a process, as `this_process` called it, was one of this host and is no more."""
    host, number, began = process.rsplit(" ", 2)
    return host == socket.gethostname() and _began(int(number)) != began


def end_with_parent() -> None:
    """A worker ends when the process that started it is killed: nobody else would tell it that there is no more work."""
    import ctypes

    death_signal = 1  # PR_SET_PDEATHSIG, of Linux
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL, 0, 0, 0)


def wait_until_writable(instance: dg.DagsterInstance, seconds: float = 60) -> None:
    """Try the database of runs until it can be written: Dagster lets SQLite wait five seconds for who holds it.

    Raises:
        sqlalchemy.exc.OperationalError: it is still locked, or cannot be written for another reason.
    """
    import sqlalchemy
    import tenacity

    locked = tenacity.retry_if_exception(
        lambda error: isinstance(error, sqlalchemy.exc.OperationalError) and "locked" in str(error.orig)
    )
    wait = tenacity.wait_random_exponential(0.1, 2)
    for attempt in tenacity.Retrying(retry=locked, stop=tenacity.stop_after_delay(seconds), wait=wait, reraise=True):
        with attempt:
            instance.run_storage.set_cursor_values({PROCESS: this_process()})


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the end of runs whose process is gone, which gives their slots back; returns their ids."""
    return _end(instance, [run for run in _running(instance) if PROCESS in run.tags and is_lost(run.tags[PROCESS])])


def end_all_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the end of all runs that were in progress: in a folder that was restored nobody executes them."""
    return _end(instance, _running(instance))


def _running(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    import dagster as dg

    running = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    return list(instance.get_runs(dg.RunsFilter(statuses=running)))


def _end(instance: dg.DagsterInstance, lost: Sequence[dg.DagsterRun]) -> list[str]:
    for run in lost:
        instance.report_run_failed(
            run, "its process was killed; what it had finished is kept, the next run goes on there"
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)  # Dagster's daemon would, after minutes
    return [run.run_id for run in lost]
