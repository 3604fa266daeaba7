"""Rows of one day on their way to the lake: one Parquet file in the table's folder, written from front to back, unread until a commit adds it.

A commit carries the digest of its rows and may have to be repeated, so the file is complete before it begins. Delta's own writer is not
used: it held everything that it was given (2.0 GB for 1 GB of packed candidates, whatever the size of batches, row groups and files).
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.fs
import pyarrow.parquet

from pipeline_assets.resources.content import DayContent, Digesting

if TYPE_CHECKING:
    from deltalake.transaction import AddAction

ROW_GROUP = 512  # rows; a customer's packed candidates are 26 kB, so a writer holds 13 MB


class DayFile:
    """One data file of a table partitioned by event_date. A context: without `finish`, what was written is removed at the end.

    Args:
        uri: the table's folder, local or of an object store.
        schema: of the table, event_date included.
        row_group: rows that are written, and read again, together; each `add` begins a new group.
    """

    def __init__(self, uri: str, schema: pyarrow.Schema, day: date, row_group: int = ROW_GROUP) -> None:
        self.schema, self.day, self._row_group = schema, day, row_group
        self._name = f"event_date={day}/part-{uuid.uuid4()}.parquet"
        self._files, folder = (
            pyarrow.fs.FileSystem.from_uri(uri) if "://" in uri else (pyarrow.fs.LocalFileSystem(), uri)
        )
        self._path = f"{folder}/{self._name}"
        self.address = f"{uri.rstrip('/')}/{self._name}"
        self._files.create_dir(f"{folder}/event_date={day}", recursive=True)
        self._digesting = Digesting(schema)
        stored = schema.remove(schema.get_field_index("event_date"))
        # no dictionary and no minimum of bytes that never repeat
        plain = [_leaf(field) for field in stored if not pyarrow.types.is_binary(field.type)]
        self._finished = False
        self._writer = pyarrow.parquet.ParquetWriter(
            self._path,
            stored,
            filesystem=self._files,
            compression="lz4",  # zstd: a third smaller; twice the time to write, and to read
            use_dictionary=plain,
            write_statistics=plain,
        )

    def __enter__(self) -> DayFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._finished:
            self._writer.close()
            self._files.delete_file(self._path)

    def add(self, rows: pyarrow.Table) -> None:
        """The next rows, in the order that the digest is of."""
        rows = rows.select(self.schema.names).cast(self.schema)
        self._digesting.add(rows)
        self._writer.write_table(rows.drop_columns(["event_date"]), row_group_size=self._row_group)

    def finish(self) -> DayContent:
        """Nothing follows; how many rows there are, and their digest."""
        content = DayContent(self._digesting.rows, self._digesting.hexdigest())
        self._writer.close()
        self._finished = True
        return content

    def action(self) -> AddAction:
        """What a commit says of the finished file."""
        from deltalake.transaction import AddAction

        return AddAction(
            path=self._name,
            size=self._files.get_file_info(self._path).size,
            partition_values={"event_date": self.day.isoformat()},
            modification_time=int(time.time() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": self._digesting.rows}),
        )


def _leaf(field: pyarrow.Field) -> str:
    return f"{field.name}.list.element" if pyarrow.types.is_list(field.type) else str(field.name)


def blob_writer(schema: pyarrow.Schema) -> Any:
    """How Delta is to write tables with a column of bytes: no dictionary and no minimum of values that never repeat (0.2 CPU s a day less)."""
    import deltalake

    blobs = [field.name for field in schema if pyarrow.types.is_binary(field.type)]
    if not blobs:
        return None
    plain = deltalake.ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
    return deltalake.WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=ROW_GROUP,
        column_properties=dict.fromkeys(blobs, plain),
    )
