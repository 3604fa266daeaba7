"""What a message of the stream is: which business day it belongs to, or why it belongs to none.

Messages are kept as they came (JSON text); their business day, event time and place in the topic are beside them. Everything
here is a function of messages, mapping and the moment they were received; no broker and no table is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.sources.mapping import FeedMapping

if TYPE_CHECKING:
    import duckdb

ROWS = pyarrow.schema(
    [
        ("topic", pyarrow.string()),
        ("partition", pyarrow.int32()),
        ("offset", pyarrow.int64()),
        ("event_ts", pyarrow.timestamp("us", "UTC")),  # event time
        ("received_at", pyarrow.timestamp("us", "UTC")),
        ("message", pyarrow.string()),
        ("event_date", pyarrow.date32()),
    ]
)
DEAD_LETTERS = pyarrow.schema(
    [
        ("feed", pyarrow.string()),
        ("topic", pyarrow.string()),
        ("partition", pyarrow.int32()),
        ("offset", pyarrow.int64()),
        ("reason", pyarrow.string()),
        ("payload", pyarrow.binary()),  # the first `max_message_bytes` bytes
        ("payload_bytes", pyarrow.int64()),  # of the whole message
        ("received_at", pyarrow.timestamp("us", "UTC")),
    ]
)


@dataclass(frozen=True)
class Message:
    """One message as polled. `value` is cut after `max_message_bytes`, `value_bytes` is its whole length."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    value_bytes: int
    sent_at: datetime | None  # the producer's or broker's timestamp


@dataclass(frozen=True)
class StreamFeed:
    """One feed of the stream.

    Args:
        zone: the shop's time zone, in which business days are.
        text_zone: of timestamps that are written without an offset.
        first_day: the calendar's first business day; nothing before it is ever read.
        is_wanted: whether its topic must exist.
    """

    feed: Feed
    topic: str
    mapping: FeedMapping
    zone: str
    text_zone: str
    first_day: date
    is_wanted: bool = True

    def expression(self, column: str) -> str:
        """The SQL expression of a contract column."""
        return self.mapping.columns.get(column, f'"{column}"')


@dataclass(frozen=True)
class Sorted:
    """Messages of one feed: `rows` (schema ROWS), `dead` (schema DEAD_LETTERS), and those that the filter leaves out.

    `watermarks` is the newest event time per (topic, partition); an event time after `received_at` counts as `received_at`,
    so that one wrong clock cannot end a day for all.
    """

    rows: pyarrow.Table
    dead: pyarrow.Table
    filtered: int
    watermarks: Mapping[tuple[str, int], datetime]


def connect(text_zone: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in which timestamps without an offset are of `text_zone`."""
    import duckdb

    con = duckdb.connect()
    con.execute(f"set timezone = '{text_zone}'")
    return con


def _column_references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"][0]
        for value in node.values():
            yield from _column_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _column_references(value)


def keys_of(con: duckdb.DuckDBPyConnection, where: str, expression: str) -> list[str]:
    """The keys of the message that an expression reads, as DuckDB's own parser sees them.

    Only keys that someone asks for become columns, so that messages with a million different keys cost nothing.

    Raises:
        ConfigurationError: it is not an expression.
    """
    (parsed,) = con.execute("select json_serialize_sql(?)", [f"select {expression}"]).fetchall()[0]
    content = json.loads(parsed)
    if content["error"]:
        raise ConfigurationError(
            where, found=f"{expression!r} ({content['error_message']})", wanted="an SQL expression", fix="correct it"
        )
    return sorted(set(_column_references(content)))


def extracted(view: str, keys: Sequence[str]) -> str:
    """SQL that adds the wanted keys of `__message` to a view, as text. Nested values stay JSON text; one parse a message.

    Columns of ours have names that begin with two underscores, so that no key of a message hides them.
    """
    if not keys:
        return f"select * from {view}"
    by_name = {key.lower(): key for key in keys}  # DuckDB's names differ by more than case
    shape = json.dumps(dict.fromkeys(by_name.values(), "VARCHAR")).replace("'", "''")
    return f"select * exclude (__c), unnest(__c) from (select *, from_json(__message, '{shape}') as __c from {view})"


def _day_query(stream: StreamFeed) -> tuple[str, list[str]]:
    """SQL expressions of keep, event time and business day over the message's keys, and what is read for them."""
    mapping, has_time = stream.mapping, "event_ts" in stream.feed.columns
    keep = mapping.keep or "true"
    event_ts = stream.expression("event_ts") if has_time else "__sent_at"
    day = mapping.day or stream.expression("event_date")
    # a day that is given and cannot be read is an error, not a reason to take another; only an absent one is
    given_day = f"try(try_cast({day} as date))"
    fallback = f"cast(timezone('{stream.zone}', try(try_cast({event_ts} as timestamptz))) as date)"
    is_given = "true" if mapping.day else f"try({day}) is not null"
    business_day = f"case when {is_given} then {given_day} else {fallback} end"
    return (
        f"select __at, try({keep}) as kept, try(try_cast({event_ts} as timestamptz)) as event_ts, {business_day} as event_date",
        [keep, day] + ([event_ts] if has_time else []),
    )


def _unusable(message: Message, limit: int) -> str | None:
    if message.value is None:
        return "no value (a tombstone)"
    if message.value_bytes > limit:
        return f"{message.value_bytes} bytes; at most {limit} are read"
    return None


def start_of(day: date, zone: str) -> datetime:
    """The first moment of a business day."""
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _days(stream: StreamFeed, texts: Sequence[str], messages: Sequence[Message]) -> list[dict[str, Any]]:
    """kind of JSON, kept, event_ts, event_date of each message, in order."""
    query, expressions = _day_query(stream)
    with connect(stream.text_zone) as con:
        where = f"mapping of {stream.feed.name}"
        keys = sorted({key for expression in expressions for key in keys_of(con, where, expression)} - {"__sent_at"})
        sent = pyarrow.array([message.sent_at for message in messages], pyarrow.timestamp("us", "UTC"))
        con.register("delivered", pyarrow.table({"__at": range(len(texts)), "__message": texts, "__sent_at": sent}))
        kind = (
            "case when json_valid(__message) then json_type(__message) end"  # the type of what is not JSON is an error
        )
        con.execute(f"create table received as select *, {kind} as __kind from delivered")
        con.execute("create view objects as select * from received where __kind = 'OBJECT'")
        kinds = con.sql("select __at, __kind as kind from received order by __at").to_arrow_table()
        found = {row["__at"]: row for row in kinds.to_pylist()}
        answered = con.sql(f"{query} from ({extracted('objects', keys)})").to_arrow_table()
        utc = pyarrow.timestamp("us", "UTC")
        at = answered.schema.get_field_index("event_ts")
        answered = answered.set_column(at, "event_ts", answered["event_ts"].cast(utc))
        for row in answered.to_pylist():
            found[row["__at"]].update(row)
    return [found[at] for at in range(len(texts))]


def check_mapping(stream: StreamFeed) -> None:
    """Refuse a mapping that cannot work, before the first message.

    Raises:
        ConfigurationError: an expression is no SQL, or fails whatever the message is.
    """
    import duckdb

    try:
        _days(stream, ["{}"], [Message(stream.topic, 0, 0, b"{}", 2, None)])
    except duckdb.Error as error:
        raise ConfigurationError(
            f"mapping of {stream.feed.name}",
            found=str(error).splitlines()[0],
            wanted="expressions over the message's keys, which are text",
            fix="cast where it calculates: try_cast(preis as double)",
        ) from error


def _reason(stream: StreamFeed, found: Mapping[str, Any], received_at: datetime) -> str | None:
    """Why a message has no place in the lake, or None."""
    if found["kind"] is None:
        return "not JSON"
    if found["kind"] != "OBJECT":
        return f"JSON, but not an object: {found['kind'].lower()}"
    day = found["event_date"]
    if day is None:
        return "its business day cannot be computed: no readable event_date or event_ts"
    if day < stream.first_day:
        return f"business day {day} is before calendar.first_day {stream.first_day}"
    if start_of(day, stream.zone) > received_at + timedelta(days=1):
        return f"business day {day} is in the future; received at {received_at:%Y-%m-%d %H:%M} UTC"
    return None


def sort_messages(stream: StreamFeed, messages: Sequence[Message], limit: int, received_at: datetime) -> Sorted:
    """Give each message its business day, or a reason for the dead letters.

    Args:
        messages: of this feed's topic, in the order they were polled.
        limit: bytes of a message that are read at all.
        received_at: now, in UTC.
    """
    dead: list[dict[str, Any]] = []
    texts, readable = [], []

    def bury(message: Message, reason: str) -> None:
        dead.append(
            {
                "feed": stream.feed.name,
                "topic": message.topic,
                "partition": message.partition,
                "offset": message.offset,
                "reason": reason,
                "payload": None if message.value is None else message.value[:limit],
                "payload_bytes": message.value_bytes,
                "received_at": received_at,
            }
        )

    for message in messages:
        if reason := _unusable(message, limit):
            bury(message, reason)
            continue
        try:
            texts.append((message.value or b"").decode("utf-8"))
            readable.append(message)
        except UnicodeDecodeError as error:
            bury(message, f"not UTF-8: {error.reason} at byte {error.start}")
    rows: list[dict[str, Any]] = []
    filtered = 0
    watermarks: dict[tuple[str, int], datetime] = {}
    for message, text, found in zip(readable, texts, _days(stream, texts, readable) if texts else [], strict=True):
        if found["kind"] == "OBJECT" and found["kept"] is not True:
            filtered += 1
            continue
        if reason := _reason(stream, found, received_at):
            bury(message, reason)
            continue
        happened = found["event_ts"] or start_of(found["event_date"], stream.zone)
        place = (message.topic, message.partition)
        seen = min(happened, received_at)
        watermarks[place] = max(watermarks.get(place, seen), seen)
        rows.append(
            {
                "topic": message.topic,
                "partition": message.partition,
                "offset": message.offset,
                "event_ts": happened,
                "received_at": received_at,
                "message": text,
                "event_date": found["event_date"],
            }
        )
    dead.sort(key=lambda row: (row["partition"], row["offset"]))
    return Sorted(
        pyarrow.Table.from_pylist(rows, ROWS), pyarrow.Table.from_pylist(dead, DEAD_LETTERS), filtered, watermarks
    )
