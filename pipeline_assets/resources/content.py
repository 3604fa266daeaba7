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

CHUNK_ROWS = (
    4096  # rows hashed at once, and part of what a digest means: a customer's packed candidates are 40 kB, so 0.2 GB
)


@dataclass(frozen=True)
class DayContent:
    """Content of one business day of one table."""

    rows: int
    digest: str


class Digesting:
    """SHA-256 of content that arrives in pieces; equal to `digest` of the whole, however it is cut."""

    def __init__(self, schema: pyarrow.Schema) -> None:
        self._schema = schema.remove_metadata()
        self._hashing = hashlib.sha256()
        sink = pyarrow.PythonFile(_HashSink(self._hashing), mode="w")
        self._writer = pyarrow.ipc.new_stream(sink, self._schema)
        self._waiting: list[pyarrow.Table] = []
        self.rows = 0

    def add(self, table: pyarrow.Table) -> None:
        """The next rows."""
        self.rows += len(table)
        self._waiting.append(table.replace_schema_metadata(None))
        if sum(map(len, self._waiting)) >= CHUNK_ROWS:
            whole = pyarrow.concat_tables(self._waiting)
            cut = len(whole) - len(whole) % CHUNK_ROWS
            for start in range(0, cut, CHUNK_ROWS):
                self._write(whole.slice(start, CHUNK_ROWS))
            self._waiting = [whole.slice(cut)]

    def hexdigest(self) -> str:
        """Of everything that was added; nothing can be added after it."""
        rest = pyarrow.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        if len(rest) or not self.rows:
            self._write(rest)
        self._writer.close()
        return self._hashing.hexdigest()

    def _write(self, table: pyarrow.Table) -> None:
        self._writer.write_table(pyarrow.table([_alone(column) for column in table.columns], schema=self._schema))


def _alone(column: pyarrow.ChunkedArray) -> pyarrow.Array:
    """The column in one piece, without what a slice carries of its neighbours, and nothing under nulls, which may have any value."""
    whole = column.combine_chunks()
    if not whole.null_count and not pyarrow.types.is_boolean(whole.type):
        return whole  # what is written of a slice is its own; half of the digest's time is copying
    return whole.take(pyarrow.arange(0, len(whole)))


def digest(table: pyarrow.Table, sort_by: str | None = None) -> str:
    """SHA-256 of a table's content: column names, types and values; chunking does not matter, row order does.

    `sort_by` makes the order canonical first.
    """
    digesting = Digesting(table.schema)
    digesting.add(table.sort_by(sort_by) if sort_by else table)
    return digesting.hexdigest()


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
    table = table.combine_chunks()  # sorting the nine chunks that a source delivers takes 1.7 times as long
    if is_ordered(table, key):
        return table
    order = pc.sort_indices(table, sort_keys=by_key)
    ordered_keys = table[key].take(order).combine_chunks()
    repeats = np.flatnonzero(pc.equal(ordered_keys.slice(1), ordered_keys.slice(0, max(len(table) - 1, 0))))
    if len(repeats):  # few rows, as a rule: sorting all of them by every column takes twice the time
        of_repeated = np.union1d(repeats, repeats + 1)
        order = order.to_numpy().copy()
        some = table.take(pyarrow.array(order[of_repeated]))
        others = [(name, "ascending") for name in table.schema.names if name not in ("event_date", key)]
        order[of_repeated] = order[of_repeated][pc.sort_indices(some, sort_keys=[*by_key, *others])]
    return table.take(order)


def is_ordered(table: pyarrow.Table, key: str) -> bool:
    """Whether rows ascend by day and key without a repetition: what was stored in order is not sorted again."""
    if len(table) < 2:
        return True
    day, value = table["event_date"].combine_chunks(), table[key].combine_chunks()
    is_later = pc.less(day.slice(0, len(table) - 1), day.slice(1))
    is_same = pc.equal(day.slice(0, len(table) - 1), day.slice(1))
    is_larger = pc.less(value.slice(0, len(table) - 1), value.slice(1))
    ascends = pc.or_kleene(is_later, pc.and_kleene(is_same, is_larger))
    return bool(pc.all(pc.fill_null(ascends, False)).as_py())


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
