"""The stream as a source: what `pipeline-assets consume` has landed in `stream/<feed>`, by business day.

A business day is *complete* when every partition of every feed is past its end by `lateness_minutes`: its watermark is the newest
event time it has shown, or, when it has been read to its end and was quiet for `idle_minutes`, the moment of looking. Later
events still land; `changed_days` names the days they re-open. Rules and their limits: docs/adr/0014-stream.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pyarrow

from pipeline_assets.recommender.errors import SchemaError, SourceError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.sources.base import (
    Peek,
    SourceCalendar,
    conform,
    connect,
    empty,
    extra_columns,
    unmapped,
    with_extra_columns,
)
from pipeline_assets.sources.batch import LandedBatch, differing
from pipeline_assets.sources.derived import DERIVED, derive
from pipeline_assets.sources.mapping import SourceMapping
from pipeline_assets.sources.stream_messages import StreamFeed, extracted, keys_of, start_of
from pipeline_assets.sources.stream_table import table_of, watermark

if TYPE_CHECKING:
    import duckdb


_KEYS_SHOWN = 50  # messages may have any number


def stream_feeds(mapping: SourceMapping, time_zone: str, first_day: date) -> list[StreamFeed]:
    """The feeds of the stream. Without sections in the mapping a topic has its feed's name, and only purchases must exist."""
    wanted = {*mapping.feeds, "purchases"}
    names = [name for name in FEEDS if not mapping.feeds or name in wanted]
    return [
        StreamFeed(
            FEEDS[name],
            mapping.place(name),
            mapping.of(name),
            time_zone,
            mapping.time_zone or time_zone,
            first_day,
            is_wanted=name in wanted,
        )
        for name in names
    ]


class StreamSource:
    """Reads the lake, never the broker: a run needs no broker, and reads the same however often it is repeated.

    A feed that is not landed is absent: products and customers are then derived from purchases, exposures are none.
    """

    def __init__(
        self,
        lake: Lake,
        mapping: SourceMapping,
        calendar: SourceCalendar,
        lateness: timedelta,
        max_unparsed_share: float,
    ) -> None:
        self._lake, self._calendar, self._lateness = lake, calendar, lateness
        feeds = stream_feeds(mapping, calendar.time_zone, calendar.first_day)
        self._feeds = {stream.feed.name: stream for stream in feeds}
        self._max_unparsed_share = max_unparsed_share

    def _is_landed(self, name: str) -> bool:
        return name in self._feeds and self._lake.exists(table_of(name))

    def place(self, feed: Feed) -> str | None:
        if self._is_landed(feed.name):
            return f"topic {self._feeds[feed.name].topic}, landed in {self._lake.uri(table_of(feed.name))}"
        return "derived from purchases" if feed.name in DERIVED else None

    def arrived_days(self) -> list[date]:
        """Complete days with purchases. A day without any has not arrived; when its events come late, it does."""
        if any(stream.is_wanted and not self._is_landed(name) for name, stream in self._feeds.items()):
            return []
        landed = [stream for name, stream in self._feeds.items() if self._is_landed(name)]
        marks = [watermark(self._lake, stream.feed.name, stream.topic) for stream in landed]
        days = self._lake.rows_by_day(table_of("purchases"))
        known = [mark for mark in marks if mark is not None]
        if not days or len(known) < len(marks):
            return []
        reached, zone = min(known) - self._lateness, self._calendar.time_zone
        return self._calendar.arrived(day for day in days if start_of(day + timedelta(days=1), zone) <= reached)

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        """Those of the landed days that late events have re-opened, in order.

        A stream's day only ever grows. As many events as the batch has rows (from the table's log, no data is read) prove that it
        has not; any other day is read and its digest compared, because superseded states of a product are events but no rows.
        """
        if not self._is_landed(feed.name):
            return []  # derived from purchases, which are asked for themselves
        events = self._lake.rows_by_day(table_of(feed.name))
        suspects = [day for day, batch in landed.items() if events.get(day, 0) != batch.rows]
        arrived = set(self.arrived_days()) if suspects else set()
        return differing(self, feed, [day for day in suspects if day in arrived], landed)

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        """Events of `days`, the same in the same order whatever partitions they came through and when.

        Every event is a row, repeats too: validation sets them aside by its rule `duplicate`. Of a product or customer the newest
        state of the day is the row, because these feeds say what is known at its end; older ones stay in the stream's table.
        """
        arrived = set(self.arrived_days())
        missing = [day for day in days if day not in arrived]
        if missing:
            raise SourceError(
                f"{feed.name} of {missing[0]}",
                found=f"complete days up to {max(arrived)}" if arrived else "no complete day",
                wanted="a day whose events have all arrived",
                fix="let `pipeline-assets consume` run until the day is complete",
            )
        if not self._is_landed(feed.name):
            return derive(feed, self.read(FEEDS["purchases"], days)) if feed.name in DERIVED else empty(feed)
        there = self._lake.rows_by_day(table_of(feed.name))
        tables = [self._read_day(self._feeds[feed.name], day) for day in days if day in there]
        rows = pyarrow.concat_tables([table.replace_schema_metadata(None) for table in tables] or [empty(feed)])
        return with_extra_columns(rows, sorted({name for table in tables for name in extra_columns(table)}))

    def _events(self, stream: StreamFeed, day: date) -> pyarrow.Table:
        """A day's messages as `stream_messages` names their columns."""
        events = self._lake.read(table_of(stream.feed.name), day, day, ["partition", "offset", "event_ts", "message"])
        return events.rename_columns([f"__{name}" for name in events.column_names])

    def _read_day(self, stream: StreamFeed, day: date) -> pyarrow.Table:
        import duckdb

        with connect(stream.text_zone) as con:
            try:
                con.register("events", self._events(stream, day))
                columns = _mapped(con, stream, day)
                con.execute(f"create table mapped as select {columns} from delivered {_order(stream)}")
                where = f"{stream.feed.name} of {day} in the stream"
                rows = conform(con, "mapped", stream.feed, self._max_unparsed_share, where)
                return with_extra_columns(rows, _unmapped(con, stream))
            except duckdb.Error as error:
                raise SourceError(
                    f"{stream.feed.name} of {day}",
                    found=str(error).splitlines()[0],
                    wanted="messages that the mapping can be applied to",
                    fix="correct the mapping; values of messages are text until they are cast",
                ) from error

    def peek(self, feed: Feed, day: date, rows: int) -> Peek:
        if not self._is_landed(feed.name):
            return Peek(empty(feed), ())
        stream = self._feeds[feed.name]
        with connect(stream.text_zone) as con:
            con.register("events", self._events(stream, day).slice(0, rows))
            mapped = con.sql(f"select {_mapped(con, stream, day)} from delivered").to_arrow_table()
            return Peek(mapped, _unmapped(con, stream))


def _unmapped(con: duckdb.DuckDBPyConnection, stream: StreamFeed) -> tuple[str, ...]:
    """Keys of the messages that nothing reads."""
    mapping = stream.mapping
    return unmapped(_keys(con), [*stream.feed.columns, *mapping.columns.values(), mapping.day, mapping.keep])


def _mapped(con: duckdb.DuckDBPyConnection, stream: StreamFeed, day: date) -> str:
    """Create `delivered`, the messages with the keys that are asked for, and return what is selected from it.

    A key that only some messages lack is empty there; an optional column that all lack is left out.

    Raises:
        SchemaError: a required column that no message gives; it names the column and the keys that the messages have.
    """
    feed, expressions = stream.feed, {name: stream.expression(name) for name in stream.feed.columns}
    expressions.pop("event_date")
    keys = {key for text in expressions.values() for key in keys_of(con, f"mapping of {feed.name}", text)}
    con.execute(f"create table delivered as {extracted('events', sorted(keys))}")
    counts = ", ".join(f"count({text})" for text in expressions.values())
    (counted,) = con.execute(f"select {counts} from delivered").fetchall()
    there = {name: text for (name, text), n in zip(expressions.items(), counted, strict=True) if n}
    for name in expressions:
        if name not in there and not feed.schema.columns[name].nullable:
            have = ", ".join(_keys(con)) or "none"
            written = stream.mapping.columns.get(name, name)
            raise SchemaError(
                f"column {name} of {feed.name} of {day} in the stream",
                found=f"no value for {written} in any message (keys {have})",
                wanted=f"messages for which {written} can be computed",
                fix="send the key again, or correct the mapping; what is landed is then read anew",
            )
    return ", ".join([*(f'{text} as "{name}"' for name, text in there.items()), f"date '{day}' as event_date"])


def _keys(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The keys that messages have, for a person: the most frequent ones."""
    counted = "select unnest(json_keys(__message)) as key from events"
    found = con.execute(f"select key from ({counted}) group by key order by count(*) desc, key limit {_KEYS_SHOWN}")
    return sorted(row[0] for row in found.fetchall())


def _order(stream: StreamFeed) -> str:
    """SQL after `from`: events by key, copies by time and content; of a state's versions the newest."""
    key = stream.expression(stream.feed.key)
    if stream.feed.key == "event_id":
        return f"order by {key}, __event_ts, __message"
    newest = f"row_number() over (partition by {key} order by __event_ts desc, __partition, __offset desc)"
    return f"qualify {key} is null or {newest} = 1 order by {key}, __event_ts, __message"
