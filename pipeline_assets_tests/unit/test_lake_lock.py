"""Runs beside each other, an erasure alone: real processes that hold a real lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline_assets.recommender.errors import Busy, ConfigurationError
from pipeline_assets.resources.lake_lock import alone, shared
from pipeline_assets.settings import PROJECT_ROOT

HOLDER = "from pipeline_assets.resources.lake_lock import *\nimport sys\nwith {how}: print('held', flush=True); sys.stdin.read()"


@contextmanager
def process(how: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the lake, from here on until it is told to end."""
    command = [sys.executable, "-c", HOLDER.format(how=how)]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "held\n"
        yield started
        started.kill()


def test_an_erasure_does_not_begin_beside_a_run(tmp_path: Path) -> None:
    """Another run does. When the first is killed, nobody has to clean up after it."""
    root = str(tmp_path / "lake")
    with process(f"shared({root!r})") as run:
        with shared(root, 0):
            pass
        with pytest.raises(Busy, match="a run, or a command that reads the lake, is in progress"), alone(root, 0):
            pass
        run.kill()
        run.wait()
        with alone(root, 0):
            pass


def test_a_run_does_not_begin_beside_an_erasure(tmp_path: Path) -> None:
    """It waits, here for no time, and is refused with a reason; the erasure of another folder does not matter."""
    root = str(tmp_path / "lake")
    with process(f"alone({root!r}, 0)"):
        with pytest.raises(Busy, match="an erasure is in progress"), shared(root, 0):
            pass
        with shared(str(tmp_path / "other"), 0):
            pass


def test_without_a_run_it_begins(tmp_path: Path) -> None:
    """Negative control: the lock that nobody holds is free, and again."""
    for _ in range(2):
        with alone(str(tmp_path / "lake"), 0):
            pass


def test_a_lake_on_an_object_store_is_not_erased_from() -> None:
    """Nobody could be kept out; runs go on as ever."""
    with shared("s3://lake", 0):
        pass
    with pytest.raises(ConfigurationError, match="object store"), alone("s3://lake", 0):
        pass
