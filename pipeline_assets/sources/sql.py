"""Tables of a database, through SQLAlchemy: PostgreSQL, Snowflake, SQLite, whatever has a dialect.

A feed is a table (`from = "schema.table"`) or a select (`from = "select …"`); expressions of the mapping are the database's own SQL.
Rows are read by business day: the range goes to the database as bound parameters, on the column that says the day, so its index
or partitions do the work; the exact cut, the types and the order are made here, the same way as for files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow

from pipeline_assets.recommender.errors import ConfigurationError, SchemaError, SourceError
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.sources.base import (
    UNDATED,
    Peek,
    SourceCalendar,
    conform,
    connect,
    day_of,
    empty,
    map_columns,
    unmapped,
    with_extra_columns,
)
from pipeline_assets.sources.batch import LandedBatch, differing
from pipeline_assets.sources.database import Database, Refused, literal
from pipeline_assets.sources.derived import DERIVED, derive
from pipeline_assets.sources.mapping import SourceMapping
from pipeline_assets.sources.sql_rows import edges, in_days, kind_of, to_arrow

if TYPE_CHECKING:
    import duckdb
    import sqlalchemy as sa

T = TypeVar("T")
_TABLE = re.compile(r"(?:(?P<schema>[^\W\d][\w$]*)\.)?(?P<name>[^\W\d][\w$]*)")
_SELECT = re.compile(r"(?is)\s*(select|with)\b.*")
_DAY = "__business_day"
_QUESTIONS_AT_ONCE = 60  # days asked for in one statement


@dataclass(frozen=True)
class _Day:
    """The column that says a row's business day, and what its values are: date, aware, naive or text."""

    column: Any
    kind: str

    @property
    def unreadable(self) -> sa.ColumnElement[bool]:
        """Rows that no day can claim; a text that begins with a digit is taken for a day."""
        missing: sa.ColumnElement[bool] = self.column.is_(None)
        return missing | (self.column < "0") | (self.column >= ":") if self.kind == "text" else missing


class SqlSource:
    """A feed without a table is absent: products and customers are then derived from purchases, exposures are none."""

    def __init__(
        self,
        url: str,
        connect_args: Mapping[str, Any],
        mapping: SourceMapping,
        calendar: SourceCalendar,
        max_unparsed_share: float,
    ) -> None:
        self._database, self._mapping, self._calendar = Database(url, connect_args), mapping, calendar
        self._max_unparsed_share = max_unparsed_share
        self._zone = mapping.time_zone or calendar.time_zone

    @cached_property
    def _con(self) -> duckdb.DuckDBPyConnection:
        """One session in which rows get their days and types."""
        return connect(self._zone)

    # Statements

    def _place(self, feed: Feed) -> sa.FromClause:
        """The feed's table or select; a table's name is checked to be one and quoted by the dialect."""
        import sqlalchemy as sa

        place = self._mapping.place(feed.name)
        if table := _TABLE.fullmatch(place):
            return sa.table(table["name"], schema=table["schema"])
        if _SELECT.fullmatch(place):
            return sa.text(literal(place)).columns().subquery("delivered")
        raise ConfigurationError(
            f"mapping, [{feed.name}], key from",
            found=repr(place),
            wanted="a table, schema.table, or a select",
            fix="correct it",
        )

    def _exists(self, feed: Feed) -> bool:
        return feed.name in self._mapping.feeds or self._database.has_table(feed.name)

    def place(self, feed: Feed) -> str | None:
        if self._exists(feed):
            return f"{self._mapping.place(feed.name)} in {self._database.shown}"
        return "derived from purchases" if feed.name in DERIVED else None

    def _select(self, feed: Feed, *columns: Any) -> sa.Select[Any]:
        """A select of the feed's rows, by the mapping's filter."""
        import sqlalchemy as sa

        keep = self._mapping.of(feed.name).keep
        statement = sa.select(*columns).select_from(self._place(feed))
        return statement.where(sa.literal_column(f"({keep})")) if keep else statement

    def _ask(self, feed: Feed, statement: sa.Executable, use: Callable[[sa.CursorResult[Any]], T]) -> T:
        """Run a statement on a feed.

        Raises:
            SchemaError: the table is missing, or an expression of the mapping cannot be computed; it names the column.
            SourceError: anything else that the database says.
        """
        try:
            return self._database.ask(statement, use)
        except Refused as error:
            raise self._culprit(feed) or SourceError(
                f"{feed.name} in {self._database.shown}",
                found=str(error),
                wanted="rows",
                fix="see the database's log; `pipeline-assets doctor` tries each feed",
            ) from None

    def _culprit(self, feed: Feed) -> SchemaError | None:
        """Which part of a refused statement is to blame, found by asking for each alone."""
        import sqlalchemy as sa

        mapping, place = self._mapping.of(feed.name), f"{self._mapping.place(feed.name)} in {self._database.shown}"
        where = f"[{feed.name}] of the mapping"
        if found := self._database.refusal(sa.select(sa.literal(1)).select_from(self._place(feed)).limit(1)):
            return SchemaError(
                f"table of {feed.name}",
                found=found,
                wanted=f"{place}, readable by this user",
                fix=f"correct `from` in {where}",
            )
        if found := self._database.refusal(self._select(feed, sa.func.count())) if mapping.keep else None:
            return SchemaError(
                f"filter of {feed.name}",
                found=found,
                wanted=f"{mapping.keep} to be a condition",
                fix=f"correct it in {where}",
            )
        named = {**({"business day": mapping.day} if mapping.day else {}), **mapping.columns}
        for column, expression in named.items():
            asked = self._select(feed, sa.func.count(sa.literal_column(f"({expression})")))
            if found := self._database.refusal(asked):
                return SchemaError(
                    f"column {column} of {place}",
                    found=found,
                    wanted=f"rows for which the mapping's expression {expression} can be computed",
                    fix=f"correct it in {where}, or bring back the column that it names",
                )
        return None

    # Columns and days

    def _columns(self, feed: Feed) -> tuple[dict[str, Any], list[str]]:
        """Contract column -> SQL, and the names of the table's columns."""
        import sqlalchemy as sa

        statement = self._select(feed, sa.literal_column("*")).where(sa.literal_column("1 = 0"))
        have = self._ask(feed, statement, lambda result: list(result.keys()))
        mapping = self._mapping.of(feed.name)
        by_name = {name: sa.column(name) for name in feed.columns if name in have}
        return {**by_name, **{c: sa.literal_column(f"({e})") for c, e in mapping.columns.items()}}, have

    def _day(self, feed: Feed, columns: Mapping[str, Any], have: Sequence[str]) -> _Day | None:
        """The column that says the day; None when no row has one, or for a list that says nothing about days."""
        import sqlalchemy as sa

        written = self._mapping.of(feed.name).day
        column = sa.literal_column(f"({written})") if written else columns.get("event_date", columns.get("event_ts"))
        if column is None and feed.name in DERIVED:
            return None
        if column is None:
            raise SourceError(
                f"{feed.name} in {self._database.shown}",
                found=f"no business day among the columns {', '.join(have)}",
                wanted="`day`, event_date or event_ts in the mapping",
                fix=f"add day to [{feed.name}] in the mapping",
            )
        statement = self._select(feed, column.label("day")).where(column.is_not(None)).limit(1)
        value = self._ask(feed, statement, lambda result: result.scalar())
        return None if value is None else _Day(column, kind_of(value))

    def _is_list(self, feed: Feed, columns: Mapping[str, Any]) -> bool:
        dated = self._mapping.of(feed.name).day or "event_date" in columns or "event_ts" in columns
        return feed.name in DERIVED and not dated

    def _in_days(self, day: _Day, first: date, last: date) -> sa.ColumnElement[bool]:
        return in_days(day.column, day.kind, first, last, self._zone, self._calendar.time_zone)

    def arrived_days(self) -> list[date]:
        """Days with purchases. An index on the column that says the day makes this cheap.

        Moments are asked for day by day, many days in a statement; dates and texts are read as distinct values.
        """
        feed = FEEDS["purchases"]
        if not self._exists(feed):
            return []
        columns, have = self._columns(feed)
        day = self._day(feed, columns, have)
        if day is None:
            return []
        found = self._distinct_days(feed, day) if day.kind in ("date", "text") else self._days_with_moments(feed, day)
        return self._calendar.arrived(found)

    def _distinct_days(self, feed: Feed, day: _Day) -> set[date]:
        first, last = self._calendar.first_day, self._calendar.until
        statement = self._select(feed, day.column.label("day")).where(self._in_days(day, first, last)).distinct()

        def collect(result: sa.CursorResult[Any]) -> set[date]:
            found: set[date] = set()
            for group in result.partitions():
                found |= self._days_of([row[0] for row in group])
            return found

        return self._ask(feed, statement, collect)

    def _days_with_moments(self, feed: Feed, day: _Day) -> set[date]:
        import sqlalchemy as sa

        ends = self._select(feed, sa.func.min(day.column), sa.func.max(day.column))
        between = sorted(self._days_of(self._ask(feed, ends, lambda result: result.one())))
        first, last = max(between[0], self._calendar.first_day), min(between[-1], self._calendar.until)
        asked = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        found: set[date] = set()
        for start in range(0, len(asked), _QUESTIONS_AT_ONCE):
            questions = []
            for one in asked[start : start + _QUESTIONS_AT_ONCE]:
                begins, ends_before = edges(day.kind, one, one, self._zone, self._calendar.time_zone)
                there = self._select(feed, sa.literal(1)).where(day.column >= begins, day.column < ends_before).exists()
                questions.append(sa.select(sa.literal(one.isoformat()).label("day")).where(there))
            answers = self._ask(feed, sa.union_all(*questions), lambda result: result.scalars().all())  # type: ignore[arg-type]
            found |= {date.fromisoformat(answer) for answer in answers}
        return found

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        """Landed days that have another number of rows now, or a row that was changed since (mapping key `changed`), and differ.

        Without `changed` a row that is corrected in place is not noticed: its day has as many rows as before.
        """
        if not landed or not self._exists(feed):
            return []
        columns, have = self._columns(feed)
        day = None if self._is_list(feed, columns) else self._day(feed, columns, have)
        if day is None:
            return []
        counts = self._counts(feed, day, sorted(landed))
        suspects = {one for one, rows in counts.items() if rows and rows != landed[one].rows}
        if changed := self._mapping.of(feed.name).changed:
            suspects |= self._touched(feed, day, changed, landed) & {one for one, rows in counts.items() if rows}
        return differing(self, feed, sorted(suspects), landed)

    def _counts(self, feed: Feed, day: _Day, days: Sequence[date]) -> dict[date, int]:
        import sqlalchemy as sa

        found: dict[date, int] = {}
        for start in range(0, len(days), _QUESTIONS_AT_ONCE):
            questions = [
                self._select(feed, sa.literal(one.isoformat()).label("day"), sa.func.count().label("rows")).where(
                    self._in_days(day, one, one)
                )
                for one in days[start : start + _QUESTIONS_AT_ONCE]
            ]
            answers = self._ask(feed, sa.union_all(*questions), lambda result: result.all())  # type: ignore[arg-type]
            found |= {date.fromisoformat(str(one)): int(rows) for one, rows in answers}
        return found

    def _touched(self, feed: Feed, day: _Day, changed: str, landed: Mapping[date, LandedBatch]) -> set[date]:
        """Days of rows that were changed after the oldest of these batches was landed."""
        import sqlalchemy as sa

        since = min(batch.recorded_at for batch in landed.values())
        moment = sa.literal_column(f"({changed})", type_=sa.DateTime(timezone=True))
        condition = self._in_days(day, min(landed), max(landed)) & (moment > since)
        statement = self._select(feed, day.column.label("day")).where(condition).distinct()
        values = self._ask(feed, statement, lambda result: [row[0] for row in result])
        return (self._days_of(values) if values else set()) & set(landed)

    # Rows

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        if not self._exists(feed):
            return derive(feed, self.read(FEEDS["purchases"], days)) if feed.name in DERIVED else empty(feed)
        first, last = min(days), max(days)
        where = f"{self._mapping.place(feed.name)} in {self._database.shown}, {first}..{last}"

        def take(con: duckdb.DuckDBPyConnection, have: Sequence[str]) -> pyarrow.Table:
            found = conform(con, "exact", feed, self._max_unparsed_share, where)
            return with_extra_columns(found, self._unmapped(feed, have))

        rows = self._rows(feed, first, last, take)
        rows = rows if rows is not None else empty(feed)
        missing = sorted(set(days) - set(rows["event_date"].unique().to_pylist()) - self._calendar.closed_days)
        if missing and not feed.may_be_empty:
            raise SourceError(
                f"{feed.name} of {missing[0]}",
                found="no row of that day",
                wanted=f"rows in {self._mapping.place(feed.name)} of {self._database.shown}",
                fix="load the day",
            )
        # a database promises no order: every column decides, so that the same rows are the same table
        return rows.sort_by([(name, "ascending") for name in ("event_date", feed.key, *rows.schema.names)])

    def _unmapped(self, feed: Feed, have: Sequence[str]) -> tuple[str, ...]:
        mapping = self._mapping.of(feed.name)
        return unmapped(have, [*feed.columns, *mapping.columns.values(), mapping.day, mapping.keep])

    def peek(self, feed: Feed, day: date, rows: int) -> Peek:
        def look(con: duckdb.DuckDBPyConnection, have: Sequence[str]) -> Peek:
            return Peek(con.sql(f"select * from exact limit {rows}").to_arrow_table(), self._unmapped(feed, have))

        return (self._rows(feed, day, day, look) if self._exists(feed) else None) or Peek(empty(feed), ())

    def _rows(
        self, feed: Feed, first: date, last: date, use: Callable[[duckdb.DuckDBPyConnection, Sequence[str]], T]
    ) -> T | None:
        """What `use` makes of view `mapped` of the rows of these days; None when there can be none."""

        columns, have = self._columns(feed)
        labels = {name: f'"{name}"' for name in columns}
        statement = self._select(feed, *(column.label(name) for name, column in columns.items()))
        day = None
        if self._is_list(feed, columns):  # a list without days is taken as known from the first one on
            known_from = next(iter(self.arrived_days()), None)
            if known_from is None or not first <= known_from <= last:
                return None
            labels["event_date"] = f"date '{known_from}'"
        else:
            day = self._day(feed, columns, have)
            if day is None:
                return None
            condition = self._in_days(day, first, last)
            lowest = self._first_day(feed, day)
            if (
                first <= lowest <= last
            ):  # rows that no day can claim are counted to the first, where they are quarantined
                condition = condition | day.unreadable
                labels[UNDATED] = f"case when \"{_DAY}\" is null then 'no business day' end"
            statement = statement.add_columns(day.column.label(_DAY)).where(condition)
        delivered = self._ask(feed, statement, lambda result: to_arrow(list(result.keys()), result.partitions()))
        con = self._con
        con.register("delivered", delivered)
        if day:
            own = day_of(f'"{_DAY}"', _type(con, "delivered", _DAY), self._calendar.time_zone)
            undated = f"case when \"{_DAY}\" is null then date '{lowest}' end"
            labels["event_date"] = f"coalesce({own}, {undated})"
        map_columns(con, "delivered", labels, f"{self._mapping.place(feed.name)} in {self._database.shown}")
        con.execute(
            f"create or replace view exact as select * from mapped where event_date between '{first}' and '{last}'"
        )
        return use(con, have)

    def _first_day(self, feed: Feed, day: _Day) -> date:
        """The first business day that the table has."""
        import sqlalchemy as sa

        smallest = self._select(feed, sa.func.min(day.column)).where(~day.unreadable)
        lowest = self._ask(feed, smallest, lambda result: result.scalar())
        found = self._days_of([lowest])
        return max([*found, self._calendar.first_day])

    def _days_of(self, values: Sequence[Any]) -> set[date]:
        """Business days of values of a day column."""
        self._con.register("days", to_arrow([_DAY], [[(value,) for value in values]]))
        own = day_of(f'"{_DAY}"', _type(self._con, "days", _DAY), self._calendar.time_zone)
        found = self._con.execute(f"select distinct {own} from days").fetchall()
        return {row[0] for row in found if row[0] is not None}


def _type(con: duckdb.DuckDBPyConnection, table: str, column: str) -> str:
    ((_, kind, *_),) = con.execute(f'describe select "{column}" from {table}').fetchall()
    return str(kind)
