"""A batch is interrupted four times, by SIGKILL inside writers and by a full disk; `make chaos` does it at 50 random points and more.

What is interrupted and how: chaos/story.py, chaos/in_a_row.py. Before the batch is done every look of a reader must show a day as
it was before or after.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets_tests.e2e.first_run import FirstRun

Result = dict[str, list[str]]


@pytest.fixture(scope="module")
def result(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Result:
    out: Path = tmp_path_factory.mktemp("chaos") / "result.json"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pipeline_assets_tests.chaos.in_a_row",
        str(first_run.shop.root),
        str(out),
    ]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    found: Result = json.loads(out.read_text())
    return found


def test_kills_leave_no_trace(result: Result) -> None:
    """Killed in three stages, with files in the lake that no commit named: afterwards every table is as in an undisturbed run, and they are gone."""
    assert [line for line in result["stopped"] if line.endswith(": killed")] == [
        "ingestion: killed",
        "validation: killed",
        "features: killed",
    ]
    assert result["left"] != []
    assert result["wrong"] == []


def test_a_full_disk_leaves_the_last_good_state(result: Result) -> None:
    """The pass that met it says so; the reader that looked on saw nothing else than before."""
    (marts,) = [line for line in result["stopped"] if line.startswith("marts: ")]
    assert "No space left on device" in marts


def test_no_reader_saw_a_bad_or_half_day(result: Result) -> None:
    """It looked often, and each look was the past's or the finished batch's."""
    looks, *bad = result["saw"]
    assert bad == []
    assert int(looks.removesuffix(" looks")) >= 5
