"""Alerts leave the pipeline here, and only here: one line in the log always, the sinks that are set, and each thing once.

Belongs here: which sinks there are, and whether an alert was said already. Does not: how a sink delivers (alert_sinks.py).
What was said is kept in a small database, because every tick of a sensor may be another process.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

from pipeline_assets.resources.alert_sinks import LOGGER, Alert, AlertSink, EmailSink, LogSink, SlackSink, WebhookSink
from pipeline_assets.settings_alerts import AlertSettings

STORM = "alert_storm"
_TABLE = """create table if not exists alerts (
    occurred_at real not null, name text not null, severity text not null, subject text not null, was_delivered integer not null
)"""
_KEEP = timedelta(days=90)  # as dagster.yaml keeps ticks; a storm of one alert a second for a day is 5 MB

__all__ = ["Alert", "AlertMemory", "AlertSink", "Alerts", "EmailSink", "LogSink", "SlackSink", "WebhookSink"]


@dataclass(frozen=True)
class Admission:
    """What happens to an alert: `send` it, or not because it is a `repeat`, or because there is a `storm`.

    `unsaid`: how often the same was held back since it was last delivered. `opens_storm`: it is the first one that is too much.
    """

    kind: Literal["send", "repeat", "storm"]
    unsaid: int = 0
    opens_storm: bool = False


@dataclass(frozen=True)
class AlertMemory:
    """Which alerts were delivered, and when.

    Args:
        path: SQLite database, made where it is not.
        repeat: the same name, severity and subject is delivered once in this time.
        hourly_limit: alerts delivered in any hour; what is more is a storm, which is one alert.
    """

    path: Path
    repeat: timedelta
    hourly_limit: int

    def admit(self, alert: Alert) -> Admission:
        """Decide about an alert by its own time, and remember it."""
        now = alert.occurred_at.timestamp()
        with self._opened() as database:
            same = (alert.name, alert.severity, alert.subject)
            where = "name = ? and severity = ? and subject = ?"
            ((last,),) = database.execute(
                f"select max(occurred_at) from alerts where {where} and was_delivered = 1 and occurred_at <= ?",
                (*same, now),
            )
            ((unsaid,),) = database.execute(
                f"select count(*) from alerts where {where} and was_delivered = 0 and occurred_at > ?",
                (*same, last or 0),
            )
            ((hour,),) = database.execute(
                "select count(*) from alerts where was_delivered = 1 and occurred_at > ?", (now - 3600,)
            )
            ((storms,),) = database.execute(
                "select count(*) from alerts where name = ? and occurred_at > ?", (STORM, now - 3600)
            )
            if last is not None and now - last < self.repeat.total_seconds():
                found = Admission("repeat", unsaid)
            elif hour >= self.hourly_limit:
                found = Admission("storm", unsaid, opens_storm=not storms)
            else:
                found = Admission("send", unsaid)
            rows = [(now, *same, int(found.kind == "send"))]
            rows += [(now, STORM, "critical", "", 0)] if found.opens_storm else []
            database.executemany("insert into alerts values (?, ?, ?, ?, ?)", rows)
            database.execute("delete from alerts where occurred_at < ?", (now - _KEEP.total_seconds(),))
        return found

    def counts(self) -> dict[tuple[str, str], int]:
        """(name, severity) -> alerts that are remembered, delivered or not."""
        if not self.path.exists():
            return {}
        with self._opened() as database:
            rows = database.execute("select name, severity, count(*) from alerts group by name, severity").fetchall()
        return {(name, severity): count for name, severity, count in rows}

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The database in one transaction that other processes wait for."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as database:
            database.execute(_TABLE)
            database.execute("begin immediate")
            yield database
            database.execute("commit")


class Alerts(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Every alert goes to the log; also to the sinks that are set, once for the same thing (secrets as `dg.EnvVar`)."""

    webhook_url: str = Field(default="", repr=False, description="Secret. Empty: no webhook.")
    slack_url: str = Field(default="", repr=False, description="Secret. A Slack incoming webhook. Empty: none.")
    smtp_host: str = Field(default="", description="Empty: no e-mail.")
    smtp_port: int = 587
    smtp_user: str = ""
    smtp_password: str = Field(default="", repr=False, description="Secret.")
    smtp_starttls: bool = True
    email_from: str = ""
    email_to: list[str] = Field(default_factory=list)
    memory_path: str = Field(default="", description="Database of what was said. Empty: every alert is delivered.")
    repeat_minutes: float = 60
    hourly_limit: int = 20

    def sinks(self) -> tuple[AlertSink, ...]:
        """The sinks in the order in which they are tried; the log is first, so that it has the alert in any case."""
        found: list[AlertSink] = [LogSink()]
        found += [WebhookSink(self.webhook_url)] if self.webhook_url else []
        found += [SlackSink(self.slack_url)] if self.slack_url else []
        if self.smtp_host:
            to = tuple(self.email_to)
            found.append(
                EmailSink(
                    self.smtp_host,
                    self.smtp_port,
                    self.email_from,
                    to,
                    self.smtp_starttls,
                    self.smtp_user,
                    self.smtp_password,
                )
            )
        return tuple(found)

    def send(self, alert: Alert) -> None:
        """Log the alert; give it to the other sinks unless the same was said within `repeat_minutes`, or too much was said."""
        log, *others = self.sinks()
        log.send(alert)
        admission = self._admit(alert)
        if admission.kind == "send":
            said = {**alert.details, "repeats": admission.unsaid} if admission.unsaid else alert.details
            for sink in others:
                sink.send(replace(alert, details=said))
        elif admission.opens_storm:
            storm = Alert(
                STORM,
                "critical",
                f"more than {self.hourly_limit} alerts in an hour; the others are in the log only",
                "docs/runbook.md#alert-storm",
                alert.occurred_at,
                {"newest": alert.name},
                suspected_cause="One fault that shows in many places: look at the oldest alert of the hour.",
            )
            for sink in (log, *others):
                sink.send(storm)

    def _admit(self, alert: Alert) -> Admission:
        """A memory that cannot be used silences nobody."""
        if not self.memory_path:
            return Admission("send")
        memory = AlertMemory(Path(self.memory_path), timedelta(minutes=self.repeat_minutes), self.hourly_limit)
        try:
            return memory.admit(alert)
        except (sqlite3.Error, OSError) as error:
            line = {"name": "alert_memory_failed", "alert": alert.name, "reason": str(error)}
            LOGGER.error("%s", json.dumps(line, sort_keys=True))
            return Admission("send")


def alerts_of(settings: AlertSettings, data_dir: Path) -> Alerts:
    """The resource of these settings."""
    return Alerts(
        webhook_url=settings.webhook_url.get_secret_value(),
        slack_url=settings.slack_url.get_secret_value(),
        smtp_host=settings.smtp_host,
        smtp_port=settings.smtp_port,
        smtp_user=settings.smtp_user,
        smtp_password=settings.smtp_password.get_secret_value(),
        smtp_starttls=settings.smtp_starttls,
        email_from=settings.email_from,
        email_to=list(settings.email_to),
        memory_path=str(memory_path(data_dir)),
        repeat_minutes=settings.repeat_minutes,
        hourly_limit=settings.hourly_limit,
    )


def memory_path(data_dir: Path) -> Path:
    """Where the alerts of a data folder are remembered."""
    return data_dir / "alerts.db"
