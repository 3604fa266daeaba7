"""Measuring: a process tree from outside (CPU, wall, memory), and the parts of a process from inside.

CPU is user + system time of the process and of every child it waited for, as the kernel counted it. Wall time on a shared machine
is an upper bound. Memory is reported twice: `peak_mb` is the largest sum of the resident sets of the tree (sampled, so that dbt and
its parent count together; shared pages count twice), `peak_process_mb` the largest single process, exact.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.1
_MB = 1024 * 1024


@dataclass(frozen=True)
class Part:
    """One step inside a process. `peak_mb` is the high-water mark of the process during the step."""

    name: str
    cpu_s: float
    wall_s: float
    peak_mb: float
    rows: int | None = None


@dataclass(frozen=True)
class Run:
    """One process tree. `parts` and `facts` are what the process wrote about itself."""

    command: list[str]
    returncode: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    peak_process_mb: float
    parts: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> float:
        """CPU seconds of all parts whose name starts with `name`."""
        return float(sum(part["cpu_s"] for part in self.parts if part["name"].startswith(name)))


def cpu_seconds() -> float:
    """User + system time of this process and of the children it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


class Meter:
    """Collects the parts and facts of this process and writes them to the file that the measuring process reads."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self.parts: list[Part] = []
        self.facts: dict[str, Any] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[dict[str, int]]:
        """Measure what happens inside; put the number of rows into the yielded dictionary."""
        noted: dict[str, int] = {}
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark of the resident set
        cpu, wall = cpu_seconds(), time.monotonic()
        yield noted
        done = Part(name, cpu_seconds() - cpu, time.monotonic() - wall, _status_mb("VmHWM"), noted.get("rows"))
        self.parts.append(done)
        self.write()
        print(
            f"  {name}: {done.cpu_s:.1f} CPU s, {done.wall_s:.1f} s, {done.peak_mb:.0f} MB, {done.rows} rows",
            file=sys.stderr,
            flush=True,
        )

    def write(self) -> None:
        """After every part: a process that is stopped leaves what it has measured so far."""
        if self._out is not None:
            self._out.write_text(
                json.dumps({"parts": [asdict(p) for p in self.parts], "facts": self.facts}, default=str)
            )


def _tree_mb(root: int) -> float:
    """Sum of the resident sets of a process and its descendants."""
    import psutil

    total = 0
    try:
        parent = psutil.Process(root)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total / _MB


def measure(
    arguments: Sequence[str],
    env: Mapping[str, str] | None = None,
    core: int | None = None,
    log: Path | None = None,
    cpu_cap_s: int | None = None,
) -> Run:
    """Run `python -m <arguments>` of this environment to its end and measure it.

    Args:
        env: added to this process's environment.
        log: file for what the process prints; nothing is kept by default. Errors come through.
        core: the one core that the tree may use; None leaves the choice to the system.
        cpu_cap_s: the process is stopped after so many CPU seconds (the run then has a negative return code).
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "meter.json"

        def prepare() -> None:
            if core is not None:
                os.sched_setaffinity(0, {core})
            if cpu_cap_s is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_cap_s, cpu_cap_s))

        started = time.monotonic()
        with (log or Path(os.devnull)).open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, "BENCH_METER": str(out), **(env or {})},
                stdout=stream,
                preexec_fn=prepare,
            )
            peak, over = [0.0], threading.Event()

            def watch() -> None:
                while not over.wait(SAMPLE_SECONDS):
                    peak[0] = max(peak[0], _tree_mb(process.pid))

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            over.set()
            watcher.join()
        told = json.loads(out.read_text()) if out.exists() else {}
    return Run(
        command=list(arguments),
        returncode=process.returncode,
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=time.monotonic() - started,
        peak_mb=max(peak[0], usage.ru_maxrss / 1024),
        peak_process_mb=usage.ru_maxrss / 1024,
        parts=told.get("parts", []),
        facts=told.get("facts", {}),
    )
