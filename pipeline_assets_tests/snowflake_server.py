"""A stand-in for Snowflake: fakesnow's HTTP server in a process of its own, spoken to by the real connector and dialect.

It exists only in the environment of requirements-snowflake.lock, because the connector needs other versions than ours (docs/adr/0013-snowflake.md).
It shows that statements, parameters and types of the dialect work; it is no evidence about Snowflake's optimiser, roles or limits.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

Connection = tuple[str, Mapping[str, Any]]  # SQLAlchemy URL and what the connector wants besides


@pytest.fixture(scope="session")
def snowflake() -> Iterator[Callable[[str], Connection]]:
    """name -> connection to an empty database of that name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "fakesnow.server:app", "--port", str(port), "--log-level", "error"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, server)
        # the dialect refuses host, port and protocol in a URL
        connect_args = {"host": "127.0.0.1", "port": port, "protocol": "http", "account": "shop"}
        yield lambda name: (f"snowflake://reader:geheim@shop/{''.join(filter(str.isalnum, name))}/public", connect_args)
    finally:
        server.terminate()
        server.wait(10)


def wait_for(port: int, server: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until the port answers.

    Raises:
        RuntimeError: the server ended, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")
