"""Which bundle is live: one small table, written by the deployment assets, polled by the API.

Belongs here: the table `releases` and its four functions. Does not: judging a bundle (probe, promotion) or loading it.
The same statements run on SQLite (default) and PostgreSQL; a partial unique index makes two live rows impossible.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from pipeline_assets.recommender.errors import ConfigurationError

State = Literal["live", "retired", "refused"]

metadata = sa.MetaData()
releases = sa.Table(
    "releases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("bundle_path", sa.String, nullable=False),
    sa.Column("model_version", sa.String, nullable=False),
    sa.Column("as_of", sa.String(10), nullable=False),  # ISO date, so text order is time order
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("recommendations_path", sa.String, nullable=True),
    sa.Column("recorded_at", sa.String(32), nullable=False),  # ISO 8601, UTC: SQLite has no time zones
)
sa.Index(
    "releases_one_live",
    releases.c.state,
    unique=True,
    sqlite_where=releases.c.state == "live",
    postgresql_where=releases.c.state == "live",
)


@dataclass(frozen=True)
class Release:
    """One row: a bundle that is, was or was not allowed to be live."""

    id: int
    bundle_path: str
    model_version: str
    as_of: str
    state: State
    reason: str
    recommendations_path: str | None
    recorded_at: datetime


def open_state(url: str) -> sa.Engine:
    """An engine on the release table, which is created where it is missing (with the folder, for SQLite).

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, pool_pre_ping=True)
    metadata.create_all(engine)
    return engine


def record_live(
    engine: sa.Engine,
    *,
    bundle_path: str,
    model_version: str,
    as_of: str,
    recommendations_path: str | None,
    recorded_at: datetime,
    reason: str = "",
    force: bool = False,
) -> Release:
    """Make a bundle live and retire the one before, in one transaction; the returned row says what happened.

    A bundle of the same model with an older as-of than the live one is recorded as 'retired' and the live one stays, so
    a backfill in any order ends with the newest day live; `force` (a rollback by a person) overrides. Recording what is
    live already changes nothing.

    Args:
        as_of: business day 'YYYY-MM-DD'.
        recommendations_path: Parquet of batch recommendations of the release, the first fallback.
        recorded_at: aware timestamp.

    Raises:
        ConfigurationError: `recorded_at` has no time zone.
    """
    values = {
        "bundle_path": bundle_path,
        "model_version": model_version,
        "as_of": as_of,
        "recommendations_path": recommendations_path,
        "recorded_at": _utc(recorded_at),
    }
    with engine.begin() as connection:
        _serialise(connection)
        live = _select_live(connection)
        if live and all(getattr(live, key) == values[key] for key in ("bundle_path", "recommendations_path")):
            return live
        if live and live.model_version == model_version and as_of < live.as_of and not force:
            return _insert(connection, **values, state="retired", reason=f"older than the live {live.as_of}; {reason}")
        connection.execute(releases.update().where(releases.c.state == "live").values(state="retired"))
        return _insert(connection, **values, state="live", reason=reason)


def record_refused(
    engine: sa.Engine, *, bundle_path: str, model_version: str, as_of: str, reason: str, recorded_at: datetime
) -> Release:
    """Record why a bundle may not be live; what is live stays.

    Raises:
        ConfigurationError: `recorded_at` has no time zone.
    """
    values = {"bundle_path": bundle_path, "model_version": model_version, "as_of": as_of, "reason": reason}
    with engine.begin() as connection:
        return _insert(connection, **values, state="refused", recommendations_path=None, recorded_at=_utc(recorded_at))


def current_live(engine: sa.Engine) -> Release | None:
    """The live release, or None before the first."""
    with engine.connect() as connection:
        return _select_live(connection)


def history(engine: sa.Engine, limit: int = 100) -> list[Release]:
    """The newest `limit` rows, newest first."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(releases).order_by(releases.c.id.desc()).limit(limit))
        return [_release(row) for row in rows]


def _serialise(connection: sa.Connection) -> None:
    """One writer at a time, from before the comparison of as-of days until commit."""
    if connection.dialect.name == "sqlite":
        connection.execute(releases.update().where(releases.c.id < 0).values(state="retired"))  # takes the write lock
    else:
        connection.execute(sa.text("LOCK TABLE releases IN SHARE ROW EXCLUSIVE MODE"))


def _select_live(connection: sa.Connection) -> Release | None:
    row = connection.execute(sa.select(releases).where(releases.c.state == "live")).one_or_none()
    return _release(row) if row else None


def _insert(connection: sa.Connection, **values: Any) -> Release:
    return _release(connection.execute(releases.insert().values(**values).returning(*releases.c)).one())


def _release(row: sa.Row[Any]) -> Release:
    values = dict(row._mapping)
    return Release(**{**values, "recorded_at": datetime.fromisoformat(values["recorded_at"])})


def _utc(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ConfigurationError(
            "recorded_at", found=moment.isoformat(), wanted="a timestamp with a time zone", fix="pass an aware datetime"
        )
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
