"""The contract of `Source`, on every kind of source: what arrives, what is refused, and that the same rows are the same data.

The shop is German: five lines of four orders, on Saturday 11, Sunday 12 and Monday 13 February 2017, delivered out of order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow
import pytest

from pipeline_assets.recommender.errors import PipelineError, SchemaError, SourceError
from pipeline_assets.resources.content import contents
from pipeline_assets.resources.content import in_order as canonical
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import PARSE_ERRORS
from pipeline_assets.sources.base import InspectableSource, SourceCalendar, extra_columns
from pipeline_assets.sources.batch import LandedBatch, ReopeningSource
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
from pipeline_assets_tests.postgres import Postgres
from pipeline_assets_tests.sources.kinds import DAY, KINDS, Delivery, Kind

SATURDAY, SUNDAY, MONDAY, TUESDAY = (date(2017, 2, n) for n in range(11, 15))
BERLIN = SourceCalendar("Europe/Berlin", date(2017, 1, 1), date(2017, 12, 31))
PURCHASES, PRODUCTS, CUSTOMERS, EXPOSURES = (
    FEEDS[name] for name in ("purchases", "products", "customers", "exposures")
)
COLUMNS = {
    "event_id": "beleg || '-' || position",
    "order_id": "beleg",
    "customer_id": "kunde",
    "product_id": "artikel",
    "quantity": "menge",
    "amount": "betrag",
    "discount": "rabatt",
    "event_ts": "zeit",
}
MAPPING = SourceMapping(None, {"purchases": FeedMapping(place="verkauf", columns=COLUMNS)})


def moments(*texts: str) -> list[datetime]:
    return [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in texts]


def lines() -> pd.DataFrame:
    """Order of delivery: Sunday, Saturday, Monday. 10:00 in Berlin is 09:00 UTC in February."""
    rows = [
        ("B2", "1", "K-Ö", "a-1", 1.0, 2.5, 0.0, SUNDAY),
        ("B2", "2", "K-Ö", "a-2", 2.0, 12.99, 1.01, SUNDAY),
        ("B1", "1", "K-A", "a-1", 1.0, 2.5, 0.0, SATURDAY),
        ("B3", "1", "K-A", "a-3", 3.0, 30.0, 0.0, MONDAY),
        ("B4", "1", "K-Ö", "a-1", 4.0, 10.0, 0.0, MONDAY),
    ]
    frame = pd.DataFrame(rows, columns=["beleg", "position", "kunde", "artikel", "menge", "betrag", "rabatt", DAY])
    frame.insert(7, "zeit", pd.to_datetime(moments(*(f"{day} 09:00:00" for day in frame[DAY])), utc=True))
    return frame


def wanted(frame: pd.DataFrame) -> pyarrow.Table:
    """The contract's rows of the shop's lines, in day and key order."""
    rows = pd.DataFrame(
        {
            "event_id": frame["beleg"] + "-" + frame["position"],
            "order_id": frame["beleg"],
            "customer_id": frame["kunde"],
            "product_id": frame["artikel"],
            "store_id": None,
            "quantity": frame["menge"],
            "amount": frame["betrag"],
            "discount": frame["rabatt"],
            "event_ts": frame["zeit"],
            "event_date": frame[DAY],
            PARSE_ERRORS: None,
        }
    )
    schema = PURCHASES.arrow_schema.append(pyarrow.field(PARSE_ERRORS, pyarrow.string()))
    return in_order(pyarrow.Table.from_pandas(rows, schema, preserve_index=False))


def in_order(table: pyarrow.Table) -> pyarrow.Table:
    """Rows in a canonical order: a kind may have its own."""
    key = "event_id" if "event_id" in table.schema.names else table.schema.names[0]
    return (
        table.sort_by([("event_date", "ascending"), (key, "ascending")]).replace_schema_metadata(None).combine_chunks()
    )


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def contract_database(postgres: Postgres) -> str:
    """An empty database; a fresh schema costs less than a fresh database."""
    if not postgres.has_database("contract"):
        postgres.database("contract")
    postgres.execute("drop schema public cascade", "create schema public", database="contract")
    return postgres.url("contract")


@pytest.fixture
def deliver(kind: Kind, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., InspectableSource]:
    """Put lines of purchases, and more tables, where the kind reads them."""

    def build(
        frame: pd.DataFrame,
        mapping: SourceMapping = MAPPING,
        calendar: SourceCalendar = BERLIN,
        empty_days: tuple[date, ...] = (),
        **more: pd.DataFrame,
    ) -> InspectableSource:
        return kind.build(Delivery({"verkauf": frame, **more}, mapping, calendar, empty_days), tmp_path, request)

    return build


Deliver = Callable[..., InspectableSource]


def with_columns(**changed: str) -> SourceMapping:
    return SourceMapping(None, {"purchases": FeedMapping(place="verkauf", columns={**COLUMNS, **changed})})


# Days


def test_days_arrive_in_order_up_to_until(deliver: Deliver) -> None:
    """Delivered Sunday, Saturday, Monday; the clock hides Monday, the first day hides Saturday."""
    calendar = replace(BERLIN, first_day=SUNDAY)
    source = deliver(lines(), calendar=calendar)
    assert source.arrived_days() == [SUNDAY, MONDAY]


def test_until_hides_later_days(deliver: Deliver) -> None:
    """It is Sunday evening: Monday's rows are there and have not arrived."""
    assert deliver(lines(), calendar=replace(BERLIN, until=SUNDAY)).arrived_days() == [SATURDAY, SUNDAY]


def test_closed_day_arrives_with_the_day_before_it(deliver: Deliver) -> None:
    """Tuesday is closed and follows Monday; Christmas is closed and far away. Reading Tuesday gives no row."""
    calendar = replace(BERLIN, closed_days=frozenset({TUESDAY, date(2017, 12, 25)}))
    source = deliver(lines(), calendar=calendar)
    assert source.arrived_days() == [SATURDAY, SUNDAY, MONDAY, TUESDAY]
    assert source.read(PURCHASES, [TUESDAY]).equals(wanted(lines()).slice(0, 0))


def test_missing_day_of_purchases_is_named(deliver: Deliver) -> None:
    """Tuesday was never delivered."""
    with pytest.raises(SourceError) as error:
        deliver(lines()).read(PURCHASES, [MONDAY, TUESDAY])
    assert error.value.culprit == f"purchases of {TUESDAY}"
    assert error.value.fix


def test_empty_day(deliver: Deliver, kind: Kind) -> None:
    """A file without rows arrives, and has none; where rows say their day, a day without rows has not arrived."""
    source = deliver(lines(), empty_days=(TUESDAY,))
    if kind.days_by_name:
        assert source.arrived_days() == [SATURDAY, SUNDAY, MONDAY, TUESDAY]
        assert len(source.read(PURCHASES, [TUESDAY])) == 0
    else:
        assert source.arrived_days() == [SATURDAY, SUNDAY, MONDAY]


def test_days_outside_are_never_returned(deliver: Deliver) -> None:
    """Each day alone, and two of three: exactly their rows."""
    source, frame = deliver(lines()), lines()
    for days in ([SATURDAY], [SUNDAY], [MONDAY], [SUNDAY, MONDAY]):
        assert in_order(source.read(PURCHASES, days)).equals(wanted(frame[frame[DAY].isin(days)])), days


def test_shop_without_any_purchases_has_no_days(deliver: Deliver) -> None:
    """A table without rows: nothing has arrived, which is no error."""
    assert deliver(lines().iloc[:0]).arrived_days() == []


# Rows


def test_same_rows_are_the_same_data(deliver: Deliver) -> None:
    """Every kind gives the very table that is written down here, so digests are equal across kinds."""
    found = deliver(lines()).read(PURCHASES, [SATURDAY, SUNDAY, MONDAY])
    assert found.schema.names == [*PURCHASES.columns, PARSE_ERRORS]
    assert extra_columns(found) == []
    assert in_order(found).equals(wanted(lines()))


def test_asking_twice_gives_equal_tables(deliver: Deliver) -> None:
    """Row order included."""
    source = deliver(lines())
    days = [SATURDAY, SUNDAY, MONDAY]
    assert source.read(PURCHASES, days).equals(source.read(PURCHASES, days))


def test_additive_column_changes_nothing(deliver: Deliver) -> None:
    """A column that nobody mapped is not read; the table that is read names it, and so does `peek`."""
    source = deliver(lines().assign(kassierer="Schmidt"))
    found = source.read(PURCHASES, [SATURDAY, SUNDAY, MONDAY])
    assert in_order(found).equals(wanted(lines()))
    assert extra_columns(found) == ["kassierer"]
    assert source.peek(PURCHASES, SUNDAY, 10).unmapped == ("kassierer",)


def test_renamed_column_is_named(deliver: Deliver) -> None:
    """betrag is now umsatz: the contract's column, the expression and the columns there are."""
    with pytest.raises(SchemaError) as error:
        deliver(lines().rename(columns={"betrag": "umsatz"})).read(PURCHASES, [SUNDAY])
    assert error.value.culprit.startswith("column amount of")
    assert "betrag" in str(error.value.found).lower()  # Snowflake names are in capitals
    assert error.value.fix


def test_column_that_is_nowhere_is_named(deliver: Deliver) -> None:
    """Neither mapped nor there under its own name."""
    columns = {name: expression for name, expression in COLUMNS.items() if name != "discount"}
    mapping = SourceMapping(None, {"purchases": FeedMapping(place="verkauf", columns=columns)})
    with pytest.raises(SchemaError) as error:
        deliver(lines(), mapping=mapping).read(PURCHASES, [SUNDAY])
    assert error.value.culprit.startswith("column discount of")


def test_retyped_column_is_named(deliver: Deliver) -> None:
    """menge in words: the column, not five rows."""
    frame = lines()
    frame["menge"] = ["eins", "zwei", "eins", "drei", "vier"]
    with pytest.raises(SchemaError) as error:
        deliver(frame).read(PURCHASES, [SUNDAY])
    assert error.value.culprit.startswith("column quantity of")
    assert f"2 of 2 values unreadable on {SUNDAY}" in str(error.value.found)


def test_unreadable_value_costs_one_row(deliver: Deliver) -> None:
    """One of two lines of Sunday has a quantity in words: its text is kept, the other line is whole."""
    frame = lines()
    frame["menge"] = ["1.0", "zwei", "1.0", "3.0", "4.0"]
    found = in_order(deliver(frame).read(PURCHASES, [SUNDAY]))
    assert found["quantity"].to_pylist() == [1.0, None]
    assert found[PARSE_ERRORS].to_pylist() == [None, "quantity=zwei"]


def test_missing_value_is_missing(deliver: Deliver) -> None:
    """No customer is no customer, not a text; validation decides what becomes of the row."""
    frame = lines()
    frame.loc[0, "kunde"] = None
    found = in_order(deliver(frame).read(PURCHASES, [SUNDAY]))
    assert found["customer_id"].to_pylist() == [None, "K-Ö"]
    assert found[PARSE_ERRORS].to_pylist() == [None, None]


def test_filter_says_which_rows_are_the_feed(deliver: Deliver) -> None:
    """Cancelled lines are no purchases, and neither are those of which nothing is said; a day of which nothing is left is none."""
    frame = lines().assign(storno=["nein", "ja", None, "nein", "nein"])
    columns = FeedMapping(place="verkauf", keep="storno = 'nein'", columns=COLUMNS)
    source = deliver(frame, mapping=SourceMapping(None, {"purchases": columns}))
    assert source.read(PURCHASES, [SUNDAY])["event_id"].to_pylist() == ["B2-1"]


def test_expression_calculates(deliver: Deliver) -> None:
    """Paid = price - rebate: 12.0 - 2.0."""
    frame = lines().assign(preis=12.0, nachlass=2.0)
    mapping = with_columns(amount="cast(preis as double precision) - cast(nachlass as double precision)")
    found = deliver(frame, mapping=mapping).read(PURCHASES, [SATURDAY])
    assert found["amount"].to_pylist() == [10.0]


def test_expression_that_fails_is_named(deliver: Deliver) -> None:
    """Text that is no number, cast by the mapping: which column, and on what."""
    with pytest.raises(PipelineError) as error:
        deliver(lines(), mapping=with_columns(amount="cast(nichts as integer)")).read(PURCHASES, [SUNDAY])
    assert error.value.culprit.startswith("column amount of")
    assert "nichts" in str(error.value.found).lower()


# Moments


def at(*instants: tuple[str, date]) -> pd.DataFrame:
    """One line for each (UTC instant, business day that it belongs to)."""
    frame = pd.concat([lines().iloc[:1]] * len(instants), ignore_index=True)
    frame["beleg"] = [f"B{n}" for n in range(len(instants))]
    frame["zeit"] = pd.to_datetime(moments(*(instant for instant, _ in instants)), utc=True)
    frame[DAY] = [day for _, day in instants]
    return frame


NEW_YORK = {
    "spring": [  # clocks go from 2 to 3 on 2017-03-12: that day has 23 hours
        ("2017-03-12 04:59:59", date(2017, 3, 11)),  # 23:59:59 at UTC-5
        ("2017-03-12 05:00:00", date(2017, 3, 12)),  # midnight
        ("2017-03-13 03:59:59", date(2017, 3, 12)),  # 23:59:59 at UTC-4
        ("2017-03-13 04:00:00", date(2017, 3, 13)),
    ],
    "autumn": [  # clocks go from 2 to 1 on 2017-11-05: that day has 25 hours
        ("2017-11-05 03:59:59", date(2017, 11, 4)),  # 23:59:59 at UTC-4
        ("2017-11-05 04:00:00", date(2017, 11, 5)),
        ("2017-11-05 05:30:00", date(2017, 11, 5)),  # 1:30 the first time
        ("2017-11-05 06:30:00", date(2017, 11, 5)),  # 1:30 the second time
        ("2017-11-06 04:59:59", date(2017, 11, 5)),  # 23:59:59 at UTC-5
        ("2017-11-06 05:00:00", date(2017, 11, 6)),
    ],
}


@pytest.mark.parametrize("season", sorted(NEW_YORK))
def test_business_day_follows_the_shops_clock(deliver: Deliver, season: str) -> None:
    """The day begins at midnight in New York, before and after the clocks change; instants stay what they are."""
    frame = at(*NEW_YORK[season])
    days = sorted(set(frame[DAY]))
    source = deliver(frame, calendar=replace(BERLIN, time_zone="America/New_York"))
    assert source.arrived_days() == days
    for day in days:
        assert in_order(source.read(PURCHASES, [day])).equals(wanted(frame[frame[DAY] == day])), day


def naive(frame: pd.DataFrame, *local: str) -> pd.DataFrame:
    """The same lines with timestamps that say no zone."""
    return frame.assign(zeit=pd.to_datetime(list(local)))


def test_naive_timestamps_are_in_the_calendars_zone(deliver: Deliver) -> None:
    """Berlin: 00:30 in winter is 23:30 UTC of the day before, in summer 22:30; the business day is the local date."""
    frame = at(("2017-02-10 23:30:00", SATURDAY), ("2017-06-30 22:30:00", date(2017, 7, 1)))
    source = deliver(naive(frame, "2017-02-11 00:30:00", "2017-07-01 00:30:00"))
    assert source.arrived_days() == [SATURDAY, date(2017, 7, 1)]
    for day in source.arrived_days():
        assert in_order(source.read(PURCHASES, [day])).equals(wanted(frame[frame[DAY] == day])), day


def test_naive_timestamps_are_in_the_mappings_zone(deliver: Deliver) -> None:
    """Tokyo's till, a shop in Berlin: 07:30 on Sunday in Tokyo is 23:30 on Saturday in Berlin."""
    frame = at(("2017-02-11 22:30:00", SATURDAY), ("2017-02-11 23:30:00", SUNDAY))
    source = deliver(
        naive(frame, "2017-02-12 07:30:00", "2017-02-12 08:30:00"), mapping=replace(MAPPING, time_zone="Asia/Tokyo")
    )
    assert source.arrived_days() == [SATURDAY, SUNDAY]
    for day in (SATURDAY, SUNDAY):
        assert in_order(source.read(PURCHASES, [day])).equals(wanted(frame[frame[DAY] == day])), day


def test_mapped_day_is_the_business_day(deliver: Deliver, kind: Kind) -> None:
    """buchungstag says the day, whatever the time says; dates as text. A file's name is then no day."""
    frame = lines()
    frame["buchungstag"] = [str(day) for day in frame[DAY]]
    frame["zeit"] = frame["zeit"] + pd.Timedelta(days=100)
    purchases = FeedMapping(place="verkauf", day="buchungstag", columns=COLUMNS)
    source = deliver(frame, mapping=SourceMapping(None, {"purchases": purchases}))
    assert source.arrived_days() == [SATURDAY, SUNDAY, MONDAY]
    assert in_order(source.read(PURCHASES, [SUNDAY])).equals(wanted(frame[frame[DAY] == SUNDAY]))


def test_row_without_a_day_is_kept_with_the_first_day(deliver: Deliver, kind: Kind) -> None:
    """A line without a time: it is not lost; where rows say their day, it waits unreadable among those of the first."""
    frame = lines()
    frame.loc[1, "zeit"] = None
    # as text: fakesnow 0.12.1 answers a missing moment by 1970-01-01
    source = deliver(frame.assign(zeit=frame["zeit"].map(lambda moment: moment.isoformat(" "), na_action="ignore")))
    sunday = in_order(source.read(PURCHASES, [SUNDAY]))
    if kind.days_by_name:
        assert sunday["event_ts"].null_count == 1
    elif kind.has_dead_letters:
        assert source.read(PURCHASES, [SATURDAY])["event_id"].to_pylist() == ["B1-1"]
        assert sunday["event_id"].to_pylist() == ["B2-1"]
    else:
        saturday = in_order(source.read(PURCHASES, [SATURDAY]))
        assert saturday["event_id"].to_pylist() == ["B1-1", "B2-2"]
        assert saturday[PARSE_ERRORS].to_pylist() == [None, "no business day"]
        assert sunday["event_id"].to_pylist() == ["B2-1"]


# Feeds that a shop does not have


def test_absent_feeds(deliver: Deliver) -> None:
    """No list of products or customers: what was bought that day, and by whom; no exposures: none."""
    source = deliver(lines())
    products = source.read(PRODUCTS, [SUNDAY, MONDAY])
    assert products.schema.names == [*PRODUCTS.columns, PARSE_ERRORS]
    assert list(zip(products["event_date"].to_pylist(), products["product_id"].to_pylist(), strict=True)) == [
        (SUNDAY, "a-1"), (SUNDAY, "a-2"), (MONDAY, "a-1"), (MONDAY, "a-3"),
    ]  # fmt: skip
    assert set(products["is_sellable"].to_pylist()) == {True}
    assert source.read(CUSTOMERS, [SUNDAY])["customer_id"].to_pylist() == ["K-Ö"]
    assert len(source.read(EXPOSURES, [SUNDAY])) == 0
    assert source.place(PRODUCTS) == "derived from purchases"
    assert source.place(EXPOSURES) is None


def catalogue() -> pd.DataFrame:
    rows = [("a-1", "Obst", SATURDAY), ("a-2", "Brot", SATURDAY), ("a-3", "Brot", SATURDAY)]
    return pd.DataFrame(rows, columns=["artikel", "gruppe", DAY])


LISTED = SourceMapping(
    None,
    {
        **MAPPING.feeds,
        "products": FeedMapping(
            "sortiment", columns={"product_id": "artikel", "department": "gruppe", "is_sellable": "1 = 1"}
        ),
    },
)


def test_list_without_days_is_known_from_the_first_day(deliver: Deliver) -> None:
    """A catalogue says nothing about days: all of it belongs to the first business day."""
    source = deliver(lines(), mapping=LISTED, sortiment=catalogue())
    first = in_order(source.read(PRODUCTS, [SATURDAY, SUNDAY]))
    assert first["product_id"].to_pylist() == ["a-1", "a-2", "a-3"]
    assert first["department"].to_pylist() == ["Obst", "Brot", "Brot"]
    assert set(first["event_date"].to_pylist()) == {SATURDAY}
    assert set(first["is_sellable"].to_pylist()) == {True}
    assert len(source.read(PRODUCTS, [SUNDAY, MONDAY])) == 0


def test_peek_shows_values_before_their_types(deliver: Deliver) -> None:
    """What doctor looks at: contract names, the shop's values."""
    found = deliver(lines()).peek(PURCHASES, SATURDAY, 10)
    assert found.mapped["order_id"].to_pylist() == ["B1"]
    assert found.unmapped == ()


# Late and corrected deliveries


def landed(source: InspectableSource, days: list[date], at: datetime) -> dict[date, LandedBatch]:
    """The batches that landing these days at that time would have recorded."""
    found = contents(canonical(source.read(PURCHASES, days), "event_id"), days)
    return {day: LandedBatch("purchases", day, "b", one.rows, one.digest, at) for day, one in found.items()}


def test_a_day_with_other_rows_than_were_landed_has_changed(deliver: Deliver) -> None:
    """Monday had one line when it was landed and has two now; Saturday and Sunday are as they were. A day that was not landed is not late."""
    source = deliver(lines())
    assert isinstance(source, ReopeningSource)
    before = landed(source, [SATURDAY, SUNDAY, MONDAY], datetime(2017, 2, 14, tzinfo=UTC))
    assert source.changed_days(PURCHASES, before) == []
    before[MONDAY] = replace(before[MONDAY], rows=1, digest="of one line")
    assert source.changed_days(PURCHASES, before) == [MONDAY]
    del before[MONDAY]
    assert source.changed_days(PURCHASES, before) == []


def test_a_feed_that_is_not_there_has_not_changed(deliver: Deliver) -> None:
    """Exposures are absent; products are derived from purchases and follow them."""
    source = deliver(lines())
    assert isinstance(source, ReopeningSource)
    batch = LandedBatch("", SUNDAY, "b", 0, "none", datetime(2017, 2, 14, tzinfo=UTC))
    assert [source.changed_days(feed, {SUNDAY: batch}) for feed in (EXPOSURES, PRODUCTS)] == [[], []]
