"""Worker processes on demand: this process imports the pipeline once and forks a child per run, as free to be killed as any.

Belongs here: starting, supervising and ending children. Does not: what they do. A fresh interpreter would spend 6 CPU s on
imports each time; a fork of a process that has imported and never used Arrow, DuckDB or gRPC has no threads to lose.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline_assets_tests.chaos.tracing import OF_FILES, Call, Decision, be_supervised, supervise
from pipeline_assets_tests.shop import Shop

PAUSE = 0.7  # seconds between two looks of a reader: a look costs 0.4 CPU s and shares the cores with what it watches

PATIENCE = 300.0  # seconds; a pass takes 10 on an idle machine

Work = Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """How a child ended and what it wrote to its log."""

    status: int  # of os.waitpid
    log: Path

    @property
    def was_killed(self) -> bool:
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL

    @property
    def succeeded(self) -> bool:
        return os.WIFEXITED(self.status) and os.WEXITSTATUS(self.status) == 0

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def warm_up() -> None:
    """Import what a run needs and parse the dbt project, so that children find both: 9 CPU s that each would spend."""
    import dbt.adapters.duckdb
    import dbt.cli.main
    import deltalake
    import duckdb
    import pandas

    import pipeline_assets.loop
    from pipeline_assets.definitions import defs
    from pipeline_assets.resources import dbt_runner

    assert all((dbt.cli.main, dbt.adapters.duckdb, deltalake, duckdb, pandas, pipeline_assets.loop))
    manifest, credentials = dbt_runner._parsed((defs.resources or {})["warehouse"]._runner())

    def parsed(_: dbt_runner.DbtProjectRunner) -> tuple[object, object]:
        return manifest, dataclasses.replace(credentials, path=os.environ["PIPELINE_WAREHOUSE_PATH"])

    dbt_runner._parsed = parsed  # type: ignore[assignment]  # only the scratch file's place differs between shops


def end_with_parent() -> None:
    """A child does not outlive a parent that was stopped."""
    death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL, 0, 0, 0)


def _live(shop: Shop, work: Work, log: Path) -> None:
    """The life of a child: the shop's settings, the work, and a log; never returns."""
    code = 1
    try:
        end_with_parent()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for name in [name for name in os.environ if name.startswith(("PIPELINE_", "DAGSTER_"))]:
            del os.environ[name]
        os.environ.update(shop.environment)

        from pipeline_assets import definitions
        from pipeline_assets.settings import get_settings

        get_settings.cache_clear()
        (get_settings().data_dir / "dagster").mkdir(parents=True, exist_ok=True)
        definitions.defs = definitions.build_defs(get_settings())
        work()
        code = 0
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(
    shop: Shop,
    work: Work,
    log: Path,
    decide: Callable[[Call], Decision] | None = None,
    calls: Collection[str] = OF_FILES,
    patience: float = PATIENCE,
) -> Ended:
    """Do `work` in a child with the shop's settings; with `decide`, under supervision of these writing calls."""
    if decide is None:
        return ended(start(shop, work, log), log, patience)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        os.setsid()
        ours.close()
        be_supervised(theirs, calls)
        theirs.close()
        _live(shop, work, log)
    theirs.close()
    with ours:
        return Ended(supervise(child, ours, decide), log)


def start(shop: Shop, work: Work, log: Path) -> int:
    """Do `work` in a child that goes on beside this process; returns its id."""
    child = os.fork()
    if child == 0:
        os.setsid()
        _live(shop, work, log)
    return child


def told(shop: Shop, ask: Callable[[], dict[str, str]], place: Path) -> dict[str, str]:
    """What `ask` finds out in a child: this process must never open a table itself (delta-rs refuses to work in a fork after that)."""

    def work() -> None:
        place.write_text(json.dumps(ask()))

    ended = run(shop, work, place.with_suffix(".log"))
    assert ended.succeeded, ended.said[-3000:]
    return dict(json.loads(place.read_text()))


def ended(child: int, log: Path, patience: float = PATIENCE) -> Ended:
    """Wait for a child; one that waits for something without end is stopped, and its log says so."""
    for _ in range(int(patience / 0.1)):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return Ended(status, log)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    with log.open("a") as lines:
        print(f"stopped after {patience:.0f} s: it waited for something", file=lines)
    return Ended(os.waitpid(child, 0)[1], log)


class Beside:
    """A child that repeats `look` until it is told to stop; `look` gets a number that counts up."""

    def __init__(self, shop: Shop, look: Callable[[int], None], log: Path) -> None:
        self._reading, self._writing = os.pipe()
        writing = self._writing

        def repeat() -> None:
            os.close(writing)  # the other end is the parent's: closed means stop
            number = 0
            while not select.select([self._reading], [], [], PAUSE)[0]:
                look(number)
                number += 1

        self._log, self._child = log, start(shop, repeat, log)
        os.close(self._reading)

    def stopped(self) -> Ended:
        """Tell the child to finish its last look, and wait for it."""
        os.close(self._writing)
        return Ended(os.waitpid(self._child, 0)[1], self._log)
