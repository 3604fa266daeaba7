"""What a table holds on a day: rows and a digest that does not depend on chunks, files or the order of delivery."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc

NOT_CONTENT = ("run_id",)  # says who wrote a row: two runs with the same rows have the same content


@dataclass(frozen=True)
class DayContent:
    """Content of one business day of one table."""

    rows: int
    digest: str


def digest(table: pyarrow.Table, sort_by: str | None = None) -> str:
    """SHA-256 of a table's content: column names, types and values; chunking does not matter, row order does.

    `sort_by` makes the order canonical first.
    """
    if sort_by:
        table = table.sort_by(sort_by)
    hashing = hashlib.sha256()
    sink = pyarrow.PythonFile(_HashSink(hashing), mode="w")
    with pyarrow.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        # `take` writes every value anew: a slice carries its neighbours' bytes and bits, and a null has any value under it
        compact = table.replace_schema_metadata(None).combine_chunks().take(pyarrow.arange(0, len(table)))
        writer.write_table(compact, max_chunksize=1 << 16)
    return hashing.hexdigest()


class _HashSink:
    """A writable file that keeps only the hash of what is written."""

    closed = False

    def __init__(self, hashing: Any) -> None:
        self._hashing = hashing

    def write(self, data: Any) -> int:
        self._hashing.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True


def in_days(table: pyarrow.Table, day: date) -> pyarrow.Table:
    """The rows of one business day."""
    return table.filter(pc.equal(table["event_date"], pyarrow.scalar(day, pyarrow.date32())))


def in_order(table: pyarrow.Table, key: str) -> pyarrow.Table:
    """Rows by day and key, and by every other column where keys repeat: the same rows have the same order, however they came."""
    by_key = [("event_date", "ascending"), (key, "ascending")]
    ordered = table.sort_by(by_key)
    same_key = pc.equal(ordered[key].slice(1), ordered[key].slice(0, max(len(ordered) - 1, 0)))
    if not pc.any(same_key).as_py():  # no repeats (or another day's): most feeds, and the sort of all columns is dear
        return ordered
    others = [(name, "ascending") for name in table.schema.names if name not in ("event_date", key)]
    return table.sort_by([*by_key, *others])


def split_days(table: pyarrow.Table, days: Sequence[date]) -> dict[date, pyarrow.Table]:
    """The rows of each of `days`, without copies when the table is ordered by day."""
    values = table["event_date"].cast(pyarrow.int32()).combine_chunks().to_numpy(zero_copy_only=False)
    if len(values) and (np.diff(values) < 0).any():
        return {day: in_days(table, day) for day in days}
    wanted = np.array([(day - date(1970, 1, 1)).days for day in days], dtype=np.int32)
    starts, ends = np.searchsorted(values, wanted, "left"), np.searchsorted(values, wanted, "right")
    return {day: table.slice(start, end - start) for day, start, end in zip(days, starts, ends, strict=True)}


def contents(table: pyarrow.Table, days: Sequence[date], key: str | None = None) -> dict[date, DayContent]:
    """Rows and digest of each of `days`, but for `NOT_CONTENT`; with `key` in canonical order, without in the table's own."""
    own = table.drop_columns([name for name in NOT_CONTENT if name in table.schema.names])
    return {day: DayContent(len(rows), digest(rows, key)) for day, rows in split_days(own, days).items()}


def combined(digests: Sequence[str]) -> str:
    """One digest for several days, for the data version of a range run."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def to_json(found: Mapping[date, DayContent]) -> str:
    """As a commit carries it."""
    return json.dumps({day.isoformat(): [content.rows, content.digest] for day, content in sorted(found.items())})


def from_json(text: str) -> dict[date, DayContent]:
    """The reverse of `to_json`."""
    return {
        date.fromisoformat(day): DayContent(int(rows), str(found)) for day, (rows, found) in json.loads(text).items()
    }
