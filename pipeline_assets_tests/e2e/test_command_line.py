"""What a user of the command line sees when something is wrong: one line that says what to do, and nothing half-done."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import Shop

BAD_SETTINGS = [
    (
        {"PIPELINE_TRAINING__LABEL_WEEKS": "many"},
        "setting training.label_weeks",
        "'many'",
        "PIPELINE_TRAINING__LABEL_WEEKS",
    ),
    (
        {"PIPELINE_TRAINING__LABEL_WEEK": "4"},
        "setting training.label_week",
        "an unknown key",
        "PIPELINE_TRAINING__LABEL_WEEK",
    ),
    ({"PIPELINE_SOURCE__KIND": "oracle"}, "setting source.kind", "'oracle'", "PIPELINE_SOURCE__KIND"),
    ({"PIPELINE_CONFIG": "/nowhere/shop.toml"}, "PIPELINE_CONFIG", "/nowhere/shop.toml", "correct the path"),
]


@pytest.mark.parametrize(
    ("setting", "culprit", "found", "fix"), BAD_SETTINGS, ids=[next(iter(case[0])) for case in BAD_SETTINGS]
)
def test_corrupt_setting_is_one_line(
    tmp_path: Path, setting: dict[str, str], culprit: str, found: str, fix: str
) -> None:
    """Exit code 2, the setting, its value, and the variable to correct; no data folder appears."""
    shop = Shop(tmp_path, setting)
    done = shop.command("run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {culprit}: found {found}")
    assert fix in line.split("Fix:")[1]
    assert not shop.data_dir.exists()


def test_corrupt_configuration_file_is_one_line(tmp_path: Path) -> None:
    """A TOML file with a syntax error: the file and the line."""
    file = tmp_path / "shop.toml"
    file.write_text("[training]\nlabel_weeks = = 4\n")
    done = Shop(tmp_path, {"PIPELINE_CONFIG": str(file)}).command("run")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {file}: found")
    assert "line 2" in line
    assert "wanted valid TOML" in line


def test_no_delivery_is_one_line(tmp_path: Path) -> None:
    """No folder of drops, then an empty one."""
    missing = Shop(tmp_path).command("run")
    (tmp_path / "drops").mkdir()
    empty = Shop(tmp_path).command("run")
    assert (missing.returncode, empty.returncode) == (2, 2)
    assert missing.stderr.splitlines()[-1].startswith(
        f"error: source.path {tmp_path / 'drops'}: found there is no folder"
    )
    assert empty.stderr.splitlines()[-1].startswith("error: source: found no day has arrived")


def test_a_refused_delivery_names_column_and_file_and_keeps_the_rest(first_run: FirstRun, tmp_path: Path) -> None:
    """Sunday comes without `amount`: `run` ends with the column, the file and the fix; the shop of Saturday is as it was."""
    shop = first_run.shop.copied(tmp_path / "shop")
    sunday = date(2017, 3, 19)
    shop.deliver(sunday, faults={sunday: "missing_column"})
    done = shop.command("run")
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert "column amount of" in line
    assert f"{sunday}.parquet" in line
    assert "Traceback" not in done.stderr
    with shop.opened() as pipeline:
        assert sunday not in pipeline.lake.days("raw/purchases")
        assert pipeline.lake.verdicts("purchases", sunday, sunday) == {}
