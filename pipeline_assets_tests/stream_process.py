"""A consumer in a process of its own, that can be made to kill itself (SIGKILL) at a chosen point.

Processes come from a fork server that has the heavy imports already: a start costs 0.05 s instead of 3.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from datetime import UTC, date, datetime
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["dagster", "deltalake", "duckdb", "confluent_kafka", "pipeline_assets.resources.lake", __name__]
)
KILLED = -signal.SIGKILL
OPTIONS = {"fetch.wait.max.ms": "20"}  # how long a request may wait behind another one at the broker
POINTS = ("after poll", "after dead letters", "after commit")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(point: str | None, batch: int) -> None:
    """Kill this process at a point of the given batch (1 is the first)."""
    from pipeline_assets.sources import stream_consumer as consumer

    land, commit = consumer._Consumer.land, consumer.StreamTable.commit
    count = [0]

    def counted_land(self: Any, messages: Any) -> None:
        count[0] += 1
        if point == "after poll" and count[0] == batch:
            die()
        land(self, messages)

    def deadly_commit(self: Any, rows: Any, prefix: str, expected: Any, positions: Any, partitions: Any = None) -> None:
        if count[0] < batch:
            commit(self, rows, prefix, expected, positions, partitions)
        elif point == "between" and not prefix:  # not our consumer: rows first, positions in a commit of their own
            commit(self, rows, prefix, {}, {})
            die()
        else:
            commit(self, rows, prefix, expected, positions, partitions)
            if point == ("after dead letters" if prefix else "after commit"):
                die()

    consumer._Consumer.land = counted_land  # type: ignore[method-assign]
    consumer.StreamTable.commit = deadly_commit  # type: ignore[method-assign]


def run(servers: str, root: str, topic: str, point: str | None = None, batch: int = 1) -> None:
    """Consume one topic of purchases until it is read, in batches of 40 messages."""
    from pipeline_assets.resources.lake import Lake
    from pipeline_assets.settings_stream import StreamSettings
    from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
    from pipeline_assets.sources.stream import stream_feeds
    from pipeline_assets.sources.stream_consumer import consume

    settings = StreamSettings.model_validate(
        {"bootstrap_servers": servers, "batch_messages": 40, "batch_seconds": 0.1, "options": OPTIONS}
    )
    if point:
        _arm(point, batch)
    feeds = stream_feeds(SourceMapping(feeds={"purchases": FeedMapping(place=topic)}), "UTC", date(2017, 1, 1))
    lake = Lake(root=root)
    consume(settings, lake, feeds, threading.Event(), print, lambda: datetime.now(UTC), until_idle=0.2)


def started(*arguments: Any) -> Any:
    """A process of `run`."""
    process = CONTEXT.Process(target=run, args=arguments)
    process.start()
    return process


def finished(process: Any) -> int | None:
    """Its exit code, after at most a minute."""
    process.join(60)
    return process.exitcode
