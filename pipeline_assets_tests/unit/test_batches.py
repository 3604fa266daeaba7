"""Batch rules on profiles written by hand: each seen passing and failing at its edge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow
import pytest

from pipeline_assets.schemas.batches import (
    BatchPolicy,
    Finding,
    History,
    NullBudget,
    Profile,
    compare,
    nulls,
    profile,
    unknown_budgets,
)
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import ValidationPolicy, compared

PURCHASES, DAY = FEEDS["purchases"], date(2017, 3, 6)  # a Monday
POLICY = BatchPolicy()


def history(rows: int = 1000, amount: float = 2.0, days: int = 56, **others: Profile) -> History:
    """The days before `DAY`, all alike."""
    usual = Profile(rows, {"amount": math.log(amount), "quantity": 0.0})
    return History({DAY - timedelta(days=n): usual for n in range(1, days + 1)})


def found(day: Profile, before: History, policy: BatchPolicy = POLICY) -> list[tuple[str, bool]]:
    return [(finding.rule, finding.blocks) for finding in compare(PURCHASES, DAY, day, before, policy)]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (49, [("volume", True)]), (50, [("volume", False)]), (499, [("volume", False)]), (500, []), (1000, []), (2000, []),
        (2001, [("volume", False)]), (10_000, [("volume", False)]), (10_001, [("volume", True)]),
    ],
)  # fmt: skip
def test_volume_against_the_same_weekdays(rows: int, wanted: list[tuple[str, bool]]) -> None:
    """Usually 1000: told outside 500 .. 2000, blocked outside 50 .. 10,000."""
    assert found(Profile(rows), history()) == wanted


def test_volume_compares_with_the_same_weekday_only() -> None:
    """Mondays have 1000 lines and the other days 10: 1000 on a Monday is usual."""
    mixed = {day: Profile(1000 if day.weekday() == 0 else 10) for day in history().profiles}
    assert found(Profile(1000), History(mixed)) == []
    assert found(Profile(10), History(mixed)) == [("volume", True)]


def test_three_bad_weekdays_of_eight_do_not_move_the_median() -> None:
    """Three Mondays with a single line, five with 1000."""
    bad = {DAY - timedelta(weeks=n): Profile(1) for n in (1, 2, 3)}
    assert found(Profile(1000), History({**history().profiles, **bad})) == []


@pytest.mark.parametrize(("weeks", "wanted"), [(2, []), (3, [("volume", True)])])
def test_volume_is_silent_until_enough_is_known(weeks: int, wanted: list[tuple[str, bool]]) -> None:
    """Two Mondays are not enough, three are; days on which nobody bought are not known ones."""
    known = {DAY - timedelta(weeks=n): Profile(1000) for n in range(1, weeks + 1)} | {
        DAY - timedelta(weeks=7): Profile(0)
    }
    assert found(Profile(1), History(known)) == wanted


def test_small_shops_are_not_judged_by_volume() -> None:
    """99 usual lines and one today: below 100 chance rules."""
    assert found(Profile(1), history(rows=99)) == []


def test_later_days_say_nothing() -> None:
    """Only earlier days are history, so the order of validation does not matter."""
    later = {DAY + timedelta(days=n): Profile(1000, {"amount": 0.0}) for n in range(1, 57)}
    assert found(Profile(1, {"amount": math.log(100.0)}), History(later)) == []


@pytest.mark.parametrize(
    ("times", "blocked"), [(100, True), (0.01, True), (3.01, True), (2.99, False), (1.8, False), (1, False)]
)
def test_typical_amount_against_the_last_weeks(times: float, blocked: bool) -> None:
    """Cents for currency is a factor of 100 and blocks; 1.8 times is drift, which is not for here."""
    day = Profile(1000, {"amount": math.log(2.0 * times), "quantity": 0.0})
    assert found(day, history()) == ([("shift_amount", True)] if blocked else [])


def test_a_feed_that_always_jumps_is_not_blocked() -> None:
    """Typical amounts of 1 and 100 in turn: 1.4826 x 2.3 x 6 is far more than the distance of 100 from 10."""
    before = {
        DAY - timedelta(days=n): Profile(1000, {"amount": math.log(100.0 if n % 2 else 1.0)}) for n in range(1, 29)
    }
    assert found(Profile(1000, {"amount": math.log(100.0)}), History(before)) == []


@pytest.mark.parametrize(
    ("days", "rows", "wanted"), [(6, 1000, []), (7, 1000, [("shift_quantity", True)]), (7, 99, [])]
)
def test_shift_is_silent_until_enough_is_known(days: int, rows: int, wanted: list[tuple[str, bool]]) -> None:
    """Seven days and 100 rows are needed."""
    assert found(Profile(rows, {"quantity": math.log(12.0)}), history(days=days)) == wanted


def test_messages_name_day_number_limit_and_fix() -> None:
    """A person can act on them."""
    volume, shift = compare(PURCHASES, DAY, Profile(49 * 10, {"amount": math.log(200.0)}), history(rows=10_000), POLICY)
    for part in (
        "490 rows of purchases on Monday 2017-03-06",
        "usual 10000 (median of 8",
        "0.05 to 10.0",
        "accepted_days",
    ):
        assert part in volume.text
    for part in ("typical amount of purchases on 2017-03-06 is 200, 100 times the usual 2", "below 3", "accepted_days"):
        assert part in shift.text


def test_change_feeds_are_not_compared() -> None:
    """Exposures come on Sundays: no volume, no sizes."""
    assert compare(FEEDS["exposures"], DAY, Profile(1), history(), POLICY) == []


def test_an_accepted_day_is_told_and_not_blocked() -> None:
    """A person looked."""
    policy = ValidationPolicy(0.2, 0.5, accepted_days=frozenset({DAY}))
    (finding,) = compared(PURCHASES, DAY, Profile(1), history(), policy)
    assert (finding.rule, finding.blocks) == ("volume", False)
    (finding,) = compared(PURCHASES, DAY, Profile(1), history(), ValidationPolicy(0.2, 0.5))
    assert finding.blocks


def budgets(rows: int, absent: Mapping[str, int], policy: BatchPolicy = POLICY) -> list[Finding]:
    return nulls(PURCHASES, DAY, rows, absent, policy)


@pytest.mark.parametrize(("absent", "wanted"), [(1, []), (2, [False]), (10, [False]), (11, [True])])
def test_null_budget_of_a_required_column(absent: int, wanted: list[bool]) -> None:
    """Of 100 values: 1 % is nothing, above it is told, above 10 % blocks."""
    assert [finding.blocks for finding in budgets(100, {"customer_id": absent})] == wanted


def test_optional_columns_have_the_budget_that_they_are_given() -> None:
    """A web shop has no stores at all; a shop with stores says so."""
    assert budgets(100, {"store_id": 100}) == []
    policy = replace(POLICY, null_budgets={"purchases.store_id": NullBudget(0.0, 0.5)})
    (finding,) = budgets(100, {"store_id": 51}, policy)
    assert (finding.rule, finding.blocks) == ("nulls_store_id", True)
    assert (
        "51 of 100 values of store_id of purchases on 2017-03-06 are missing (51.0%); wanted at most 50%"
        in finding.text
    )


def test_budgets_of_columns_that_do_not_exist_are_named() -> None:
    """A typing error must not be a rule that never fires."""
    assert unknown_budgets({"purchases.store_id": NullBudget(0, 1), "purchases.shop": NullBudget(0, 1)}) == [
        "purchases.shop"
    ]


def test_profile_is_of_valid_positive_values() -> None:
    """Median of 1, 2, 4 is 2; the 0, and the 100 of a row that is not valid, do not count."""
    table = pyarrow.table({"amount": [1.0, 2.0, 4.0, 0.0, 100.0], "quantity": [1.0] * 5})
    result = profile(PURCHASES, table, np.array([True, True, True, True, False]), 5)
    assert result == Profile(5, {"amount": round(math.log(2.0), 9), "quantity": 0.0})
