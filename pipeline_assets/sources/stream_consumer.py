"""From the broker to `stream/<feed>`: micro-batches, each landed with its positions in one commit.

`consume` is one call that a person, a service manager or a Dagster op may make; it holds one batch in memory, stops cleanly when
`stop` is set, and may be killed at any moment: the tables say where to go on. Dead letters are written before the rows of their
batch, with positions of their own, so that a batch that is read again does not bury anything twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.errors import SourceError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.sources.stream_broker import Broker, Stopped, gone
from pipeline_assets.sources.stream_messages import (
    DEAD_LETTERS,
    ROWS,
    Message,
    StreamFeed,
    check_mapping,
    sort_messages,
)
from pipeline_assets.sources.stream_table import (
    DEAD_LETTERS_TABLE,
    Overtaken,
    Place,
    Position,
    StreamTable,
    table_of,
)

if TYPE_CHECKING:
    from pipeline_assets.settings_stream import StreamSettings

_POLL_MESSAGES = 1_000  # at once; fewer where they might not fit into the batch
_POLL_SECONDS = 0.5  # how long a stop may take to be seen
_WATCH_SECONDS = 5.0  # how often a quiet broker is asked whether there is really nothing
_PARTITIONS_SECONDS = 60.0  # how often topics are asked for new partitions
_IDLE_STEP = timedelta(minutes=5)  # a quiet partition's watermark moves in steps: each is a commit, 288 a day


@dataclass
class Consumed:
    """What one call of `consume` did."""

    batches: int = 0
    landed: int = 0
    dead: int = 0
    filtered: int = 0


class _Lane:
    """One feed: its topic, its table, and how far each of its partitions is landed."""

    def __init__(self, stream: StreamFeed, lake: Lake) -> None:
        self.stream = stream
        self.table = StreamTable(lake, table_of(stream.feed.name), ROWS, "event_date")
        self.positions: dict[Place, Position] = {}

    def next_offset(self, place: Place) -> int:
        return self.positions[place].next_offset


class _Consumer:
    def __init__(
        self,
        settings: StreamSettings,
        lake: Lake,
        broker: Broker,
        stop: threading.Event,
        say: Callable[[str], None],
        clock: Callable[[], datetime],
        from_oldest: bool,
    ) -> None:
        self._settings, self._broker, self._stop, self._say, self._clock = settings, broker, stop, say, clock
        self._from_oldest = from_oldest
        self._lake = lake
        self._lanes: list[_Lane] = []
        self._dead = StreamTable(lake, DEAD_LETTERS_TABLE, DEAD_LETTERS, None)
        self._last_seen: dict[Place, datetime] = {}
        self._partitions: dict[str, int] = {}
        self.done = Consumed()

    def open(self, feeds: Sequence[StreamFeed]) -> None:
        """Find the topics and go to where the tables end.

        Raises:
            SourceError: a topic that was asked for does not exist, or messages are gone that were not landed.
        """
        for stream in feeds:
            check_mapping(stream)
            if self._broker.partitions(stream.topic):
                self._lanes.append(_Lane(stream, self._lake))
            elif stream.is_wanted:
                raise SourceError(
                    f"{stream.feed.name} of the stream",
                    found=f"no topic {stream.topic}",
                    wanted="a topic with at least one partition",
                    fix="create it, or name another one in the mapping file (`from`)",
                )
            else:
                self._say(f"no topic {stream.topic}: the shop has no feed {stream.feed.name}")
        try:
            self.assign()
        except Overtaken:
            self.recover()

    def assign(self) -> None:
        """Read every partition from where its tables end; partitions that are new are recorded."""
        offsets: dict[Place, int] = {}
        for lane in self._lanes:
            topic = lane.stream.topic
            count = self._partitions[topic] = self._broker.partitions(topic)
            before: dict[Place, Position | None] = {}
            fresh: dict[Place, Position] = {}
            for place in ((topic, partition) for partition in range(count)):
                low, high = self._broker.bounds(place)
                stored = before[place] = lane.table.position("", place)
                if stored is None:
                    fresh[place] = lane.positions[place] = Position(low)
                elif low <= stored.next_offset <= high:
                    lane.positions[place] = stored
                elif stored.next_offset < low and self._from_oldest:
                    self._bury_gap(lane.stream, place, stored.next_offset, low)
                    fresh[place] = lane.positions[place] = Position(low, stored.watermark)
                else:
                    raise gone(place, stored.next_offset, (low, high))
                offsets[place] = min(offsets.get(place, lane.next_offset(place)), lane.next_offset(place))
                self._last_seen.setdefault(place, self._clock())
            if fresh:
                lane.table.commit(ROWS.empty_table(), "", before, fresh, {topic: count})
        self._broker.assign(offsets)

    def _bury_gap(self, stream: StreamFeed, place: Place, first: int, low: int) -> None:
        row = {
            "feed": stream.feed.name,
            "topic": place[0],
            "partition": place[1],
            "offset": first,
            "reason": f"offsets {first} to {low - 1} were gone from the broker before they were landed",
            "payload_bytes": 0,
            "received_at": self._clock(),
        }
        self._commit_dead(stream, pyarrow.Table.from_pylist([row], DEAD_LETTERS), {place: Position(low)})

    def _commit_dead(self, stream: StreamFeed, dead: pyarrow.Table, positions: dict[Place, Position]) -> int:
        """Write the dead letters that are not there yet; returns how many."""
        prefix = f"{stream.feed.name}/"
        known = {place: self._dead.position(prefix, place) for place in positions}
        written = {place: stored.next_offset for place, stored in known.items() if stored}
        places = zip(dead["topic"].to_pylist(), dead["partition"].to_pylist(), dead["offset"].to_pylist(), strict=True)
        is_new = [offset >= written.get((topic, partition), 0) for topic, partition, offset in places]
        fresh = dead.filter(pyarrow.array(is_new, pyarrow.bool_()))
        if len(fresh):
            moved = {place: p for place, p in positions.items() if p.next_offset > written.get(place, 0)}
            self._dead.commit(fresh, prefix, known, moved)
        return len(fresh)

    def collect(self, quiet_seconds: float | None) -> list[Message]:
        """One batch: bounded in messages, bytes and seconds. Empty when nothing came for a moment."""
        batch: list[Message] = []
        bounds = self._settings
        size, started = 0, time.monotonic()
        last = started
        while len(batch) < bounds.batch_messages and size < bounds.batch_bytes:
            fitting = max(1, (bounds.batch_bytes - size) // bounds.max_message_bytes)
            polled = self._broker.poll(
                min(_POLL_MESSAGES, bounds.batch_messages - len(batch), fitting),
                min(_POLL_SECONDS, bounds.batch_seconds),
            )
            now = time.monotonic()
            batch += polled
            size += sum(len(message.value or b"") for message in polled)
            last = now if polled else last
            is_quiet = quiet_seconds is not None and now - last >= quiet_seconds
            if not batch or self._stop.is_set() or now - started >= bounds.batch_seconds or is_quiet:
                break
        return batch

    def land(self, batch: Sequence[Message]) -> None:
        """Dead letters, then rows with positions, feed by feed.

        Raises:
            Overtaken: another consumer landed some of it; the rest of the batch is left to be read again.
        """
        now = self._clock()
        for message in batch:
            self._last_seen[message.topic, message.partition] = now
        self.done.batches += 1
        for lane in self._lanes:
            self._land(lane, batch, now)

    def _land(self, lane: _Lane, batch: Sequence[Message], now: datetime) -> None:
        topic = lane.stream.topic
        own = [m for m in batch if m.topic == topic and m.offset >= lane.next_offset((m.topic, m.partition))]
        if not own:
            return
        found = sort_messages(lane.stream, own, self._settings.max_message_bytes, now)
        moved: dict[Place, Position] = {}
        for message in own:
            place = (message.topic, message.partition)
            marks = [m for m in (lane.positions[place].watermark, found.watermarks.get(place)) if m is not None]
            moved[place] = Position(message.offset + 1, max(marks, default=None))
        dead = self._commit_dead(lane.stream, found.dead, moved)
        lane.table.commit(found.rows, "", lane.positions, moved)
        lane.positions.update(moved)
        self.done.landed += len(found.rows)
        self.done.dead += dead
        self.done.filtered += found.filtered
        newest = pc.max(found.rows["event_date"]).as_py()
        self._say(
            f"{lane.stream.feed.name}: {len(found.rows)} landed, {dead} dead letters, {found.filtered} filtered out"
            + (f", newest day {newest}" if newest else "")
        )

    def recover(self) -> None:
        """After another consumer's commit: what it landed counts, the rest is read again."""
        self._say("another consumer has landed these messages; going on from the tables")
        for table in (self._dead, *(lane.table for lane in self._lanes)):
            table.reload()
        self.assign()

    def has_new_partitions(self) -> bool:
        return any(self._broker.partitions(topic) != count for topic, count in self._partitions.items())

    def watch(self) -> bool:
        """Whether everything is read; moves the watermarks of partitions that have been quiet for `idle_minutes`."""
        is_all_read = True
        for lane in self._lanes:
            idle: dict[Place, Position] = {}
            for place, position in lane.positions.items():
                now = self._clock()  # before the question: what comes after it is not known to be read
                if not self._broker.is_at_end(place, position.next_offset):
                    is_all_read = False
                elif self._is_idle(place, position, now):
                    idle[place] = Position(position.next_offset, now)
            if idle:
                lane.table.commit(ROWS.empty_table(), "", lane.positions, idle)
                lane.positions.update(idle)
        return is_all_read

    def _is_idle(self, place: Place, position: Position, now: datetime) -> bool:
        if self._settings.idle_minutes is None:
            return False
        idle = timedelta(minutes=self._settings.idle_minutes)
        is_due = position.watermark is None or now - position.watermark >= min(idle, _IDLE_STEP)
        return is_due and now - self._last_seen[place] >= idle


def consume(
    settings: StreamSettings,
    lake: Lake,
    feeds: Sequence[StreamFeed],
    stop: threading.Event,
    say: Callable[[str], None],
    clock: Callable[[], datetime],
    until_idle: float | None = None,
    max_batches: int | None = None,
    from_oldest: bool = False,
) -> Consumed:
    """Land messages until `stop` is set, or one of the two bounds is reached.

    Args:
        say: gets a line for each batch and each trouble.
        clock: now, in UTC; event times after it do not end days.
        until_idle: end when everything is read and nothing has come for so many seconds.
        max_batches: end after so many batches.
        from_oldest: where messages are gone from the broker that were not landed, record the gap and go on.

    Raises:
        ConfigurationError: the mapping or an option cannot work.
        SourceError: no answer from the broker for `give_up_seconds`, a topic is missing, or messages are gone.
    """
    with closing(Broker(settings, stop, say)) as broker:
        consumer = _Consumer(settings, lake, broker, stop, say, clock, from_oldest)
        try:
            consumer.open(feeds)
            _loop(consumer, stop, until_idle, max_batches)
        except Stopped:
            pass
    return consumer.done


def _loop(consumer: _Consumer, stop: threading.Event, until_idle: float | None, max_batches: int | None) -> None:
    last_message = last_watch = last_partitions = time.monotonic()
    while not stop.is_set() and (max_batches is None or consumer.done.batches < max_batches):
        batch = consumer.collect(until_idle)
        now = time.monotonic()
        try:
            if batch:
                last_message = now
                consumer.land(batch)
            is_quiet = until_idle is not None and not batch and now - last_message >= until_idle
            if is_quiet or now - last_watch >= _WATCH_SECONDS:
                last_watch = now
                if consumer.watch() and is_quiet:
                    return
            if now - last_partitions >= _PARTITIONS_SECONDS:
                last_partitions = now
                if consumer.has_new_partitions():
                    consumer.assign()
        except Overtaken:
            consumer.recover()
