"""Events on real processes: the mock cluster, `pipeline-assets follow`, the API with two workers; PostgreSQL as the event store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline_assets.serving.behaviour import Event
from pipeline_assets.serving.event_store import after, append, open_events, positions_of, purge
from pipeline_assets.serving.recent import Follower, Recent
from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets_tests.broker import produce, running
from pipeline_assets_tests.postgres import running_postgres

NOW = datetime(2027, 3, 1, tzinfo=UTC)
OPTIONS = '{"fetch.wait.max.ms": "20", "fetch.message.max.bytes": "2000", "queued.min.messages": "10"}'


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    """Addresses of a mock cluster."""
    with running() as (address, _):
        yield address


def message(number: int) -> dict[str, str]:
    return {"event_id": f"e{number}", "type": "view", "customer_id": f"c{number % 7}", "product_id": "p1"}


def test_killed_at_any_moment_every_event_is_there_once(servers: str, tmp_path: Path) -> None:
    """SIGKILL as soon as a process has kept something of 30,000 events, three times; the last one is left alone: all are there once."""
    produce(servers, "killed", [message(n) for n in range(30_000)])
    engine = open_events(f"sqlite:///{tmp_path / 'events.db'}")
    environment = {
        **os.environ,
        "PIPELINE_DATA_DIR": str(tmp_path),
        "PIPELINE_STREAM__BOOTSTRAP_SERVERS": servers,
        "PIPELINE_STREAM__OPTIONS": OPTIONS,
        "PIPELINE_EVENTS__TOPIC": "killed",
    }
    command = [sys.executable, "-m", "pipeline_assets.cli", "follow", "--until-idle", "0.5"]
    seen = [0]
    for _ in range(3):
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not after(engine, seen[-1], 1):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(after(engine, 0, 50_000)[-1][0])
    assert seen[1] < 30_000, "nothing was left to do: this test would prove nothing"
    subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True)
    kept = [event.event_id for _, event in after(engine, 0, 50_000)]
    assert len(kept) == len(set(kept)) == 30_000
    assert sum(positions_of(engine, "killed").values()) == 30_000
    print(f"rows when killed: {seen[1:]}")


def test_postgres_keeps_events_once_and_in_the_order_of_their_ids() -> None:
    """Eight threads send the same events to a real PostgreSQL while a follower looks: each is there once and none was passed over."""
    with running_postgres() as server:
        url = server.database("events")
        engine, recent = open_events(url), Recent(10_000, 10_000)
        follower = Follower(url, recent, 3600.0, timedelta(days=7), lambda: NOW, lambda: 0.0)
        events = [Event(f"e{n}", "view", "c1", "p1", NOW) for n in range(400)]
        counted: list[int] = []

        def send(turn: int) -> None:
            turned = events[turn * 50 :] + events[: turn * 50]
            for start in range(0, 400, 20):
                counted.append(append(engine, turned[start : start + 20], NOW, {("t", turn): start}))

        threads = [threading.Thread(target=send, args=(turn,)) for turn in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            follower.look()
        follower.look()
        follower.stop()
        assert sum(counted) == 400
        assert sorted(event.event_id for event in recent.of("c1")) == sorted(event.event_id for event in events)
        assert positions_of(engine, "t") == dict.fromkeys(range(8), 380)
        assert purge(engine, NOW + timedelta(seconds=1)) == 400
        engine.dispose()
