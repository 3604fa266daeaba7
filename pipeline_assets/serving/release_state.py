"""Which bundle is live: one table, written by the deployment assets, polled by the API.

Belongs here: releases and their states. Does not: a new model's way to live (rollout_state), judging a bundle (probe,
promotion) or loading it (live).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from pipeline_assets.serving.release_tables import as_text, open_state, releases, serialise

__all__ = ["Release", "State", "current_live", "history", "open_state", "record_live", "record_refused", "releases"]

# live: served. retired, reverted: was live, and was replaced or rolled back. trial: on its way, in an open rollout.
# aborted: its rollout was rolled back. skipped: older than what is there. refused: by its probe or by policy.
State = Literal["live", "retired", "reverted", "trial", "aborted", "skipped", "refused"]
WAS_LIVE = ("retired", "reverted")


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

    A bundle of the same model with an older as-of than the live one is recorded as 'skipped' and the live one stays, so
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
        "recorded_at": as_text(recorded_at),
    }
    with engine.begin() as connection:
        serialise(connection)
        live = select_live(connection)
        if live and all(getattr(live, key) == values[key] for key in ("bundle_path", "recommendations_path")):
            return live
        if live and live.model_version == model_version and as_of < live.as_of and not force:
            return insert(connection, **values, state="skipped", reason=f"older than the live {live.as_of}; {reason}")
        connection.execute(releases.update().where(releases.c.state == "live").values(state="retired"))
        return insert(connection, **values, state="live", reason=reason)


def record_refused(
    engine: sa.Engine, *, bundle_path: str, model_version: str, as_of: str, reason: str, recorded_at: datetime
) -> Release:
    """Record why a bundle may not be live; what is live stays.

    Raises:
        ConfigurationError: `recorded_at` has no time zone.
    """
    values = {"bundle_path": bundle_path, "model_version": model_version, "as_of": as_of, "reason": reason}
    with engine.begin() as connection:
        return insert(
            connection, **values, state="refused", recommendations_path=None, recorded_at=as_text(recorded_at)
        )


def current_live(engine: sa.Engine) -> Release | None:
    """The live release, or None before the first."""
    with engine.connect() as connection:
        return select_live(connection)


def history(engine: sa.Engine, limit: int = 100) -> list[Release]:
    """The newest `limit` rows, newest first."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(releases).order_by(releases.c.id.desc()).limit(limit))
        return [release_of(row) for row in rows]


def select_live(connection: sa.Connection) -> Release | None:
    """The live release."""
    row = connection.execute(sa.select(releases).where(releases.c.state == "live")).one_or_none()
    return release_of(row) if row else None


def insert(connection: sa.Connection, **values: Any) -> Release:
    """A new row."""
    return release_of(connection.execute(releases.insert().values(**values).returning(*releases.c)).one())


def release_of(row: sa.Row[Any]) -> Release:
    """A row as a value."""
    values = dict(row._mapping)
    return Release(**{**values, "recorded_at": datetime.fromisoformat(values["recorded_at"])})
