"""Who changed what is served, and why: rows that are only ever added, each with the digest of the row before.

Belongs here: adding a row in the transaction of the change, reading, verifying the chain. Does not: the changes.
A row that is edited, removed or put in later breaks the chain at that place, and `verify` names it. Rows cut off at the
end leave a whole, shorter chain: keep the newest digest (`audit verify` prints it) outside the database to see that too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from pipeline_assets.serving.release_tables import as_text, audit, serialise

Action = Literal["start", "advance", "promote", "rollback", "approve", "erase", "config"]
FIRST = "0" * 64  # what the first row has as the digest before it


@dataclass(frozen=True)
class Entry:
    """One row. `digest` is SHA-256 over all other fields."""

    id: int
    at: str
    actor: str
    action: Action
    subject: str
    reason: str
    details: str
    previous: str
    digest: str

    @property
    def expected_digest(self) -> str:
        fields = asdict(self)
        del fields["digest"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Verified:
    """How many rows hold together, the newest digest, and the first row that does not fit (None: all do)."""

    rows: int
    head: str
    broken_at: int | None
    problem: str


def record(
    connection: sa.Connection,
    *,
    actor: str,
    action: Action,
    subject: str,
    reason: str,
    at: datetime,
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """Add a row in the caller's transaction, so that a change and its row exist together or not at all.

    Args:
        subject: what was changed, such as 'rollout 3'; details: figures, no secrets and no customer data.

    Raises:
        ConfigurationError: `at` has no time zone.
    """
    serialise(connection)
    last = connection.execute(sa.select(audit).order_by(audit.c.id.desc()).limit(1)).one_or_none()
    values: dict[str, Any] = {
        "id": last.id + 1 if last else 1,
        "at": as_text(at),
        "actor": actor,
        "action": action,
        "subject": subject,
        "reason": reason,
        "details": json.dumps(dict(details or {}), sort_keys=True),
        "previous": last.digest if last else FIRST,
    }
    entry = Entry(**values, digest="")
    entry = Entry(**values, digest=entry.expected_digest)
    connection.execute(audit.insert().values(**asdict(entry)))
    return entry


def entries(engine: sa.Engine, limit: int | None = None) -> list[Entry]:
    """The newest `limit` rows (None: all), oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(audit).order_by(audit.c.id.desc()).limit(limit)).all()
    return [Entry(**dict(row._mapping)) for row in reversed(rows)]


def verify(engine: sa.Engine) -> Verified:
    """Walk the chain from its first row."""
    previous, expected_id, rows = FIRST, 1, entries(engine)
    for count, row in enumerate(rows):
        problem = ""
        if row.id != expected_id:
            problem = f"row {expected_id} is missing"
        elif row.previous != previous:
            problem = f"row {row.id} does not follow row {row.id - 1}"
        elif row.digest != row.expected_digest:
            problem = f"row {row.id} was changed: {row.action} of {row.subject} by {row.actor}"
        if problem:
            return Verified(count, previous, expected_id, problem)
        previous, expected_id = row.digest, row.id + 1
    return Verified(len(rows), previous, None, "")
