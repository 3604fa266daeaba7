"""A new model's way to live, stored: who is on trial, in which stage, and every change with its audit row.

Belongs here: transactions. Does not: deciding (rollout.py), looking at evidence, probing a bundle.
Each change is one transaction that holds the writers' lock, so that a kill leaves the state before or after it, and two
sensors, or a sensor and a person, have one effect: who decided on an older revision changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.serving import audit
from pipeline_assets.serving.release_state import WAS_LIVE, Release, insert, release_of, select_live
from pipeline_assets.serving.release_tables import as_text, releases, rollouts, serialise
from pipeline_assets.serving.rollout import FULL, ROLLED_BACK, SHADOW, RolloutPolicy, RolloutState

DIFFERENT_FEATURES = (
    "its feature list differs from the live one's, and both arms read one online store: `release promote --release` "
    "puts it live at once"
)


@dataclass(frozen=True)
class Rollout:
    """One row: a model version on its way, or how it ended."""

    id: int
    candidate_id: int
    model_version: str
    state: RolloutState
    salt: str
    reason: str
    started_at: datetime
    entered_at: datetime
    revision: int


@dataclass(frozen=True)
class View:
    """What is to be served, read in one transaction."""

    live: Release | None
    rollout: Rollout | None  # the open one
    candidate: Release | None  # on trial in it


@dataclass(frozen=True)
class Offered:
    """A bundle that passed its probe and wants to be served. `as_of`: business day 'YYYY-MM-DD'."""

    bundle_path: str
    model_version: str
    as_of: str
    recommendations_path: str | None


def view(engine: sa.Engine) -> View:
    """What is live and on trial now."""
    with engine.connect() as connection:
        rollout = _select_open(connection)
        return View(select_live(connection), rollout, _get(connection, rollout.candidate_id) if rollout else None)


def newest(engine: sa.Engine) -> Rollout | None:
    """The newest rollout, open or ended."""
    with engine.connect() as connection:
        row = connection.execute(sa.select(rollouts).order_by(rollouts.c.id.desc()).limit(1)).one_or_none()
        return _rollout(row) if row else None


def offer(
    engine: sa.Engine,
    offered: Offered,
    policy: RolloutPolicy | None,
    *,
    salt: str,
    fits: bool,
    actor: str,
    at: datetime,
) -> Release:
    """What becomes of a bundle; the returned row says it.

    Live at once: the first of all, and a newer day of the live model. On trial: a newer day of the model on trial, and a
    new model, whose rollout begins in shadow (one that is open is rolled back as superseded). Skipped: an older day.
    Refused: a model that was rolled back before, and one whose features do not fit the live one's. Again: no effect.

    Args:
        policy: None puts a new model live at once (a shop without traffic).
        salt: drawn by the caller; fits: the bundle's feature list is that of the live one.

    Raises:
        ConfigurationError: a rollout would start without an armed guardrail.
    """
    with engine.begin() as connection:
        serialise(connection)
        live, rollout = select_live(connection), _select_open(connection)
        trial = _get(connection, rollout.candidate_id) if rollout else None
        for known in (live, trial):
            if known and (known.bundle_path, known.recommendations_path) == (
                offered.bundle_path,
                offered.recommendations_path,
            ):
                return known
        same = next((known for known in (live, trial) if known and known.model_version == offered.model_version), live)
        if same and offered.as_of < same.as_of:
            return _add(connection, offered, "skipped", f"older than {same.as_of} of model {same.model_version}", at)
        if live is None or live.model_version == offered.model_version or policy is None:
            reason = "the first model" if live is None else f"follows {live.as_of} of model {live.model_version}"
            if rollout and live and live.model_version != offered.model_version:
                _end(connection, rollout, f"superseded by model {offered.model_version}", actor, at)
            return _go_live(connection, offered, reason, "promote", actor, at)
        if rollout and trial and trial.model_version == offered.model_version:
            _set_state(connection, trial.id, "skipped", f"a newer day is on trial; {trial.reason}")
            row = _add(connection, offered, "trial", f"newer day of rollout {rollout.id}", at)
            _update(connection, rollout, candidate_id=row.id)
            return row
        if refusal := _refusal(connection, offered.model_version, fits):
            return _add(connection, offered, "refused", refusal, at)
        policy.require_armed()
        if rollout:
            _end(connection, rollout, f"superseded by model {offered.model_version}", actor, at)
        return _start(connection, offered, salt, actor, at)


def advance(engine: sa.Engine, rollout: Rollout, state: RolloutState, reason: str, *, actor: str, at: datetime) -> bool:
    """Move a rollout from the revision in `rollout` to `state`; False when somebody else has changed it, without effect.

    Full makes the candidate live and retires what was; rolled back leaves what is live.
    """
    with engine.begin() as connection:
        serialise(connection)
        now = _select_open(connection)
        if now is None or (now.id, now.revision) != (rollout.id, rollout.revision):
            return False
        _move(connection, now, state, reason, actor, at)
        return True


def go_back(
    engine: sa.Engine,
    target: Release,
    expected_live: Release,
    *,
    reason: str,
    action: audit.Action,
    actor: str,
    at: datetime,
) -> Release:
    """Make a release that was recorded before live again (as a new row), and end an open rollout.

    Args:
        expected_live: what the caller saw as live; action: rollback, or promote of a release that is not on trial.

    Raises:
        ConfigurationError: something else is live by now, so that the caller decided on what is no more.
    """
    with engine.begin() as connection:
        serialise(connection)
        live, rollout = select_live(connection), _select_open(connection)
        if live is None or live.id != expected_live.id:
            raise ConfigurationError(
                "live release",
                found=f"release {live.id if live else None}",
                wanted=f"release {expected_live.id}",
                fix="look at `pipeline-assets release status` and decide again",
            )
        if rollout:
            _end(connection, rollout, f"ended by a {action} to release {target.id}", actor, at)
        before = "reverted" if action == "rollback" else "retired"
        again = Offered(target.bundle_path, target.model_version, target.as_of, target.recommendations_path)
        row = _go_live(connection, again, f"{action} to release {target.id}: {reason}", action, actor, at)
        _set_state(connection, live.id, before, live.reason)
        return row


def release_before(engine: sa.Engine, live: Release) -> Release | None:
    """The newest release that was live, of another model than `live`: what a rollback goes back to."""
    was_live = releases.c.state.in_(WAS_LIVE) & (releases.c.model_version != live.model_version)
    with engine.connect() as connection:
        row = connection.execute(sa.select(releases).where(was_live).order_by(releases.c.id.desc()).limit(1))
        found = row.one_or_none()
        return release_of(found) if found else None


def release_by_id(engine: sa.Engine, number: int) -> Release | None:
    """One row of the release table."""
    with engine.connect() as connection:
        row = connection.execute(sa.select(releases).where(releases.c.id == number)).one_or_none()
        return release_of(row) if row else None


def _refusal(connection: sa.Connection, version: str, fits: bool) -> str:
    """Why a new model may not even be tried; empty when it may."""
    ended = sa.select(releases).where(
        (releases.c.model_version == version) & releases.c.state.in_(("aborted", "reverted"))
    )
    if row := connection.execute(ended.order_by(releases.c.id.desc()).limit(1)).one_or_none():
        return f"model {version} was rolled back: {row.reason}; `release promote --release` overrules that"
    return "" if fits else DIFFERENT_FEATURES


def _start(connection: sa.Connection, offered: Offered, salt: str, actor: str, at: datetime) -> Release:
    row = _add(connection, offered, "trial", f"new model {offered.model_version}", at)
    moment = as_text(at)
    values: dict[str, Any] = {"candidate_id": row.id, "model_version": row.model_version, "salt": salt, "is_open": True}
    values |= {"stage": SHADOW.stage, "share": SHADOW.share, "reason": "started", "revision": 1}
    values |= {"started_at": moment, "entered_at": moment}
    made = _rollout(connection.execute(rollouts.insert().values(**values).returning(*rollouts.c)).one())
    details = {"model_version": row.model_version, "release": row.id}
    audit.record(
        connection, actor=actor, action="start", subject=f"rollout {made.id}", reason=row.reason, at=at, details=details
    )
    return row


def _move(
    connection: sa.Connection, rollout: Rollout, state: RolloutState, reason: str, actor: str, at: datetime
) -> None:
    is_open = True if state.is_open else None
    changed: dict[str, Any] = {"stage": state.stage, "share": state.share, "is_open": is_open, "reason": reason}
    _update(connection, rollout, **changed, entered_at=as_text(at))
    action: audit.Action = "advance"
    if state == FULL:
        action = "promote"
        connection.execute(releases.update().where(releases.c.state == "live").values(state="retired"))
        _set_state(connection, rollout.candidate_id, "live", f"rollout {rollout.id}: {reason}")
    elif state == ROLLED_BACK:
        action = "rollback"
        _set_state(connection, rollout.candidate_id, "aborted", f"rollout {rollout.id}: {reason}")
    details: dict[str, Any] = {"from": rollout.state.stage, "share": state.share, "to": state.stage}
    details |= {"model_version": rollout.model_version, "release": rollout.candidate_id}
    subject = f"rollout {rollout.id}"
    audit.record(connection, actor=actor, action=action, subject=subject, reason=reason, at=at, details=details)


def _end(connection: sa.Connection, rollout: Rollout, reason: str, actor: str, at: datetime) -> None:
    _move(connection, rollout, ROLLED_BACK, reason, actor, at)


def _go_live(
    connection: sa.Connection, offered: Offered, reason: str, action: audit.Action, actor: str, at: datetime
) -> Release:
    connection.execute(releases.update().where(releases.c.state == "live").values(state="retired"))
    row = _add(connection, offered, "live", reason, at)
    details = {"model_version": row.model_version, "as_of": row.as_of}
    subject = f"release {row.id}"
    audit.record(connection, actor=actor, action=action, subject=subject, reason=reason, at=at, details=details)
    return row


def _add(connection: sa.Connection, offered: Offered, state: str, reason: str, at: datetime) -> Release:
    return insert(connection, **asdict(offered), recorded_at=as_text(at), state=state, reason=reason)


def _set_state(connection: sa.Connection, release_id: int, state: str, reason: str) -> None:
    connection.execute(releases.update().where(releases.c.id == release_id).values(state=state, reason=reason))


def _update(connection: sa.Connection, rollout: Rollout, **values: Any) -> None:
    row = rollouts.update().where(rollouts.c.id == rollout.id)
    connection.execute(row.values(**values, revision=rollout.revision + 1))


def _get(connection: sa.Connection, release_id: int) -> Release:
    return release_of(connection.execute(sa.select(releases).where(releases.c.id == release_id)).one())


def _select_open(connection: sa.Connection) -> Rollout | None:
    row = connection.execute(sa.select(rollouts).where(rollouts.c.is_open.is_(True))).one_or_none()
    return _rollout(row) if row else None


def _rollout(row: sa.Row[Any]) -> Rollout:
    values = dict(row._mapping)
    del values["is_open"]
    state = RolloutState(values.pop("stage"), values.pop("share"))
    for name in ("started_at", "entered_at"):
        values[name] = datetime.fromisoformat(values[name])
    return Rollout(state=state, **values)
