"""Dagster's SQLite event log with its connections kept open, the events of a range run stored together, and a run's database copied.

Dagster builds an engine and opens, commits and closes a connection for every event, of which closing the last connection (a WAL
checkpoint) and compiling every statement anew are most. A range run over a year writes two events per asset and day, so `make run`
spent more time on that than on the data. Connections that stay open and one transaction for a batch of events take a sixth of it
(docs/adr/0008-event-log-connections.md, with the measurements). Every run has a database of its own; copying an empty one instead of
creating its tables and stamping them with Alembic is what makes short runs cheap.
PostgreSQL deployments use Dagster's own storage.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterInvariantViolationError, EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SQLITE_BUSY_TIMEOUT_SECONDS

MAX_OPEN = 8  # one database per run: the newest stay open
EMPTY = f"empty-run-{dg.__version__}"  # beside the runs' databases, without their suffix: Dagster lists *.db


class PooledSqliteEventLogStorage(SqliteEventLogStorage):
    """The same files and tables; engines are kept per database and writes are synchronised once per checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        self._held: dict[str, sa.Connection] | None = None  # shard -> connection of the batch that is being stored
        self._newest: set[int] = set()  # of that batch, the events that are the last of their asset
        super().__init__(*args, **kwargs)
        self._db_lock = threading.RLock()  # a batch holds it while its events take it one by one

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> PooledSqliteEventLogStorage:
        return cls(inst_data=inst_data, **config_value)

    def _engine(self, shard: str) -> sa.Engine:
        if shard in self._engines:
            self._engines.move_to_end(shard)
            return self._engines[shard]
        engine = sa.create_engine(
            self.conn_string_for_shard(shard),
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)

        @sa.event.listens_for(engine, "connect")
        def _relax(connection: Any, _record: Any) -> None:
            # NORMAL with WAL cannot corrupt; after a power cut the newest events may be missing, and the run is repeated
            connection.execute("PRAGMA synchronous=NORMAL")

        self._engines[shard] = engine
        while len(self._engines) > MAX_OPEN:
            self._engines.popitem(last=False)[1].dispose()
        return engine

    def _initdb(self, engine: sa.Engine, for_index_shard: bool = False) -> None:
        place = Path(str(engine.url.database))
        if for_index_shard or place.exists():
            super()._initdb(engine, for_index_shard)
            return
        try:
            with tempfile.TemporaryDirectory(prefix="run-", dir=place.parent) as folder:
                copy = shutil.copyfile(self._empty(), Path(folder) / "copy")
                os.link(copy, place)  # unlike a rename it never replaces what another process has begun to write
        except (
            OSError
        ):  # another process was faster, there are no hard links here, or no room: Dagster's way, with its errors
            super()._initdb(engine)

    def _empty(self) -> Path:
        """A database as Dagster creates it for a run; made by whoever needs it first."""
        place = Path(self._base_dir) / EMPTY
        if not place.exists():
            with tempfile.TemporaryDirectory(prefix="run-", dir=self._base_dir) as folder:
                new = Path(folder) / EMPTY
                engine = sa.create_engine(f"sqlite:///{new}", poolclass=sa.NullPool)  # closed: all of it is in one file
                super()._initdb(engine)
                engine.dispose()
                new.replace(place)
        return place

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock:
            if self._held is None:
                with self._engine(shard).connect() as connection, connection.begin():
                    yield connection
            else:
                if shard not in self._held:
                    self._held[shard] = self._engine(shard).connect()
                    self._held[shard].begin()
                yield self._held[shard]

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """The events of one batch in one transaction per database, and each asset's newest event once."""
        with self._db_lock:
            newest = {event.dagster_event.asset_key: id(event) for event in events if event.dagster_event}
            self._held, self._newest = {}, set(newest.values())
            try:
                super().store_event_batch(events)
                for connection in self._held.values():
                    connection.commit()
            finally:
                held, self._held = self._held, None
                for connection in held.values():
                    connection.close()  # without a commit: rolled back

    def _store_asset_event(self, conn: sa.Connection, event: EventLogEntry, event_id: int) -> None:
        if self._held is None or id(event) in self._newest:
            super()._store_asset_event(conn, event, event_id)

    def dispose(self) -> None:
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
        super().dispose()


for _name in ("_connect", "_initdb", "_store_asset_event", "store_event_batch"):
    if not hasattr(SqliteEventLogStorage, _name):
        raise DagsterInvariantViolationError(
            f"Dagster no longer has SqliteEventLogStorage.{_name}: use its own storage in dagster.yaml"
        )
