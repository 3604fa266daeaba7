"""What a message of the stream is: which business day it belongs to, or why it belongs to none.

Messages are kept as they came (JSON text); their business day, event time and place in the topic are beside them. Everything
here is a function of messages, mapping and the moment they were received; no broker and no table is known.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.sources.base import connect, day_of
from pipeline_assets.sources.mapping import FeedMapping

if TYPE_CHECKING:
    import duckdb

ROWS = pyarrow.schema(
    [
        ("topic", pyarrow.string()),
        ("partition", pyarrow.int32()),
        ("offset", pyarrow.int64()),
        ("event_ts", pyarrow.timestamp("us", "UTC")),  # event time, no later than received_at
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
        """The SQL expression of a contract column; null for a message that it fails on, because a message cannot be mended."""
        mapped = self.mapping.columns.get(column)
        return f"try({mapped})" if mapped else f'"{column}"'


@dataclass(frozen=True)
class Sorted:
    """Messages of one feed: `rows` (schema ROWS), `dead` (schema DEAD_LETTERS), and those that the filter leaves out.

    `watermarks` is the newest event time per (topic, partition). An event time after `received_at` counts as `received_at`, so
    that one wrong clock cannot end a day for all.
    """

    rows: pyarrow.Table
    dead: pyarrow.Table
    filtered: int
    watermarks: Mapping[tuple[str, int], datetime]


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


def _judging_query(stream: StreamFeed, received_at: datetime) -> tuple[str, list[str]]:
    """SQL that gives each message event time, business day, and a reason for the dead letters; and the expressions in it.

    A day that is given and cannot be read is an error, not a reason to take another; only an absent one is. Without any, a feed that
    has no `event_ts` takes the message's own timestamp.
    """
    mapping, has_time = stream.mapping, "event_ts" in stream.feed.columns
    keep = f"try({mapping.keep})" if mapping.keep else "true"
    event_ts = stream.expression("event_ts") if has_time else "__sent_at"
    day = f"try({mapping.day})" if mapping.day else stream.expression("event_date")
    is_given = "true" if mapping.day else f"{day} is not null"
    at_shop = f"cast(timezone('{stream.zone}', moment) as date)"
    start = f"try(timezone('{stream.zone}', cast(day as timestamp)))"
    latest = (received_at + timedelta(days=1)).astimezone(ZoneInfo(stream.zone)).date()
    query = f"""
        with first as (
            select __at, __kind, {keep} as kept, try(try_cast({event_ts} as timestamptz)) as moment, {is_given} as is_given,
                try({day_of(day, "VARCHAR", stream.zone)}) as given
            from spread
        ), second as (select *, case when is_given then given else {at_shop} end as day from first)
        select __at, day as event_date,
            greatest(least(coalesce(moment, {start}), timestamptz '{received_at}'), timestamptz '1970-01-01') as event_ts,
            coalesce(__kind = 'OBJECT' and kept is distinct from true, false) as is_filtered,
            case when __kind is null then 'not JSON'
                when __kind <> 'OBJECT' then 'JSON, but not an object: ' || lower(__kind)
                when kept is distinct from true then null
                when day is null then 'its business day cannot be computed: no readable event_date or event_ts'
                when day < date '{stream.first_day}' then 'business day ' || day || ' is before calendar.first_day {stream.first_day}'
                when day > date '{latest}'
                    then 'business day ' || day || ' is in the future; received at {received_at:%Y-%m-%d %H:%M} UTC'
            end as reason
        from second order by __at
    """
    return query, [keep, day] + ([event_ts] if has_time else [])


def _judged(
    stream: StreamFeed, texts: Sequence[str], sent_at: Sequence[datetime | None], received_at: datetime
) -> pyarrow.Table:
    """event_ts, event_date, is_filtered and reason of each message, in order."""
    query, expressions = _judging_query(stream, received_at)
    with connect(stream.text_zone) as con:
        where = f"mapping of {stream.feed.name}"
        keys = {key for expression in expressions for key in keys_of(con, where, expression)} - {"__sent_at"}
        sent = pyarrow.array(sent_at, pyarrow.timestamp("us", "UTC"))
        con.register(
            "delivered",
            pyarrow.table(
                {"__at": range(len(texts)), "__text": pyarrow.array(texts, pyarrow.string()), "__sent_at": sent}
            ),
        )
        kind = "case when json_valid(__text) then json_type(__text) end"  # the type of what is not JSON is an error
        con.execute(f"create view typed as select *, {kind} as __kind from delivered")
        con.execute(
            "create table received as select *, case when __kind = 'OBJECT' then __text end as __message from typed"
        )
        con.execute(f"create view spread as {extracted('received', sorted(keys))}")
        table = con.sql(query).to_arrow_table()
    at = table.schema.get_field_index("event_ts")
    return table.set_column(at, "event_ts", table["event_ts"].cast(pyarrow.timestamp("us", "UTC")))


def check_mapping(stream: StreamFeed) -> None:
    """Refuse a mapping that cannot work, before the first message.

    Raises:
        ConfigurationError: an expression is no SQL, or fails whatever the message is.
    """
    import duckdb

    try:
        _judged(stream, ["{}"], [None], datetime(2000, 1, 1, tzinfo=UTC))
    except duckdb.Error as error:
        raise ConfigurationError(
            f"mapping of {stream.feed.name}",
            found=str(error).splitlines()[0],
            wanted="expressions over the message's keys, which are text",
            fix="cast where it calculates: try_cast(preis as double)",
        ) from error


@functools.lru_cache(maxsize=4_096)  # 20 us a call without
def start_of(day: date, zone: str) -> datetime:
    """The first moment of a business day."""
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _unreadable(message: Message, limit: int) -> str | None:
    """Why the bytes of a message are not looked at, or None."""
    if message.value is None:
        return "no value (a tombstone)"
    if message.value_bytes > limit:
        return f"{message.value_bytes} bytes; at most {limit} are read"
    try:
        message.value.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason} at byte {error.start}"
    return None


def _dead(
    stream: StreamFeed, messages: Sequence[tuple[Message, str]], limit: int, received_at: datetime
) -> pyarrow.Table:
    rows = [
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
        for message, reason in sorted(messages, key=lambda pair: (pair[0].partition, pair[0].offset))
    ]
    return pyarrow.Table.from_pylist(rows, DEAD_LETTERS)


def sort_messages(stream: StreamFeed, messages: Sequence[Message], limit: int, received_at: datetime) -> Sorted:
    """Give each message its business day, or a reason for the dead letters.

    Args:
        messages: of this feed's topic, in the order they were polled.
        limit: bytes of a message that are read at all.
        received_at: now, in UTC.
    """
    judged_unread = [(message, _unreadable(message, limit)) for message in messages]
    dead = [(message, reason) for message, reason in judged_unread if reason]
    readable = [message for message, reason in judged_unread if not reason]
    texts = [(message.value or b"").decode("utf-8") for message in readable]
    judged = _judged(stream, texts, [message.sent_at for message in readable], received_at)
    reasons = judged["reason"].to_pylist()
    dead += [(message, reason) for message, reason in zip(readable, reasons, strict=True) if reason]
    columns = {
        "topic": pyarrow.array([message.topic for message in readable], pyarrow.string()),
        "partition": pyarrow.array([message.partition for message in readable], pyarrow.int32()),
        "offset": pyarrow.array([message.offset for message in readable], pyarrow.int64()),
        "event_ts": judged["event_ts"],
        "received_at": pyarrow.repeat(pyarrow.scalar(received_at, pyarrow.timestamp("us", "UTC")), len(readable)),
        "message": pyarrow.array(texts, pyarrow.string()),
        "event_date": judged["event_date"],
    }
    is_row = pc.and_(pc.is_null(judged["reason"]), pc.invert(judged["is_filtered"]))
    rows = pyarrow.table(columns, ROWS).filter(is_row)
    newest = rows.group_by(["topic", "partition"]).aggregate([("event_ts", "max")]).to_pylist()
    return Sorted(
        rows,
        _dead(stream, dead, limit, received_at),
        pc.sum(judged["is_filtered"]).as_py() or 0,
        {(row["topic"], row["partition"]): row["event_ts_max"] for row in newest},
    )
