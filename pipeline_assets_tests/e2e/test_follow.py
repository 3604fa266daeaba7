"""`pipeline-assets follow` over the Kafka protocol: each event once, whatever is replayed, killed or started twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline_assets.cli import main
from pipeline_assets.serving.behaviour import Event
from pipeline_assets.serving.event_store import after, append, dead_events, open_events, positions_of
from pipeline_assets.settings import get_settings
from pipeline_assets.settings_events import EventSettings
from pipeline_assets.settings_stream import StreamSettings
from pipeline_assets.sources.stream_events import Followed, follow, read_message
from pipeline_assets.sources.stream_messages import Message
from pipeline_assets_tests.broker import produce, running

NOW = datetime.now(UTC)  # the mock cluster stamps messages with the wall clock
FAST = {"options": {"fetch.wait.max.ms": "20", "reconnect.backoff.max.ms": "100"}}


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    with running() as (address, _):
        yield address


def message(number: int, **changes: Any) -> dict[str, Any]:
    """An event as a shop sends it; None removes a key."""
    full = {"event_id": f"e{number}", "type": "view", "customer_id": f"c{number % 7}", "product_id": "p1"}
    return {name: value for name, value in (full | changes).items() if value is not None}


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'events.db'}"


def followed(servers: str, topic: str, folder: Path, **changes: Any) -> Followed:
    """One call that ends when all is read."""
    stream = StreamSettings.model_validate({"bootstrap_servers": servers, **FAST, **changes})
    stop = threading.Event()
    return follow(
        stream,
        EventSettings(topic=topic),
        url_of(folder),
        stop=stop,
        say=print,
        clock=lambda: datetime.now(UTC),
        until_idle=0.1,
    )


def kept(folder: Path) -> list[Event]:
    return [event for _, event in after(open_events(url_of(folder)), 0, 10_000)]


def test_events_of_all_partitions_are_kept_once(servers: str, tmp_path: Path) -> None:
    """Forty events, ten of them sent twice: forty rows; a second call goes on where the first ended, and finds nothing."""
    produce(servers, "once", [message(n) for n in (*range(40), *range(10))])
    assert followed(servers, "once", tmp_path) == Followed(new=40, known=10)
    assert sorted(event.event_id for event in kept(tmp_path)) == sorted(f"e{n}" for n in range(40))
    assert sum(positions_of(open_events(url_of(tmp_path)), "once").values()) == 50
    assert followed(servers, "once", tmp_path) == Followed()
    produce(servers, "once", [message(40), message(3)])
    assert followed(servers, "once", tmp_path) == Followed(new=1, known=1)


def test_an_event_of_the_api_and_of_the_stream_is_one(servers: str, tmp_path: Path) -> None:
    """The same id over HTTP and over the topic."""
    append(open_events(url_of(tmp_path)), [Event("e1", "view", "c1", "p1", NOW)], NOW)
    produce(servers, "both", [message(1), message(2)])
    assert followed(servers, "both", tmp_path) == Followed(new=1, known=1)


def test_what_is_no_event_is_kept_apart(servers: str, tmp_path: Path) -> None:
    """Not JSON, no object, a key too few, one too many, an unknown type, too long, without a value; the events between them count, one is too old."""
    old = (NOW - timedelta(days=8)).isoformat()
    wrong = [b"{", b"3", message(1, product_id=None), message(2, price=1), message(3, type="theft"), b" " * 2_000]
    produce(servers, "dead", [message(0), *wrong, message(4), message(5, event_ts=old)], partition=0)
    done = followed(servers, "dead", tmp_path, max_message_bytes=1_024)
    assert done == Followed(new=2, expired=1, dead=6)
    reasons = {dead.offset: dead.reason for dead in dead_events(open_events(url_of(tmp_path)))}
    assert list(reasons) == [1, 2, 3, 4, 5, 6]
    assert reasons[3] == "product_id: Field required"
    assert reasons[4].startswith("price: ")
    assert reasons[6] == "2000 bytes; at most 1024 are read"


def test_message_without_a_time_happened_when_it_was_sent() -> None:
    """The broker's timestamp; a tombstone is dead."""
    sent = NOW - timedelta(minutes=5)
    value = b'{"event_id": "e", "type": "click", "customer_id": "c", "product_id": "p"}'
    assert read_message(Message("t", 0, 0, value, len(value), sent), NOW) == Event("e", "click", "c", "p", sent)
    assert "tombstone" in vars(read_message(Message("t", 0, 1, None, 0, sent), NOW))["reason"]


def test_position_that_is_gone_begins_anew(servers: str, tmp_path: Path) -> None:
    """The store is further than the topic, which was created anew: reading goes on with the oldest message, and ids keep it right."""
    produce(servers, "anew", [message(1)], partition=0)
    append(open_events(url_of(tmp_path)), [], NOW, {("anew", 0): 500})
    assert followed(servers, "anew", tmp_path) == Followed(new=1)
    assert positions_of(open_events(url_of(tmp_path)), "anew")[0] == 1


def test_follow_without_brokers_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2."""
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("PIPELINE_STREAM__BOOTSTRAP_SERVERS", raising=False)
    get_settings.cache_clear()
    assert main(["follow"]) == 2
    assert "PIPELINE_STREAM__BOOTSTRAP_SERVERS" in capsys.readouterr().err
    get_settings.cache_clear()
