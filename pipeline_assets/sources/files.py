"""Daily drops in a folder: `<root>/<feed>/<YYYY-MM-DD>.parquet` or `.csv`, one file per feed and business day.

A mapping file (TOML) says what their columns are called; without one the names are the contract's:

    [purchases.columns]       # contract column = SQL expression over the file's columns, usually just a name
    customer_id = "kunde"
    amount = "preis * menge"

A CSV's columns are text until the contract's types are given to them; an expression that calculates casts them itself:
`try_cast(preis as double) * try_cast(menge as double)`, so that a value that cannot be read costs one row.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow

from pipeline_assets.recommender.errors import ConfigurationError, SourceError
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS
from pipeline_assets.sources.base import conform

_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})\.(parquet|csv)")

Mapped = Mapping[str, Mapping[str, str]]  # feed -> contract column -> expression


def read_mapping(path: Path | None) -> Mapped:
    """Read a mapping file.

    Raises:
        ConfigurationError: it cannot be read, or names a feed or column that the contract does not have.
    """
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"mapping file {path}", found=error, wanted="a readable TOML file", fix="correct it"
        ) from None
    mapping = {}
    for feed, section in content.items():
        if feed not in FEEDS:
            raise ConfigurationError(
                f"mapping file {path}",
                found=f"section [{feed}]",
                wanted=f"one of {', '.join(FEEDS)}",
                fix="rename the section",
            )
        if not isinstance(section, dict) or set(section) - {"columns"}:
            raise ConfigurationError(
                f"mapping file {path}, [{feed}]",
                found=", ".join(section) if isinstance(section, dict) else section,
                wanted=f"a table [{feed}.columns] and nothing else",
                fix="rename or remove it",
            )
        columns = section.get("columns", {})
        for column in columns:
            if column not in FEEDS[feed].columns:
                raise ConfigurationError(
                    f"mapping file {path}, [{feed}.columns]",
                    found=column,
                    wanted=f"one of {', '.join(FEEDS[feed].columns)}",
                    fix="rename the key",
                )
        mapping[feed] = columns
    return mapping


class FilesSource:
    """Parquet or CSV drops. A feed that has no folder is absent; purchases must have one."""

    def __init__(
        self, root: Path, mapping: Mapped, until: date, max_unparsed_share: float, closed_days: Collection[date] = ()
    ) -> None:
        self._root, self._mapping, self._until = root, mapping, until
        self._max_unparsed_share, self._closed_days = max_unparsed_share, frozenset(closed_days)

    def _files(self, feed: str) -> dict[date, Path]:
        folder = self._root / feed
        found = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if match := _NAME.fullmatch(path.name):
                day = date.fromisoformat(match[1])
                if day in found:
                    raise SourceError(
                        f"{feed} of {day}",
                        found=f"{found[day].name} and {path.name}",
                        wanted="one file",
                        fix="remove one of them",
                    )
                found[day] = path
        return found

    def arrived_days(self) -> list[date]:
        """Days with a purchases file; the other feeds' change files of a day must be there with it or not come.

        A closed day needs no file: it arrives with the day before it, so that the calendar of a year does not run ahead of the drops.
        """
        arrived = {day for day in self._files("purchases") if day <= self._until}
        for day in sorted(self._closed_days):
            if day <= self._until and day - timedelta(days=1) in arrived:
                arrived.add(day)
        return sorted(arrived)

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        files = self._files(feed.name)
        tables = [self._read_file(feed, day, files[day]) for day in days if day in files]
        missing = [day for day in days if day not in files and day not in self._closed_days]
        if missing and not feed.may_be_empty:
            raise SourceError(
                f"{feed.name} of {missing[0]}",
                found="no file",
                wanted=f"{self._root / feed.name / str(missing[0])}.parquet or .csv",
                fix="deliver the day",
            )
        if not tables:
            schema = feed.arrow_schema.append(pyarrow.field(PARSE_ERRORS, pyarrow.string()))
            return schema.empty_table()
        return pyarrow.concat_tables(tables)

    def _read_file(self, feed: Feed, day: date, path: Path) -> pyarrow.Table:
        import duckdb

        columns = dict(self._mapping.get(feed.name, {}))
        with duckdb.connect() as con:
            con.execute("set timezone = 'UTC'")
            # all_varchar: a CSV's values are read as text and cast by `conform`, so that one bad value costs one row
            reader = (
                "read_parquet(?)"
                if path.suffix == ".parquet"
                else "read_csv(?, header = true, all_varchar = true, strict_mode = false)"
            )
            try:
                con.execute(f"create table delivered as select * from {reader}", [str(path)])
                have = [row[0] for row in con.execute("describe delivered").fetchall()]
                columns = {**{name: f'"{name}"' for name in feed.columns if name in have}, **columns}
                columns["event_date"] = f"date '{day}'"  # the day of delivery is the batch's day
                selected = ", ".join(f'{expression} as "{column}"' for column, expression in columns.items())
                con.execute(f"create view mapped as select {selected} from delivered")
                return conform(con, "mapped", feed, self._max_unparsed_share, str(path))
            except duckdb.Error as error:
                raise SourceError(
                    f"{feed.name} of {day}",
                    found=str(error).splitlines()[0],
                    wanted=f"a readable {path.suffix[1:]} file with the mapped columns",
                    fix=f"deliver {path} again or correct the mapping",
                ) from error
