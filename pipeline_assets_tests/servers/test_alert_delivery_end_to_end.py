"""From a fault to a delivered webhook through real programs: a blocked day in the lake, the metrics file, its HTTP server,
Prometheus with the committed rules, Alertmanager with the committed routes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml

from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.pipeline_metrics import serve_text_file, text_file, write_metrics
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.settings import load_settings
from pipeline_assets_tests.contract.repository import ROOT
from pipeline_assets_tests.servers.conftest import free_port, wait_for_port
from pipeline_assets_tests.ticks import Inbox, webhook

PROMETHEUS = ROOT / "deploy/prometheus"
DAY = date(2017, 3, 20)


@contextmanager
def running(port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is ended afterwards; its output is in the failure when it does not come up."""
    binary = shutil.which(command[0])
    assert binary, f"{command[0]} is missing; .ci/run installs it"
    process = subprocess.Popen([binary, *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def committed(folder: Path, inbox: Inbox, alertmanager: int, pipeline: int) -> None:
    """The committed configurations with the ports of this test, and seconds instead of minutes."""
    routes = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    routes["global"] = {"resolve_timeout": "5m"}
    for route in (routes["route"], *routes["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "2s"}
    for receiver in routes["receivers"]:  # Slack and mail are tested on their own; here the webhook is
        kept = receiver.pop("webhook_configs")
        receiver.pop("slack_configs", None)
        receiver.pop("email_configs", None)
        receiver["webhook_configs"] = [{**hook, "url": f"{inbox.url}/{receiver['name']}"} for hook in kept]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))
    watched = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    watched["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    watched["rule_files"] = [str(PROMETHEUS / "rules/*.yml")]
    watched["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
    (job,) = [job for job in watched["scrape_configs"] if job["job_name"] == "pipeline"]
    job |= {"scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{pipeline}"]}]}
    watched["scrape_configs"] = [job]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(watched))


def until(found: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """What `found` returns once it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """`judge(status)`: the newest day of purchases gets a verdict, and the metrics are written, as the sensor does."""
    settings = load_settings({"PIPELINE_DATA_DIR": str(tmp_path), "PIPELINE_CALENDAR__UNTIL": str(DAY)})
    lake = Lake(root=str(tmp_path / "lake"))
    with dg.DagsterInstance.ephemeral() as instance:

        def judge(status: str) -> None:
            now = datetime.now(UTC)
            lake.record_verdicts([Verdict("purchases", DAY, status, 100, 100, 0)], "run", now)
            write_metrics(lake, instance, settings, now)

        yield judge


def test_a_blocked_day_reaches_the_webhook_and_is_resolved(tmp_path: Path, shop: Callable[[str], None]) -> None:
    """Blocked: one firing message to on-call with owner, runbook and cause. Mended: a resolved one. Nothing before the fault."""
    settings = load_settings({"PIPELINE_DATA_DIR": str(tmp_path)})
    shop("passed")
    with ExitStack() as stack:
        inbox = stack.enter_context(webhook())
        pipeline = stack.enter_context(served(serve_text_file(text_file(settings), "127.0.0.1", 0)))
        manager, prometheus = free_port(), free_port()
        committed(tmp_path, inbox, manager, pipeline)

        def said(name: str) -> list[dict[str, Any]]:
            found = [message for message in inbox.alerts if message["groupLabels"].get("alertname") == name]
            return [{**alert, "receiver": message["receiver"]} for message in found for alert in message["alerts"]]

        # Alertmanager first: Prometheus drops what it finds nobody for, and sends it again only after the resend delay
        stack.enter_context(
            running(
                manager,
                "prometheus-alertmanager",
                f"--config.file={tmp_path}/alertmanager.yml",
                f"--storage.path={tmp_path}/alertmanager",
                f"--web.listen-address=127.0.0.1:{manager}",
                "--cluster.listen-address=",
            )
        )
        stack.enter_context(
            running(
                prometheus,
                "prometheus",
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/prometheus",
                f"--web.listen-address=127.0.0.1:{prometheus}",
                "--rules.alert.resend-delay=5s",
            )
        )

        def passed() -> list[Any]:
            answer = httpx.get(
                f"http://127.0.0.1:{prometheus}/api/v1/query", params={"query": "pipeline_day_passed == 1"}
            )
            return list(answer.json().get("data", {}).get("result", []))

        until(passed, "Prometheus sees the passed day")
        until(lambda: said("Watchdog"), "the watchdog arrives")
        assert said("DayBlocked") == []

        shop("blocked")
        (alert, *_) = until(lambda: said("DayBlocked"), "the alert arrives")
        assert (alert["status"], alert["receiver"], alert["labels"]["feed"]) == ("firing", "on_call", "purchases")
        assert (alert["labels"]["severity"], alert["labels"]["owner"]) == ("critical", "team:data-platform")
        assert alert["annotations"]["runbook"] == "docs/runbook.md#blocked-day"
        assert alert["annotations"]["suspected_cause"]

        shop("passed")
        until(
            lambda: [alert for alert in said("DayBlocked") if alert["status"] == "resolved"],
            "the alert is resolved",
        )


def test_the_command_serves_the_file(tmp_path: Path, shop: Callable[[str], None]) -> None:
    """`pipeline-assets metrics --port` in a process of its own: 503 before the first file, then the file of the moment."""
    environment = {**os.environ, "PIPELINE_DATA_DIR": str(tmp_path)}
    port = free_port()
    command = [sys.executable, "-m", "pipeline_assets.cli", "metrics", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_for_port(port, process)
        url = f"http://127.0.0.1:{port}/metrics"
        assert httpx.get(url).status_code == 503
        shop("passed")
        assert 'pipeline_day_passed{feed="purchases"} 1.0' in httpx.get(url).text
    finally:
        process.terminate()
        process.wait(10)
