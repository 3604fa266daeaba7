"""Children for probes, forked from a process that has imported what they need: 0.1 CPU s instead of 1 for each (ADR 50).

Belongs here: the process, the questions and answers on its pipes. Does not: the verdict (probe.py). For a process that probes every few
seconds, as a replay does; the server keeps 100 MB, so an API process, which probes once a day, starts a fresh child instead.
The server parses no bundle itself: what a child meets is what a fresh process would.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from pipeline_assets.serving.probe import ROOT, fresh_child, main
from pipeline_assets.serving.startup import import_lightgbm_alone

START_SECONDS = 60.0  # the imports of a new server take 1 CPU s


class ProbeServer:
    """A server, started with the first question; a context that ends it. Questions are asked one after the other.

    An object of this class is a `probe.Child`. A server that is gone is replaced, and a fresh child answers the question.
    """

    def __init__(self) -> None:
        self.cpu_seconds = 0.0  # of the servers and their children, up to the newest answer
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._ended = 0.0  # CPU seconds of servers that are gone

    def __enter__(self) -> ProbeServer:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._end()

    def __call__(self, arguments: Sequence[str], timeout_seconds: float) -> subprocess.CompletedProcess[bytes]:
        """As `probe.fresh_child`."""
        with self._lock:
            answer = self._answer(arguments, timeout_seconds)
        if answer is None:
            return fresh_child(arguments, timeout_seconds)
        if answer["status"] is None:
            raise subprocess.TimeoutExpired(list(arguments), timeout_seconds)
        output, errors = (answer[name].encode() for name in ("output", "errors"))
        return subprocess.CompletedProcess(list(arguments), answer["status"], output, errors)

    def _answer(self, arguments: Sequence[str], timeout_seconds: float) -> dict[str, Any] | None:
        """None: the server is gone, or does not keep to the time that it was given."""
        if self._server is None:
            command = [sys.executable, "-m", "pipeline_assets.serving.probe_server"]
            self._server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        asking, answering = self._server.stdin, self._server.stdout
        assert asking is not None, "a pipe was asked for"
        assert answering is not None, "a pipe was asked for"
        try:
            asking.write(json.dumps([list(arguments), timeout_seconds]).encode() + b"\n")
            asking.flush()
        except BrokenPipeError:
            self._end()
            return None
        is_there = select.select([answering], [], [], timeout_seconds + START_SECONDS)[0]
        line = answering.readline() if is_there else b""
        if not line.endswith(b"\n"):
            self._end()
            return None
        answer: dict[str, Any] = json.loads(line)
        self.cpu_seconds = self._ended + answer["cpu_seconds"]
        return answer

    def _end(self) -> None:
        if self._server is not None:
            self._server.kill()  # a child that it waits for finds nobody to answer to, and ends by itself
            self._server.communicate()
            self._server, self._ended = None, self.cpu_seconds


def serve() -> None:
    """Answer every line of standard input, arguments and seconds, with a line; until it is closed."""
    import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401  # else imported while a bundle is loaded
    import pyarrow.parquet  # noqa: F401  # the same

    import_lightgbm_alone()
    gc.freeze()  # a collection in a child would write to, and so copy, everything
    for line in sys.stdin:
        arguments, seconds = json.loads(line)
        answer = {**in_child(arguments, seconds), "cpu_seconds": sum(os.times()[:4])}
        print(json.dumps(answer), flush=True)


def in_child(arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run `probe.main` in a fork: its exit status as of `subprocess` (None: killed, for it took longer), output and errors."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            _be_child(arguments, output.fileno(), errors.fileno())
        ended = os.pidfd_open(child)
        try:
            is_late = not select.select([ended], [], [], seconds)[0]
        finally:
            os.close(ended)
        if is_late:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = {}
        for name, file in (("output", output), ("errors", errors)):
            file.seek(0)
            texts[name] = file.read().decode(errors="replace")
        return {"status": None if is_late else status, **texts}


def _be_child(arguments: Sequence[str], output: int, errors: int) -> None:
    """Ends the process."""
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        status = main(arguments)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()  # as the interpreter does; it is not left by the way out
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
