"""Verbs of the API's operators. Thin shells over pipeline_assets/serving."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import signal
import threading
import time
from datetime import UTC, datetime
from typing import Any

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.settings import get_settings
from pipeline_assets.settings_access import KeySettings


def key(arguments: argparse.Namespace) -> int:
    """Make an API key and print it, once, with the entry for the keys file. The key itself is kept nowhere."""
    made = f"pa_{secrets.token_urlsafe(32)}"
    entry = KeySettings(
        name=arguments.name,
        sha256=hashlib.sha256(made.encode()).hexdigest(),
        scopes=tuple(arguments.scope),
        requests_per_second=arguments.requests_per_second,
    )
    values = entry.model_dump(mode="json", exclude_none=True)
    if arguments.json:
        print(json.dumps({"key": made, "entry": values}, indent=1))
        return 0
    print(f"key, shown once: {made}\n\nfor the file that access.keys_file names:\n\n[[keys]]")
    for name, value in values.items():
        print(f"{name} = {json.dumps(value)}")
    return 0


def follow(arguments: argparse.Namespace) -> int:
    """Keep the events of a topic for the API, until SIGTERM or until all is read. May be killed at any moment and started again."""
    settings = get_settings()
    if not settings.stream.bootstrap_servers:
        raise ConfigurationError(
            "follow",
            found="no brokers",
            wanted="stream.bootstrap_servers",
            fix="set PIPELINE_STREAM__BOOTSTRAP_SERVERS",
        )
    from pipeline_assets.sources.stream_events import follow as keep_events

    stop, started = threading.Event(), time.monotonic()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    say(f"topic {settings.events.topic} of {settings.stream.bootstrap_servers}")
    done = keep_events(
        settings.stream,
        settings.events,
        settings.events_url,
        stop=stop,
        say=say,
        clock=lambda: datetime.now(UTC),
        until_idle=arguments.until_idle,
    )
    say(
        f"done: {done.new} new events, {done.known} known, {done.expired} too old, {done.dead} messages that are no events"
    )
    return 0


def add_verbs(verbs: Any) -> None:
    """`key` and `follow`."""
    verb = verbs.add_parser("key", help="a new API key, and its entry for the keys file", description=key.__doc__)
    verb.add_argument("--name", required=True, help="of who uses it; appears in the audit log")
    verb.add_argument(
        "--scope", required=True, action="append", choices=["read", "events:write", "admin"], help="may be repeated"
    )
    verb.add_argument("--requests-per-second", type=float, metavar="N", help="of each worker (default: no limit)")
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=key)
    verb = verbs.add_parser(
        "follow", help="the topic of views, clicks and purchases into the API's memory", description=follow.__doc__
    )
    verb.add_argument(
        "--until-idle",
        type=float,
        metavar="SECONDS",
        help="end when all is read and nothing came for so long (default: go on for ever)",
    )
    verb.set_defaults(function=follow)
