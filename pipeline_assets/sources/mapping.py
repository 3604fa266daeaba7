"""The mapping file: what a shop's own tables are called. One TOML file for every kind of source.

    time_zone = "Europe/Berlin"       # of timestamps without an offset; default: calendar.time_zone

    [purchases]
    from = "verkauf"                  # folder, file or table; default: the feed's name
    filter = "storniert = 'nein'"     # rows to keep; the others are not part of the feed
    day = "buchungstag"               # business day; default: the file's name, else event_date, else event_ts
    changed = "geaendert"             # sql: when a row was last changed, so that corrections in place re-open their day
    [purchases.columns]               # contract column = SQL expression over the table's columns
    customer_id = "kunde"

Expressions are DuckDB's SQL for files and streams, the database's own for `sql`.
"""

from __future__ import annotations

import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.schemas.feeds import FEEDS

_KEYS = ("from", "filter", "day", "changed", "columns")
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_NO_EXPRESSION = re.compile(r";|--|/\*")  # ends or hides the rest of the statement it is put into


@dataclass(frozen=True)
class FeedMapping:
    """One feed. Empty means the default.

    Args:
        place: folder or file below the source's root, or table (or select) of the database.
        keep: SQL expression; rows for which it is not true are not part of the feed.
        day: SQL expression of the business day.
        changed: SQL expression of the moment at which a row was last changed; only databases use it.
        columns: contract column -> SQL expression; columns that are not named are taken by their name.
    """

    place: str = ""
    keep: str = ""
    day: str = ""
    changed: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)

    def selected(self, have: list[str], contract: list[str]) -> dict[str, str]:
        """Contract column -> expression, given the columns that the table has."""
        by_name = {name: f'"{name}"' for name in contract if name in have}
        return {**by_name, **self.columns}


@dataclass(frozen=True)
class SourceMapping:
    """The whole file; without one, names are the contract's. `feeds` holds the sections that were written."""

    time_zone: str | None = None
    feeds: Mapping[str, FeedMapping] = field(default_factory=dict)

    def of(self, feed: str) -> FeedMapping:
        return self.feeds.get(feed, FeedMapping())

    def place(self, feed: str) -> str:
        """Where the feed is, by name."""
        return self.of(feed).place or feed


def _refused(where: str, found: object, wanted: str, fix: str) -> ConfigurationError:
    return ConfigurationError(where, found=found, wanted=wanted, fix=fix)


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refused(f"{where}, key {key}", repr(value), "a text", "write it in quotes")
    if (bad := _NO_EXPRESSION.search(_QUOTED.sub("''", value))) is not None:
        raise _refused(
            f"{where}, key {key}",
            f"{bad[0]} in {value!r}",
            "one SQL expression, without ; and comments",
            "write it without them",
        )
    return value.strip()


def _section(path: Path, feed: str, section: Any) -> FeedMapping:
    where = f"mapping file {path}, [{feed}]"
    if not isinstance(section, dict):
        raise _refused(where, repr(section), f"a table [{feed}]", "write the section's keys below it")
    if unknown := sorted(set(section) - set(_KEYS)):
        raise _refused(where, ", ".join(unknown), f"one of {', '.join(_KEYS)}", "rename or remove it")
    columns = section.get("columns", {})
    if not isinstance(columns, dict):
        raise _refused(f"{where}, key columns", repr(columns), f"a table [{feed}.columns]", "write one line a column")
    for column in columns:
        if column not in FEEDS[feed].columns:
            raise _refused(
                f"mapping file {path}, [{feed}.columns]",
                column,
                f"one of {', '.join(FEEDS[feed].columns)}",
                "rename the key",
            )
    texts = {key: _text(where, key, section[key]) for key in ("from", "filter", "day", "changed") if key in section}
    return FeedMapping(
        place=texts.get("from", ""),
        keep=texts.get("filter", ""),
        day=texts.get("day", ""),
        changed=texts.get("changed", ""),
        columns={column: _text(f"{where[:-1]}.columns]", column, value) for column, value in columns.items()},
    )


def known_zone(name: str) -> bool:
    """Whether it is a zone of the IANA list, such as Europe/Berlin."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def read_mapping(path: Path | None) -> SourceMapping:
    """Read a mapping file; None is the mapping of a shop that uses the contract's names.

    Raises:
        ConfigurationError: it cannot be read, or names a feed, key, column or time zone that does not exist.
    """
    if path is None:
        return SourceMapping()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refused(f"mapping file {path}", error, "a readable TOML file", "correct it") from None
    zone = content.pop("time_zone", None)
    if zone is not None and not (isinstance(zone, str) and known_zone(zone)):
        raise _refused(f"mapping file {path}, key time_zone", repr(zone), "a zone such as Europe/Berlin", "correct it")
    for feed in content:
        if feed not in FEEDS:
            raise _refused(
                f"mapping file {path}",
                f"section [{feed}]" if isinstance(content[feed], dict) else f"key {feed}",
                f"time_zone or one of the sections {', '.join(FEEDS)}",
                "rename the section",
            )
    return SourceMapping(zone, {feed: _section(path, feed, section) for feed, section in content.items()})
