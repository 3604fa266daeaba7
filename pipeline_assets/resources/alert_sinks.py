"""An alert, and the places it can go: the log, a webhook, Slack, e-mail.

What belongs here: delivery. What does not: deciding that something is wrong (monitoring/), when to look (automation), or
whether it was said already (alerts.py). A delivery failure never fails the run that reports a problem: it is an error
line of its own.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import smtplib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Literal, Protocol

import httpx
import tenacity

from pipeline_assets.recommender.errors import ConfigurationError

LOGGER = logging.getLogger("pipeline_assets.alerts")
Severity = Literal["info", "warning", "critical"]
LEVELS: dict[str, int] = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}
_COLOURS = {"info": "#2f6fab", "warning": "#b7791f", "critical": "#b42318"}

# A receiver that is restarting is back within seconds: three attempts, waits of 1 and 2 s between them. The timeout is
# for each network operation (connect, send, first bytes of the answer); a dead receiver costs a run about 18 s.
TIMEOUT_SECONDS = 5.0
ATTEMPTS = 3
FIRST_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Alert:
    """One thing a person should know.

    Attributes:
        name: stable identifier, such as `input_drift`; receivers group by it.
        severity: info, warning or critical.
        summary: one sentence.
        details: figures and names behind it; no secrets and no customer data.
        runbook: link or path of the page that says what to do.
        occurred_at: when, with a time zone; passed in.
        owner: the team that is asked first.
        suspected_cause: what it usually is, in one sentence.
        subject: what it is about, such as a job or a day; the same name and subject again is the same alert again.
    """

    name: str
    severity: Severity
    summary: str
    runbook: str
    occurred_at: dt.datetime
    details: Mapping[str, object] = field(default_factory=dict)
    owner: str = "team:recommendations"
    suspected_cause: str = ""
    subject: str = ""

    def __post_init__(self) -> None:
        """Refuse what a receiver would misread.

        Raises:
            ConfigurationError: an unknown severity, or a time without zone.
        """
        if self.severity not in LEVELS:
            raise ConfigurationError(
                "alert severity", found=self.severity, wanted=f"one of {', '.join(LEVELS)}", fix="correct the caller"
            )
        if self.occurred_at.tzinfo is None:
            raise ConfigurationError(
                "alert occurred_at", found=self.occurred_at, wanted="a time with a zone", fix="pass an aware datetime"
            )

    def to_json(self) -> str:
        """One line of strict JSON (a number that is not finite becomes text), keys sorted."""
        body = {
            "name": self.name,
            "severity": self.severity,
            "summary": self.summary,
            "details": dict(self.details),
            "runbook": self.runbook,
            "owner": self.owner,
            "suspected_cause": self.suspected_cause,
            "subject": self.subject,
            "occurred_at": self.occurred_at.isoformat(),
        }
        return json.dumps(_plain(body), sort_keys=True, allow_nan=False, ensure_ascii=True)


class AlertSink(Protocol):
    """Somewhere an alert goes. `send` never raises because of the far side."""

    def send(self, alert: Alert) -> None:
        """Deliver the alert, or log why it could not be delivered."""
        ...


@dataclass(frozen=True)
class LogSink:
    """One JSON line on `pipeline_assets.alerts`, at the level of the severity."""

    logger: logging.Logger = LOGGER

    def send(self, alert: Alert) -> None:
        """Log the alert."""
        self.logger.log(LEVELS[alert.severity], "%s", alert.to_json())


@dataclass(frozen=True)
class WebhookSink:
    """POST the alert's JSON to a URL that is itself a secret (Slack and others put the token in its path).

    Transport errors, 429 and 5xx are tried again; another status is final. Redirects are not followed: the body and the
    secret go where they were configured to go and nowhere else.
    """

    url: str = field(repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS
    attempts: int = ATTEMPTS
    first_wait_seconds: float = FIRST_WAIT_SECONDS
    logger: logging.Logger = LOGGER

    def send(self, alert: Alert) -> None:
        """Deliver, or log one error line with the alert's name, the reason and the number of attempts."""
        retrying = _retrying(self.attempts, self.first_wait_seconds, _is_transient)
        body = self.body(alert)
        carrier = logging.getLogger("httpx")  # logs every request with its URL at INFO
        own_requests = _OwnThread()
        carrier.addFilter(own_requests)
        try:
            retrying(self._post, body)
        # OSError, ValueError: unreadable certificates, malformed proxy settings or host names, met before sending
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, _Refused) as error:
            _report_failure(self.logger, alert, _reason(error), retrying)
        finally:
            carrier.removeFilter(own_requests)

    def body(self, alert: Alert) -> str:
        """What is posted."""
        return alert.to_json()

    def _post(self, body: str) -> None:
        headers = {"Content-Type": "application/json"}
        with (
            httpx.Client(timeout=self.timeout_seconds, follow_redirects=False) as client,
            client.stream("POST", self.url, content=body, headers=headers) as response,  # its body is never read
        ):
            if not response.is_success:
                raise _Refused(response.status_code)


class SlackSink(WebhookSink):
    """POST to a Slack incoming webhook: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks."""

    def body(self, alert: Alert) -> str:
        """`text` is what notifications show; the attachment has the colour of the severity and the facts as fields."""
        facts = {"owner": alert.owner, "runbook": alert.runbook, "suspected cause": alert.suspected_cause}
        facts |= {name: json.dumps(_plain(value), ensure_ascii=False) for name, value in alert.details.items()}
        fields = [
            {"type": "mrkdwn", "text": f"*{_slack(name)}*\n{_slack(text)[:1900]}"}
            for name, text in facts.items()
            if text
        ]
        # Slack takes at most ten fields of 2,000 characters in a section
        blocks = [{"type": "section", "fields": fields[n : n + 10]} for n in range(0, len(fields), 10)]
        text = f"[{alert.severity}] {alert.name}: {_slack(alert.summary)}"
        attachment = {"color": _COLOURS[alert.severity], "fallback": text, "blocks": blocks}
        return json.dumps({"text": text, "attachments": [attachment]})


@dataclass(frozen=True)
class EmailSink:
    """A plain text message over SMTP, with STARTTLS and a login where they are set. Answers of 4xx are tried again, 5xx are final."""

    host: str
    port: int
    sender: str
    recipients: tuple[str, ...]
    starttls: bool = True
    user: str = ""
    password: str = field(default="", repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS
    attempts: int = ATTEMPTS
    first_wait_seconds: float = FIRST_WAIT_SECONDS
    logger: logging.Logger = LOGGER

    def send(self, alert: Alert) -> None:
        """Deliver, or log one error line with the alert's name, the reason and the number of attempts."""
        retrying = _retrying(self.attempts, self.first_wait_seconds, _is_transient_mail)
        try:
            retrying(self._deliver, self.message(alert))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            code = getattr(error, "smtp_code", None)
            _report_failure(self.logger, alert, f"SMTP {code}" if code else type(error).__name__, retrying)

    def message(self, alert: Alert) -> EmailMessage:
        """The message; what an alert says can make no header of its own (EmailMessage refuses line breaks)."""
        message = EmailMessage()
        message["Subject"] = " ".join(f"[{alert.severity}] {alert.name}: {alert.summary}".split())[:200]
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        message["X-Alert-Name"], message["X-Alert-Severity"] = alert.name, alert.severity
        facts = {
            "owner": alert.owner,
            "runbook": alert.runbook,
            "suspected cause": alert.suspected_cause,
            "about": alert.subject,
            "at": alert.occurred_at.isoformat(),
        }
        facts |= {name: json.dumps(_plain(value), ensure_ascii=False) for name, value in alert.details.items()}
        message.set_content(
            "\n".join([alert.summary, "", *(f"{name}: {text}" for name, text in facts.items() if text)])
        )
        return message

    def _deliver(self, message: EmailMessage) -> None:
        with smtplib.SMTP(self.host, self.port, timeout=self.timeout_seconds) as server:
            if self.starttls:
                import ssl

                server.starttls(context=ssl.create_default_context())
            if self.user:
                server.login(self.user, self.password)
            server.send_message(message)


class _Refused(Exception):
    """The receiver answered with a status that is not a success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class _OwnThread(logging.Filter):
    """Drops the records of the thread that made it; other users of httpx keep their log."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


def _retrying(
    attempts: int, first_wait_seconds: float, is_transient: Callable[[BaseException], bool]
) -> tenacity.Retrying:
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_exponential(multiplier=first_wait_seconds),
        retry=tenacity.retry_if_exception(is_transient),
        reraise=True,
    )


def _report_failure(logger: logging.Logger, alert: Alert, reason: str, retrying: tenacity.Retrying) -> None:
    line = {
        "name": "alert_delivery_failed",
        "alert": alert.name,
        "reason": reason,
        "attempts": retrying.statistics["attempt_number"],
    }
    logger.error("%s", json.dumps(line, sort_keys=True))


def _is_transient_mail(error: BaseException) -> bool:
    if isinstance(error, smtplib.SMTPResponseException):
        return 400 <= error.smtp_code < 500
    return isinstance(error, OSError) and not isinstance(
        error, smtplib.SMTPRecipientsRefused | smtplib.SMTPNotSupportedError
    )


def _slack(text: str) -> str:
    """Slack's three control characters (https://docs.slack.dev/messaging/formatting-message-text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _Refused):
        return error.status == 429 or error.status >= 500
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _reason(error: Exception) -> str:
    """What went wrong without httpx's message, which can hold the URL."""
    return str(error) if isinstance(error, _Refused) else type(error).__name__


def _plain(value: object) -> object:
    """`value` as strict JSON types: keys and unknown objects as text, numpy numbers as numbers, NaN as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    item = getattr(value, "item", None)  # numpy scalars
    return _plain(item()) if callable(item) and getattr(value, "ndim", None) == 0 else str(value)
