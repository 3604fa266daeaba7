"""Files in a folder or an object store: Parquet, CSV or JSON lines, in two layouts.

    <root>/<feed>/<YYYY-MM-DD>.csv    daily drops: the file's name is the business day, a day has arrived when its file is there
    <root>/<feed>.csv                 one file, or a folder of files, for all days: a column says which day a row is of
    <root>/<feed>/2024-q1.parquet

A mapping (sources/mapping.py) says what the columns are called. A CSV's and a JSON line's values are text until the contract's types
are given to them; an expression that calculates casts them itself: `try_cast(preis as double) * try_cast(menge as double)`, so
that a value that cannot be read costs one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow

from pipeline_assets.recommender.errors import SourceError
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.sources.base import (
    UNDATED,
    Peek,
    SourceCalendar,
    broken_expression,
    conform,
    connect,
    empty,
    extra_columns,
    map_columns,
    unmapped,
    with_extra_columns,
)
from pipeline_assets.sources.batch import LandedBatch, differing
from pipeline_assets.sources.derived import DERIVED, derive
from pipeline_assets.sources.mapping import SourceMapping
from pipeline_assets.sources.spool import DAY, DayRule, NoRoom, Spooled, spooled, unreadable
from pipeline_assets.sources.storage import EXTENSIONS, Storage, StoredFile

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")


@dataclass(frozen=True)
class _Layout:
    """How a feed lies in the storage: daily drops, or files that hold many days."""

    place: str
    daily: dict[date, StoredFile]
    whole: tuple[StoredFile, ...]


@dataclass(frozen=True)
class _Part:
    """Rows of one file, as table `delivered` of a session: where they are from, and contract column -> expression."""

    con: duckdb.DuckDBPyConnection
    where: str
    columns: dict[str, str]


class FilesSource:
    """A feed without files is absent: products and customers are then derived from purchases, exposures are none."""

    def __init__(
        self, root: str, mapping: SourceMapping, calendar: SourceCalendar, max_unparsed_share: float, spool: Path
    ) -> None:
        self._storage, self._mapping, self._calendar = Storage(root), mapping, calendar
        self._max_unparsed_share, self._spool = max_unparsed_share, spool
        self._zone = mapping.time_zone or calendar.time_zone
        self._rules: dict[tuple[str, StoredFile], DayRule | None] = {}  # a file's columns are looked at once

    # Where things are

    def _layout(self, feed: str) -> _Layout | None:
        place = self._mapping.place(feed)
        files = self._storage.files(place)
        if files is None:
            return None
        daily: dict[date, StoredFile] = {}
        for file in files if not self._mapping.of(feed).day else []:
            day = _day_named(file.stem)
            if day and day in daily:
                raise SourceError(
                    f"{feed} of {day}",
                    found=f"{daily[day].name} and {file.name}",
                    wanted="one file",
                    fix="remove one of them",
                )
            if day:
                daily[day] = file
        return _Layout(place, daily, () if daily else tuple(file for file in files if self._has_rows(feed, file)))

    def _has_rows(self, feed: str, file: StoredFile) -> bool:
        if "json" not in file.extension:
            return True

        def look(read: StoredFile) -> bool:
            with self._session(feed, read) as con:
                return read.has_rows(con)

        return self._or_mended(file, look)

    def _is_derived(self, feed: Feed, layout: _Layout | None) -> bool:
        return layout is None and feed.name in DERIVED and feed.name not in self._mapping.feeds

    def place(self, feed: Feed) -> str | None:
        layout = self._layout(feed.name)
        if layout is None:
            return "derived from purchases" if self._is_derived(feed, layout) else None
        kind = f"{len(layout.daily)} daily files" if layout.daily else f"{len(layout.whole)} files for all days"
        return f"{self._storage.shown}/{layout.place} ({kind})"

    def _spooled(self, feed: Feed, file: StoredFile) -> Spooled:
        rule = self._day_rule(feed, file)
        assert rule is not None, "an undated feed is not spooled"
        make = lambda read: spooled(  # noqa: E731
            self._con, self._spool, self._storage, read, feed.name, rule, self._max_unparsed_share
        )
        return self._or_mended(file, make)

    def _day_rule(self, feed: Feed, file: StoredFile) -> DayRule | None:
        """How the file's rows get their day; None for a list of products or customers that says nothing about days."""
        if (feed.name, file) not in self._rules:
            self._rules[feed.name, file] = self._find_day_rule(feed, file)
        return self._rules[feed.name, file]

    def _find_day_rule(self, feed: Feed, file: StoredFile) -> DayRule | None:
        mapping = self._mapping.of(feed.name)

        def look(read: StoredFile) -> list[str]:
            with self._session(feed.name, read) as con:
                return [row[0] for row in con.execute(f"describe select * from {read.reader(con)}").fetchall()]

        have = self._or_mended(file, look)
        columns = mapping.selected(have, feed.columns)
        expression = mapping.day or columns.get("event_date") or columns.get("event_ts")
        if expression is None and feed.name in DERIVED:
            return None
        if expression is None:
            raise SourceError(
                f"{feed.name} in {file.path}",
                found=f"no business day: the file's name is not one, and its columns are {', '.join(have)}",
                wanted="`day`, event_date or event_ts in the mapping, or one file a day named YYYY-MM-DD",
                fix=f"add day to [{feed.name}] in the mapping",
            )
        return DayRule(expression, mapping.keep, self._zone, self._calendar.time_zone)

    # The source

    def arrived_days(self) -> list[date]:
        """Days with purchases; what the other feeds have of a day must be there with them or not come."""
        self._storage.check()
        layout = self._layout("purchases")
        if layout is None:
            return []
        delivered = set(layout.daily)
        for file in layout.whole:
            delivered.update(self._spooled(FEEDS["purchases"], file).days)
        return self._calendar.arrived(delivered)

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        layout = self._layout(feed.name)
        if self._is_derived(feed, layout):
            return derive(feed, self.read(FEEDS["purchases"], days))
        tables = self._each(feed, layout, days, lambda part: self._conformed(feed, part))
        rows = pyarrow.concat_tables(tables) if tables else empty(feed)
        rows = with_extra_columns(rows, [name for table in tables for name in extra_columns(table)])
        if layout is None or not layout.daily:
            rows = rows.sort_by([("event_date", "ascending")]) if len(tables) > 1 else rows
        delivered = set(layout.daily) if layout and layout.daily else set(rows["event_date"].unique().to_pylist())
        missing = [day for day in days if day not in delivered and day not in self._calendar.closed_days]
        if missing and not feed.may_be_empty:
            place = f"{self._storage.shown}/{self._mapping.place(feed.name)}"
            raise SourceError(
                f"{feed.name} of {missing[0]}",
                found="no row of that day" if layout and layout.whole else "no file",
                wanted=place if layout and layout.whole else f"{place}/{missing[0]}.<{EXTENSIONS}>",
                fix="deliver the day",
            )
        return rows

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        """Landed days whose files were written again since, and hold other rows. A file that is gone changes nothing."""
        layout = self._layout(feed.name)
        if layout is None:
            return []
        suspects = {
            day
            for day, batch in landed.items()
            if day in layout.daily and layout.daily[day].changed_at > batch.recorded_at
        }
        for file in layout.whole if self._is_dated(feed, layout) else ():
            of_file = set(self._spooled(feed, file).days)
            suspects |= {day for day in of_file & set(landed) if file.changed_at > landed[day].recorded_at}
        return differing(self, feed, sorted(suspects), landed)

    def _is_dated(self, feed: Feed, layout: _Layout) -> bool:
        return all(self._day_rule(feed, file) is not None for file in layout.whole)

    def peek(self, feed: Feed, day: date, rows: int) -> Peek:
        def look(part: _Part) -> Peek:
            map_columns(part.con, "delivered", part.columns, part.where)
            few = part.con.sql(f"select * from mapped limit {rows}").to_arrow_table()
            return Peek(few, self._unmapped(feed, part))

        return next(iter(self._each(feed, self._layout(feed.name), [day], look)), Peek(empty(feed), ()))

    # Reading

    def _unmapped(self, feed: Feed, part: _Part) -> tuple[str, ...]:
        have = [row[0] for row in part.con.execute("describe delivered").fetchall() if row[0] != DAY]
        mapping = self._mapping.of(feed.name)
        return unmapped(have, [*feed.columns, *part.columns.values(), mapping.day, mapping.keep])

    def _conformed(self, feed: Feed, part: _Part) -> pyarrow.Table:
        import duckdb

        map_columns(part.con, "delivered", part.columns, part.where)
        try:
            rows = conform(part.con, "mapped", feed, self._max_unparsed_share, part.where)
        except duckdb.Error as error:
            raise broken_expression(part.con, "delivered", part.columns, part.where) or error from None
        return with_extra_columns(rows, self._unmapped(feed, part))

    @contextmanager
    def _session(self, what: str, file: StoredFile) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        try:
            yield self._con
        except duckdb.Error as error:
            raise unreadable(what, file, error) from None

    @cached_property
    def _con(self) -> duckdb.DuckDBPyConnection:
        """One session for all files: opening one takes 15 CPU ms, and a year of daily drops has 1,460 files."""
        con = connect(self._zone)
        self._storage.attach(con)
        return con

    def _each(self, feed: Feed, layout: _Layout | None, days: Sequence[date], use: Callable[[_Part], T]) -> list[T]:
        """What `use` makes of each file that has rows of `days`; one file is held at a time."""
        used = []
        files: list[tuple[StoredFile, date | None]] = []
        if layout:
            files += [(layout.daily[day], day) for day in days if day in layout.daily]
            files += [(file, None) for file in layout.whole]
        for file, day in files:
            used += self._or_mended(file, lambda read, day=day: self._one(feed, read, day, days, use))  # type: ignore[misc]
        self._con.execute("drop view if exists mapped; drop table if exists delivered")
        return used

    def _one(
        self, feed: Feed, file: StoredFile, day: date | None, days: Sequence[date], use: Callable[[_Part], T]
    ) -> list[T]:
        """What `use` makes of one file; nothing when it has no row of `days`."""
        with self._session(f"{feed.name} of {day or days[0]}", file) as con:
            if not file.has_rows(con):
                return []
            found = self._rows(con, feed, file, day, days)
            if found is None:
                return []
            rows, labels = found
            con.execute(f"create or replace table delivered as select * from {rows}")
            have = [row[0] for row in con.execute("describe delivered").fetchall()]
            columns = {**self._mapping.of(feed.name).selected(have, feed.columns), **labels}
            return [use(_Part(con, file.path, columns))]

    def _or_mended(self, file: StoredFile, work: Callable[[StoredFile], T]) -> T:
        """What `work` makes of a file, or, where it cannot be read for its encoding, of a copy without the bytes at fault.

        The copy has the mark U+FFFD in their place, so that validation sets the rows aside and not the whole file.
        """
        try:
            return work(file)
        except NoRoom:
            raise
        except SourceError:
            mended = self._storage.mended(file, self._spool)
            if mended is None:
                raise
            return work(mended)

    def _rows(
        self, con: duckdb.DuckDBPyConnection, feed: Feed, file: StoredFile, day: date | None, days: Sequence[date]
    ) -> tuple[str, dict[str, str]] | None:
        """SQL for the rows of `days` in a file, and the columns that say their day; None when it has none of them.

        Args:
            day: the day that the file is named after; None for a file of many days.
        """
        keep = self._mapping.of(feed.name).keep
        if day is None and self._day_rule(feed, file) is None:
            day = next(iter(self.arrived_days()), None)  # a list without days is taken as known from the first one on
            if day is None or day not in days:
                return None
        if day:
            return f"{file.reader(con)}{f' where {keep}' if keep else ''}", {"event_date": f"date '{day}'"}
        spool = self._spooled(feed, file)
        if not any(min(days) <= found <= max(days) for found in spool.days):
            return None
        labels = {"event_date": f'"{DAY}"'}
        if spool.has_undated:
            labels = {
                "event_date": f"coalesce(\"{DAY}\", date '{spool.days[0]}')",
                UNDATED: f"case when \"{DAY}\" is null then 'no business day' end",
            }
        return f"{spool.source} where {spool.rows_of(min(days), max(days))}", labels


def _day_named(stem: str) -> date | None:
    """The day that a file is named after."""
    try:
        return date.fromisoformat(stem) if len(stem) == 10 else None
    except ValueError:
        return None
