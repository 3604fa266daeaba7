"""Which bundle is live, on a real SQLite file."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.serving.release_state import (
    Release,
    current_live,
    history,
    open_state,
    record_live,
    record_refused,
    releases,
)

NOW = datetime(2017, 11, 6, 1, 0, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return open_state(f"sqlite:///{tmp_path / 'new' / 'release.db'}")


def live(engine: sa.Engine, as_of: str, version: str = "m1", force: bool = False, minutes: int = 0) -> Release:
    """Record m1-<as_of> as live."""
    return record_live(
        engine,
        bundle_path=f"/bundles/{version}-{as_of}",
        model_version=version,
        as_of=as_of,
        recommendations_path=f"/recommendations/{as_of}.parquet",
        recorded_at=NOW + timedelta(minutes=minutes),
        force=force,
    )


def test_nothing_is_live_at_first(engine: sa.Engine) -> None:
    """A new table is empty; its folder was made."""
    assert current_live(engine) is None
    assert history(engine) == []


def test_newer_day_replaces_the_older(engine: sa.Engine) -> None:
    """Two days in order: the second is live, the first is retired, and the time comes back with its zone."""
    live(engine, "2017-11-05")
    second = live(engine, "2017-11-06", minutes=1)
    assert current_live(engine) == second
    assert second.recorded_at == NOW + timedelta(minutes=1)
    assert [(row.as_of, row.state) for row in history(engine)] == [("2017-11-06", "live"), ("2017-11-05", "retired")]


def test_backfill_never_moves_live_back(engine: sa.Engine) -> None:
    """Days 7, 5, 6 in this order: 7 stays live, the others are recorded with the reason."""
    for day in ("2017-11-07", "2017-11-05", "2017-11-06"):
        last = live(engine, day)
    assert last.state == "skipped"
    assert "older than the live 2017-11-07" in last.reason
    current = current_live(engine)
    assert current is not None
    assert current.as_of == "2017-11-07"


def test_force_rolls_back(engine: sa.Engine) -> None:
    """A person may go back to the older day."""
    live(engine, "2017-11-06")
    assert live(engine, "2017-11-05", force=True).state == "live"
    current = current_live(engine)
    assert current is not None
    assert current.as_of == "2017-11-05"


def test_another_model_may_be_older(engine: sa.Engine) -> None:
    """A rollback to model m0 is a new decision: the order of days holds within one model."""
    live(engine, "2017-11-06")
    assert live(engine, "2017-11-05", version="m0").state == "live"


def test_recording_what_is_live_changes_nothing(engine: sa.Engine) -> None:
    """A double trigger has one effect."""
    first = live(engine, "2017-11-05")
    assert live(engine, "2017-11-05", minutes=5) == first
    assert len(history(engine)) == 1


def test_refusal_is_recorded_and_live_stays(engine: sa.Engine) -> None:
    """The reason is kept for whoever asks why the day was not released."""
    first = live(engine, "2017-11-05")
    refused = record_refused(
        engine, bundle_path="/b", model_version="m1", as_of="2017-11-06", reason="SIGABRT", recorded_at=NOW
    )
    assert (refused.state, refused.reason, refused.recommendations_path) == ("refused", "SIGABRT", None)
    assert current_live(engine) == first


def test_time_without_zone_is_refused(engine: sa.Engine) -> None:
    """A naive time would mean something else on each machine."""
    with pytest.raises(ConfigurationError, match="time zone"):
        record_refused(
            engine,
            bundle_path="/b",
            model_version="m1",
            as_of="2017-11-06",
            reason="",
            recorded_at=datetime(2017, 11, 6),
        )


def test_database_refuses_two_live_rows(engine: sa.Engine) -> None:
    """The partial unique index holds even for a writer that does not use our functions."""
    live(engine, "2017-11-05")
    statement = releases.insert().values(
        bundle_path="/b", model_version="m1", as_of="2017-11-06", state="live", reason="", recorded_at="x"
    )
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(statement)


def test_concurrent_writers_end_with_the_newest_day(engine: sa.Engine) -> None:
    """Eight threads record eight days at once: nobody fails, and day 8 is live."""
    failures: list[BaseException] = []

    def write(day: int) -> None:
        try:
            live(engine, f"2017-11-0{day}")
        except sa.exc.SQLAlchemyError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(day,)) for day in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [row.as_of for row in history(engine) if row.state == "live"] == ["2017-11-08"]
    assert len(history(engine)) == 8
