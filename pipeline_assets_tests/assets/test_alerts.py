"""Alerts: the log always has them, the webhook gets them, its failure is heard, and its URL is never written down."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import numpy as np
import pytest

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.alerts import Alert, Alerts, LogSink, WebhookSink

SECRET = "T0KEN-never-in-a-log"
NOON = dt.datetime(2024, 5, 6, 12, 0, tzinfo=dt.UTC)


def alert(**details: object) -> Alert:
    """A warning about input drift at noon."""
    return Alert("input_drift", "warning", "Prices moved", "docs/runbooks/drift.md", NOON, details)


@dataclass
class Receiver:
    """A real HTTP server on loopback that answers with `statuses` in turn, the last one for ever."""

    statuses: list[int]
    bodies: list[dict[str, object]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Listening on a free port, closed afterwards; proxies of the environment are not used for loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Receiver([200])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.paths.append(self.path)
            self.send_response(state.statuses.pop(0) if len(state.statuses) > 1 else state.statuses[0])
            self.send_header("Location", f"/elsewhere/{SECRET}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/{SECRET}?key={SECRET}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def failures(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """The error lines of failed deliveries."""
    lines = [record.getMessage() for record in caplog.records if record.name == "pipeline_assets.alerts"]
    parsed: list[dict[str, object]] = [json.loads(line) for line in lines]
    return [line for line in parsed if line["name"] == "alert_delivery_failed"]


def test_log_line_is_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    """Every field, at the level of the severity, on one line even when the text has line breaks."""
    with caplog.at_level(logging.INFO):
        LogSink().send(alert(note="two\nlines"))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("pipeline_assets.alerts", "WARNING")
    assert "\n" not in record.getMessage()
    assert json.loads(record.getMessage()) == {
        "name": "input_drift",
        "severity": "warning",
        "summary": "Prices moved",
        "details": {"note": "two\nlines"},
        "runbook": "docs/runbooks/drift.md",
        "owner": "team:recommendations",
        "suspected_cause": "",
        "subject": "",
        "occurred_at": "2024-05-06T12:00:00+00:00",
    }


def test_details_of_any_kind_are_strict_json() -> None:
    """numpy numbers are numbers, NaN is text (JSON has none), dates are text, tuples are lists."""
    details = json.loads(
        alert(share=np.float64(0.5), rows=np.int64(3), psi=float("nan"), day=NOON.date(), names=("a", "b")).to_json()
    )["details"]
    assert details == {"share": 0.5, "rows": 3, "psi": "nan", "day": "2024-05-06", "names": ["a", "b"]}


def test_an_alert_needs_a_known_severity_and_a_zone() -> None:
    """A receiver would sort 'urgent' nowhere, and a time without zone means another hour elsewhere."""
    with pytest.raises(ConfigurationError, match="severity"):
        Alert("x", "urgent", "s", "r", NOON)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="occurred_at"):
        Alert("x", "info", "s", "r", NOON.replace(tzinfo=None))


def test_webhook_delivers_the_alert(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """The same JSON as in the log arrives once, and nothing is an error."""
    with caplog.at_level(logging.DEBUG):
        WebhookSink(receiver.url).send(alert(share=0.5))
    assert receiver.bodies == [json.loads(alert(share=0.5).to_json())]
    assert failures(caplog) == []


def test_webhook_tries_again_while_the_receiver_is_down(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """503, 429, then 200: three requests, delivered, no error line."""
    receiver.statuses = [503, 429, 200]
    WebhookSink(receiver.url, first_wait_seconds=0.0).send(alert())
    assert len(receiver.bodies) == 3
    assert failures(caplog) == []


def test_webhook_gives_up_and_says_why(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Always 500: three attempts, one error line, no exception."""
    receiver.statuses = [500]
    WebhookSink(receiver.url, first_wait_seconds=0.0).send(alert())
    assert len(receiver.bodies) == 3
    expected = {"name": "alert_delivery_failed", "alert": "input_drift", "reason": "HTTP 500", "attempts": 3}
    assert failures(caplog) == [expected]


@pytest.mark.parametrize("status", [400, 404, 302])
def test_webhook_does_not_repeat_a_final_answer(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """A wrong request stays wrong, and a redirect is not followed with the secret in hand."""
    receiver.statuses = [status]
    WebhookSink(receiver.url, first_wait_seconds=0.0).send(alert())
    assert [path.startswith("/hooks/") for path in receiver.paths] == [True]
    assert failures(caplog)[0]["reason"] == f"HTTP {status}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"http://127.0.0.1:1/{SECRET}", "ConnectError"),
        (f"ftp://127.0.0.1/{SECRET}", "UnsupportedProtocol"),
        (f"{SECRET}", "UnsupportedProtocol"),
        (f"http://127.0.0.1:port/{SECRET}", "InvalidURL"),
    ],
)
def test_an_unusable_webhook_is_an_error_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    """Nobody listens, or the URL is none: logged with the kind of error, never raised, never shown."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with caplog.at_level(logging.DEBUG):
        WebhookSink(url, first_wait_seconds=0.0).send(alert())
    assert [line["reason"] for line in failures(caplog)] == [reason]
    assert SECRET not in caplog.text


def test_a_silent_receiver_times_out(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that accepts and never answers costs the timeout, not the run."""
    import socket

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        WebhookSink(url, timeout_seconds=0.2, attempts=1).send(alert())
    assert failures(caplog)[0]["reason"] == "ReadTimeout"


@pytest.mark.parametrize("status", [200, 302, 500])
def test_the_url_is_in_no_log_and_no_text(receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int) -> None:
    """httpx logs each request with its URL at INFO; here it does not, and neither does any repr."""
    receiver.statuses = [status]
    with caplog.at_level(logging.INFO):
        Alerts(webhook_url=receiver.url).send(alert())
    texts = [caplog.text, repr(Alerts(webhook_url=receiver.url)), repr(WebhookSink(receiver.url))]
    assert all(SECRET not in text for text in texts)


def test_other_users_of_httpx_keep_their_log(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """After a delivery the httpx logger has no filter of ours left."""
    before = list(logging.getLogger("httpx").filters)
    WebhookSink(receiver.url).send(alert())
    assert logging.getLogger("httpx").filters == before


def test_resource_without_url_only_logs(caplog: pytest.LogCaptureFixture) -> None:
    """The default needs no network."""
    with caplog.at_level(logging.INFO):
        Alerts().send(alert())
    assert [record.name for record in caplog.records] == ["pipeline_assets.alerts"]
    assert Alerts().sinks() == (LogSink(),)


def test_resource_in_an_asset_sends_to_log_and_webhook(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Dagster, with the URL from the environment: delivered once, and the URL is not in the events."""
    monkeypatch.setenv("ALERT_WEBHOOK_URL_FOR_TEST", receiver.url)

    @dg.asset
    def reporter(alerts: Alerts) -> None:
        alerts.send(alert())

    with caplog.at_level(logging.INFO), dg.DagsterInstance.ephemeral() as instance:
        resources = {"alerts": Alerts(webhook_url=dg.EnvVar("ALERT_WEBHOOK_URL_FOR_TEST"))}
        result = dg.materialize([reporter], resources=resources, instance=instance)
        events = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert result.success
    assert len(receiver.bodies) == 1
    assert SECRET not in events
    assert SECRET not in caplog.text
