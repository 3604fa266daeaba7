"""What is peculiar to a database: parameters, cursors, names, types, messages. The rest is the contract suite, which runs on it too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline_assets.recommender.errors import ConfigurationError, SchemaError, SourceError
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.sources.base import SourceCalendar
from pipeline_assets.sources.database import ROWS_AT_ONCE
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
from pipeline_assets.sources.sql import SqlSource
from pipeline_assets_tests.postgres import READER, READER_PASSWORD, Postgres

CALENDAR = SourceCalendar("Europe/Berlin", date(2017, 1, 1), date(2017, 12, 31))
FIRST, N_DAYS = date(2017, 2, 11), 3
DAYS = [FIRST + timedelta(days=n) for n in range(N_DAYS)]
PURCHASES = FEEDS["purchases"]
COLUMNS = {
    "event_id": "nr::text",
    "order_id": "nr",
    "customer_id": "kunde",
    "product_id": "artikel",
    "quantity": "1",
    "amount": "betrag",
    "discount": "0",
    "event_ts": "zeit",
}
TABLE = """
    create schema if not exists laden;
    drop table if exists laden.verkauf;
    create table laden.verkauf as
        select n as nr, gen_random_uuid() as kunde, n % 7 as artikel, (n % 100)::numeric(10, 2) / 4 as betrag,
            timestamptz '2017-02-11 08:00+01' + (n % 3) * interval '1 day' as zeit, '12:30' as bis
        from generate_series(1, 900) as n;
    create index on laden.verkauf (zeit);
    create sequence if not exists laden.zaehler;
    alter database laden set timezone = 'Asia/Tokyo'
"""


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """900 lines, 300 on each of three days; the user may read and nothing else."""
    postgres.database("laden")
    postgres.execute(TABLE, database="laden")
    return postgres.url("laden", READER, READER_PASSWORD)


def source(url: str, columns: dict[str, str] | None = None, **section: str) -> SqlSource:
    purchases = FeedMapping(**{"place": "laden.verkauf", **section}, columns={**COLUMNS, **(columns or {})})
    return SqlSource(url, {}, SourceMapping(None, {"purchases": purchases}), CALENDAR, 0.5)


@pytest.fixture
def executed() -> Iterator[list[tuple[str, Any, str | None]]]:
    """(statement, parameters, name of the server-side cursor) of everything that is executed meanwhile."""
    seen: list[tuple[str, Any, str | None]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        seen.append((statement, parameters, getattr(cursor, "name", None)))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_days_are_bound_parameters(database: str, executed: list[tuple[str, Any, str | None]]) -> None:
    """The statement that reads rows names no day; both ends of the day are parameters, and nothing else is needed for 300 of 900 rows."""
    assert len(source(database).read(PURCHASES, [DAYS[1]])) == 300
    (statement, parameters, _), *others = [each for each in executed if "AS amount" in each[0]]
    assert not others
    assert "2017" not in statement
    assert [str(value) for value in parameters.values()] == ["2017-02-12 00:00:00+01:00", "2017-02-13 00:00:00+01:00"]


def test_rows_are_streamed(database: str, executed: list[tuple[str, Any, str | None]]) -> None:
    """A cursor with a name is one of the server: rows come in groups, not all at once."""
    source(database).read(PURCHASES, DAYS)
    ((_, _, name),) = [each for each in executed if "AS amount" in each[0]]
    assert name


def test_more_rows_than_one_group(database: str) -> None:
    """2.5 groups of a select, every row once."""
    rows = ROWS_AT_ONCE * 5 // 2
    select = f"select n as nr, 'k' as kunde, 1 as artikel, 1.5 as betrag, timestamptz '2017-02-11 08:00+01' as zeit from generate_series(1, {rows}) as n"
    found = source(database, place=select).read(PURCHASES, [FIRST])
    assert (len(found), len(found["event_id"].unique())) == (rows, rows)


def test_types_of_the_database(database: str) -> None:
    """numeric is a double, a whole number or a uuid is an id's text; 4 of every 100 lines have betrag 0.25 x 4 = 1.00."""
    found = source(database).read(PURCHASES, [DAYS[1]])  # n % 3 = 1: 1, 4, 7, ...
    by_id = {row["event_id"]: row for row in found.to_pylist()}
    assert by_id["7"]["amount"] == 7 / 4
    assert by_id["7"]["product_id"] == "0"
    assert len(by_id["7"]["customer_id"]) == 36


def test_colons_and_percent_signs_of_expressions_are_no_parameters(database: str) -> None:
    """`x::text`, '12:30' and 'a%b' reach the database as they are written."""
    found = source(
        database, {"store_id": "bis::text || ':30 %(x)s %' "}, keep="bis = '12:30' and kunde::text not like 'a%b:c'"
    ).read(PURCHASES, [FIRST])
    assert set(found["store_id"].to_pylist()) == {"12:30:30 %(x)s %"}
    select = "select * from laden.verkauf where bis <> '10:00' and nr % 2 = 0"
    assert len(source(database, place=select).read(PURCHASES, [FIRST])) == 150


@pytest.mark.parametrize("place", ["verkauf where 1=1", 'ver"kauf', "a.b.c.d", "drop table verkauf", "(select 1)"])
def test_place_is_a_name_or_a_select(database: str, place: str) -> None:
    """A table's name is an identifier; what begins otherwise is no select."""
    with pytest.raises(ConfigurationError, match=r"schema\.table"):
        source(database, place=place).arrived_days()


def test_source_cannot_write(postgres: Postgres, database: str) -> None:
    """Even as a user who may: the transaction is read only, and the expression that writes is named."""
    with pytest.raises(SchemaError, match="read-only") as error:
        source(postgres.url("laden"), {"store_id": "nextval('laden.zaehler')::text"}).read(PURCHASES, [FIRST])
    assert error.value.culprit.startswith("column store_id of laden.verkauf")


def test_moments_are_instants_whatever_the_sessions_zone(database: str) -> None:
    """The database answers in Tokyo time: 08:00 in Berlin is 07:00 UTC."""
    found = source(database).read(PURCHASES, [FIRST])
    assert {moment.astimezone(UTC).hour for moment in found["event_ts"].to_pylist()} == {7}


def test_table_that_this_user_may_not_read(postgres: Postgres, database: str) -> None:
    """The database's word is passed on, with what to do."""
    postgres.execute(
        "drop role if exists guest", "create role guest login", "grant usage on schema laden to guest", database="laden"
    )
    with pytest.raises(SchemaError, match="permission denied") as error:
        source(postgres.url("laden", "guest")).arrived_days()
    assert error.value.culprit == "table of purchases"


def test_connection_that_breaks_is_told(postgres: Postgres, database: str) -> None:
    """The server ends the connection while rows are read: no part of a day is taken for the day."""
    slow = "select *, pg_terminate_backend(pg_backend_pid()) as x from laden.verkauf"
    with pytest.raises(SourceError) as error:
        source(postgres.url("laden"), {"store_id": "x::text"}, place=slow).read(PURCHASES, [FIRST])
    assert "geheim" not in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("nonsense:geheim@x", "no SQLAlchemy URL"),
        ("orakel://shop:geheim@db/x", "orakel"),
        ("mysql+gone://u:geheim@h/d", "gone"),
    ],
)
def test_url_that_cannot_be_used_is_not_repeated(url: str, found: str) -> None:
    """What is wrong with it, and not the password in it."""
    with pytest.raises(ConfigurationError) as error:
        SqlSource(url, {}, SourceMapping(), CALENDAR, 0.5).arrived_days()
    assert found in str(error.value.found)
    assert "geheim" not in str(error.value)
