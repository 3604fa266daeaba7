"""Whether drift asks for retraining, with its guards: a decision and its reason, refusals too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class RetrainingDecision:
    """What was decided and why, for the run's tags or the skip message."""

    is_requested: bool
    reason: str


def decide_retraining(
    verdict: str, day: date, trained_days: Sequence[date], cooldown_days: int, blocked_days: Sequence[date]
) -> RetrainingDecision:
    """Retrain on a drift verdict, unless it was just done or the upstream is broken.

    Args:
        verdict: of the drift report of `day`.
        trained_days: business days for which a model was trained.
        cooldown_days: business days that must lie between two trainings asked for by drift.
        blocked_days: days of the last week without a passed verdict: retraining on a broken upstream makes it worse.
    """
    if verdict != "drift":
        return RetrainingDecision(False, f"drift report of {day} says {verdict}: nothing to do")
    if blocked_days:
        listed = ", ".join(str(blocked) for blocked in blocked_days)
        return RetrainingDecision(
            False, f"drift on {day}, but the upstream is broken ({listed} not passed): mend the data first"
        )
    recent = [trained for trained in trained_days if 0 <= (day - trained).days < cooldown_days]
    if recent:
        return RetrainingDecision(
            False, f"drift on {day}, but a model was trained as of {max(recent)}: cool-down of {cooldown_days} days"
        )
    return RetrainingDecision(True, f"drift report of {day} says drift")
