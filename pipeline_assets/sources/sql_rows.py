"""Rows of a database driver as Arrow, and the range of days as parameters of a statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow

if TYPE_CHECKING:
    import sqlalchemy as sa

# A local time may be an hour off where clocks change; the exact cut is made after reading.
_CLOCK_CHANGE = timedelta(hours=2)
_ONE_DAY = timedelta(days=1)


def to_arrow(names: Sequence[str], groups: Iterable[Sequence[Sequence[Any]]]) -> pyarrow.Table:
    """Groups of rows as one table; a column whose values have several types becomes text.

    Args:
        names: of the columns, in the order of the rows' values.
    """
    columns: list[list[pyarrow.Array]] = [[] for _ in names]
    for rows in groups:
        for column, values in zip(columns, zip(*rows, strict=True), strict=False):
            column.append(_array(values))
    return pyarrow.table([_joined(parts) for parts in columns], names=list(names))


def _array(values: Sequence[Any]) -> pyarrow.Array:
    kinds = {type(value) for value in values} - {type(None)}
    if Decimal in kinds and kinds <= {Decimal, int, float}:
        # an id in a numeric column is a whole number, an amount is not: 12.50 becomes the double that a CSV's 12.50 becomes
        whole = all(value == value.to_integral_value() for value in values if isinstance(value, Decimal))
        values = [
            None if value is None else int(value) if whole and kinds == {Decimal} else float(value) for value in values
        ]
        kinds = {int} if whole and kinds == {Decimal} else {float}
    if kinds == {int, float}:
        values, kinds = [None if value is None else float(value) for value in values], {float}
    if kinds == {datetime}:
        zoned = {value.tzinfo is not None for value in values if value is not None}
        if zoned == {True}:  # Arrow would take 11:00+02:00 for 11:00 UTC
            instants = [None if value is None else value.astimezone(UTC) for value in values]
            return pyarrow.array(instants, pyarrow.timestamp("us", "UTC"))
        if zoned == {False}:
            return pyarrow.array(values, pyarrow.timestamp("us"))
    if not kinds:
        return pyarrow.nulls(len(values))
    if len(kinds) == 1 and kinds <= {bool, int, float, str, date}:
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowInvalid, OverflowError):  # a whole number of more than 64 bits
            pass
    return pyarrow.array([_text(value) for value in values], pyarrow.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.hex() if isinstance(value, bytes | memoryview) else str(value)


def _joined(parts: list[pyarrow.Array]) -> pyarrow.ChunkedArray:
    types = {part.type for part in parts} - {pyarrow.null()}
    if types == {pyarrow.int64(), pyarrow.float64()}:
        wanted = pyarrow.float64()
    else:
        wanted = types.pop() if len(types) == 1 else pyarrow.string() if types else pyarrow.null()
    return pyarrow.chunked_array([part.cast(wanted) for part in parts], wanted)


def kind_of(value: Any) -> str:
    """What a day column's values are: date, aware or naive (moments), or text."""
    if isinstance(value, datetime):
        return "naive" if value.tzinfo is None else "aware"
    return "date" if isinstance(value, date) else "text"


def edges(kind: str, first: date, last: date, own_zone: str, shop_zone: str) -> tuple[Any, Any]:
    """The moments at which `first` begins and `last` ends, as values of a column of that kind; the end is exclusive.

    Text must begin with an ISO day; it is compared as text, and both neighbouring days are in the range.
    """
    if kind == "date":
        return first, last + _ONE_DAY
    if kind == "text":
        return str(first - _ONE_DAY), str(last + 2 * _ONE_DAY)
    zone = ZoneInfo(shop_zone)
    start, end = (datetime.combine(day, time(), zone) for day in (first, last + _ONE_DAY))
    if kind == "aware":
        return start, end
    return tuple(moment.astimezone(ZoneInfo(own_zone)).replace(tzinfo=None) for moment in (start, end))  # type: ignore[return-value]


def in_days(
    column: sa.ColumnElement[Any], kind: str, first: date, last: date, own_zone: str, shop_zone: str
) -> sa.ColumnElement[bool]:
    """The condition that reads no row of other days than these and, at a clock change, their neighbours' last two hours."""
    import sqlalchemy as sa

    start, end = edges(kind, first, last, own_zone, shop_zone)
    if kind == "naive":
        start, end = start - _CLOCK_CHANGE, end + _CLOCK_CHANGE
    return sa.and_(column >= start, column < end)
