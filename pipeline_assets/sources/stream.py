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

from pipeline_assets.recommender.errors import SourceError
from pipeline_assets.resources.content import contents, in_order
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS
from pipeline_assets.sources.base import conform
from pipeline_assets.sources.mapping import SourceMapping
from pipeline_assets.sources.stream_messages import StreamFeed, connect, extracted, keys_of, start_of
from pipeline_assets.sources.stream_table import table_of, watermark

if TYPE_CHECKING:
    import duckdb

    from pipeline_assets.settings import CalendarSettings
    from pipeline_assets.sources.landing import Batch


def stream_feeds(mapping: SourceMapping, calendar: CalendarSettings) -> list[StreamFeed]:
    """The feeds of the stream. Without a mapping a topic has its feed's name; only purchases must exist then."""
    names = [name for name in FEEDS if not mapping.feeds or name in mapping.feeds or name == "purchases"]
    return [
        StreamFeed(
            FEEDS[name],
            mapping.place(name),
            mapping.of(name),
            calendar.time_zone,
            mapping.time_zone or calendar.time_zone,
            calendar.first_day,
            is_wanted=name in mapping.feeds or name == "purchases",
        )
        for name in names
    ]


class StreamSource:
    """Reads the lake, never the broker: a run needs no broker, and reads the same however often it is repeated."""

    def __init__(
        self,
        lake: Lake,
        feeds: Sequence[StreamFeed],
        until: date,
        lateness: timedelta,
        max_unparsed_share: float,
    ) -> None:
        self._lake, self._until, self._lateness = lake, until, lateness
        self._feeds = {stream.feed.name: stream for stream in feeds}
        self._max_unparsed_share = max_unparsed_share

    def _landed(self) -> list[StreamFeed]:
        return [stream for name, stream in self._feeds.items() if self._lake.exists(table_of(name))]

    def arrived_days(self) -> list[date]:
        """All days from the first with a purchase to the newest complete one. A day without events arrives empty."""
        landed = self._landed()
        wanted = {name for name, stream in self._feeds.items() if stream.is_wanted}
        if not wanted <= {stream.feed.name for stream in landed}:
            return []
        marks = [watermark(self._lake, stream.feed.name, stream.topic) for stream in landed]
        days = self._lake.rows_by_day(table_of("purchases"))
        known = [mark for mark in marks if mark is not None]
        if not days or len(known) < len(marks):
            return []
        zone = self._feeds["purchases"].zone
        first, reached = min(days), min(known) - self._lateness
        count = (self._until - first).days + 1
        candidates = [first + timedelta(days=n) for n in range(count)]
        return [day for day in candidates if start_of(day + timedelta(days=1), zone) <= reached]

    def changed_days(self, feed: Feed, landed: Mapping[date, Batch]) -> list[date]:
        """Those of the landed days whose content is another now, in order: late events have re-opened them.

        Optional in a source; `new_day` lands such days again.

        Args:
            landed: the newest batch of each day of `raw/<feed>`, as the ledger `ledger/batches` has them.

        A stream's day only ever grows. As many events as the batch has rows (from the table's log, no data is read) prove that it
        has not; any other day is read and its digest compared, because superseded states of a product are events but no rows.
        """
        events = self._lake.rows_by_day(table_of(feed.name))
        suspects = sorted(day for day, batch in landed.items() if events.get(day, 0) != batch.rows)
        arrived = set(self.arrived_days()) if suspects else set()
        return [day for day in suspects if day in arrived and self._digest(feed, day) != landed[day].digest]

    def _digest(self, feed: Feed, day: date) -> str:
        return contents(in_order(self.read(feed, [day]), feed.key), [day])[day].digest

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
        stream = self._feeds.get(feed.name)
        there = self._lake.rows_by_day(table_of(feed.name)) if stream else {}
        tables = [self._read_day(stream, day) for day in days if stream and day in there]
        return pyarrow.concat_tables(tables or [_schema(feed).empty_table()])

    def _read_day(self, stream: StreamFeed, day: date) -> pyarrow.Table:
        import duckdb

        feed = stream.feed
        events = self._lake.read(table_of(feed.name), day, day, ["partition", "offset", "event_ts", "message"])
        events = events.rename_columns([f"__{name}" for name in events.column_names])
        with connect(stream.text_zone) as con:
            try:
                con.register("events", events)
                con.execute(
                    f"create table mapped as select {_mapped(con, stream, day)} from delivered {_order(stream)}"
                )
                return conform(con, "mapped", feed, self._max_unparsed_share, f"{feed.name} of {day} in the stream")
            except duckdb.Error as error:
                raise SourceError(
                    f"{feed.name} of {day}",
                    found=str(error).splitlines()[0],
                    wanted="messages that the mapping can be applied to",
                    fix="correct the mapping; values of messages are text until they are cast",
                ) from error


def _schema(feed: Feed) -> pyarrow.Schema:
    return feed.arrow_schema.append(pyarrow.field(PARSE_ERRORS, pyarrow.string()))


def _mapped(con: duckdb.DuckDBPyConnection, stream: StreamFeed, day: date) -> str:
    """Create `delivered`, the messages with the keys that are asked for, and return what is selected from it.

    A contract column that no message has is left out: `conform` says whether that is allowed. A key that only some
    messages lack is empty there.
    """
    feed, expressions = stream.feed, {name: stream.expression(name) for name in stream.feed.columns}
    expressions.pop("event_date")
    keys = {key for text in expressions.values() for key in keys_of(con, f"mapping of {feed.name}", text)}
    con.execute(f"create table delivered as {extracted('events', sorted(keys))}")
    counts = ", ".join(f"count({text})" for text in expressions.values())
    (counted,) = con.execute(f"select {counts} from delivered").fetchall()
    there = [f'{text} as "{name}"' for (name, text), n in zip(expressions.items(), counted, strict=True) if n]
    return ", ".join([*there, f"date '{day}' as event_date"])


def _order(stream: StreamFeed) -> str:
    """SQL after `from`: events by key, copies by time and content; of a state's versions the newest."""
    key = stream.expression(stream.feed.key)
    if stream.feed.key == "event_id":
        return f"order by {key}, __event_ts, __message"
    newest = f"row_number() over (partition by {key} order by __event_ts desc, __partition, __offset desc)"
    return f"qualify {key} is null or {newest} = 1 order by {key}, __event_ts, __message"
