"""Rows of one day that are too many for memory, on their way to the lake.

A commit carries the digest of its rows, and may have to be repeated when another writer was faster, so the rows are complete
in a local file before it begins.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.ipc

from pipeline_assets.resources.content import DayContent, Digesting


class Spool:
    """One Arrow file, written once from front to back, then read as often as needed."""

    def __init__(self, file: Path, schema: pyarrow.Schema) -> None:
        self.schema, self._file = schema, file
        self._digesting = Digesting(schema)
        options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pyarrow.ipc.new_stream(str(file), schema, options=options)

    def add(self, rows: pyarrow.Table) -> None:
        """The next rows, in the order that the digest is of."""
        self._digesting.add(rows)
        self._writer.write_table(rows, max_chunksize=1024)

    def finish(self) -> DayContent:
        """Nothing follows; how many rows there are, and their digest."""
        self._writer.close()
        return DayContent(self._digesting.rows, self._digesting.hexdigest())

    def reader(self) -> pyarrow.RecordBatchReader:
        """All rows, a thousand at a time."""
        return pyarrow.ipc.open_stream(str(self._file))
