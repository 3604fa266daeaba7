"""Decisions about a drift report of Sunday 2017-06-11, with a cool-down of 7 days."""

from __future__ import annotations

from datetime import date

import pytest

from pipeline_assets.monitoring.retraining import decide_retraining

DAY = date(2017, 6, 11)


def test_drift_without_an_obstacle_asks_for_retraining() -> None:
    """The last model is 14 days old and every day passed."""
    decision = decide_retraining("drift", DAY, [date(2017, 5, 28)], 7, [])
    assert decision.is_requested
    assert "2017-06-11" in decision.reason


def test_drift_without_any_model_asks_for_retraining() -> None:
    """Nothing was trained yet, so nothing cools down."""
    assert decide_retraining("drift", DAY, [], 7, []).is_requested


@pytest.mark.parametrize("verdict", ["stable", "warning", "no reference"])
def test_other_verdicts_do_nothing_and_say_which_it_was(verdict: str) -> None:
    """Only the word drift acts."""
    decision = decide_retraining(verdict, DAY, [], 7, [])
    assert not decision.is_requested
    assert verdict in decision.reason


def test_blocked_upstream_is_never_retrained_on_and_each_day_is_named() -> None:
    """Drift that a broken delivery caused would be learned."""
    decision = decide_retraining("drift", DAY, [], 7, [date(2017, 6, 9), date(2017, 6, 10)])
    assert not decision.is_requested
    assert "2017-06-09, 2017-06-10" in decision.reason


@pytest.mark.parametrize(
    ("trained", "is_requested"), [("2017-06-05", False), ("2017-06-04", True), ("2017-06-11", False)]
)
def test_cooldown_counts_business_days_since_the_training(trained: str, is_requested: bool) -> None:
    """06-11 - 06-05 = 6 < 7 days waits; 06-11 - 06-04 = 7 does not; the same day is 0 days ago."""
    assert decide_retraining("drift", DAY, [date.fromisoformat(trained)], 7, []).is_requested is is_requested


def test_newest_training_is_named() -> None:
    """Of two trainings inside the cool-down the later one explains the refusal."""
    decision = decide_retraining("drift", DAY, [date(2017, 6, 8), date(2017, 6, 6)], 7, [])
    assert "2017-06-08" in decision.reason


def test_model_trained_for_a_later_day_does_not_stop_a_backfill() -> None:
    """When an old day is computed again, a model of its future is not a recent one."""
    assert decide_retraining("drift", DAY, [date(2017, 6, 18)], 7, []).is_requested


def test_no_cooldown_retrains_every_time() -> None:
    """0 days: even a model of the same day is no obstacle."""
    assert decide_retraining("drift", DAY, [DAY], 0, []).is_requested
