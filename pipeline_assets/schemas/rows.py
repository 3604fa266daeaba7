"""Row rules: which rows of a feed break which rule, as Arrow masks derived from the pandera declarations.

pandera's own checks are the declaration. The usual ones have a kernel here that costs a tenth of the same check on pandas
(1.76 M exposures: 0.2 CPU s instead of 1.6); a check without a kernel is evaluated by pandera itself, so a new rule needs
nothing but its declaration. A test holds the kernels to pandera's answers. A mask costs the same however many rows are bad.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.compute as pc

from pipeline_assets.schemas.feeds import UNREADABLE, Feed

if TYPE_CHECKING:
    import duckdb

PARSE_ERRORS = "parse_errors"  # text of values that could not be read as their declared type, from the source layer
UNREADABLE_VALUE = "unreadable"
DUPLICATE = "duplicate"  # exact repeats have no effect: set aside, but not a sign of a bad day
FUTURE, WRONG_DAY = "future_timestamp", "wrong_day"
BOT = "bot"  # rows of one customer far beyond what a person buys: set aside, and the day goes on
SHOWN = 80  # characters of a bad value in a reason: enough to recognise it

Values = Any  # a column, pyarrow.ChunkedArray: it comes without types
Mask = np.ndarray  # of booleans, one a row


@dataclass(frozen=True)
class Rule:
    """One rule on one call: its name, why a row breaks it, the rows that do, and the column to quote from."""

    name: str
    why: str
    broken: Mask
    values: Values | None = None


def _as_mask(values: Any) -> Mask:
    return np.asarray(pc.fill_null(values, True).to_numpy(), dtype=bool)


def _str_length(values: Values, of: Mapping[str, Any]) -> Values:
    """The length in bytes bounds the length in characters and is free: characters are counted only where it matters."""
    least, most, exact = of["min_value"], of["max_value"], of["exact_value"]
    least, most = (exact, exact) if exact is not None else (least or 0, most)
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    length = pc.utf8_length(values) if (most is not None and longest > most) or least > 1 else pc.binary_length(values)
    passed = pc.greater_equal(length, least)
    return passed if most is None else pc.and_(passed, pc.less_equal(length, most))


def _may_be_unreadable(values: Values) -> bool:
    """Whether any byte could belong to a character of `UNREADABLE`: all of printable ASCII cannot."""
    for chunk in values.chunks:
        _, offsets, data = chunk.buffers()
        if data is None or len(chunk) == 0:
            continue
        wide = np.int64 if pyarrow.types.is_large_string(chunk.type) else np.int32
        ends = np.frombuffer(offsets, wide)[[chunk.offset, chunk.offset + len(chunk)]]
        used = np.frombuffer(data, np.uint8)[ends[0] : ends[1]]
        if len(used) and (used.min() < 0x20 or used.max() >= 0x7F):
            return True
    return False


def _is_readable(values: Values, of: Mapping[str, Any]) -> Values:
    if not _may_be_unreadable(values):
        return pyarrow.chunked_array([pyarrow.array(np.ones(len(values), dtype=bool))])
    return pc.invert(pc.match_substring_regex(values, UNREADABLE))


# Name of pandera's check function -> the same on Arrow: True where the value passes, null where there is none.
KERNELS: dict[str, Callable[[Values, Mapping[str, Any]], Values]] = {
    "greater_than": lambda values, of: pc.greater(values, of["min_value"]),
    "greater_than_or_equal_to": lambda values, of: pc.greater_equal(values, of["min_value"]),
    "less_than": lambda values, of: pc.less(values, of["max_value"]),
    "less_than_or_equal_to": lambda values, of: pc.less_equal(values, of["max_value"]),
    "isin": lambda values, of: pc.is_in(values, pyarrow.array(sorted(of["allowed_values"]), values.type)),
    "notin": lambda values, of: pc.invert(pc.is_in(values, pyarrow.array(sorted(of["forbidden_values"]), values.type))),
    "str_length": _str_length,
    "is_readable": _is_readable,
}


def to_series(values: Values) -> pd.Series:
    """One column as the pandas type that the schema declares (strings stay in Arrow memory)."""
    if pyarrow.types.is_date(values.type):
        values = values.cast(pyarrow.timestamp("us"))
    return values.to_pandas(types_mapper={pyarrow.string(): pd.StringDtype("pyarrow")}.get)


def to_pandas(feed: Feed, table: pyarrow.Table, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Arrow to the pandas types the schema declares; all columns of the feed, or some."""
    return pd.DataFrame({name: to_series(table.column(name)) for name in columns or feed.columns})


def missing(values: Values) -> Mask:
    """Null, or not a number."""
    if values.null_count == 0 and not pyarrow.types.is_floating(values.type):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(pc.is_null(values, nan_is_null=True).to_numpy(), dtype=bool)


def keeps(check: pa.Check, values: Values) -> Mask:
    """Rows whose value passes a column check; a missing value passes here, `nullable` judges it."""
    kernel = KERNELS.get(check._check_fn.__name__)
    if kernel:
        return _as_mask(kernel(values, check.statistics or {}))
    passed = check(to_series(values)).check_output
    return np.asarray(passed.reindex(range(len(values)), fill_value=True).fillna(True), dtype=bool)


def declared_rules(feed: Feed, table: pyarrow.Table) -> Iterator[Rule]:
    """The rules of the declaration, in its order: readable, present, finite, the column's checks, the row's checks."""
    errors = table.column(PARSE_ERRORS)
    yield Rule(
        UNREADABLE_VALUE,
        "cannot be read as the declared type",
        np.asarray(pc.is_valid(errors).to_numpy(), dtype=bool),
        errors,
    )
    for name, column in feed.schema.columns.items():
        values = table.column(name)
        absent = missing(values)
        if not column.nullable:
            yield Rule(f"{name}_missing", f"{name} must not be empty", absent)
        if pyarrow.types.is_floating(values.type):
            yield Rule(f"{name}_finite", f"{name} must be finite", _as_mask(pc.is_inf(values)) & ~absent, values)
        for check in column.checks:
            broken = ~keeps(check, values) & ~absent
            yield Rule(str(check.name), f"{name} breaks {check.name}", broken, values)
    for check in feed.schema.checks:
        passed = check(to_pandas(feed, table, (check.statistics or {}).get("columns"))).check_output
        yield Rule(str(check.name), f"row breaks {check.name}", ~passed.fillna(False).to_numpy(dtype=bool))


def timestamp_rules(
    feed: Feed, table: pyarrow.Table, row_day: np.ndarray, zone: ZoneInfo, tolerance: timedelta
) -> Iterator[Rule]:
    """Moments that are not of their business day: after its end (`future_timestamp`), or before its start (`wrong_day`).

    Args:
        row_day: the business day of each row, datetime64[D].
        zone: the shop's; a day has 23 to 25 hours in it.
        tolerance: how far outside a moment may lie: clocks of tills are off, and a basket is paid after midnight.
    """
    if feed.timestamp is None or len(table) == 0:
        return
    values = table.column(feed.timestamp)
    moments = values.cast(pyarrow.int64()).fill_null(0).to_numpy()
    present, days = ~missing(values), np.unique(row_day)
    days = days[~np.isnat(days)]
    at = np.searchsorted(days, row_day).clip(0, max(len(days) - 1, 0))

    def midnights(shift: int) -> np.ndarray:
        starts = [datetime.combine(day + timedelta(days=shift), time(), zone) for day in days.astype(object)]
        return np.array([round(start.timestamp() * 1e6) for start in starts], dtype=np.int64)

    if len(days) == 0:
        return
    margin = round(tolerance.total_seconds() * 1e6)
    late = (moments >= midnights(1)[at] + margin) & present
    early = (moments < midnights(0)[at] - margin) & present
    yield Rule(FUTURE, f"{feed.timestamp} is after the end of the business day", late, values)
    yield Rule(WRONG_DAY, f"{feed.timestamp} is before the business day", early, values)


@functools.cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    """One session for the process: opening one takes 30 CPU ms."""
    import duckdb

    return duckdb.connect(config={"threads": 1})


def _hashes(table: pyarrow.Table, columns: Sequence[str]) -> np.ndarray:
    """A 64-bit hash of some columns per row: 0.04 CPU s for 1.76 M rows, where a hash table of the strings costs 0.9."""
    names = ", ".join(f'"{name}"' for name in columns)
    with _duckdb().cursor() as con:  # a cursor of its own for every thread, and what it registers goes with it
        con.register("rows", table.select(columns))
        return np.asarray(con.sql(f"select hash({names}) as h from rows").fetchnumpy()["h"])


def _among(hashes: np.ndarray, chosen: np.ndarray) -> Mask:
    """Which hashes are among a few sorted ones; `np.isin` would sort all of them again."""
    at = np.searchsorted(chosen, hashes).clip(max=len(chosen) - 1)
    return np.asarray(chosen[at] == hashes, dtype=bool)


def repeated(table: pyarrow.Table, columns: Sequence[str]) -> Mask:
    """Rows whose values were there in an earlier row. Equal hashes only nominate; the values themselves decide."""
    hashes = _hashes(table, columns)
    ordered = np.sort(hashes)
    shared = ordered[1:][ordered[1:] == ordered[:-1]]
    mask = np.zeros(len(table), dtype=bool)
    if len(shared):
        nominated = _among(hashes, shared)
        mask[nominated] = table.select(columns).filter(pyarrow.array(nominated)).to_pandas().duplicated().to_numpy()
    return mask


def crowded(table: pyarrow.Table, columns: Sequence[str], most: int, among: Mask) -> Mask:
    """Rows of groups (equal values in `columns`, none missing) with more than `most` rows among `among`."""
    mask = np.zeros(len(table), dtype=bool)
    for name in columns:
        among = among & ~missing(table.column(name))
    if among.sum() <= most:
        return mask
    hashes = _hashes(table.filter(pyarrow.array(among)), columns)
    ordered = np.sort(hashes)
    large = ordered[most:][ordered[most:] == ordered[: len(ordered) - most]]  # more than `most` equal ones in a row
    if len(large):
        mask[np.flatnonzero(among)[_among(hashes, large)]] = True
    return mask


def unknown(values: Values, known: pyarrow.Table, row_day: np.ndarray) -> Mask:
    """Rows whose value is not in `known` (columns `id`, `first_day`) on their day; a missing value is nobody's."""
    at = pc.index_in(values, known["id"].combine_chunks())
    first = known["first_day"].combine_chunks().take(at.combine_chunks()).to_numpy(zero_copy_only=False)
    # a value that is unknown has no first day: NaT, which is never on or before a day
    return np.asarray(~(first.astype("datetime64[D]") <= row_day) & ~missing(values), dtype=bool)


def quoted(why: str, values: Values) -> pyarrow.Array:
    """Reasons that quote the value found: cut, and without the characters that a terminal would obey."""
    texts = values if pyarrow.types.is_string(values.type) else values.cast(pyarrow.string())
    texts = pc.replace_substring_regex(pc.utf8_slice_codeunits(texts, 0, SHOWN), UNREADABLE, "\ufffd")
    joined = pc.binary_join_element_wise(f"{why}, found '", pc.fill_null(texts, ""), "'", "")
    return joined.combine_chunks() if isinstance(joined, pyarrow.ChunkedArray) else joined


def business_days(values: Values) -> np.ndarray:
    """A date column as datetime64[D]."""
    return np.asarray(values.to_numpy(), dtype="datetime64[D]")
