"""One file that holds many days, sorted once by business day, so that each day is read without the others.

Any expression may say what a row's day is, so a reader could not skip anything in the file itself and would scan it once for every
group of days. The spool is a Parquet copy with the day as a column and the rows in its order, made once for each version of the file in
bounded memory (DuckDB sorts on disk); later reads take only the row groups of their days. It costs the file's size on disk, and is a
cache: it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import SchemaError, SourceError
from pipeline_assets.sources.base import connect, day_of
from pipeline_assets.sources.storage import Storage, StoredFile

if TYPE_CHECKING:
    import duckdb

DAY = "__business_day"
# 147 M lines do not fit; with this limit DuckDB spills its sort to the spool's folder.
MEMORY_LIMIT = "700MB"
_SORTED = "sorted.parquet"


class NoRoom(SourceError):
    """The disk of the spool is full; the file itself may be sound."""


@dataclass(frozen=True)
class DayRule:
    """How rows of a file get their day: SQL of the mapping, and the zones in which it is understood."""

    expression: str
    keep: str
    own_zone: str  # of timestamps without an offset
    shop_zone: str  # business days are dates in it


@dataclass(frozen=True)
class Spooled:
    """A spooled file. Rows whose day cannot be read are counted to `days[0]`, where they are quarantined."""

    path: Path
    days: tuple[date, ...]
    has_undated: bool

    @property
    def source(self) -> str:
        """SQL for its rows, with column DAY null where it could not be read."""
        return "read_parquet('" + str(self.path).replace("'", "''") + "')"

    def rows_of(self, first: date, last: date) -> str:
        """SQL condition on DAY."""
        between = f"\"{DAY}\" between '{first}' and '{last}'"
        return f'({between} or "{DAY}" is null)' if self.has_undated and first <= self.days[0] <= last else between


def spooled(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    storage: Storage,
    file: StoredFile,
    feed: str,
    rule: DayRule,
    max_unparsed_share: float,
) -> Spooled:
    """The spool of a file's present version, made now if there is none.

    Raises:
        SchemaError: the day cannot be computed, or not for most rows.
        SourceError: the file cannot be read, or the disk is full.
    """
    name = f"{feed}-{_short(file.path)}"
    path = folder / f"{name}-{_short(file.version, *vars(rule).values())}.parquet"
    if not path.exists():
        work = folder / f"{path.stem}.{os.getpid()}.part"
        work.mkdir(parents=True, exist_ok=True)
        try:
            _write(work, storage, file, feed, rule)
            (work / _SORTED).replace(path)  # two writers of one version write the same
        finally:
            shutil.rmtree(work)
        for killed in folder.glob("*.part"):  # a writer that was killed could not clean up
            if not _is_running(int(killed.name.split(".")[-2])):
                shutil.rmtree(killed, ignore_errors=True)
        for old in folder.glob(f"{name}-*.parquet"):
            if old != path:
                old.unlink(missing_ok=True)
    rows, undated, days = _days(con, path)
    if undated and (not days or undated / rows > max_unparsed_share):
        raise SchemaError(
            f"business day of {feed} in {file.path}",
            found=f"{undated} of {rows} rows whose {rule.expression} is not a day or a moment",
            wanted="dates such as 2024-12-31, or timestamps",
            fix=f"correct `day` or event_ts of [{feed}] in the mapping; try_strptime(x, '%d.%m.%Y') reads 31.12.2024",
        )
    return Spooled(path, days, undated > 0)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _days(con: duckdb.DuckDBPyConnection, path: Path) -> tuple[int, int, tuple[date, ...]]:
    """Rows, rows without a day, and the days, from one narrow column."""
    counts = con.execute(f'select "{DAY}", count(*) from read_parquet(?) group by all order by all', [str(path)])
    counted = counts.fetchall()
    return (
        sum(n for _, n in counted),
        sum(n for day, n in counted if day is None),
        tuple(day for day, _ in counted if day is not None),
    )


def _write(work: Path, storage: Storage, file: StoredFile, feed: str, rule: DayRule) -> None:
    import duckdb

    with connect(rule.own_zone, MEMORY_LIMIT, work) as con:
        storage.attach(con)
        try:
            rows = f"(select * from {file.reader(con)}{f' where {rule.keep}' if rule.keep else ''})"
            con.execute(f"describe select * from {rows}")
        except duckdb.Error as error:
            raise unreadable(feed, file, error) from None
        try:
            ((_, kind, *_),) = con.execute(f"describe select {rule.expression} from {rows}").fetchall()
            day = day_of(rule.expression, kind, rule.shop_zone)
            ordered = f'select *, {day} as "{DAY}" from {rows} order by "{DAY}", row_number() over ()'
            con.execute(f"copy ({ordered}) to '{str(work / _SORTED).replace(chr(39), chr(39) * 2)}' (format parquet)")
        except (duckdb.BinderException, duckdb.ParserException, duckdb.ConversionException) as error:
            raise SchemaError(
                f"business day of {feed} in {file.path}",
                found=" ".join(str(error).split())[:300],
                wanted=f"rows for which {rule.expression} can be computed",
                fix=f"correct `day` or event_ts of [{feed}] in the mapping",
            ) from None
        except duckdb.Error as error:
            if "space" not in str(error):
                raise unreadable(feed, file, error) from None
            raise NoRoom(
                f"spool of {feed}",
                found=str(error).splitlines()[0],
                wanted=f"room for a sorted copy of {file.path} in {work.parent}",
                fix="free the disk, or choose another data_dir",
            ) from None


def unreadable(what: str, file: StoredFile, error: Exception) -> SourceError:
    """The refusal of a file that cannot be read."""
    return SourceError(
        what,
        found=str(error).splitlines()[0],
        wanted=f"a readable {file.extension} file",
        fix=f"deliver {file.path} again, or correct filter and columns in the mapping",
    )
