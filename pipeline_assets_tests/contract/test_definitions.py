"""The code location loads as Dagster loads it: in a process of its own, without an activated environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from pipeline_assets.settings import load_settings, tool_environment
from pipeline_assets_tests.contract.repository import ROOT

# Warnings that are known and why they stay. Anything else fails the test.
ALLOWED = {
    "SupersessionWarning": "`dagster definitions validate` and `dagster dev` are superseded by `dg`, and still ship (docs/design/stack.md)",
    "BetaWarning": "backfill_policy and data_version are beta in 1.13 and the reason why a year costs one run (docs/design/stack.md)",
    "PreviewWarning": "partitions_def on a check: without it a check would load every partition",
    "PydanticDeprecatedSince20": "from dagster's own code",
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # Dagster colours its log
WARNING = re.compile(r"\b(\w*(?:Warning|PydanticDeprecatedSince20))\b:")


def unexpected(output: str) -> list[str]:
    """Lines of a program's output that warn of something not allowed above."""
    lines = ANSI.sub("", output).splitlines()
    found = [(match[1], line) for line in lines if (match := WARNING.search(line))]
    logged = [line for line in lines if " WARNING " in line]
    return [line for kind, line in found if kind not in ALLOWED] + logged


def plain_environment(data_dir: Path) -> dict[str, str]:
    """What `make` and a service manager give: no virtual environment on PATH, nothing of ours set by hand."""
    venv = str(Path(sys.executable).parent)
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != venv]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIPELINE_", "DAGSTER", "VIRTUAL_ENV"))
    }
    places = {"PIPELINE_DATA_DIR": str(data_dir)}
    return {**kept, **places, **tool_environment(load_settings(places)), "PATH": os.pathsep.join(path)}


def test_the_code_location_loads_without_new_warnings(tmp_path: Path) -> None:
    """`dagster definitions validate` on workspace.yaml: jobs, sensors and assets load and their names do not collide."""
    (tmp_path / "dagster").mkdir()
    dagster = str(Path(sys.executable).with_name("dagster"))
    command = [dagster, "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(
        command, cwd=ROOT, env=plain_environment(tmp_path), capture_output=True, text=True, timeout=600, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    assert unexpected(output) == []


def test_the_code_location_has_one_name() -> None:
    """workspace.yaml, [tool.dagster] and [tool.dg.project] agree; where they do not, Dagster warns 20 times a load."""
    (entry,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    names = {
        entry["python_module"]["location_name"],
        tool["dagster"]["code_location_name"],
        tool["dg"]["project"]["code_location_name"],
    }
    modules = {
        entry["python_module"]["module_name"],
        tool["dagster"]["module_name"],
        tool["dg"]["project"]["code_location_target_module"],
    }
    assert names == {"pipeline_assets"}
    assert modules == {"pipeline_assets.definitions"}


@pytest.mark.parametrize(
    "line",
    [
        "/x/y.py:3: DeprecationWarning: SourceAsset is deprecated",
        "2026-01-01 00:00:00 +0000 - dagster - WARNING - the code location name does not match",
    ],
)
def test_a_new_warning_is_found(line: str) -> None:
    """Negative control: a warning that is not on the list, from Python or from Dagster's log."""
    coloured = line.replace("WARNING", "\x1b[33mWARNING\x1b[0m")
    assert unexpected(f"/x/y.py:1: BetaWarning: known\n{coloured}\n") == [line]


def outside_of_the_lake(definitions: dg.Definitions) -> set[str]:
    """Steps of jobs that do not hold the lake: an erasure could begin beside a run of nothing but these (resources/lake_lock.py)."""
    jobs = [definitions.resolve_job_def(job.name) for job in definitions.jobs or ()]
    steps = [node for job in jobs for node in job.all_node_defs if isinstance(node, dg.OpDefinition)]
    return {step.name for step in steps if "lake" not in step.required_resource_keys}


def test_every_run_holds_the_lake(definitions: dg.Definitions) -> None:
    """But for one check, of the release database, that no job has alone."""
    assert outside_of_the_lake(definitions) == {"deployment__release_a_whole_bundle_is_live"}


def test_a_step_outside_of_the_lake_is_found() -> None:
    """Negative control: a job of a step that asks for nothing."""

    @dg.op
    def alone() -> None:
        """Nothing."""

    @dg.job
    def lonely() -> None:
        alone()

    assert outside_of_the_lake(dg.Definitions(jobs=[lonely])) == {"alone"}
