"""Dagster's SQLite event log with its connections kept open.

Dagster builds an engine and opens, commits and closes a connection for every event: 23 ms of CPU each, measured, of which
closing the last connection (a WAL checkpoint) and compiling every statement anew are most. A range run over a year writes
two events per asset and day, so `make run` spent more time on that than on the data. One class, one overridden method;
tests/contract pins the method it replaces. PostgreSQL deployments use Dagster's own storage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from dagster import DagsterInvariantViolationError
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SQLITE_BUSY_TIMEOUT_SECONDS

MAX_OPEN = 8  # one database per run: the newest stay open


class PooledSqliteEventLogStorage(SqliteEventLogStorage):
    """The same files and tables; engines are kept per database and writes are synchronised once per checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        super().__init__(*args, **kwargs)

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

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
        super().dispose()


if not hasattr(SqliteEventLogStorage, "_connect"):
    raise DagsterInvariantViolationError(
        "Dagster no longer has SqliteEventLogStorage._connect: use its own storage in dagster.yaml"
    )
