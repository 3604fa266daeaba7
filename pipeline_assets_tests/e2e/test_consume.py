"""The consumer on the Kafka protocol, across processes: librdkafka's mock cluster is one, each consumer is another.

What this shows and what it cannot (no real broker: rebalancing, retention, authentication, TLS): docs/adr/0014-stream.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline_assets.recommender.errors import ConfigurationError, SourceError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.settings import PROJECT_ROOT, StreamSettings
from pipeline_assets.sources.base import SourceCalendar
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
from pipeline_assets.sources.stream import StreamSource, stream_feeds
from pipeline_assets.sources.stream_consumer import Consumed, consume
from pipeline_assets.sources.stream_messages import ROWS, StreamFeed
from pipeline_assets.sources.stream_table import Position, StreamTable
from pipeline_assets_tests import broker
from pipeline_assets_tests.stream_process import KILLED, OPTIONS, POINTS, finished, started

SUNDAY, MONDAY = date(2017, 2, 12), date(2017, 2, 13)
NOW = datetime(2017, 2, 14, 12, tzinfo=UTC)
EVENTS, BAD_EACH = 200, 9  # 200 messages, of which each ninth is no JSON, so that every batch of 40 has one
DEAD = 23  # 0, 9, .. 198


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    with broker.running() as (address, _):
        yield address


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path))


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic of the test's own."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


def event(at: int, day: date = SUNDAY, hour: int = 12) -> dict[str, Any]:
    """A purchase line; ids follow from `at`."""
    sold = {"event_id": f"e{at}", "order_id": f"o{at}", "customer_id": "ann", "product_id": "milk"}
    return {**sold, "quantity": 1, "amount": 2.0, "discount": 0, "event_ts": f"{day}T{hour:02}:00:00Z"}


def messages() -> list[Any]:
    return ["no JSON" if at % BAD_EACH == 0 else event(at) for at in range(EVENTS)]


def landed(lake: Lake, table: str = "stream/purchases") -> list[tuple[int, int]]:
    """Partition and offset of every row, in order: repeats show."""
    rows = lake.read(table)
    return sorted(zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True))


def everything() -> list[tuple[int, int]]:
    """What `messages` become, round robin over four partitions: each (partition, offset) once."""
    return [(at % broker.PARTITIONS, at // broker.PARTITIONS) for at in range(EVENTS)]


def mapped(topic: str) -> SourceMapping:
    """Purchases are in this topic; the shop has no other feed."""
    return SourceMapping(feeds={"purchases": FeedMapping(place=topic)})


def feeds(purchases: str) -> list[StreamFeed]:
    return stream_feeds(mapped(purchases), "UTC", date(2017, 1, 1))


def source(lake: Lake, topic: str) -> StreamSource:
    """Days up to Monday, which wait 60 minutes."""
    calendar = SourceCalendar("UTC", date(2017, 1, 1), MONDAY)
    return StreamSource(lake, mapped(topic), calendar, timedelta(minutes=60), 0.5)


def settings(servers: str, **changes: Any) -> StreamSettings:
    given = {"bootstrap_servers": servers, "batch_seconds": 0.1, "idle_minutes": None, "options": OPTIONS, **changes}
    return StreamSettings.model_validate(given)


def consumed(servers: str, lake: Lake, streams: Sequence[Any], from_oldest: bool = False, **changes: Any) -> Consumed:
    """Consume in this process until all is read."""
    return consume(
        settings(servers, **changes),
        lake,
        streams,
        threading.Event(),
        print,
        lambda: NOW,
        until_idle=0.2,
        from_oldest=from_oldest,
    )


# Killed


@pytest.mark.parametrize("point", POINTS)
def test_kill_neither_loses_nor_doubles(servers: str, lake: Lake, topic: str, point: str) -> None:
    """SIGKILL in the second batch of 40, again in the first batch of the next process, then a run to the end: each message once."""
    broker.produce(servers, topic, messages())
    for batch in (2, 1):
        assert finished(started(servers, lake.root, topic, point, batch)) == KILLED
    assert finished(started(servers, lake.root, topic)) == 0
    dead = landed(lake, "stream/dead_letters")
    assert len(dead) == DEAD
    assert sorted(landed(lake) + dead) == sorted(everything())


def test_kill_from_outside_neither_loses_nor_doubles(servers: str, lake: Lake, topic: str) -> None:
    """SIGKILL by another process, wherever the consumer is when its first rows are seen; four times."""
    broker.produce(servers, topic, messages())
    for _ in range(4):
        before = lake.version("stream/purchases") if lake.exists("stream/purchases") else -1
        process = started(servers, lake.root, topic)
        while process.is_alive() and not (
            lake.exists("stream/purchases") and lake.version("stream/purchases") > max(before, 1)
        ):
            time.sleep(0.002)
        process.kill()
        assert finished(process) in (KILLED, 0)
    assert finished(started(servers, lake.root, topic)) == 0
    assert sorted(landed(lake) + landed(lake, "stream/dead_letters")) == sorted(everything())


def test_positions_in_a_commit_of_their_own_would_double(servers: str, lake: Lake, topic: str) -> None:
    """Negative control: rows first, positions after; the same kill between them, and the first batch is there twice."""
    broker.produce(servers, topic, messages())
    assert finished(started(servers, lake.root, topic, "between", 1)) == KILLED
    assert finished(started(servers, lake.root, topic)) == 0
    assert len(landed(lake)) > len(set(landed(lake))) == EVENTS - DEAD


def test_two_consumers_at_once_land_each_message_once(servers: str, lake: Lake, topic: str) -> None:
    """Both read all partitions and race for each commit: whoever is second goes on from the table."""
    broker.produce(servers, topic, messages())
    both = [started(servers, lake.root, topic) for _ in range(2)]
    assert [finished(process) for process in both] == [0, 0]
    assert sorted(landed(lake) + landed(lake, "stream/dead_letters")) == sorted(everything())


# From message to day


def test_days_arrive_and_late_events_land_in_theirs(servers: str, lake: Lake, topic: str) -> None:
    """Sunday is complete when every partition has shown Monday 01:00; what comes afterwards is in Sunday all the same."""
    streams = feeds(purchases=topic)
    broker.produce(servers, topic, [event(at) for at in range(8)])
    assert consumed(servers, lake, streams).landed == 8
    assert source(lake, topic).arrived_days() == []
    broker.produce(servers, topic, [event(10 + at, MONDAY, 1) for at in range(broker.PARTITIONS)])
    consumed(servers, lake, streams)
    assert source(lake, topic).arrived_days() == [SUNDAY]
    broker.produce(servers, topic, [event(99)])
    consumed(servers, lake, streams)
    assert lake.rows_by_day("stream/purchases") == {SUNDAY: 9, MONDAY: 4}


def test_quiet_partitions_end_the_day_by_the_idle_rule(servers: str, lake: Lake, topic: str) -> None:
    """Three partitions are empty and one has shown Sunday. Read to their end and quiet for 0 minutes, they are at now; without the rule
    no day ever ends."""
    streams = feeds(purchases=topic)
    broker.produce(servers, topic, [event(1)], partition=2)
    consumed(servers, lake, streams)
    assert source(lake, topic).arrived_days() == []
    consumed(servers, lake, streams, idle_minutes=0)
    assert source(lake, topic).arrived_days() == [SUNDAY]


def test_one_topic_for_two_feeds(servers: str, lake: Lake, topic: str) -> None:
    """Sales and views in one topic, told apart by the filter: each feed has its own, with its own positions."""
    shown = {
        "event_id": "v1",
        "product_id": "milk",
        "channel": "web",
        "valid_from": str(SUNDAY),
        "valid_to": str(SUNDAY),
    }
    views = [{**shown, "kind": "view", "event_date": str(SUNDAY)}] * 3
    broker.produce(servers, topic, [*views, *({**event(at), "kind": "sale"} for at in range(5))])
    mapping = {
        "purchases": FeedMapping(place=topic, keep="kind = 'sale'"),
        "exposures": FeedMapping(place=topic, keep="kind = 'view'"),
    }
    done = consumed(servers, lake, stream_feeds(SourceMapping(feeds=mapping), "UTC", date(2017, 1, 1)))
    assert (done.landed, done.filtered, done.dead) == (8, 8, 0)
    assert (len(landed(lake)), len(landed(lake, "stream/exposures"))) == (5, 3)


def test_batch_is_bounded_by_bytes(servers: str, lake: Lake, topic: str) -> None:
    """200 messages of some 150 bytes, 30,000 in all, in batches of at most 4,096 + 1,024: six or more, and none is lost."""
    broker.produce(servers, topic, [event(at) for at in range(EVENTS)])
    done = consumed(servers, lake, feeds(purchases=topic), batch_bytes=4_096, max_message_bytes=1_024)
    assert done.batches >= 6
    assert landed(lake) == sorted(everything())


# Trouble


def test_broker_that_is_not_there_is_a_clear_error(lake: Lake) -> None:
    """Nothing listens on port 1: asked for a second, each retry is told, then an error with address, time and fix."""
    lines: list[str] = []
    gone = settings("127.0.0.1:1", give_up_seconds=1)
    with pytest.raises(SourceError) as error:
        consume(gone, lake, feeds(purchases="sales"), threading.Event(), lines.append, lambda: NOW)
    assert error.value.culprit == "broker 127.0.0.1:1"
    assert "within 1 s" in str(error.value.wanted)
    assert "stream.bootstrap_servers" in error.value.fix
    assert any("asking again" in line for line in lines)


def test_broker_that_goes_away_is_not_taken_for_a_quiet_one(lake: Lake, topic: str) -> None:
    """What came before is landed; then silence is an error and not the end, and no partition counts as read."""
    with broker.running() as (address, holder):
        broker.produce(address, topic, [event(1)], partition=0)
        streams = feeds(purchases=topic)
        consumed(address, lake, streams)
        lines: list[str] = []

        def say(line: str) -> None:
            lines.append(line)
            if "landed" in line:
                holder.kill()

        broker.produce(address, topic, [event(2)], partition=0)
        given = settings(address, give_up_seconds=1, idle_minutes=0)
        with pytest.raises(SourceError, match="wanted the offsets of"):
            consume(given, lake, streams, threading.Event(), say, lambda: NOW, until_idle=0.2)
    assert landed(lake) == [(0, 0), (0, 1)]
    assert source(lake, topic).arrived_days() == []


def test_stop_ends_the_wait_for_a_broker(lake: Lake) -> None:
    """A stop while nothing answers ends with the request that is under way, without an error."""
    stop = threading.Event()
    gone = settings("127.0.0.1:1", give_up_seconds=3)
    done = consume(gone, lake, feeds(purchases="sales"), stop, lambda _: stop.set(), lambda: NOW)
    assert done == Consumed()


def test_topic_that_does_not_exist_is_named(servers: str, lake: Lake) -> None:
    """The mapping asks for it; nothing is made up."""
    with pytest.raises(SourceError, match="no topic nobody"):
        consumed(servers, lake, feeds(purchases="nobody"))


def test_topic_that_was_created_anew_is_refused(servers: str, lake: Lake, topic: str) -> None:
    """The table is at offset 99, the topic ends at 1: its messages would be taken for ones that are landed."""
    broker.produce(servers, topic, [event(1)], partition=0)
    table = StreamTable(lake, "stream/purchases", ROWS, "event_date")
    table.commit(ROWS.empty_table(), "", {(topic, 0): None}, {(topic, 0): Position(99)}, {topic: 4})
    with pytest.raises(SourceError, match="wanted offset 99") as error:
        consumed(servers, lake, feeds(purchases=topic))
    assert "another name" in error.value.fix


def test_messages_that_are_gone_are_an_error_or_a_recorded_gap(servers: str, lake: Lake, topic: str) -> None:
    """The mock keeps 5 MB of a partition: nine messages of 0.9 MB push out offset 1, which was not landed. Refused, or noted and passed."""
    broker.produce(servers, topic, [event(1)], partition=0)
    consumed(servers, lake, feeds(topic))
    broker.produce(servers, topic, [event(2), *["x" * 900_000] * 9, event(3)], partition=0)
    with pytest.raises(SourceError, match="wanted offset 1, the first that is not landed") as error:
        consumed(servers, lake, feeds(topic))
    assert "--from-oldest" in error.value.fix
    consumed(servers, lake, feeds(topic), from_oldest=True)
    assert landed(lake) == [(0, 0), (0, 11)]
    dead = lake.read("stream/dead_letters").sort_by("offset").to_pylist()
    first_kept = dead[1]["offset"]
    assert dead[0]["reason"] == f"offsets 1 to {first_kept - 1} were gone from the broker before they were landed"
    assert [row["offset"] for row in dead[1:]] == list(range(first_kept, 11))
    assert {(row["payload_bytes"], len(row["payload"])) for row in dead[1:]} == {(900_000, 65_536)}


def test_option_from_a_file_and_its_absence(tmp_path: Path, lake: Lake) -> None:
    """A secret in a file that is not there: the file is named; an option that librdkafka does not know is named too."""
    for options, named in (({"sasl.password": f"file:{tmp_path}/gone"}, "gone"), ({"nonsense": "1"}, "nonsense")):
        with pytest.raises(ConfigurationError, match=named):
            consumed("127.0.0.1:1", lake, feeds(purchases="sales"), options=options)


def test_verb_consumes_until_it_is_told_to_stop(servers: str, tmp_path: Path) -> None:
    """`pipeline-assets consume` as a service: lands what comes, and SIGTERM ends it with what it has landed."""
    broker.produce(servers, "purchases", [event(at) for at in range(5)])
    environment = {
        **os.environ,
        "PIPELINE_DATA_DIR": str(tmp_path),
        "PIPELINE_SOURCE__KIND": "stream",
        "PIPELINE_STREAM__BOOTSTRAP_SERVERS": servers,
        "PIPELINE_STREAM__BATCH_SECONDS": "0.2",
    }
    command = [sys.executable, "-m", "pipeline_assets.cli", "consume"]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [next(line for line in process.stdout if "landed" in line)]
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        assert process.wait(30) == 0
    assert "purchases: 5 landed, 0 dead letters" in lines[0]
    assert "done: 5 events landed" in lines[-1]
