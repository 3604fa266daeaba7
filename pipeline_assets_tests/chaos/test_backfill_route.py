"""A backfill that is asked for through GraphQL and made by Dagster's daemon does no work on a day without a passed verdict.

`make chaos` runs it: webserver, daemon, code server and run workers are processes of their own, a minute each time. The other
routes are in e2e/test_routes.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline_assets.settings import PROJECT_ROOT, load_settings, tool_environment
from pipeline_assets_tests.shop import NEWEST, Shop, new_shop

BLOCKED = date(2017, 3, 19)
FEATURES = ["features", "customer"]
LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
    __typename ... on PartitionBackfill { status } ... on PythonError { message } } }"""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop after its first run; the next day has arrived with nothing but bad rows, and was validated."""
    shop = new_shop(tmp_path_factory.mktemp("backfill_route"))
    done = shop.command("run")
    assert done.returncode == 0, done.stderr[-3000:]
    shop.deliver(BLOCKED, faults={BLOCKED: "all_bad"})
    with shop.opened() as pipeline:
        feeds = [
            f"{layer}/{feed}"
            for layer in ("raw", "validated")
            for feed in ("purchases", "exposures", "products", "customers")
        ]
        pipeline.execute("ingest", BLOCKED, *feeds, raise_on_error=False)
    return shop


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def asked(url: str, query: str, **variables: Any) -> dict[str, Any]:
    """The answer to a GraphQL query, once the server is up."""
    for _ in range(240):
        try:
            answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=30).json()
            (content,) = answer["data"].values()
            return dict(content)
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")


def backfilled(shop: Shop, module: str) -> str:
    """Backfill `features/customer` of a passed and a blocked day in a `dagster dev` of its own; returns the status it ended with."""
    port, log = free_port(), shop.root / "dev.log"
    environment = {**shop.process_environment(), **tool_environment(load_settings(shop.environment))}
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "-m", module, "-h", "127.0.0.1", "-p", str(port)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and our children would
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        days = [str(NEWEST), str(BLOCKED)]
        launched = asked(url, LAUNCH, params={"assetSelection": [{"path": FEATURES}], "partitionNames": days})
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        for _ in range(240):
            status = str(asked(url, STATUS, id=launched["backfillId"])["status"])
            if status.startswith(("COMPLETED", "FAILED", "CANCELED")):
                return status
            time.sleep(1)
        raise AssertionError(f"the backfill did not end: {log.read_text()[-3000:]}")
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


def test_a_real_backfill_does_no_work_on_a_blocked_day(past: Shop, tmp_path: Path) -> None:
    """Its run fails before it writes, and the backfill says so."""
    shop = past.copied(tmp_path / "shop")
    status = backfilled(shop, "pipeline_assets.definitions")
    with shop.opened() as pipeline:
        assert (status, BLOCKED in pipeline.lake.days("features/customer")) == ("COMPLETED_FAILED", False)


def test_without_verdicts_it_would_compute(past: Shop, tmp_path: Path) -> None:
    """Negative control: the same backfill with every verdict read as passed makes features of the blocked day."""
    shop = past.copied(tmp_path / "shop")
    status = backfilled(shop, "pipeline_assets_tests.chaos.overruled")
    with shop.opened() as pipeline:
        assert (status, BLOCKED in pipeline.lake.days("features/customer")) == ("COMPLETED_SUCCESS", True)
