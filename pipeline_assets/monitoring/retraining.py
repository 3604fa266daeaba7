"""Whether drift or degraded quality asks for retraining, with its guards: a decision and its reason, refusals too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from pipeline_assets.recommender.errors import ConfigurationError

Kind = Literal["retrain", "refuse", "nothing"]
Trigger = Literal["drift", "quality", "none"]


@dataclass(frozen=True)
class RetrainingPolicy:
    """How often a training may be asked for. Both are settings (`monitoring.retrain_*`); weekly training counts too."""

    cooldown_days: int = 7
    weekly_maximum: int = 2

    def __post_init__(self) -> None:
        """Refuse a policy that means nothing.

        Raises:
            ConfigurationError: a number is negative.
        """
        if min(self.cooldown_days, self.weekly_maximum) < 0:
            found = f"cooldown_days {self.cooldown_days}, weekly_maximum {self.weekly_maximum}"
            raise ConfigurationError("retraining policy", found=found, wanted="0 or more", fix="correct monitoring.*")


@dataclass(frozen=True)
class Situation:
    """What is known at the end of a business day.

    Attributes:
        day: the day that is decided about.
        drift, quality, skew: verdicts of its reports ('unknown' where there is none).
        signs: of a broken upstream (causes.py), in words.
        trained_days: business days for which a model was trained.
        requested_days: earlier days whose decision was to retrain, whether or not that run has finished.
        blocked_days: days of the last week without a passed verdict.
    """

    day: date
    drift: str = "unknown"
    quality: str = "unknown"
    skew: str = "unknown"
    signs: tuple[str, ...] = ()
    trained_days: Sequence[date] = field(default=())
    requested_days: Sequence[date] = field(default=())
    blocked_days: Sequence[date] = field(default=())


@dataclass(frozen=True)
class RetrainingDecision:
    """What was decided, what asked for it, and why."""

    kind: Kind
    trigger: Trigger
    reason: str

    @property
    def is_requested(self) -> bool:
        """Whether a training is to be started."""
        return self.kind == "retrain"


def decide_retraining(now: Situation, policy: RetrainingPolicy) -> RetrainingDecision:
    """Retrain on drift or degraded quality, unless the upstream is broken, serving differs from the lake, or it was just done.

    The order of the refusals is that of what a person has to do: mend the data, mend serving, wait.
    """
    if now.drift != "drift" and now.quality != "degraded":
        reason = f"of {now.day}: drift report says {now.drift}, quality report says {now.quality}: nothing to do"
        return RetrainingDecision("nothing", "none", reason)
    trigger: Trigger = "drift" if now.drift == "drift" else "quality"
    what = f"drift on {now.day}" if trigger == "drift" else f"degraded quality on {now.day}"
    if refusal := _refusal(now, policy):
        return RetrainingDecision("refuse", trigger, f"{what}, but {refusal}")
    return RetrainingDecision(
        "retrain", trigger, f"{what}: no sign of a broken upstream, and no training is too recent"
    )


def _refusal(now: Situation, policy: RetrainingPolicy) -> str:
    """The first guard that says no, in words; empty when none does."""
    if now.blocked_days:
        listed = ", ".join(str(blocked) for blocked in now.blocked_days)
        return f"the upstream is broken ({listed} not passed): mend the data first"
    if now.signs:
        return f"it looks like a fault of the source, not like the shop ({'; '.join(now.signs)}): mend the data first"
    if now.skew == "skew":
        return "what is served differs from what was computed (skew report): a new model would be served as wrongly"
    begun = sorted({*now.trained_days, *now.requested_days})
    recent = [day for day in begun if 0 <= (now.day - day).days < policy.cooldown_days]
    if recent:
        return f"a model was trained as of {max(recent)}: cool-down of {policy.cooldown_days} days"
    week = [day for day in begun if 0 <= (now.day - day).days < 7]
    if len(week) >= policy.weekly_maximum:
        return f"{len(week)} models were trained in seven days: the maximum is {policy.weekly_maximum}"
    return ""
