"""Weeks of 7 days before an as-of day, on the scenario's calendar: first day Sunday 2017-01-01."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta

import pytest

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.split import MIN_HISTORY_DAYS, Weeks, weeks_before

FIRST = date(2017, 1, 1)
ALL_DAYS = frozenset(FIRST + timedelta(days=n) for n in range(365))


def split(
    as_of: date,
    *,
    week_start: int = 1,
    label_weeks: int = 2,
    early_stopping_weeks: int = 1,
    evaluation_weeks: int = 1,
    usable_days: Collection[date] = ALL_DAYS,
) -> Weeks:
    return weeks_before(
        as_of,
        FIRST,
        week_start=week_start,
        horizon_days=7,
        label_weeks=label_weeks,
        early_stopping_weeks=early_stopping_weeks,
        evaluation_weeks=evaluation_weeks,
        usable_days=usable_days,
    )


def window(day: date) -> set[date]:
    return {day + timedelta(days=n) for n in range(1, 8)}


def test_newest_window_evaluates_the_one_before_stops_and_older_ones_train() -> None:
    """As of Sunday 02-19 the last complete window is that of 02-12 (02-13 .. 02-19); 01-29 has 29 days of history."""
    weeks = split(date(2017, 2, 19))
    assert weeks == Weeks((date(2017, 1, 29),), (date(2017, 2, 5),), (date(2017, 2, 12),))
    assert weeks.all == (date(2017, 1, 29), date(2017, 2, 5), date(2017, 2, 12))


@pytest.mark.parametrize("week_start", range(1, 8))
@pytest.mark.parametrize("later", range(7))
def test_windows_start_on_week_start_and_none_ends_after_as_of(week_start: int, later: int) -> None:
    """Whatever the weekday of the run: D + 1 is the wanted weekday and D + 7 <= as_of, less than a week before it."""
    as_of = date(2017, 6, 1) + timedelta(days=later)
    weeks = split(as_of, week_start=week_start, label_weeks=6, evaluation_weeks=2)
    assert {(day + timedelta(days=1)).isoweekday() for day in weeks.all} == {week_start}
    assert 0 <= (as_of - max(window(weeks.evaluation[-1]))).days < 7


def test_no_day_is_in_two_windows_and_parts_follow_each_other() -> None:
    """Six labelled windows (two of them stop), two to evaluate on: 8 x 7 different days, each part before the next."""
    weeks = split(date(2017, 6, 4), label_weeks=6, early_stopping_weeks=2, evaluation_weeks=2)
    assert (len(weeks.training), len(weeks.early_stopping), len(weeks.evaluation)) == (4, 2, 2)
    assert len(set().union(*(window(day) for day in weeks.all))) == 8 * 7
    assert max(window(weeks.training[-1])) < min(window(weeks.early_stopping[0]))
    assert max(window(weeks.early_stopping[-1])) < min(window(weeks.evaluation[0]))
    assert list(weeks.all) == sorted(weeks.all)


@pytest.mark.parametrize("blocked", [date(2017, 5, 21), date(2017, 5, 22), date(2017, 5, 28)])
def test_week_with_an_unusable_day_is_skipped_and_an_older_one_takes_its_place(blocked: date) -> None:
    """The week of 05-21 needs 05-21 itself and 05-22 .. 05-28; without it the split has as many weeks, one older."""
    whole = split(date(2017, 6, 4), label_weeks=3)
    mended = split(date(2017, 6, 4), label_weeks=3, usable_days=ALL_DAYS - {blocked})
    assert date(2017, 5, 21) in whole.all
    assert date(2017, 5, 21) not in mended.all
    assert len(mended.all) == len(whole.all)
    assert not any(blocked in {day, *window(day)} for day in mended.all)


def test_as_of_day_that_is_unusable_costs_two_weeks_at_most() -> None:
    """05-28 ends the window of 05-21 and is the as-of day of the next: both weeks go, the others stay."""
    whole = split(date(2017, 6, 11), label_weeks=20)
    mended = split(date(2017, 6, 11), label_weeks=20, usable_days=ALL_DAYS - {date(2017, 5, 28)})
    assert set(whole.all) - set(mended.all) == {date(2017, 5, 21), date(2017, 5, 28)}


def test_days_after_as_of_change_nothing() -> None:
    """A verdict of a later day is not a reason to use it."""
    as_of = date(2017, 6, 7)
    assert split(as_of, usable_days={day for day in ALL_DAYS if day <= as_of}) == split(as_of)


def test_every_training_week_has_enough_history() -> None:
    """The oldest as-of day is at least 28 days into the data, however many weeks are asked for."""
    weeks = split(date(2017, 6, 4), label_weeks=100)
    assert (weeks.training[0] - FIRST).days + 1 >= MIN_HISTORY_DAYS
    assert (weeks.training[0] - timedelta(days=7) - FIRST).days + 1 < MIN_HISTORY_DAYS


def test_fewer_label_weeks_than_asked_for_are_used_when_there_are_no_more() -> None:
    """As of 02-19 there are 3 windows with history: 1 evaluates, 2 are labelled, though 16 were asked for."""
    assert len(split(date(2017, 2, 19), label_weeks=16).all) == 3


def test_too_few_windows_names_the_day_how_many_and_the_fix() -> None:
    """As of 02-18 the window of 02-12 is not complete: 2 windows where 1 + 1 + 1 are needed."""
    with pytest.raises(NotEnoughData) as error:
        split(date(2017, 2, 18))
    assert "2017-02-18" in error.value.culprit
    assert str(error.value.found).startswith("2 complete windows of 7 days")
    assert error.value.wanted == "at least 3"
    assert "2017-02-24" in error.value.fix  # 2017-01-01 + 27 days of history + 3 x 7 days + at most 6 to the weekday


@pytest.mark.parametrize("week_start", range(1, 8))
def test_day_named_in_the_fix_is_late_enough_for_any_week_start(week_start: int) -> None:
    """On 02-24 the least split exists, whatever weekday windows start on."""
    assert len(split(date(2017, 2, 24), week_start=week_start).all) >= 3
