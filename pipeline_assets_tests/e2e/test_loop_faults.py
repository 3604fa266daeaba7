"""The loop never goes on after a run that failed, whatever it failed of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets_tests.shop import Shop

SCRIPT = """
from datetime import date
from pipeline_assets.loop import Task, execute
execute(Task("training", "as of 2017-03-05", (date(2017, 3, 5),)))
"""


def test_a_run_that_fails_before_its_first_step_is_a_failure(tmp_path: Path) -> None:
    """MLflow's address is no address: no step ever starts, and the run is not taken for a success."""
    shop = Shop(tmp_path, {"PIPELINE_STORES__MLFLOW_URI": "nonsense://host"})
    (shop.data_dir / "dagster").mkdir(parents=True)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"from pipeline_assets.settings import get_settings\nget_settings(){SCRIPT}",
        ],
        cwd=PROJECT_ROOT,
        env=shop.process_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "RunFailed: job training, as of 2017-03-05, step none" in done.stderr
    assert "nonsense://host" in done.stderr
