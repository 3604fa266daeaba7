"""The source interface, and the one place where values get the contract's types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow

from pipeline_assets.recommender.errors import SchemaError
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS

if TYPE_CHECKING:
    import duckdb

EXTRA_COLUMNS = "extra_columns"  # key of the schema metadata of a delivered table
_DUCKDB_TYPES = {
    "string": "VARCHAR",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}


@dataclass(frozen=True)
class SourceCalendar:
    """Which business days a source may speak of.

    Args:
        time_zone: the shop's zone; business days are dates in it.
        first_day: nothing before it is asked for.
        until: the newest day that is over.
        closed_days: the shop is shut: such a day needs no delivery.
    """

    time_zone: str
    first_day: date
    until: date
    closed_days: frozenset[date] = frozenset()

    def arrived(self, delivered: Iterable[date]) -> list[date]:
        """The delivered days that may be spoken of, in order, and closed days.

        A closed day arrives with the day before it, so that the calendar of a year does not run ahead of the deliveries.
        """
        arrived = {day for day in delivered if self.first_day <= day <= self.until}
        for day in sorted(self.closed_days):
            if day <= self.until and day - timedelta(days=1) in arrived:
                arrived.add(day)
        return sorted(arrived)


UNDATED = "__undated"


class Source(Protocol):
    """Delivers feeds by business day. All methods may be called from any process."""

    def arrived_days(self) -> list[date]:
        """Business days for which every feed that the source has is complete, in order."""
        ...

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        """Rows of consecutive `days` and of no other: the feed's columns in order, plus `parse_errors`.

        The same data give the same rows in the same order each time.

        Raises:
            SourceError: a day has not arrived or cannot be read.
            SchemaError: a required column is missing, or cannot be read as its type in most rows.
        """
        ...


class InspectableSource(Source, Protocol):
    """What `doctor` asks besides."""

    def place(self, feed: Feed) -> str | None:
        """Where the feed is read from, for a person; None when the source does not have it."""
        ...

    def peek(self, feed: Feed, day: date, rows: int) -> Peek:
        """A few rows of a day before the contract's types are given to them."""
        ...


@dataclass(frozen=True)
class Peek:
    """Mapped columns as they came (text where the format has no types), and the table's columns that nothing maps."""

    mapped: pyarrow.Table
    unmapped: tuple[str, ...]


def empty(feed: Feed) -> pyarrow.Table:
    """No row, in the shape that `read` promises."""
    return feed.arrow_schema.append(pyarrow.field(PARSE_ERRORS, pyarrow.string())).empty_table()


def connect(time_zone: str, memory_limit: str | None = None, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB session in which timestamps without an offset are in `time_zone`.

    A local time that a clock change makes ambiguous is taken as standard time; one that it leaves out moves on by the change.
    """
    import duckdb

    con = duckdb.connect()
    con.execute(f"set timezone = '{time_zone}'")
    if memory_limit:
        con.execute(f"set memory_limit = '{memory_limit}'")
    if spill:
        con.execute(f"set temp_directory = '{spill}'")
    return con


def day_of(expression: str, type_name: str, time_zone: str) -> str:
    """SQL for the business day of a value: a date as it is, a moment by the clock of the shop; null when it is unreadable."""
    if type_name == "DATE":
        return f"({expression})"
    if type_name.startswith("TIMESTAMP"):
        return f"cast(timezone('{time_zone}', cast({expression} as timestamptz)) as date)"
    text = f"trim(cast({expression} as varchar))"  # a date has 10 characters, 2024-12-31; what is longer has a time
    moment = f"cast(timezone('{time_zone}', try_cast({text} as timestamptz)) as date)"
    return f"case when length({text}) <= 10 then try_cast({text} as date) else {moment} end"


def map_columns(con: duckdb.DuckDBPyConnection, delivered: str, columns: Mapping[str, str], where: str) -> None:
    """Make view `mapped` of a table as delivered: contract column -> SQL expression.

    Raises:
        SchemaError: an expression cannot be used on this table; it names the contract's column.
    """
    import duckdb

    selected = ", ".join(f'{expression} as "{column}"' for column, expression in columns.items())
    try:
        con.execute(f"create or replace view mapped as select {selected} from {delivered}")
    except duckdb.Error as error:
        raise broken_expression(con, delivered, columns, where) or error from None


def unmapped(have: Iterable[str], expressions: Iterable[str]) -> tuple[str, ...]:
    """Columns that no expression names: additive columns, which are not read."""
    named = set(re.findall(r"\w+", " ".join(expressions)))
    return tuple(name for name in have if not set(re.findall(r"\w+", name)) <= named)


def broken_expression(
    con: duckdb.DuckDBPyConnection, delivered: str, columns: Mapping[str, str], where: str
) -> SchemaError | None:
    """Which expression cannot be used, found by trying each alone; None when each works."""
    import duckdb

    for column, expression in columns.items():
        try:
            con.execute(f"select count(x) from (select {expression} as x from {delivered})")
        except duckdb.Error as error:
            names = [row[0] for row in con.execute(f"describe {delivered}").fetchall()]
            have = ", ".join(name for name in names if not name.startswith("__"))
            return SchemaError(
                f"column {column} of {where}",
                found=f"{' '.join(str(error).split(chr(10) + chr(10))[0].split())} (columns {have})",
                wanted=f"rows for which the mapping's expression {expression} can be computed",
                fix="correct the mapping, or deliver the column that it names",
            )
    return None


def conform(
    con: duckdb.DuckDBPyConnection,
    view: str,
    feed: Feed,
    max_unparsed_share: float,
    where: str,
) -> pyarrow.Table:
    """Cast a mapped view to the contract, keeping what cannot be cast as text in `parse_errors`.

    Args:
        view: a view or table of `con` with the contract's column names; nullable columns may be absent. A text in a column
            UNDATED says why a row's business day is not its own; it becomes a parse error.
        where: what the rows are, for messages (a file or a feed and its days).

    Raises:
        SchemaError: naming the column, what was found and what was wanted.
    """
    found = {row[0]: row[1] for row in con.execute(f"describe {view}").fetchall()}
    selected: list[str] = []
    unreadable: dict[str, str] = {}  # column -> condition
    for field in feed.arrow_schema:
        column, wanted = field.name, _DUCKDB_TYPES[str(field.type)]
        if column not in found:
            if not feed.schema.columns[column].nullable:
                extra = sorted(set(found) - set(feed.columns) - {UNDATED})
                raise SchemaError(
                    f"column {column} of {where}",
                    found=f"columns {', '.join(sorted(set(found) - {UNDATED}))}",
                    wanted=f"{column} ({wanted})"
                    + (f"; perhaps it was renamed to one of: {', '.join(extra)}" if extra else ""),
                    fix="deliver the column again or map it in the source's mapping file",
                )
            selected.append(f'cast(null as {wanted}) as "{column}"')
        elif found[column] == wanted or (wanted == "TIMESTAMPTZ" and found[column] == "TIMESTAMP WITH TIME ZONE"):
            selected.append(f'"{column}"')
        else:
            selected.append(f'try_cast("{column}" as {wanted}) as "{column}"')
            unreadable[column] = f'"{column}" is not null and try_cast("{column}" as {wanted}) is null'
    errors = [
        f"""case when {condition} then '{column}=' || left(cast("{column}" as varchar), 200) end"""
        for column, condition in unreadable.items()
    ]
    errors += [UNDATED] if UNDATED in found else []
    parse_errors = f"nullif(concat_ws('; ', {', '.join(errors)}), '')" if errors else "cast(null as varchar)"
    table = con.sql(f"select {', '.join(selected)}, {parse_errors} as {PARSE_ERRORS} from {view}").to_arrow_table()
    if unreadable and table[PARSE_ERRORS].null_count < len(table):
        _refuse_retyped(con, view, feed, found, unreadable, max_unparsed_share, where)
    schema = feed.arrow_schema.append(pyarrow.field(PARSE_ERRORS, pyarrow.string()))
    return with_extra_columns(table.cast(schema), sorted(set(found) - {*feed.columns, UNDATED}))


def with_extra_columns(table: pyarrow.Table, extra: Iterable[str]) -> pyarrow.Table:
    """The table with a note of the columns that were delivered and that nothing maps: they are left out, and told by name."""
    names = sorted({*extra, *extra_columns(table)})
    return table.replace_schema_metadata({EXTRA_COLUMNS: json.dumps(names)}) if names else table


def extra_columns(table: pyarrow.Table) -> list[str]:
    """The columns that `with_extra_columns` noted."""
    stored = (table.schema.metadata or {}).get(EXTRA_COLUMNS.encode())
    return list(json.loads(stored)) if stored else []


def refuse_extra_columns(extra: Sequence[str], where: str) -> None:
    """For shops that want to hear of a new column before it is left out.

    Raises:
        SchemaError: naming the columns.
    """
    if extra:
        raise SchemaError(
            f"columns of {where}",
            found=f"{', '.join(extra)}, which the contract does not have",
            wanted="the contract's columns only, because validation.additive_columns = block",
            fix="stop delivering them, leave them out in the source's mapping file, or set validation.additive_columns to warn",
        )


def _refuse_retyped(
    con: duckdb.DuckDBPyConnection,
    view: str,
    feed: Feed,
    found: Mapping[str, str],
    unreadable: Mapping[str, str],
    max_unparsed_share: float,
    where: str,
) -> None:
    """Judged day by day, so that the answer does not depend on how many days are read together."""
    counted = ", ".join(f"count(*) filter (where {condition})" for condition in unreadable.values())
    for day, rows, *counts in con.execute(
        f"select event_date, count(*), {counted} from {view} group by event_date order by event_date"
    ).fetchall():
        for column, count in zip(unreadable, counts, strict=True):
            if count / rows > max_unparsed_share:
                raise SchemaError(
                    f"column {column} of {where}",
                    found=f"type {found[column]}, {count} of {rows} values unreadable on {day}",
                    wanted=f"values that read as {feed.arrow_schema.field(column).type}",
                    fix="the column was retyped or the mapping is wrong; deliver it in its declared type",
                )
