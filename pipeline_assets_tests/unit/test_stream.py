"""The stream as a source: days from what was landed. Messages are put into the table as the consumer does it, without a broker."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline_assets.recommender.errors import SchemaError, SourceError
from pipeline_assets.resources.content import digest
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import PARSE_ERRORS, ValidationPolicy
from pipeline_assets.sources.base import SourceCalendar
from pipeline_assets.sources.batch import Batch
from pipeline_assets.sources.landing import admit_days, land_days
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
from pipeline_assets.sources.stream import StreamSource, stream_feeds
from pipeline_assets.sources.stream_messages import ROWS, Message, sort_messages
from pipeline_assets.sources.stream_table import Position, StreamTable, table_of
from pipeline_assets_tests import scenario

PURCHASES, PRODUCTS = FEEDS["purchases"], FEEDS["products"]
SUNDAY, MONDAY, TUESDAY = (date(2017, 2, n) for n in (12, 13, 14))
NOW = datetime(2017, 3, 5, tzinfo=UTC)
FIRST_DAY = date(2017, 1, 1)
Event = Mapping[str, Any]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path))


def events(*days: date) -> list[Event]:
    """The scenario's lines of these days, without the business day: their time says it."""
    frame = scenario.purchases()
    rows = frame[frame["event_date"].isin(days)].drop(columns="event_date").to_dict("records")
    return [{**row, "event_ts": row["event_ts"].isoformat()} for row in rows]


def products(*days: date) -> list[Event]:
    frame = scenario.products()
    return [
        {**row, "event_date": str(row["event_date"])}
        for row in frame[frame["event_date"].isin(days)].to_dict("records")
    ]


def deliver(
    lake: Lake,
    messages: Sequence[Event],
    feed: str = "purchases",
    partitions: int = 1,
    mapping: SourceMapping | None = None,
) -> None:
    """Land messages round robin over the partitions, behind what is there."""
    stream = next(s for s in stream_feeds(mapping or SourceMapping(), "UTC", FIRST_DAY) if s.feed.name == feed)
    table = StreamTable(lake, table_of(feed), ROWS, "event_date")
    places = [(stream.topic, partition) for partition in range(partitions)]
    before = {place: table.position("", place) for place in places}
    positions = {place: before[place] or Position(0) for place in places}
    sent = []
    for at, message in enumerate(messages):
        place = places[at % partitions]
        value = json.dumps(message).encode()
        sent.append(Message(*place, positions[place].next_offset, value, len(value), None))
        positions[place] = Position(positions[place].next_offset + 1, positions[place].watermark)
    found = sort_messages(stream, sent, 65_536, NOW)
    assert not len(found.dead)
    for place, mark in found.watermarks.items():
        known = positions[place].watermark
        positions[place] = Position(positions[place].next_offset, max(mark, known or mark))
    table.commit(found.rows, "", before, positions, {stream.topic: partitions})


def source(lake: Lake, mapping: SourceMapping | None = None, until: date = TUESDAY) -> StreamSource:
    """A shop in UTC whose days wait 60 minutes for late events."""
    calendar = SourceCalendar("UTC", FIRST_DAY, until)
    return StreamSource(lake, mapping or SourceMapping(), calendar, timedelta(minutes=60), 0.5)


def at(moment: str) -> Event:
    """An event that does nothing but show that time has passed."""
    return {**events(MONDAY)[0], "event_id": f"tick {moment}", "event_ts": moment}


# Complete days


def test_nothing_is_landed(lake: Lake) -> None:
    """No table: no day has arrived, which is no error."""
    assert source(lake).arrived_days() == []


@pytest.mark.parametrize(("moment", "days"), [("2017-02-13T00:59:59Z", []), ("2017-02-13T01:00:00Z", [SUNDAY])])
def test_day_is_complete_an_hour_after_its_end(lake: Lake, moment: str, days: list[date]) -> None:
    """Sunday ends at Monday 00:00; with 60 minutes of lateness an event of 01:00 ends it, one of 00:59:59 does not."""
    deliver(lake, [*events(SUNDAY), at(moment)])
    assert source(lake).arrived_days() == days


def test_slowest_partition_holds_the_day(lake: Lake) -> None:
    """One partition has shown Monday, the other Sunday 12:00 only: Sunday waits for it."""
    sunday = events(SUNDAY)[:1]
    deliver(lake, [at("2017-02-13T12:00:00Z"), *sunday], partitions=2)
    assert source(lake).arrived_days() == []
    deliver(lake, [at("2017-02-13T13:00:00Z"), at("2017-02-13T12:30:00Z")], partitions=2)
    assert source(lake).arrived_days() == [SUNDAY]


def test_other_feeds_hold_the_day_too(lake: Lake) -> None:
    """Purchases have passed Sunday, the products' topic is at Saturday."""
    deliver(lake, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    saturday = {**products(date(2017, 1, 1))[0], "event_date": "2017-02-11"}
    deliver(lake, [saturday], feed="products")
    assert source(lake).arrived_days() == []
    deliver(lake, [{**saturday, "event_date": "2017-02-14"}], feed="products")
    assert source(lake).arrived_days() == [SUNDAY]


def test_feed_of_the_mapping_that_is_not_landed_holds_every_day(lake: Lake) -> None:
    """The mapping has products: without their table nobody knows what has arrived."""
    mapping = SourceMapping(feeds={"purchases": FeedMapping(), "products": FeedMapping()})
    deliver(lake, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    assert source(lake, mapping).arrived_days() == []
    assert source(lake).arrived_days() == [SUNDAY]


def test_day_without_events_has_not_arrived_and_the_clock_hides_the_rest(lake: Lake) -> None:
    """Nothing was sold on Monday; Wednesday is over but not yet for the clock. When Monday's events come late, it has arrived."""
    deliver(lake, [*events(SUNDAY), at("2017-02-14T12:00:00Z"), at("2017-02-15T12:00:00Z"), at("2017-02-16T12:00:00Z")])
    assert source(lake).arrived_days() == [SUNDAY, TUESDAY]
    deliver(lake, [at("2017-02-13T12:00:00Z")])
    assert source(lake).arrived_days() == [SUNDAY, MONDAY, TUESDAY]


def test_day_that_is_not_complete_is_not_read(lake: Lake) -> None:
    """Monday has events, but more may come: a SourceError that says how far the stream is."""
    deliver(lake, [*events(SUNDAY, MONDAY)])
    with pytest.raises(SourceError) as error:
        source(lake).read(PURCHASES, [SUNDAY, MONDAY])
    assert (error.value.culprit, error.value.found) == ("purchases of 2017-02-13", "complete days up to 2017-02-12")


# Rows


def test_messages_become_the_contract(lake: Lake) -> None:
    """JSON texts and numbers give the rows that a file of the day gives, ordered by event id."""
    deliver(lake, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    frame = scenario.purchases()
    wanted = scenario.delivered("purchases", frame[frame["event_date"] == SUNDAY].sort_values("event_id"))
    assert source(lake).read(PURCHASES, [SUNDAY]).equals(wanted)


def test_digest_does_not_depend_on_partitions_or_order(tmp_path: Path) -> None:
    """The same events through one partition, and shuffled through four, some of them in a second batch."""
    sent = [*events(SUNDAY, MONDAY), at("2017-02-14T12:00:00Z")]
    shuffled = random.Random(7).sample(sent, len(sent))
    one, four = Lake(root=str(tmp_path / "one")), Lake(root=str(tmp_path / "four"))
    deliver(one, sent)
    deliver(four, shuffled[:3], partitions=4)
    deliver(four, [*shuffled[3:], *[at(f"2017-02-14T13:00:0{n}Z") for n in range(4)]], partitions=4)
    found = [digest(source(lake).read(PURCHASES, [SUNDAY, MONDAY])) for lake in (one, four)]
    assert found[0] == found[1]


def test_repeat_of_an_event_has_no_effect_on_what_is_valid(lake: Lake, tmp_path: Path) -> None:
    """A producer sent Sunday's 3 lines twice: 6 rows land, validation's rule `duplicate` sets 3 aside, 3 are valid."""
    deliver(lake, [*events(SUNDAY), *events(SUNDAY), at("2017-02-13T12:00:00Z")])
    (batch,) = land_days(source(lake), lake, PURCHASES, [SUNDAY], "r", NOW)
    verdicts, digests = admit_days(lake, PURCHASES, [SUNDAY], ValidationPolicy(0.2, 0.5), "r", NOW)
    assert (batch.rows, verdicts[0].rows_valid, verdicts[0].rules) == (6, 3, {"duplicate": 3})
    once = Lake(root=str(tmp_path / "once"))
    deliver(once, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    land_days(source(once), once, PURCHASES, [SUNDAY], "r", NOW)
    assert admit_days(once, PURCHASES, [SUNDAY], ValidationPolicy(0.2, 0.5), "r", NOW)[1] == digests


def test_newest_state_of_the_day_is_the_products(lake: Lake) -> None:
    """Milk changed twice on Sunday: what is known at its end is the second state. The first stays in the stream's table."""
    deliver(lake, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    milk = {**products(date(2017, 1, 1))[0], "event_date": "2017-02-12"}
    tick = {**milk, "product_id": "tick", "event_date": "2017-02-14"}
    deliver(lake, [{**milk, "brand": "A"}, {**milk, "brand": "B"}, tick], feed="products")
    found = source(lake).read(PRODUCTS, [SUNDAY])
    assert (found["product_id"].to_pylist(), found["brand"].to_pylist()) == (["milk"], ["B"])
    assert lake.rows_by_day("stream/products")[SUNDAY] == 2


def test_mapping_is_applied_when_a_day_is_read(lake: Lake) -> None:
    """kunde is the customer, preis x menge the amount; a price that cannot be read is a missing amount of one row."""
    expression = "try_cast(preis as double) * cast(menge as double)"
    columns = {"customer_id": "kunde", "quantity": "menge", "amount": expression}
    mapping = SourceMapping(feeds={"purchases": FeedMapping(place="verkauf", columns=columns)})
    sold = [{k: v for k, v in event.items() if k not in columns} for event in events(SUNDAY)]
    numbers = [(2, 1.5), (1, "free"), (3, 2)]
    sent = [{**e, "kunde": 7, "menge": menge, "preis": preis} for e, (menge, preis) in zip(sold, numbers, strict=True)]
    deliver(lake, [*sent, at("2017-02-13T12:00:00Z")], mapping=mapping)
    found = source(lake, mapping).read(PURCHASES, [SUNDAY])
    assert found["customer_id"].to_pylist() == ["7"] * 3
    assert found["amount"].to_pylist() == [3.0, None, 6.0]


def test_one_bad_value_costs_one_row(lake: Lake) -> None:
    """The other two lines keep their values, and the bad text is kept for the quarantine."""
    first, *others = events(SUNDAY)
    deliver(lake, [{**first, "quantity": "many"}, *others, at("2017-02-13T12:00:00Z")])
    found = source(lake).read(PURCHASES, [SUNDAY])
    assert found[PARSE_ERRORS].to_pylist() == ["quantity=many", None, None]


@pytest.mark.parametrize(
    ("change", "column"),
    [({"customer_id": None, "shopper": "x"}, "customer_id"), ({"amount": {"eur": 1}}, "amount")],
    ids=["renamed", "retyped"],
)
def test_renamed_or_retyped_key_is_refused_by_name(lake: Lake, change: Event, column: str) -> None:
    """In all messages of the day: the column is named."""
    deliver(lake, [*({**event, **change} for event in events(SUNDAY)), at("2017-02-13T12:00:00Z")])
    with pytest.raises(SchemaError, match=f"column {column} of purchases of 2017-02-12"):
        source(lake).read(PURCHASES, [SUNDAY])


def test_feed_without_a_topic_is_an_empty_table(lake: Lake) -> None:
    """A shop without exposures: no row, the contract's types."""
    deliver(lake, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    found = source(lake).read(FEEDS["exposures"], [SUNDAY])
    assert (len(found), found.schema.names) == (0, [*FEEDS["exposures"].columns, PARSE_ERRORS])


# Late events


def landing(lake: Lake, day: date = SUNDAY) -> dict[date, Batch]:
    return {b.event_date: b for b in land_days(source(lake), lake, PURCHASES, [day], "r", NOW)}


def test_late_event_re_opens_its_day(lake: Lake) -> None:
    """Sunday was landed with 3 lines; a fourth comes on Tuesday. Sunday has changed, and landing it again takes it in."""
    deliver(lake, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    landed = landing(lake)
    assert source(lake).changed_days(PURCHASES, landed) == []
    deliver(lake, [{**events(SUNDAY)[0], "event_id": "late"}])
    assert source(lake).changed_days(PURCHASES, landed) == [SUNDAY]
    again = landing(lake)
    assert again[SUNDAY].rows == 4
    assert source(lake).changed_days(PURCHASES, again) == []


def test_superseded_states_do_not_re_open_a_day(lake: Lake) -> None:
    """Two events and one row, at landing and now: not changed. A third state of the day is a change."""
    deliver(lake, [*events(SUNDAY), at("2017-02-13T12:00:00Z")])
    milk = {**products(date(2017, 1, 1))[0], "event_date": "2017-02-12"}
    tick = {**milk, "product_id": "tick", "event_date": "2017-02-14"}
    deliver(lake, [{**milk, "brand": "A"}, {**milk, "brand": "B"}, tick], feed="products")
    landed = {b.event_date: b for b in land_days(source(lake), lake, PRODUCTS, [SUNDAY], "r", NOW)}
    assert landed[SUNDAY].rows == 1
    assert source(lake).changed_days(PRODUCTS, landed) == []
    deliver(lake, [{**milk, "brand": "C"}], feed="products")
    assert source(lake).changed_days(PRODUCTS, landed) == [SUNDAY]
