"""Looking at a running pipeline from outside, for benchmarks/soak.py: its processes, Dagster's databases, what lies on disk.

Belongs here: reading /proc (through psutil), SQLite files and folders. Does not: what the figures mean (soak_page.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

ROLES = (  # part of a command line -> what the process is; the first that fits
    ("serving.probe", "probe"),
    ("pipeline_assets.serving", "api"),
    ("dagster._daemon", "daemon"),
    ("dagster_webserver", "webserver"),
    ("api grpc", "code_server"),
    ("dagster code-server", "supervisor"),  # of the code server: starts it again when it dies
    ("dagster dev", "launcher"),
    ("pipeline_assets.cli dev", "launcher"),
)
IN_PROGRESS = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
_MB = 1024**2


@dataclass(frozen=True)
class Usage:
    """Processes of one role. `cpu_s` is their own user and system time, without that of their children."""

    processes: int = 0
    rss_mb: float = 0.0
    cpu_s: float = 0.0
    files: int = 0
    threads: int = 0


@dataclass(frozen=True)
class Dagster:
    """Dagster's databases: runs that have not ended, runs that have, rows of the event index."""

    in_progress: int
    succeeded: int
    failed: int
    events: int


Born = tuple[int, float]  # process id and when it began: ids are used again


def look_at(roots: list[int]) -> tuple[dict[str, Usage], set[Born]]:
    """Usage by role of the trees below `roots`, and every process that was seen. Whoever ends meanwhile is left out."""
    found: dict[str, Usage] = {}
    born: set[Born] = set()
    for process in _trees(roots):
        try:
            with process.oneshot():
                times = process.cpu_times()
                usage = Usage(
                    1,
                    process.memory_info().rss / _MB,
                    times.user + times.system,
                    process.num_fds(),
                    process.num_threads(),
                )
                role, moment = _role(process), process.create_time()
        except psutil.NoSuchProcess:
            continue
        born.add((process.pid, moment))
        before = asdict(found.get(role, Usage()))
        found[role] = Usage(**{name: before[name] + value for name, value in asdict(usage).items()})
    return found, born


def alive(born: set[Born]) -> list[str]:
    """Command lines of the processes that still are."""
    found = []
    for pid, moment in born:
        try:
            process = psutil.Process(pid)
            if process.create_time() == moment and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:200])
        except psutil.NoSuchProcess:
            continue
    return found


def _trees(roots: list[int]) -> Iterator[psutil.Process]:
    for root in roots:
        try:
            process = psutil.Process(root)
            yield process
            yield from process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue


def _role(process: psutil.Process) -> str:
    """A run's worker is a child of the code server that has no name of its own."""
    line = " ".join(process.cmdline())
    return next((role for part, role in ROLES if part in line), "helper" if "resource_tracker" in line else "run")


def dagster_rows(storage: Path) -> Dagster:
    """Counts from Dagster's SQLite files in `storage`, read only; zeros before they are there."""
    runs, index = storage / "runs.db", storage / "index.db"
    by_status: dict[str, int] = {}
    if runs.exists():
        with closing(sqlite3.connect(f"file:{runs}?mode=ro", uri=True, timeout=30)) as database:
            by_status = dict(database.execute("select status, count(*) from runs group by status").fetchall())
    events = 0
    if index.exists():
        with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True, timeout=30)) as database:
            ((events,),) = database.execute("select count(*) from event_logs").fetchall()
    waiting = sum(by_status.get(status, 0) for status in IN_PROGRESS)
    return Dagster(waiting, by_status.get("SUCCESS", 0), by_status.get("FAILURE", 0), events)


def disk_mb(folder: Path) -> dict[str, float]:
    """MB by what lies directly in `folder`; a file that goes away meanwhile is not counted."""
    found = {}
    for entry in sorted(folder.iterdir()):
        size = 0
        for path in [entry, *(entry.rglob("*") if entry.is_dir() else [])]:
            try:
                size += path.lstat().st_size if path.is_file() else 0
            except FileNotFoundError:
                continue
        found[entry.name] = size / _MB
    return found
