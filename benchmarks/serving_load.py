"""Servers as processes, and load on them by wrk: start-up, CPU of the process tree, latencies of what was accepted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.measured import ROOT

SCRIPT = Path(__file__).with_suffix(".lua")
START_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """A running process tree."""

    process: psutil.Process
    port: int
    start_s: float  # from exec to the first answer of its readiness URL
    start_cpu_s: float

    @property
    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        return sum(p.cpu_times().user + p.cpu_times().system for p in self.tree)

    def rss_mb(self) -> list[float]:
        """Resident memory of each process of the tree that serves, largest first; pages that they share count in each."""
        return sorted((round(p.memory_info().rss / 2**20) for p in self.tree), reverse=True)


@contextmanager
def running(
    command: Sequence[str], port: int, ready: str, environment: Mapping[str, str], log: Path
) -> Iterator[Server]:
    """Start a server, wait until `ready` answers 200, and stop its whole tree at the end."""
    started = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}{ready}", child, log)
        process = psutil.Process(child.pid)
        took = time.monotonic() - started
        server = Server(process, port, took, 0.0)
        yield Server(process, port, took, server.cpu_s())
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _wait(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if child.poll() is not None:
            break
        try:
            if httpx.get(url, trust_env=False, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.02)
    raise RuntimeError(f"{url} is not ready:\n{log.read_text()[-2000:]}")


@dataclass(frozen=True)
class Load:
    """One run of wrk against one server. Latencies are of status 200 only; `broken` are connections that failed."""

    connections: int
    offered: float | None  # requests/s that were aimed at; None: each connection as fast as it gets answers
    seconds: float
    answered: int
    p50_ms: float
    p99_ms: float
    broken: int
    statuses: dict[str, int]
    cpu_s: float

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds of the server's tree for each request that was answered with 200."""
        return self.cpu_s / self.answered * 1e3

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    def fields(self) -> dict[str, Any]:
        found = {**asdict(self), "requests_per_s": round(self.per_second, 1), "cpu_ms": round(self.cpu_ms, 3)}
        return {**found, "requests_per_core_s": round(1e3 / self.cpu_ms, 1)}


def load(server: Server, lines: Sequence[str], connections: int, seconds: float, offered: float | None = None) -> Load:
    """Put load on a server and measure what its process tree spends on it.

    Args:
        lines: paths, or `POST path body-file`; each connection goes through them in turn.
        offered: requests/s of all connections together.
    """
    period = 0.0 if offered is None else connections / offered * 1e3
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        before = server.cpu_s()
        command = ["wrk", f"-t{connections}", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "60s"]
        command += ["-s", str(SCRIPT), f"http://127.0.0.1:{server.port}", "--", file.name, f"{period:.3f}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cpu = server.cpu_s() - before
    told = json.loads(done.stdout.splitlines()[-1])
    return Load(connections, offered, cpu_s=round(cpu, 3), **told)
