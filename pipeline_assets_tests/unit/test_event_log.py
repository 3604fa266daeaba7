"""The event log that stores the events of a range run together: same events as Dagster's own, or none of them."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from pipeline_assets.resources.event_log import PooledSqliteEventLogStorage

DAYS = [str(date(2017, 1, 1) + timedelta(days=n)) for n in range(5)]
KEY = dg.AssetKey("table")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[PooledSqliteEventLogStorage]:
    storage = PooledSqliteEventLogStorage(str(tmp_path))
    yield storage
    storage.dispose()


def events(run_id: str) -> list[dg.EventLogEntry]:
    """One materialisation a day, as a range run makes them."""
    from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData

    found = []
    for n, day in enumerate(DAYS):
        data = StepMaterializationData(dg.AssetMaterialization(KEY, partition=day, metadata={"rows": n}))
        event = DagsterEvent(DagsterEventType.ASSET_MATERIALIZATION.value, "job", event_specific_data=data)
        found.append(dg.EventLogEntry(None, 10, "", run_id, float(n + 1), dagster_event=event))
    return found


def newest(storage: PooledSqliteEventLogStorage) -> str | None:
    """The partition that the asset's own entry calls its newest."""
    (record,) = storage.get_asset_records([KEY])
    entry = record.asset_entry.last_materialization
    assert entry is not None
    assert entry.asset_materialization is not None
    return entry.asset_materialization.partition


def test_a_batch_is_stored_like_single_events(storage: PooledSqliteEventLogStorage, tmp_path: Path) -> None:
    """Five days at once and one by one: the same partitions, the same events of the run, the same newest one."""
    other = PooledSqliteEventLogStorage(str(tmp_path / "other"))
    storage.store_event_batch(events("run"))
    for event in events("run"):
        other.store_event(event)
    for one in (storage, other):
        assert one.get_materialized_partitions(KEY) == set(DAYS)
        assert len(one.get_records_for_run("run").records) == 5
        assert newest(one) == DAYS[-1]
    other.dispose()


def test_a_batch_that_fails_leaves_nothing(
    storage: PooledSqliteEventLogStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of five cannot be stored: the first two are not there either, and the next batch is stored as ever."""
    store, seen = PooledSqliteEventLogStorage.store_event, list[dg.EventLogEntry]()

    def failing(self: PooledSqliteEventLogStorage, event: dg.EventLogEntry) -> None:
        seen.append(event)
        if len(seen) == 3:
            raise OSError("disk full")
        store(self, event)

    with monkeypatch.context() as patch:
        patch.setattr(PooledSqliteEventLogStorage, "store_event", failing)
        with pytest.raises(OSError, match="disk full"):
            storage.store_event_batch(events("run"))
    assert storage.get_materialized_partitions(KEY) == set()
    assert len(storage.get_records_for_run("run").records) == 0
    storage.store_event_batch(events("run"))
    assert storage.get_materialized_partitions(KEY) == set(DAYS)


def schema(place: Path) -> list[tuple[str, ...]]:
    """All that a database says of itself: statements of its tables and indexes, Alembic's revision, the journal."""
    with closing(sqlite3.connect(place)) as connection:
        made = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return [*made, *revision, *connection.execute("PRAGMA journal_mode").fetchall()]


def test_a_runs_database_is_as_dagster_creates_it(storage: PooledSqliteEventLogStorage, tmp_path: Path) -> None:
    """The copy of an empty database has Dagster's tables, indexes and revision, and none of its events are another run's."""
    own = SqliteEventLogStorage(str(tmp_path / "own"))
    for run_id in ("one", "two"):
        own.store_event_batch(events(run_id))
        storage.store_event_batch(events(run_id))
    assert schema(tmp_path / "two.db") == schema(tmp_path / "own" / "two.db")
    assert set(storage.get_all_run_ids()) == {"one", "two"}
    assert [len(storage.get_records_for_run(run_id).records) for run_id in ("one", "two")] == [5, 5]
    own.dispose()


def test_a_database_that_another_process_began_is_kept(storage: PooledSqliteEventLogStorage, tmp_path: Path) -> None:
    """Two processes open a new run's database at once: who comes second finds the events of the first."""
    other = PooledSqliteEventLogStorage(str(tmp_path))
    empty = PooledSqliteEventLogStorage._empty

    def late(self: PooledSqliteEventLogStorage) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PooledSqliteEventLogStorage, "_empty", empty)
            other.store_event_batch(events("run"))  # after the second one has looked, and before it has copied
        return empty(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PooledSqliteEventLogStorage, "_empty", late)
        storage.store_event_batch(events("run"))
    assert len(storage.get_records_for_run("run").records) == 10
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []
    other.dispose()


def test_where_there_are_no_hard_links_dagster_makes_the_database(
    storage: PooledSqliteEventLogStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems refuse links: the run has its events all the same."""

    def refused(_source: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("pipeline_assets.resources.event_log.os.link", refused)
    storage.store_event_batch(events("run"))
    assert len(storage.get_records_for_run("run").records) == 5
