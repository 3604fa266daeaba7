"""From a topic of events to the store that the API follows: `pipeline-assets follow`.

Each batch is kept with its positions in one transaction (serving/event_store.py), so the process may be killed at any moment and
started twice: an event counts once, and nothing is passed over. A message that is no event is kept as a dead one.
Unlike `consume` (stream_consumer.py) nothing here is history: where the broker has dropped messages, reading goes on with the
oldest there is, and says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import pydantic
import sqlalchemy as sa
import tenacity

from pipeline_assets.recommender.errors import SourceError
from pipeline_assets.serving.api_models import EventBody
from pipeline_assets.serving.behaviour import Event
from pipeline_assets.serving.event_store import (
    DeadEvent,
    append,
    forget_positions,
    open_events,
    positions_of,
    timely,
)
from pipeline_assets.sources.stream_broker import Broker, Stopped
from pipeline_assets.sources.stream_messages import Message
from pipeline_assets.sources.stream_table import Place

if TYPE_CHECKING:
    from pipeline_assets.settings_events import EventSettings
    from pipeline_assets.settings_stream import StreamSettings

_T = TypeVar("_T")
POLL_MESSAGES, POLL_SECONDS = 1_000, 0.2  # what a transaction holds at most; how long it waits for the first
PARTITIONS_SECONDS = 60.0  # how often the topic is asked for new partitions
DEAD_BYTES = 1_000  # of a message that is no event


@dataclass
class Followed:
    """What one call of `follow` did: events that were new, known already, too old; and messages that are no events."""

    new: int = 0
    known: int = 0
    expired: int = 0
    dead: int = 0


def read_message(message: Message, now: datetime) -> Event | DeadEvent:
    """The event of a message, in the form of `POST /v1/events`; without `event_ts` it happened when it was sent."""
    if message.value is None:
        reason = "no value (a tombstone)"
    elif len(message.value) < message.value_bytes:
        reason = f"{message.value_bytes} bytes; at most {len(message.value)} are read"
    else:
        try:
            return EventBody.model_validate_json(message.value).event(message.sent_at or now)
        except pydantic.ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            reason = f"{'.'.join(str(part) for part in first['loc']) or 'message'}: {first['msg']}"
    payload = (message.value or b"")[:DEAD_BYTES]
    return DeadEvent(message.topic, message.partition, message.offset, reason[:300], payload)


class _Reader:
    def __init__(
        self,
        broker: Broker,
        url: str,
        topic: str,
        retention: timedelta,
        patience: float,
        stop: threading.Event,
        say: Callable[[str], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._broker, self._topic, self._retention = broker, topic, retention
        self._stop, self._say, self._clock, self._patience = stop, say, clock, patience
        self._engine = self._patiently(lambda: open_events(url))
        self.next: dict[Place, int] = {}
        self.done = Followed()

    def assign(self) -> None:
        """Read every partition from where the store ends; from the oldest message, where that is gone.

        Raises:
            SourceError: there is no such topic.
        """
        count = self._broker.partitions(self._topic)
        if not count:
            raise SourceError(
                "events of the stream",
                found=f"no topic {self._topic}",
                wanted="a topic with at least one partition",
                fix="create it, or set events.topic",
            )
        kept = self._patiently(lambda: positions_of(self._engine, self._topic))
        gone = []
        for partition in range(count):
            place = (self._topic, partition)
            low, high = self._broker.bounds(place)
            at = kept.get(partition, low)
            if not low <= at <= high:
                self._say(f"{self._topic}/{partition}: offset {at} is gone, going on with the oldest, {low}")
                gone.append(partition)
                at = low
            self.next[place] = at
        if gone:
            self._patiently(lambda: forget_positions(self._engine, self._topic, gone))
        self._broker.assign(self.next)

    def has_new_partitions(self) -> bool:
        return self._broker.partitions(self._topic) != len(self.next)

    def take(self) -> int:
        """Keep what has come, in one transaction; returns the number of messages."""
        messages = self._broker.poll(POLL_MESSAGES, POLL_SECONDS)
        if not messages:
            return 0
        now = self._clock()
        read = [read_message(message, now) for message in messages]
        found = [event for event in read if isinstance(event, Event)]
        dead = [event for event in read if isinstance(event, DeadEvent)]
        events = timely(found, now, self._retention)
        for message in messages:
            self.next[message.topic, message.partition] = message.offset + 1
        touched = {(message.topic, message.partition) for message in messages}
        positions = {place: self.next[place] for place in touched}
        new = self._patiently(lambda: append(self._engine, events, now, positions, dead))
        self.done.new += new
        self.done.known += len(events) - new
        self.done.expired += len(found) - len(events)
        self.done.dead += len(dead)
        return len(messages)

    def is_at_end(self) -> bool:
        return all(self._broker.is_at_end(place, offset) for place, offset in self.next.items())

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        """Ask the store until it answers, for as long as brokers are waited for.

        Raises:
            SourceError: it does not.
            Stopped: the process was asked to stop meanwhile.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((sa.exc.OperationalError, OSError)),
            stop=tenacity.stop_after_delay(self._patience) | tenacity.stop_when_event_set(self._stop),
            wait=tenacity.wait_random_exponential(0.5, max=15),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=lambda state: self._say("the event store does not answer; asking again"),
            reraise=True,
        )
        try:
            return retrying(ask)
        except (sa.exc.OperationalError, OSError) as error:
            if self._stop.is_set():
                raise Stopped from None
            raise SourceError(
                "event store",
                found=f"{type(error).__name__} for {self._patience:g} s",
                wanted="a database that takes events",
                fix="restore it, or correct events.url; the topic is read on from where it was kept",
            ) from None


def follow(
    stream: StreamSettings,
    events: EventSettings,
    url: str,
    *,
    stop: threading.Event,
    say: Callable[[str], None],
    clock: Callable[[], datetime],
    until_idle: float | None = None,
) -> Followed:
    """Keep the topic's events until `stop` is set.

    Args:
        url: of the event store.
        say: gets a line for each trouble.
        clock: now, in UTC.
        until_idle: end when everything is read and nothing has come for so many seconds.

    Raises:
        ConfigurationError: an option of librdkafka cannot work.
        SourceError: no answer from the broker or the store for `give_up_seconds`, or there is no such topic.
    """
    with closing(Broker(stream, stop, say)) as broker:
        try:
            retention = timedelta(days=events.retention_days)
            reader = _Reader(broker, url, events.topic, retention, stream.give_up_seconds, stop, say, clock)
            reader.assign()
            _loop(reader, stop, until_idle)
        except Stopped:
            return Followed()
    return reader.done


def _loop(reader: _Reader, stop: threading.Event, until_idle: float | None) -> None:
    last_message = last_partitions = time.monotonic()
    while not stop.is_set():
        taken = reader.take()
        now = time.monotonic()
        if taken:
            last_message = now
        elif until_idle is not None and now - last_message >= until_idle and reader.is_at_end():
            return
        if now - last_partitions >= PARTITIONS_SECONDS:
            last_partitions = now
            if reader.has_new_partitions():
                reader.assign()
