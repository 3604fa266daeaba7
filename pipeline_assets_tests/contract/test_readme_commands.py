"""README's commands for a running process, executed: the UI loads the pipeline, the API answers the curl line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from pipeline_assets.settings import load_settings
from pipeline_assets_tests.contract.repository import ROOT, blocks

README = (ROOT / "README.md").read_text()
PATIENCE_SECONDS = 180  # the UI costs some 25 CPU s to come up, on a machine that does other things too


def commands_of(test: str) -> list[str]:
    """The lines of the README block whose marker names this test."""
    ((_, content),) = [block for block in blocks(README, "bash") if f"::{test} " in block[0]]
    return content.splitlines()


def recipe(command: str) -> list[str]:
    """What `make x` would execute, with the environment taken as set up."""
    done = [f"--old-file={name}" for name in (".venv/.installed", "dbt/target/manifest.json")]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    printed = subprocess.run(
        ["make", "-n", *done, *command.split()[1:]], cwd=ROOT, env=quiet, capture_output=True, text=True, check=True
    )
    program, *arguments = shlex.split(printed.stdout.splitlines()[-1])
    return [str(Path(sys.executable).parent / Path(program).name), *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], data_dir: Path) -> Iterator[Path]:
    """A process group of its own, ended at the end; yields its log."""
    log = data_dir / "process.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "DAGSTER"))}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**kept, "PIPELINE_DATA_DIR": str(data_dir)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            yield log
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=30)


def wait_for(url: str, log: Path) -> None:
    """Returns when `url` answers 200."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"{url} did not answer:\n{log.read_text()[-3000:]}")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder with one live release: a tiny bundle of version m1."""
    from pipeline_assets.serving.release_state import open_state, record_live
    from pipeline_assets_tests import tiny_bundle as tiny

    bundle, _ = tiny.write(tmp_path / "bundles")
    tiny.trust(tmp_path)
    engine = open_state(load_settings({"PIPELINE_DATA_DIR": str(tmp_path)}).release_url)
    moment = datetime(2017, 11, 6, tzinfo=UTC)
    record_live(
        engine,
        bundle_path=str(bundle),
        model_version="m1",
        as_of=tiny.AS_OF,
        recommendations_path=None,
        recorded_at=moment,
    )
    return tmp_path


def test_make_serve_answers(data_dir: Path) -> None:
    """`make serve`, then the curl line: a customer that the tiny release does not know gets its popular products."""
    serve, curl = commands_of("test_make_serve_answers")
    port = free_port()
    (url,) = re.findall(r'"(http://127\.0\.0\.1:8000/[^"]+)"', curl)
    url = url.replace(":8000/", f":{port}/")
    with running([*recipe(serve), "--port", str(port)], data_dir) as log:
        wait_for(f"http://127.0.0.1:{port}/v1/recommendations", log)
        if shutil.which("curl"):
            body = subprocess.run(["curl", "-sS", "--fail", url], capture_output=True, text=True, check=True).stdout
        else:
            body = httpx.get(url).raise_for_status().text
    answer = httpx.Response(200, text=body).json()
    assert (answer["model_version"], answer["as_of"], answer["fallback_level"]) == ("m1", "2017-11-05", "popularity")
    assert [item["product_id"] for item in answer["items"]] == ["p1", "p5"]  # "gone" is not in the catalogue


def test_make_dev_loads_the_pipeline(tmp_path: Path) -> None:
    """`make dev`: the UI answers, and its code location is loaded, with the asset groups of the pipeline."""
    (dev,) = commands_of("test_make_dev_loads_the_pipeline")
    port = free_port()
    query = """{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {__typename
        ... on PythonError {message} ... on RepositoryLocation {repositories {assetGroups {groupName}}}}}}}}"""
    with running([*recipe(dev), "--port", str(port)], tmp_path) as log:
        wait_for(f"http://127.0.0.1:{port}/server_info", log)
        answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=60).json()
    (entry,) = answer["data"]["workspaceOrError"]["locationEntries"]
    location = entry["locationOrLoadError"]
    assert location["__typename"] == "RepositoryLocation", location
    (repository,) = location["repositories"]
    assert {"raw", "features", "recommendations"} <= {group["groupName"] for group in repository["assetGroups"]}
