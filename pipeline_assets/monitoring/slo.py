"""Service levels: objectives, error budgets, burn rates, and what an exhausted budget does to promotion. Counts in, decisions out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from pipeline_assets.recommender.errors import ConfigurationError

Unit = Literal["requests", "answers", "values", "days"]
SloVerdict = Literal["ok", "exhausted", "unknown"]
_KEYS = {"objective", "window_days", "unit", "freezes_promotion"}


@dataclass(frozen=True)
class Objective:
    """One line of slo.toml: the share of good events that is promised over the last `window_days`."""

    indicator: str
    objective: float
    window_days: int
    unit: Unit
    freezes_promotion: bool


@dataclass(frozen=True)
class Counts:
    """Events of one day (or one window): how many, and how many of them were bad. `total` 0: nothing happened."""

    total: float
    bad: float


@dataclass(frozen=True)
class Budget:
    """How much of what an objective allows is used up.

    `remaining` is 1 untouched, 0 used up, below 0 overspent, NaN where nothing was measured.
    """

    objective: Objective
    days: int
    total: float
    bad: float
    allowed: float
    remaining: float

    @property
    def is_exhausted(self) -> bool:
        """Nothing is left; an unknown budget is not exhausted."""
        return self.remaining <= 0


@dataclass(frozen=True)
class BurnAlert:
    """A budget burns `factor` times too fast over a long window, and still does over a short one."""

    factor: float
    long_minutes: int
    short_minutes: int


# Google's SRE workbook, chapter 5: 14.4 uses 2 % of a budget of 30 days in an hour, 6 uses 5 % in six. The short windows end an
# alert soon after the fault does.
BURN_ALERTS = (BurnAlert(14.4, 60, 5), BurnAlert(6.0, 360, 30))


def read_objectives(content: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives of a parsed slo.toml, in its order.

    Raises:
        ConfigurationError: a key is missing or unknown, or a value cannot be an objective.
    """
    found = []
    for indicator, entry in content.items():
        if not isinstance(entry, Mapping) or set(entry) != _KEYS:
            listed = sorted(entry) if isinstance(entry, Mapping) else entry
            raise _unusable(indicator, listed, f"a table with {', '.join(sorted(_KEYS))}")
        objective, days = entry["objective"], entry["window_days"]
        if not (isinstance(objective, float) and 0 < objective < 1):
            raise _unusable(indicator, objective, "an objective between 0 and 1: 1 allows no error, and has no budget")
        if not (isinstance(days, int) and days >= 1):
            raise _unusable(indicator, days, "window_days of 1 or more")
        if entry["unit"] not in ("requests", "answers", "values", "days"):
            raise _unusable(indicator, entry["unit"], "unit requests, answers, values or days")
        found.append(Objective(indicator, objective, days, entry["unit"], bool(entry["freezes_promotion"])))
    return tuple(found)


def _unusable(indicator: str, found: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"service level {indicator}", found=found, wanted=wanted, fix="correct slo.toml")


def budget(objective: Objective, history: Mapping[date, Counts | None], day: date) -> Budget:
    """The budget at the end of `day`.

    Args:
        history: counts by business day; None or absent: not known, and neither good nor bad.

    Returns:
        Of a budget of days, what is allowed is a share of the whole window, also while it is not full: one bad first day is no
        overdraft. Of other units it is a share of the events there were.
    """
    window = (day - timedelta(days=n) for n in range(objective.window_days))
    known = [counts for counts in (history.get(d) for d in window) if counts is not None and counts.total > 0]
    total, bad = sum(counts.total for counts in known), sum(counts.bad for counts in known)
    allowed = (1 - objective.objective) * (objective.window_days if objective.unit == "days" else total)
    remaining = 1 - bad / allowed if known else math.nan
    return Budget(objective, len(known), total, bad, allowed, remaining)


def burn_rate(counts: Counts, objective: float) -> float:
    """How many times faster than allowed the budget goes: 1 uses it up exactly at the end of the window. NaN without events."""
    return counts.bad / counts.total / (1 - objective) if counts.total > 0 else math.nan


def is_burning(long: Counts, short: Counts, objective: float, alert: BurnAlert) -> bool:
    """Whether both windows burn faster than the alert's factor."""
    return burn_rate(long, objective) > alert.factor and burn_rate(short, objective) > alert.factor


def slo_verdict(budgets: Sequence[Budget]) -> tuple[SloVerdict, tuple[str, ...]]:
    """'exhausted' when a budget is used up, 'unknown' when none is known, 'ok' otherwise; with a reason per notable budget."""
    reasons = []
    for found in budgets:
        name = found.objective.indicator
        if found.is_exhausted:
            share = 1 - found.remaining
            reasons.append(
                f"{name}: {found.bad:,.0f} of {found.total:,.0f} {found.objective.unit} were bad, "
                f"{share:.0%} of the budget of {found.objective.window_days} days"
            )
    unknown = [found.objective.indicator for found in budgets if math.isnan(found.remaining)]
    reasons += [f"not known, because nothing was measured: {', '.join(unknown)}"] if unknown else []
    if any(found.is_exhausted for found in budgets):
        return "exhausted", tuple(reasons)
    if len(unknown) == len(budgets):
        return "unknown", tuple(reasons)
    return "ok", tuple(reasons) or ("every budget is known and has something left",)


def freezing(budgets: Sequence[Budget]) -> tuple[str, ...]:
    """Indicators whose exhausted budget holds new models back."""
    return tuple(b.objective.indicator for b in budgets if b.objective.freezes_promotion and b.is_exhausted)


def frozen_outcome(
    outcome: str, reasons: Sequence[str], frozen_by: Sequence[str], override: str, has_champion: bool
) -> tuple[str, list[str]]:
    """What becomes of the gate's decision while budgets are exhausted.

    Args:
        outcome: of the gate. Only *promote* can be frozen.
        frozen_by: indicators of `freezing`.
        override: why a person promotes all the same; empty: nobody does.
        has_champion: whether another model is champion; the first one is not held back, for there is nothing to protect.

    Returns:
        The outcome (*frozen* instead of *promote*) and the reasons, with one more that says what was done.
    """
    if outcome != "promote" or not frozen_by or not has_champion:
        return outcome, list(reasons)
    listed = ", ".join(frozen_by)
    if override:
        return outcome, [*reasons, f"promoted although the error budget of {listed} is used up: {override}"]
    return "frozen", [*reasons, f"held back: the error budget of {listed} is used up (see monitoring/slo_report)."]
