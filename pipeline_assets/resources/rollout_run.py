"""Looking at a rollout and moving it: what the sensor, the verbs and the benchmark share.

Belongs here: settings, evidence, decision and database brought together; the registry's alias follows what is served.
Does not: deciding (serving/rollout), transactions (serving/rollout_state).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pipeline_assets.recommender.errors import BundleError, ConfigurationError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import IMPRESSIONS_TABLE
from pipeline_assets.resources.signing import trusted
from pipeline_assets.serving import audit
from pipeline_assets.serving.audit import Action
from pipeline_assets.serving.evidence import arms_of
from pipeline_assets.serving.guardrails import Arm, Finding, Limits, compare
from pipeline_assets.serving.probe import probe
from pipeline_assets.serving.release_state import Release, open_state
from pipeline_assets.serving.rollout import FULL, ROLLED_BACK, Evidence, RolloutPolicy, RolloutState, next_step
from pipeline_assets.serving.rollout_state import (
    Rollout,
    advance,
    go_back,
    newest,
    release_before,
    release_by_id,
    view,
)
from pipeline_assets.settings import Settings

if TYPE_CHECKING:
    from pipeline_assets.resources.tracking import Tracking


@dataclass(frozen=True)
class Looked:
    """What a look at an open rollout found, and what followed.

    Args:
        before, after: its state; equal when it stays.
        is_ours: this look changed it; False when another was faster.
    """

    rollout: Rollout
    findings: tuple[Finding, ...]
    before: RolloutState
    after: RolloutState
    reason: str
    is_ours: bool


def policy_of(settings: Settings) -> RolloutPolicy | None:
    """The rules of a rollout; None where a new model is live at once.

    Raises:
        ConfigurationError: a value that is not supported.
    """
    chosen = settings.rollout
    policy = RolloutPolicy(chosen.steps, chosen.stage_minutes * 60, chosen.guardrails)
    return policy if chosen.mode == "guarded" else None


def findings_of(settings: Settings, lake: Lake, rollout: Rollout, now: datetime) -> tuple[Finding, ...]:
    """What the armed guardrails say of the stage."""
    chosen = settings.rollout
    stable, candidate = arms_of(settings.data_dir / "prediction_log", rollout, now)
    hits = _hits(lake, rollout) if "quality" in chosen.guardrails else {}
    stable = Arm(**{**vars(stable), "hits": hits.get("stable", ())})
    candidate = Arm(**{**vars(candidate), "hits": hits.get("canary", ())})
    limits = Limits(min_answers=chosen.min_answers, min_customers=chosen.min_customers)
    return compare(stable, candidate, limits, chosen.guardrails)


def look(settings: Settings, lake: Lake, now: datetime, actor: str) -> Looked | None:
    """Look at the open rollout and move it when the evidence says so; None when nothing is on trial."""
    engine, policy = open_state(settings.release_url), policy_of(settings)
    rollout = view(engine).rollout
    if rollout is None:
        return None
    if policy is None:
        raise ConfigurationError(
            "rollout.mode",
            found=f"at_once, while rollout {rollout.id} of model {rollout.model_version} is open",
            wanted="guarded until it has ended",
            fix="set it back, or end the rollout with `pipeline-assets release promote` or `rollback`",
        )
    findings = findings_of(settings, lake, rollout, now)
    seconds = (now - rollout.entered_at).total_seconds()
    after, reason = next_step(rollout.state, Evidence(findings, seconds), policy)
    is_ours = after != rollout.state and advance(engine, rollout, after, reason, actor=actor, at=now)
    return Looked(rollout, findings, rollout.state, after, reason, is_ours)


def promote(settings: Settings, reason: str, actor: str, now: datetime, release_id: int | None = None) -> Release:
    """A person makes what is on trial live for all, or any recorded release that passes its probe.

    Raises:
        ConfigurationError: nothing is on trial, there is no such release, or it is live already.
        BundleError: the probe refused it.
    """
    engine = open_state(settings.release_url)
    now_served = view(engine)
    rollout, candidate = now_served.rollout, now_served.candidate
    if rollout and candidate and release_id in (None, candidate.id):
        _probed(settings, candidate)
        if not advance(engine, rollout, FULL, reason, actor=actor, at=now):
            raise _changed_meanwhile(f"rollout {rollout.id}")
        return candidate
    if release_id is None:
        raise ConfigurationError(
            "release promote",
            found="nothing is on trial",
            wanted="an open rollout, or --release",
            fix="see release status",
        )
    return _go(engine, settings, _recorded(engine, release_id), "promote", reason, actor, now)


def roll_back(settings: Settings, reason: str, actor: str, now: datetime, release_id: int | None = None) -> Release:
    """A person ends what is on trial; or, with nothing on trial, goes back to the model before. Returns what is live then.

    Raises:
        ConfigurationError: there is no release before, or no such release.
        BundleError: the probe refused the release before.
    """
    engine = open_state(settings.release_url)
    now_served = view(engine)
    if now_served.live is None:
        raise ConfigurationError(
            "release rollback", found="nothing is live", wanted="a live release", fix="run `make run`"
        )
    if now_served.rollout and release_id is None:
        if not advance(engine, now_served.rollout, ROLLED_BACK, reason, actor=actor, at=now):
            raise _changed_meanwhile(f"rollout {now_served.rollout.id}")
        return now_served.live
    target = release_before(engine, now_served.live) if release_id is None else _recorded(engine, release_id)
    if target is None:
        raise ConfigurationError(
            "release rollback",
            found=f"model {now_served.live.model_version} is the only one that was ever live",
            wanted="an earlier model",
            fix="name an earlier day of the same model with --release; see release status",
        )
    return _go(engine, settings, target, "rollback", reason, actor, now)


def follow_alias(tracking: Tracking, engine: sa.Engine) -> str:
    """Move the registry's alias back to the model that is live, after a rollback; returns its version, empty when it stood there.

    The nightly bundle is the champion's: after a rollback the model that is served has to be the champion again. While a rollout
    is open the alias is ahead, on the model on trial.
    """
    now_served = view(engine)
    if now_served.live is None or now_served.rollout is not None:
        return ""
    champion, version = tracking.champion(), now_served.live.model_version
    if champion is None or champion.version == version:
        return ""
    tracking.point_champion_at(version)
    return version


def ended_by(engine: sa.Engine) -> tuple[str, Rollout | None]:
    """What a sensor remembers of the newest rollout, so that each of its states is told once: a text, and the rollout."""
    rollout = newest(engine)
    return (f"{rollout.id}:{rollout.revision}" if rollout else ""), rollout


def record_approval(
    settings: Settings, version: str, outcome: str, reasons: Sequence[str], day: date, at: datetime
) -> None:
    """What the gate let through, in the audit log."""
    if outcome != "promote":
        return
    with open_state(settings.release_url).begin() as connection:
        audit.record(
            connection,
            actor="gate",
            action="approve",
            subject=f"model {version}",
            reason="; ".join(reasons)[:2_000],
            at=at,
            details={"as_of": str(day)},
        )


def record_config(settings: Settings, at: datetime) -> list[str]:
    """The sections of the settings that differ from the last time this was asked, in the audit log; the first time all of them.

    Kept is a digest of each section, no value: secrets are masked before, and nothing can be read out of it.
    """
    sections = {
        name: hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()[:16]
        for name, section in settings.model_dump(mode="json", exclude={"calendar": {"until"}}).items()
    }
    engine = open_state(settings.release_url)
    before = [json.loads(row.details) for row in audit.entries(engine) if row.action == "config"]
    changed = sorted(name for name, digest in sections.items() if not before or before[-1].get(name) != digest)
    if changed:
        with engine.begin() as connection:
            reason = f"changed: {', '.join(changed)}" if before else "first seen"
            audit.record(
                connection,
                actor="pipeline",
                action="config",
                subject="settings",
                reason=reason,
                at=at,
                details=sections,
            )
    return changed


def _hits(lake: Lake, rollout: Rollout) -> dict[str, list[float]]:
    """Arm -> per answer whose week is over, the share of the slate that its customer bought."""
    if not lake.exists(IMPRESSIONS_TABLE):
        return {}
    shown = lake.read(IMPRESSIONS_TABLE, columns=["answer_id", "arm", "rollout_id", "purchased"]).to_pandas()
    shown = shown[(shown["rollout_id"] == rollout.id) & shown["purchased"].notna()]
    shares: Any = (
        shown.assign(purchased=shown["purchased"].astype(float)).groupby(["arm", "answer_id"])["purchased"].mean()
    )
    return {arm: shares.loc[arm].tolist() for arm in shares.index.unique("arm")}


def _go(
    engine: sa.Engine, settings: Settings, target: Release, action: Action, reason: str, actor: str, now: datetime
) -> Release:
    live = view(engine).live
    if live is None or live.id == target.id:
        raise ConfigurationError(
            f"release {target.id}",
            found="it is live" if live else "nothing is live",
            wanted="another",
            fix="see release status",
        )
    _probed(settings, target)
    return go_back(engine, target, live, reason=reason, action=action, actor=actor, at=now)


def _probed(settings: Settings, release: Release) -> None:
    report = probe(Path(release.bundle_path), trusted(settings))
    if not report.accepted:
        raise BundleError(
            release.bundle_path,
            found=report.reason,
            wanted="a bundle that passes its probe",
            fix="choose another release",
        )


def _recorded(engine: sa.Engine, release_id: int) -> Release:
    found = release_by_id(engine, release_id)
    if found is None:
        raise ConfigurationError(
            "--release", found=release_id, wanted="the number of a release", fix="see `pipeline-assets release status`"
        )
    return found


def _changed_meanwhile(what: str) -> ConfigurationError:
    return ConfigurationError(
        what,
        found="it was changed meanwhile",
        wanted="the state that was decided on",
        fix="see release status, decide again",
    )
