"""The API as a user starts it: a process of its own on a free loopback port."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from pipeline_assets.settings import PROJECT_ROOT

POLL_SECONDS, POLLS = 0.1, 1_200  # a bound for a broken server, not an expectation


@contextmanager
def served(environment: Mapping[str, str], log: Path) -> Iterator[httpx.Client]:
    """Start `python -O -m pipeline_assets.serving`, wait until it is ready, and stop it at the end.

    Args:
        environment: the whole environment of the process.
        log: file for what it prints.
    """
    with process_of(environment, log) as (client, _):
        yield client


@contextmanager
def process_of(
    environment: Mapping[str, str], log: Path, *arguments: str
) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """The same with arguments, and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-O", "-m", "pipeline_assets.serving", "--port", str(port), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=dict(environment), stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            _until_ready(client, process, log)
            yield client, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(POLLS):
        assert process.poll() is None, f"the server stopped:\n{log.read_text()[-4000:]}"
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not ready after {POLLS} polls:\n{log.read_text()[-4000:]}")
