"""The consumer's side of the lake: messages and the positions they were read up to, in one Delta commit.

Positions are Delta application transactions: every commit carries, for each partition it touches, the next offset and the
watermark. So the table itself says where to go on: a consumer that was killed before its commit reads the messages
again, one that was killed after it does not. delta-rs refuses a commit when another one has moved the same position since the
table was opened (measured: "Concurrent transaction failed"), so two consumers at once cannot land a message twice either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow
import tenacity

from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.lake_lock import shared

COMPACT_EVERY = 100  # commits: a day of half-minute batches is then some 130 files instead of 2,880
DEAD_LETTERS_TABLE = "stream/dead_letters"
Place = tuple[str, int]  # topic, partition
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def table_of(feed: str) -> str:
    """The lake table of a feed's messages."""
    return f"stream/{feed}"


@dataclass(frozen=True)
class Position:
    """How far one partition is landed.

    Args:
        next_offset: of the first message that is not landed.
        watermark: no message with an earlier event time is expected; None: nothing is known yet.
    """

    next_offset: int
    watermark: datetime | None = None


class Overtaken(Exception):
    """Another consumer has moved a position that this one was about to move. What it read is not landed; it goes on from the table."""


class StreamTable:
    """One snapshot of a table with positions. `commit` succeeds only if nobody moved them since."""

    def __init__(self, lake: Lake, table: str, schema: pyarrow.Schema, partition_by: str | None) -> None:
        import deltalake

        self._root, self._uri, self._schema = lake.root, lake.uri(table), schema
        self._partition_by = [partition_by] if partition_by else None
        if not lake.exists(table):
            deltalake.DeltaTable.create(self._uri, schema, partition_by=self._partition_by, mode="ignore")
        self._table = deltalake.DeltaTable(self._uri)

    def reload(self) -> None:
        """Look at the newest version."""
        import deltalake

        self._table = deltalake.DeltaTable(self._uri)

    def position(self, prefix: str, place: Place) -> Position | None:
        """What is stored for a partition; None: nothing of it was ever landed."""
        return stored_position(self._table, prefix, place)

    def commit(
        self,
        rows: pyarrow.Table,
        prefix: str,
        expected: Mapping[Place, Position | None],
        positions: Mapping[Place, Position],
        partitions: Mapping[str, int] | None = None,
    ) -> None:
        """Append rows and move positions, all or nothing.

        Args:
            expected: where the caller believes the partitions of `positions` are. The table may have moved on unnoticed: a commit
                leaves the newest version open, with whatever another consumer added right after it.
            partitions: how many partitions each topic has, so that a reader knows whose watermarks to ask for.

        Raises:
            Overtaken: another consumer was faster.
        """
        import deltalake

        transactions = {f"{prefix}{topic}/partitions": count for topic, count in (partitions or {}).items()}
        for (topic, partition), position in positions.items():
            app = f"{prefix}{topic}/{partition}"
            transactions[app] = position.next_offset
            if position.watermark is not None:
                transactions[f"{app}/watermark"] = (position.watermark - _EPOCH) // _MICROSECOND
        properties = deltalake.CommitProperties(
            app_transactions=[deltalake.Transaction(app, version) for app, version in transactions.items()]
        )

        @tenacity.retry(
            retry=tenacity.retry_if_exception_type(deltalake.exceptions.CommitFailedError),
            stop=tenacity.stop_after_attempt(8),
            wait=tenacity.wait_random_exponential(0.05, 2),
            reraise=True,
        )
        def write() -> None:
            if any(self.position(prefix, place) != expected[place] for place in positions):
                raise Overtaken
            try:
                deltalake.write_deltalake(
                    self._table,
                    rows,
                    mode="append",
                    partition_by=self._partition_by,
                    commit_properties=properties,
                )
            except deltalake.exceptions.CommitFailedError:
                self.reload()  # the next attempt sees whether it was one of these positions
                raise

        with shared(self._root):  # a consumer never ends: between two commits an erasure may be in the lake
            write()
            self.reload()
            if self._partition_by and self._table.version() % COMPACT_EVERY == 0:
                self._compact(rows)

    def _compact(self, rows: pyarrow.Table) -> None:
        """Join the small files of the days of these rows. Content and positions stay as they are."""
        import deltalake

        days = sorted({day.isoformat() for day in rows["event_date"].unique().to_pylist()})
        if not days:
            return
        # somebody else moved the table meanwhile: the next turn will do it
        with contextlib.suppress(deltalake.exceptions.CommitFailedError):
            self._table.optimize.compact(partition_filters=[("event_date", "in", days)])
        self.reload()


def stored_position(table: Any, prefix: str, place: Place) -> Position | None:
    """The position of a partition in an open Delta table."""
    app = f"{prefix}{place[0]}/{place[1]}"
    offset = table.transaction_version(app)
    if offset is None:
        return None
    stored = table.transaction_version(f"{app}/watermark")
    return Position(int(offset), None if stored is None else _EPOCH + stored * _MICROSECOND)


def watermark(lake: Lake, feed: str, topic: str) -> datetime | None:
    """The event time up to which every partition of a topic is landed; None: at least one has said nothing yet."""
    import deltalake

    table = deltalake.DeltaTable(lake.uri(table_of(feed)))
    partitions = table.transaction_version(f"{topic}/partitions")
    if not partitions:
        return None
    positions = [stored_position(table, "", (topic, partition)) for partition in range(partitions)]
    marks = [position.watermark if position else None for position in positions]
    known = [mark for mark in marks if mark is not None]
    return min(known) if len(known) == partitions else None
