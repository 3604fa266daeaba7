"""Slack and e-mail on real sockets, and what keeps an alert storm from the people who would have to read it."""

from __future__ import annotations

import json
import logging
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline_assets.resources.alerts import Alert, AlertMemory, Alerts, EmailSink, SlackSink
from pipeline_assets_tests.smtp import post_office
from pipeline_assets_tests.ticks import webhook

NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)
DRIFT = Alert(
    "input_drift",
    "warning",
    "Prices <moved> & stayed",
    "docs/runbook.md#input-drift",
    NOON,
    {"day": "2024-05-05", "psi": 0.5},
    suspected_cause="A price list in cents.",
    subject="2024-05-05",
)


@pytest.fixture(autouse=True)
def _loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_slack_gets_what_an_incoming_webhook_takes() -> None:
    """`text` for the notification, one attachment in the colour of the severity, its fields; control characters are escaped."""
    with webhook() as inbox:
        SlackSink(inbox.url).send(DRIFT)
    (body,) = inbox.alerts
    assert set(body) == {"text", "attachments"}
    assert body["text"] == "[warning] input_drift: Prices &lt;moved&gt; &amp; stayed"
    (attachment,) = body["attachments"]
    fields = [field["text"] for block in attachment["blocks"] for field in block["fields"]]
    assert "*runbook*\ndocs/runbook.md#input-drift" in fields
    assert "*suspected cause*\nA price list in cents." in fields
    assert "*psi*\n0.5" in fields


def test_slack_sections_have_ten_fields_at_most() -> None:
    """12 details and 3 facts are two sections: Slack refuses an eleventh field."""
    many = replace(DRIFT, details={f"d{n}": n for n in range(12)})
    (attachment,) = json.loads(SlackSink("http://x").body(many))["attachments"]
    assert [len(block["fields"]) for block in attachment["blocks"]] == [10, 5]


def mail(port: int, **options: object) -> EmailSink:
    return EmailSink(
        "127.0.0.1", port, "pipeline@shop", ("a@shop", "b@shop"), starttls=False, first_wait_seconds=0.0, **options
    )  # type: ignore[arg-type]


def test_mail_reaches_every_recipient() -> None:
    """One message, two recipients, the facts in its text."""
    with post_office() as post:
        mail(post.port).send(DRIFT)
    (message,) = post.messages
    assert post.recipients == ["a@shop", "b@shop"]
    assert message["Subject"] == "[warning] input_drift: Prices <moved> & stayed"
    text = message.get_content()
    assert "suspected cause: A price list in cents." in text
    assert "psi: 0.5" in text


def test_a_summary_cannot_add_a_header() -> None:
    """A line break in what failed is a blank in the subject."""
    with post_office() as post:
        mail(post.port).send(replace(DRIFT, summary="x\r\nBcc: thief@elsewhere"))
    assert post.messages[0]["Bcc"] is None
    assert post.recipients == ["a@shop", "b@shop"]


def test_mail_is_tried_again_while_the_server_is_busy(caplog: pytest.LogCaptureFixture) -> None:
    """451, then 250: delivered once, no error line."""
    with post_office() as post:
        post.replies = ["451 busy", "250 ok"]
        mail(post.port).send(DRIFT)
    assert len(post.messages) == 1
    assert caplog.text == ""


def test_refused_mail_is_an_error_line(caplog: pytest.LogCaptureFixture) -> None:
    """550 is final: one attempt, one line, no exception; nobody listening is three attempts."""
    with post_office() as post:
        post.replies = ["550 no"]
        mail(post.port).send(DRIFT)
    mail(1).send(DRIFT)
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(line["reason"], line["attempts"]) for line in lines] == [("SMTP 550", 1), ("ConnectionRefusedError", 3)]


def test_a_server_without_starttls_gets_no_password(caplog: pytest.LogCaptureFixture) -> None:
    """STARTTLS was asked for and is not offered: nothing is sent in the clear."""
    with post_office() as post:
        EmailSink("127.0.0.1", post.port, "p@shop", ("a@shop",), True, "user", "secret", attempts=1).send(DRIFT)
    assert post.messages == []
    assert json.loads(caplog.records[0].getMessage())["reason"] == "SMTPNotSupportedError"


# Once for the same thing


@pytest.fixture
def memory(tmp_path: Path) -> AlertMemory:
    return AlertMemory(tmp_path / "alerts.db", timedelta(minutes=60), hourly_limit=3)


def after(minutes: float, **changes: object) -> Alert:
    return replace(DRIFT, occurred_at=NOON + timedelta(minutes=minutes), **changes)  # type: ignore[arg-type]


def test_the_same_alert_is_said_once_an_hour(memory: AlertMemory) -> None:
    """At 0, 10, 59 and 61 minutes: said, held back twice, said with the number that was held back."""
    found = [memory.admit(after(minutes)) for minutes in (0, 10, 59, 61)]
    assert [(admission.kind, admission.unsaid) for admission in found] == [
        ("send", 0),
        ("repeat", 0),
        ("repeat", 1),
        ("send", 2),
    ]


@pytest.mark.parametrize("change", [{"subject": "2024-05-06"}, {"severity": "critical"}, {"name": "skew"}])
def test_another_alert_is_said(memory: AlertMemory, change: dict[str, str]) -> None:
    """Another day, a higher severity or another name is no repeat."""
    memory.admit(after(0))
    assert memory.admit(after(1, **change)).kind == "send"


def test_a_storm_is_one_alert_more(memory: AlertMemory) -> None:
    """Six different ones in an hour with a limit of three: three, then the storm is opened once; an hour later all is calm."""
    found = [memory.admit(after(minute, subject=f"run {minute}")) for minute in range(6)]
    assert [admission.kind for admission in found] == ["send"] * 3 + ["storm"] * 3
    assert [admission.opens_storm for admission in found] == [False] * 3 + [True, False, False]
    assert memory.admit(after(70, subject="run 70")).kind == "send"


def test_every_alert_is_counted(memory: AlertMemory) -> None:
    """Also those that were held back: 4 of drift, and the storm's own."""
    for minute in range(4):
        memory.admit(after(minute, subject=str(minute)))
    assert memory.counts() == {("input_drift", "warning"): 4, ("alert_storm", "critical"): 1}


def test_a_thousand_failures_are_four_deliveries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log has all 1,000 and the storm; the webhook has three and the storm."""
    with webhook() as inbox, caplog.at_level(logging.INFO):
        alerts = Alerts(webhook_url=inbox.url, memory_path=str(tmp_path / "a.db"), hourly_limit=3)
        for n in range(1_000):
            alerts.send(replace(DRIFT, subject=f"run {n}", occurred_at=NOON + timedelta(seconds=n)))
    assert [alert["name"] for alert in inbox.alerts] == ["input_drift"] * 3 + ["alert_storm"]
    assert len(caplog.records) == 1_001


def test_a_broken_memory_silences_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A database that is none: both alerts are delivered, and the log says why they were not compared."""
    (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be looked at as one" * 20)
    with webhook() as inbox:
        for _ in range(2):
            Alerts(webhook_url=inbox.url, memory_path=str(tmp_path / "a.db")).send(DRIFT)
    assert len(inbox.alerts) == 2
    assert "alert_memory_failed" in caplog.text


def test_two_processes_share_the_memory(memory: AlertMemory) -> None:
    """A second connection that holds the database is waited for: no alert is counted twice."""
    memory.admit(after(0))
    with sqlite3.connect(memory.path) as other:
        ((count,),) = other.execute("select count(*) from alerts")
    assert (count, AlertMemory(memory.path, memory.repeat, 3).admit(after(1)).kind) == (1, "repeat")
