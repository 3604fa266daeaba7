"""Batch rules: whether a day as a whole can be believed, beside the days before it.

They read profiles and no rows. A day's profile follows from the day's own rows alone, and a day is compared with the profiles
of *earlier* days, passed or blocked: so the answer is a function of what was delivered, not of the order in which it was
validated, and medians carry a bad day among eight (docs/adr/0015-batch-rules.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import pyarrow

from pipeline_assets.schemas.feeds import FEEDS, Feed

LOOK_BACK_DAYS = 56  # how far the rules look back: 8 weeks


@dataclass(frozen=True)
class NullBudget:
    """Shares of a day's values of one column that may be missing: above `warn` it is told, above `error` the day is blocked."""

    warn: float
    error: float


# A required column: rows without it are quarantined anyway. 2017 has none missing; 5 % corrupt rows of any kind must go on.
REQUIRED_BUDGET = NullBudget(0.01, 0.10)


@dataclass(frozen=True)
class BatchPolicy:
    """When a day differs too much from the days before. Measured on 2017-01-01 .. 2017-11-12, 316 days of purchases.

    Args:
        volume_low, volume_high: rows of the day as a share of the median of the last 8 same weekdays. Measured 0.70 (Easter)
            to 1.63 (4 July). Christmas has about a tenth (534 lines are known of the year's quietest day), so the day is
            blocked below a twentieth or above tenfold, and told about (`volume_told`) below half or above double.
        volume_min_days: same weekdays that must be known, otherwise the rule is silent.
        min_rows: rows that a typical day must have: ten lines instead of two are no sign of anything.
        shift_factor: how many times larger or smaller the typical amount or quantity may be: measured 1.22 at most.
            Cents for currency are a factor of 100, a whole promotion week of everything at half price one of 2.
        shift_deviations: and how many robust standard deviations, so that a feed that always jumps is not blocked.
        shift_min_days: days of the last 28 that must be known.
    """

    volume_low: float = 0.05
    volume_high: float = 10.0
    volume_told: tuple[float, float] = (0.5, 2.0)
    volume_min_days: int = 3
    min_rows: int = 100
    shift_factor: float = 3.0
    shift_deviations: float = 6.0
    shift_min_days: int = 7
    shift_days: int = 28
    null_budgets: Mapping[str, NullBudget] = field(
        default_factory=dict
    )  # feed.column -> budget, before the declared one


@dataclass(frozen=True)
class Profile:
    """What a day looked like, without repeats and bots. `sizes` are medians of the natural logarithm, of valid rows."""

    rows: int
    sizes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """What validation knows beside the rows in front of it. Always an argument, never looked up.

    Args:
        profiles: of other days of the same feed; only earlier ones are used.
        known: column -> table (`id`, `first_day`) of what the referenced feed has had; a column is left out where that
            feed has not been validated without a gap, because nothing can be said then.
        extra_columns: day -> columns that were delivered and that the contract does not have.
        batch_ids: day -> the delivery that is judged.
    """

    profiles: Mapping[date, Profile] = field(default_factory=dict)
    known: Mapping[str, pyarrow.Table] = field(default_factory=dict)
    extra_columns: Mapping[date, Sequence[str]] = field(default_factory=dict)
    batch_ids: Mapping[date, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What a batch rule says of a day; `blocks` or only tells."""

    rule: str
    blocks: bool
    text: str


def profile(feed: Feed, table: pyarrow.Table, valid: np.ndarray, rows: int) -> Profile:
    """The profile of one day: its rows that count, and the typical size of each measure where it is positive."""
    sizes = {}
    for name in feed.measures:
        values = table.column(name).to_numpy()[valid]
        values = values[values > 0]
        if len(values):
            sizes[name] = round(math.log(float(np.median(values))), 9)
    return Profile(rows, sizes)


def _volume(feed: Feed, day: date, found: Profile, history: History, policy: BatchPolicy) -> list[Finding]:
    same = [history.profiles.get(day - timedelta(weeks=n)) for n in range(1, LOOK_BACK_DAYS // 7 + 1)]
    known = [before.rows for before in same if before and before.rows]
    if not feed.has_volume or found.rows == 0 or len(known) < policy.volume_min_days:
        return []  # an empty day has a rule of its own
    usual = float(np.median(known))
    if usual < policy.min_rows:
        return []
    share = found.rows / usual
    low, high = policy.volume_told
    blocks = not policy.volume_low <= share <= policy.volume_high
    if low <= share <= high:
        return []
    text = (
        f"{found.rows} rows of {feed.name} on {day:%A} {day} are {share:.2f} times the usual {usual:.0f} (median of {len(known)} "
        f"{day:%A}s before); wanted {policy.volume_low} to {policy.volume_high} times; see whether the delivery is whole and deliver "
        "the day again, or name it in validation.accepted_days"
    )
    return [Finding("volume", blocks, text)]


def _shift(feed: Feed, day: date, found: Profile, history: History, policy: BatchPolicy) -> list[Finding]:
    findings = []
    recent = [history.profiles.get(day - timedelta(days=n)) for n in range(1, policy.shift_days + 1)]
    enough = [before for before in recent if before and before.rows >= policy.min_rows]
    for name, size in found.sizes.items():
        known = np.array([before.sizes[name] for before in enough if name in before.sizes])
        if found.rows < policy.min_rows or len(known) < policy.shift_min_days:
            continue
        usual = float(np.median(known))
        deviation = 1.4826 * float(np.median(np.abs(known - usual)))  # of a normal distribution
        distance = abs(size - usual)
        if distance > math.log(policy.shift_factor) and distance > policy.shift_deviations * deviation:
            text = (
                f"the typical {name} of {feed.name} on {day} is {math.exp(size):.4g}, {math.exp(size - usual):.3g} times the usual "
                f"{math.exp(usual):.4g} (median of {len(known)} days before); wanted a factor below {policy.shift_factor:g}; see whether "
                "the unit changed and deliver the day again, or name it in validation.accepted_days"
            )
            findings.append(Finding(f"shift_{name}", True, text))
    return findings


def compare(feed: Feed, day: date, found: Profile, history: History, policy: BatchPolicy) -> list[Finding]:
    """The rules that look at earlier days: volume against the same weekday, typical sizes against the last four weeks."""
    return [*_volume(feed, day, found, history, policy), *_shift(feed, day, found, history, policy)]


def budget(feed: Feed, column: str, policy: BatchPolicy) -> NullBudget | None:
    """The null budget of a column: the policy's, or the usual one of required columns, or none."""
    chosen = policy.null_budgets.get(f"{feed.name}.{column}")
    return chosen or (None if feed.schema.columns[column].nullable else REQUIRED_BUDGET)


def nulls(feed: Feed, day: date, rows: int, absent: Mapping[str, int], policy: BatchPolicy) -> list[Finding]:
    """Columns with more missing values than their budget.

    Args:
        absent: column -> rows of the day without a value.
    """
    findings = []
    for column, count in absent.items():
        limits = budget(feed, column, policy)
        if limits is None or not rows or count / rows <= limits.warn:
            continue
        blocks = count / rows > limits.error
        text = (
            f"{count} of {rows} values of {column} of {feed.name} on {day} are missing ({count / rows:.1%}); wanted at most "
            f"{limits.error if blocks else limits.warn:.0%}; mend the source, or change validation.null_budgets"
        )
        findings.append(Finding(f"nulls_{column}", blocks, text))
    return findings


def unknown_budgets(budgets: Mapping[str, NullBudget]) -> list[str]:
    """Keys of `null_budgets` that name no column of a feed."""
    columns = {f"{feed.name}.{column}" for feed in FEEDS.values() for column in feed.columns}
    return sorted(set(budgets) - columns)
