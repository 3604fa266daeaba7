"""The tables of the release database: releases, rollouts, audit. The same statements run on SQLite (default) and PostgreSQL.

Belongs here: columns, indexes and the lock. Does not: what the rows mean (release_state, rollout_state, audit).
Partial unique indexes make two live releases or two open rollouts impossible, also for a writer that is not ours.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from pipeline_assets.recommender.errors import ConfigurationError

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
rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("candidate_id", sa.Integer, nullable=False),  # release on trial; a newer day of it replaces it
    sa.Column("model_version", sa.String, nullable=False),
    sa.Column("stage", sa.String(11), nullable=False),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("salt", sa.String, nullable=False),
    sa.Column("is_open", sa.Boolean, nullable=True),  # true or null: nulls are distinct in a unique index
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("started_at", sa.String(32), nullable=False),
    sa.Column("entered_at", sa.String(32), nullable=False),  # when this stage began
    sa.Column("revision", sa.Integer, nullable=False),  # raised by every change: who has an older one has no effect
)
sa.Index("rollouts_one_open", rollouts.c.is_open, unique=True)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without gaps
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("details", sa.String, nullable=False),  # JSON
    sa.Column("previous", sa.String(64), nullable=False),  # digest of the row before
    sa.Column("digest", sa.String(64), nullable=False),
)


def open_state(url: str) -> sa.Engine:
    """An engine on the release database, whose tables are created where they are missing (with the folder, for SQLite).

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, pool_pre_ping=True)
    try:
        metadata.create_all(engine)
    except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
        metadata.create_all(engine)  # another process created a table between the look and the creation
    return engine


def serialise(connection: sa.Connection) -> None:
    """One writer at a time, from before the first look until commit."""
    if connection.dialect.name == "sqlite":
        connection.execute(releases.update().where(releases.c.id < 0).values(state="retired"))  # takes the write lock
    else:
        connection.execute(sa.text("LOCK TABLE releases IN SHARE ROW EXCLUSIVE MODE"))


def as_text(moment: datetime) -> str:
    """A moment as the tables keep it.

    Raises:
        ConfigurationError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ConfigurationError(
            "recorded_at", found=moment.isoformat(), wanted="a timestamp with a time zone", fix="pass an aware datetime"
        )
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
