"""Opening Delta tables and reading rows of them, through delta-rs.

Belongs here: handles, filters. Does not: which tables there are, and how they are written (lake.py).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow

if TYPE_CHECKING:
    import pyarrow.dataset
    from deltalake import DeltaTable

Filter = tuple[str, str, Any]  # column, operator, value
_Log = tuple[int, int, int]  # device, inode and time of change of a table's log folder

KEPT = 64  # handles of tables, or of states of them, that stay in this process
# A log that changed so recently may change again under the same time of change: kernels stamp with their clock's tick, up to 10 ms apart, and
# some file systems keep whole seconds only.
SETTLED_NS, SETTLED_WHOLE_SECONDS_NS = 50_000_000, 2_000_000_000


def between(start: date | None, end: date | None) -> list[Filter]:
    """Of the days from `start` to `end`, both included; None: no limit."""
    limits = ((">=", start), ("<=", end))
    return [("event_date", operator, day) for operator, day in limits if day]


def opened(uri: str) -> DeltaTable:
    """The newest version of a table, to read and not to write: the handle of the last call while the table's log folder is as it was then.

    A read of some days is mostly the reading of the log (docs/adr/0001-lake.md). Only a local folder tells by its time of change that nothing was
    committed; a table on an object store is opened each time.
    """
    from deltalake import DeltaTable

    log = _log(uri)
    return _of(uri, log) if log and _has_settled(log[-1]) else DeltaTable(uri)


@lru_cache(maxsize=KEPT)
def _of(uri: str, log: _Log) -> DeltaTable:
    """Opened after `log` was looked at: a commit in between is in the handle, and under another `log` the next time."""
    from deltalake import DeltaTable

    return DeltaTable(uri)


def _has_settled(changed_ns: int) -> bool:
    wait = SETTLED_NS if changed_ns % 1_000_000_000 else SETTLED_WHOLE_SECONDS_NS
    return time.time_ns() - changed_ns > wait


def _log(uri: str) -> _Log | None:
    """None: not a local folder, or there is none."""
    if "://" in uri:
        return None
    try:
        found = (Path(uri) / "_delta_log").stat()
    except OSError:  # delta-rs says what is wrong
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def rows_of(table: DeltaTable, filters: Sequence[Filter], columns: list[str] | None = None) -> pyarrow.Table:
    """The rows that pass all filters. `to_pyarrow_table` would set up every file of the table with its statistics first, nine times the CPU time
    for one day of half a year (docs/adr/0001-lake.md)."""
    from pyarrow.parquet import filters_to_expression

    chosen = list(filters)
    return _dataset(table, chosen or None).to_table(
        columns=columns, filter=filters_to_expression(chosen) if chosen else None
    )


def _dataset(table: DeltaTable, filters: list[Filter] | None) -> pyarrow.dataset.Dataset:
    """The files that can have rows. Delta's own dataset reads them through Python, and has an expression of every column's bounds in every file.
    It is for object stores, and for tables that only a newer reader understands."""
    import pyarrow.dataset
    import pyarrow.fs

    files = table.file_uris(file_pruning_predicate=filters)
    if not files or "://" in files[0] or table.protocol().min_reader_version > 1:
        return table.to_pyarrow_dataset(file_pruning_predicate=filters)
    schema = pyarrow.schema(table.schema().to_arrow())
    in_path = pyarrow.schema([schema.field(name) for name in table.metadata().partition_columns])
    return pyarrow.dataset.dataset(
        [unquote(file) for file in files],
        schema=schema,
        format="parquet",
        partitioning=pyarrow.dataset.partitioning(in_path, flavor="hive"),
        partition_base_dir=unquote(table.table_uri.removeprefix("file://")),
        filesystem=pyarrow.fs.LocalFileSystem(),
    )
