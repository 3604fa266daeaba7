"""Children forked from a server reach the verdicts that fresh ones reach; neither a bad bundle nor the server's end stops a probe."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_assets.serving.probe import children_from, fresh_child, probe
from pipeline_assets.serving.probe_server import ProbeServer
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.e2e.test_probe import BAD


@pytest.fixture(scope="module")
def server() -> Iterator[ProbeServer]:
    with ProbeServer() as started, children_from(started):
        yield started


def process_of(server: ProbeServer) -> int:
    assert server._server is not None, "a question was asked"
    return server._server.pid


@pytest.mark.parametrize("bad", BAD, ids=lambda make: make.__name__)
def test_bad_bundle_is_refused_with_its_own_reason_and_the_server_lives(
    server: ProbeServer, tmp_path: Path, bad: Callable[[Path], Path]
) -> None:
    """The same faults as with fresh children, an aborting model among them; then a good one passes, asked by the same server."""
    report = probe(bad(tmp_path), tiny.TRUSTED)
    assert not report.accepted
    assert BAD[bad] in report.reason
    before = process_of(server)
    assert probe(tiny.write(tmp_path / "next")[0], tiny.TRUSTED).accepted
    assert process_of(server) == before


def test_report_is_that_of_a_fresh_child(server: ProbeServer, tmp_path: Path) -> None:
    """But for the milliseconds. Outside the block children are fresh again: the server is not asked."""
    directory = tiny.write(tmp_path)[0]
    warm, spent = probe(directory, tiny.TRUSTED), server.cpu_seconds
    with children_from(fresh_child):
        fresh = probe(directory, tiny.TRUSTED)
    assert warm.accepted
    assert replace(warm, slowest_cpu_ms=0.0) == replace(fresh, slowest_cpu_ms=0.0)
    assert server.cpu_seconds == spent > 0.0


def test_hanging_child_is_killed_and_refused(server: ProbeServer, tmp_path: Path) -> None:
    """A millisecond is not enough to load a bundle; the next question is answered, so nothing was left waiting."""
    directory = tiny.write(tmp_path)[0]
    assert probe(directory, tiny.TRUSTED, timeout_seconds=0.001).reason == "no answer within 0.001 s"
    assert probe(directory, tiny.TRUSTED).accepted


def test_error_that_is_no_refusal_is_told(server: ProbeServer, tmp_path: Path) -> None:
    """A key that is none ends `main` by an exception: the last line of what it wrote is the reason, as with a fresh child."""
    done = server([str(tmp_path), "--trust", "00"], 60.0)
    fresh = fresh_child([str(tmp_path), "--trust", "00"], 60.0)
    assert (done.returncode, done.stdout) == (fresh.returncode, fresh.stdout)
    assert done.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    """The question that finds it gone is answered by a fresh child, the next one by a new server."""
    directory = tiny.write(tmp_path)[0]
    with ProbeServer() as server, children_from(server):
        assert probe(directory, tiny.TRUSTED).accepted
        killed = process_of(server)
        os.kill(killed, signal.SIGKILL)
        os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)  # it is gone, and still to be reaped by who started it
        assert probe(directory, tiny.TRUSTED).accepted
        assert server._server is None
        assert probe(directory, tiny.TRUSTED).accepted
        last = process_of(server)
        assert last != killed
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)  # the end of the block is its end
