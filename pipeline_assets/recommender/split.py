"""Weeks: which as-of days are trained on, stop the training, and judge the model. Always in this order in time.

A week is named by its as-of day D: features know everything up to D, the target is what is bought in D + 1 .. D + horizon.
Windows do not overlap, so no label of one part is a label of another.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta

from pipeline_assets.recommender.errors import NotEnoughData

MIN_HISTORY_DAYS = 28  # below it a customer's rhythm and a product's popularity are noise


@dataclass(frozen=True)
class Weeks:
    """As-of days, each part in ascending order and wholly before the next."""

    training: tuple[date, ...]
    early_stopping: tuple[date, ...]
    evaluation: tuple[date, ...]

    @property
    def all(self) -> tuple[date, ...]:
        return self.training + self.early_stopping + self.evaluation


def weeks_before(
    as_of: date,
    first_day: date,
    *,
    week_start: int,
    horizon_days: int,
    label_weeks: int,
    early_stopping_weeks: int,
    evaluation_weeks: int,
    usable_days: Collection[date],
) -> Weeks:
    """Split the complete windows before `as_of`: the newest evaluate, older ones train.

    Args:
        as_of: the last known business day; no window ends after it.
        first_day: the first business day with data.
        week_start: ISO weekday (1 = Monday) on which windows start, so that every training run uses the same as-of days.
        horizon_days: length of a window.
        label_weeks: how many windows to train on, the early-stopping ones included, if there are as many.
        usable_days: business days with a passed verdict; a window or as-of day without one is skipped.

    Raises:
        NotEnoughData: fewer than one window to train on, to stop on and to evaluate on is known.
    """
    newest = as_of - timedelta(days=horizon_days)
    newest -= timedelta(days=(newest.isoweekday() + 1 - week_start) % 7)
    days: list[date] = []
    day = newest
    while len(days) < label_weeks + evaluation_weeks and (day - first_day).days + 1 >= MIN_HISTORY_DAYS:
        if all(day + timedelta(days=n) in usable_days for n in range(horizon_days + 1)):
            days.append(day)
        day -= timedelta(days=horizon_days)
    known = sorted(days)
    least = 1 + early_stopping_weeks + evaluation_weeks
    if len(known) < least:
        needed = first_day + timedelta(days=MIN_HISTORY_DAYS - 1 + least * horizon_days + 6)
        raise NotEnoughData(
            f"training as of {as_of}",
            found=f"{len(known)} complete windows of {horizon_days} days with {MIN_HISTORY_DAYS} days of history",
            wanted=f"at least {least}",
            fix=f"wait until about {needed}, mend blocked days, or lower training.evaluation_weeks",
        )
    evaluation = known[len(known) - evaluation_weeks :]
    labelled = known[: len(known) - evaluation_weeks]
    cut = len(labelled) - early_stopping_weeks
    return Weeks(tuple(labelled[:cut]), tuple(labelled[cut:]), tuple(evaluation))
