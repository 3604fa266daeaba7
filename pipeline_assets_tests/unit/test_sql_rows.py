"""Rows of a driver as Arrow, and days as parameters."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow
import pytest

from pipeline_assets.sources.sql_rows import edges, to_arrow

MOMENT = datetime(2017, 2, 12, 9, tzinfo=UTC)
BERLIN_SUMMER = timezone(timedelta(hours=2))


def column(*groups: list[Any]) -> tuple[pyarrow.DataType, list[Any]]:
    """Type and values of one column that came in these groups."""
    values = to_arrow(["x"], [[(value,) for value in group] for group in groups])["x"]
    return values.type, values.to_pylist()


@pytest.mark.parametrize(
    ("values", "wanted", "given"),
    [
        (["a", None], pyarrow.string(), ["a", None]),
        ([1, 2], pyarrow.int64(), [1, 2]),
        ([1, 2.5], pyarrow.float64(), [1.0, 2.5]),
        ([True, None], pyarrow.bool_(), [True, None]),
        ([Decimal("12.50"), Decimal("3.00")], pyarrow.float64(), [12.5, 3.0]),
        ([Decimal("1001"), Decimal("1002")], pyarrow.int64(), [1001, 1002]),  # an id in a NUMBER column
        ([date(2017, 2, 12)], pyarrow.date32(), [date(2017, 2, 12)]),
        ([datetime(2017, 2, 12, 9)], pyarrow.timestamp("us"), [datetime(2017, 2, 12, 9)]),
        ([MOMENT.astimezone(BERLIN_SUMMER)], pyarrow.timestamp("us", "UTC"), [MOMENT]),
        ([uuid.UUID(int=7)], pyarrow.string(), ["00000000-0000-0000-0000-000000000007"]),
        ([b"\x01\xff"], pyarrow.string(), ["01ff"]),
        ([2**70], pyarrow.string(), [str(2**70)]),
        ([1.5, "free", None], pyarrow.string(), ["1.5", "free", None]),  # SQLite keeps what it is given
        ([None, None], pyarrow.null(), [None, None]),
    ],
    ids=str,
)
def test_values_of_a_driver(values: list[Any], wanted: pyarrow.DataType, given: list[Any]) -> None:
    """Each Python type as the Arrow type that `conform` understands; several types are text."""
    assert column(values) == (wanted, given)


def test_groups_that_differ_are_joined() -> None:
    """Whole numbers in one group and others in the next are numbers; numbers and words are text; nothing yet is anything."""
    assert column([None], [1], [2.5]) == (pyarrow.float64(), [None, 1.0, 2.5])
    assert column([1], ["free"]) == (pyarrow.string(), ["1", "free"])


def test_no_rows_keep_their_columns() -> None:
    """An empty result has names and no types."""
    table = to_arrow(["a", "b"], [])
    assert (table.schema.names, len(table)) == (["a", "b"], 0)


def test_edges_of_a_day() -> None:
    """Sunday 2017-03-12 in New York has 23 hours: 05:00 UTC to 04:00 UTC; for a till on Berlin time 06:00 to 05:00."""
    sunday = date(2017, 3, 12)
    start, end = edges("aware", sunday, sunday, "Europe/Berlin", "America/New_York")
    assert (start.astimezone(UTC).hour, end.astimezone(UTC).hour, end.astimezone(UTC) - start.astimezone(UTC)) == (
        5, 4, timedelta(hours=23),
    )  # fmt: skip
    assert edges("naive", sunday, sunday, "Europe/Berlin", "America/New_York") == (
        datetime(2017, 3, 12, 6),
        datetime(2017, 3, 13, 5),
    )
    assert edges("date", sunday, sunday, "UTC", "UTC") == (sunday, date(2017, 3, 13))
    assert edges("text", sunday, sunday, "UTC", "UTC") == ("2017-03-11", "2017-03-14")
