"""Which business day a message belongs to, and which messages belong to none. No broker: messages are made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.sources.base import connect
from pipeline_assets.sources.mapping import FeedMapping
from pipeline_assets.sources.stream_messages import Message, Sorted, StreamFeed, check_mapping, keys_of, sort_messages

NOW = datetime(2017, 2, 14, 12, tzinfo=UTC)  # received at noon UTC
LIMIT = 1_024
SUNDAY, MONDAY = date(2017, 2, 12), date(2017, 2, 13)


def feed(name: str = "purchases", text_zone: str = "America/New_York", **mapping: Any) -> StreamFeed:
    """A feed of a shop in New York: UTC - 5 in February."""
    return StreamFeed(FEEDS[name], name, FeedMapping(**mapping), "America/New_York", text_zone, date(2017, 1, 1))


def message(content: Any, offset: int = 0, partition: int = 0, sent_at: datetime | None = None) -> Message:
    value = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
    return Message("t", partition, offset, None if value is None else value[:LIMIT], len(value or b""), sent_at)


def sorted_one(content: Any, stream: StreamFeed | None = None, sent_at: datetime | None = None) -> Sorted:
    return sort_messages(stream or feed(), [message(content, sent_at=sent_at)], LIMIT, NOW)


def day_of(content: Mapping[str, Any], stream: StreamFeed | None = None, sent_at: datetime | None = None) -> date:
    (day,) = sorted_one(content, stream, sent_at).rows["event_date"].to_pylist()
    return day


@pytest.mark.parametrize(
    ("event_ts", "day"),
    [
        ("2017-02-13T05:00:00Z", MONDAY),  # 00:00 in New York
        ("2017-02-13T04:59:59Z", SUNDAY),  # 23:59:59 there
        ("2017-02-12T23:59:59-05:00", SUNDAY),
        ("2017-02-12 23:59:59", SUNDAY),  # no offset: the zone of the texts, New York
        ("2017-02-13", MONDAY),  # midnight there
    ],
)
def test_business_day_is_the_shops(event_ts: str, day: date) -> None:
    """A day begins at midnight of the shop, 05:00 UTC."""
    assert day_of({"event_ts": event_ts}) == day


def test_text_without_an_offset_is_in_the_mappings_zone() -> None:
    """03:00 in Berlin on Monday is 21:00 on Sunday in New York."""
    assert day_of({"event_ts": "2017-02-13 03:00:00"}, feed(text_zone="Europe/Berlin")) == SUNDAY


def test_a_day_that_is_given_comes_before_the_time() -> None:
    """The shop books a purchase of Monday on Sunday: event_date, or the mapping's `day`, has the last word."""
    content = {"event_date": "2017-02-12", "booked": "2017-02-11", "event_ts": "2017-02-13T12:00:00Z"}
    assert day_of(content) == SUNDAY
    assert day_of(content, feed(day="booked")) == date(2017, 2, 11)


def test_change_without_a_time_is_of_the_moment_it_was_sent() -> None:
    """A product has no event time: 04:00 UTC on Monday is Sunday in New York."""
    sent_at = datetime(2017, 2, 13, 4, tzinfo=UTC)
    found = sorted_one({"product_id": "milk"}, feed("products"), sent_at)
    assert found.rows["event_date"].to_pylist() == [SUNDAY]
    assert found.watermarks == {("t", 0): sent_at}


def test_day_alone_puts_the_watermark_at_its_start() -> None:
    """2017-02-12 says nothing of the hours after midnight, 05:00 UTC."""
    found = sorted_one({"event_date": "2017-02-12", "product_id": "milk"}, feed("products"))
    assert found.watermarks == {("t", 0): datetime(2017, 2, 12, 5, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"milk", "not JSON"),
        (b'{"event_ts": "2017-02-13T12:00:00Z"', "not JSON"),
        (b"", "not JSON"),
        (b'"milk"', "JSON, but not an object: varchar"),
        ([1, 2], "JSON, but not an object: array"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "no value"),
        ({"event_ts": "2017-02-13T12:00:00Z", "x": "x" * LIMIT}, "bytes; at most 1024 are read"),
        ({"event_id": "e1"}, "business day cannot be computed"),
        ({"event_ts": "yesterday"}, "business day cannot be computed"),
        ({"event_ts": {"at": "2017-02-13"}}, "business day cannot be computed"),
        ({"event_date": "13.2.", "event_ts": "2017-02-13T12:00:00Z"}, "business day cannot be computed"),
        ({"event_ts": "2016-12-31T12:00:00Z"}, "is before calendar.first_day 2017-01-01"),
        ({"event_ts": "2017-02-16T12:00:00Z"}, "is in the future; received at 2017-02-14 12:00 UTC"),
        ({"event_date": "5000000-01-01"}, "business day cannot be computed"),
        ({"event_date": "9999-12-31"}, "is in the future"),
        ({"event_date": "infinity"}, "is in the future"),
        ({"event_ts": "0044-03-15 (BC) 12:00:00"}, "is before calendar.first_day"),
        (b"[" * 500 + b"]" * 500, "JSON, but not an object: array"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:30],
)
def test_message_without_a_place_is_a_dead_letter(content: Any, reason: str) -> None:
    """It is kept with its bytes and the reason, and its neighbour lands: nothing stops the consumer."""
    good = message({"event_ts": "2017-02-13T12:00:00Z"}, offset=8)
    found = sort_messages(feed(), [message(content, offset=7), good], LIMIT, NOW)
    (dead,) = found.dead.to_pylist()
    assert reason in dead["reason"]
    sent = message(content)
    assert (dead["offset"], dead["payload"], dead["payload_bytes"]) == (7, sent.value, sent.value_bytes)
    assert found.rows["offset"].to_pylist() == [8]


def test_huge_message_keeps_its_first_bytes_and_its_length() -> None:
    """1 MB of x: the bound of 1,024 bytes is kept, the rest is in the topic, at that offset."""
    found = sorted_one(b"x" * 1_000_000)
    (dead,) = found.dead.to_pylist()
    assert (dead["payload"], dead["payload_bytes"]) == (b"x" * 1_024, 1_000_000)


@pytest.mark.parametrize(
    "content",
    [
        '{"event_ts": "2017-02-13T12:00:00Z", "event_ts": "2017-02-12T12:00:00Z"}',
        '{"event_ts": "2017-02-13T12:00:00Z", "EVENT_TS": "x", "Event_Ts": "y"}',
        '{"event_ts": "2017-02-13T12:00:00Z", "amount": NaN, "n": 1e999, "": 1, "__message": 2, "__at": 3}',
        '{"event_ts": "2017-02-13T12:00:00Z", "a": "\\u0000", "o": ' + '{"a":' * 100 + "1" + "}" * 100 + "}",
        '{"event_ts": "2017-02-13T12:00:00Z", "event_id": "\'; drop table delivered; --"}',
    ],
    ids=["twice", "letter case", "odd numbers and names", "deep and null", "SQL"],
)
def test_odd_json_lands_as_it_came(content: str) -> None:
    """Whatever else is in it, the event has its day, and its text is untouched."""
    found = sorted_one(content.encode())
    assert found.rows["event_date"].to_pylist() == [MONDAY]
    assert found.rows["message"].to_pylist() == [content]


def test_a_clock_that_is_ahead_does_not_end_the_day() -> None:
    """An event of 20:00, received at 12:00, is believed to be of today; the watermark is 12:00."""
    found = sorted_one({"event_ts": "2017-02-14T20:00:00Z"})
    assert found.watermarks == {("t", 0): NOW}
    assert found.rows["event_date"].to_pylist() == [date(2017, 2, 14)]


def test_watermarks_are_per_partition_and_dead_letters_move_none() -> None:
    """Partition 0 has shown 10:00 and 11:00, partition 1 has shown 09:00 and a dead letter of 2020."""
    hours = [(0, 11), (0, 10), (1, 9)]
    messages = [message({"event_ts": f"2017-02-13T{hour}:00:00Z"}, at, part) for at, (part, hour) in enumerate(hours)]
    messages.append(message({"event_ts": "2020-01-01T00:00:00Z"}, 9, 1))
    found = sort_messages(feed(), messages, LIMIT, NOW)
    assert found.watermarks == {("t", part): NOW - timedelta(days=1, hours=hour) for part, hour in ((0, 1), (1, 3))}


def test_filter_leaves_out_what_is_another_feeds() -> None:
    """One topic for two feeds: views have no event_ts of a purchase and are no dead letters of it."""
    stream = feed(keep="kind = 'sale'")
    contents = [{"kind": "sale", "event_ts": "2017-02-13T12:00:00Z"}, {"kind": "view"}, {"x": 1}, {"kind": "sale"}]
    found = sort_messages(stream, [message(content, at) for at, content in enumerate(contents)], LIMIT, NOW)
    assert (found.rows["offset"].to_pylist(), found.dead["offset"].to_pylist(), found.filtered) == ([0], [3], 2)


def test_mapped_time_that_fails_on_a_value_costs_one_message() -> None:
    """cast() of `soon` is an error of DuckDB's; the message is a dead letter, the other one lands."""
    stream = feed(columns={"event_ts": "to_timestamp(cast(sold as bigint))"})
    contents = [{"sold": 1_486_987_200}, {"sold": "soon"}]  # 2017-02-13 12:00 UTC
    found = sort_messages(stream, [message(content, at) for at, content in enumerate(contents)], LIMIT, NOW)
    assert (found.rows["event_date"].to_pylist(), found.dead["offset"].to_pylist()) == ([MONDAY], [1])


@pytest.mark.parametrize("expression", ["sold +", "no_such_function(sold)", "sold + interval"], ids=str)
def test_mapping_that_cannot_work_is_refused_before_the_first_message(expression: str) -> None:
    """The message names the feed."""
    with pytest.raises(ConfigurationError, match="mapping of purchases"):
        check_mapping(feed(columns={"event_ts": expression}))


def test_keys_are_those_that_the_expression_reads() -> None:
    """Names in quotes and in functions; not functions, types or texts."""
    expression = "coalesce(try_cast(preis as double), 0) * \"Menge x\" || 'text' || ort.plz"
    assert keys_of(connect("UTC"), "here", expression) == ["Menge x", "ort", "preis"]
