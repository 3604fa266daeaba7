"""Decisions about Sunday 2017-06-11, with a cool-down of 7 days and two trainings a week."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from pipeline_assets.monitoring.retraining import RetrainingPolicy, Situation, decide_retraining
from pipeline_assets.recommender.errors import ConfigurationError

DAY = date(2017, 6, 11)
DRIFT = Situation(DAY, drift="drift", quality="ok", skew="ok")
DEGRADED = Situation(DAY, drift="ok", quality="degraded", skew="ok")
POLICY = RetrainingPolicy()


def ago(*days: int) -> tuple[date, ...]:
    return tuple(DAY - timedelta(days=n) for n in days)


@pytest.mark.parametrize(("situation", "trigger"), [(DRIFT, "drift"), (DEGRADED, "quality")])
def test_drift_and_degraded_quality_ask_for_retraining(situation: Situation, trigger: str) -> None:
    """The last model is 14 days old and every day passed."""
    decision = decide_retraining(replace(situation, trained_days=ago(14)), POLICY)
    assert (decision.kind, decision.trigger, decision.is_requested) == ("retrain", trigger, True)
    assert "2017-06-11" in decision.reason


def test_drift_without_any_model_asks_for_retraining() -> None:
    """Nothing was trained yet, so nothing cools down."""
    assert decide_retraining(DRIFT, POLICY).is_requested


@pytest.mark.parametrize(("drift", "quality"), [("ok", "ok"), ("watch", "ok"), ("unknown", "unknown")])
def test_other_verdicts_do_nothing_and_say_which_they_were(drift: str, quality: str) -> None:
    """Unknown quality is no reason to train."""
    decision = decide_retraining(Situation(DAY, drift, quality), POLICY)
    assert (decision.kind, decision.is_requested) == ("nothing", False)
    assert f"drift report says {drift}, quality report says {quality}" in decision.reason


def test_blocked_upstream_is_never_retrained_on_and_each_day_is_named() -> None:
    """Drift that a broken delivery caused would be learned."""
    decision = decide_retraining(replace(DRIFT, blocked_days=ago(2, 1)), POLICY)
    assert decision.kind == "refuse"
    assert "2017-06-09, 2017-06-10" in decision.reason


def test_a_season_is_retrained_on_and_a_broken_upstream_is_not() -> None:
    """The same red report: with a sign of a fault it is refused, and the sign is named."""
    assert decide_retraining(DRIFT, POLICY).is_requested
    decision = decide_retraining(replace(DRIFT, signs=("no line of DAIRY",)), POLICY)
    assert decision.kind == "refuse"
    assert "no line of DAIRY" in decision.reason


def test_skew_is_not_mended_by_a_new_model() -> None:
    """Quality is degraded because customers get other features than the model was given: refused."""
    decision = decide_retraining(replace(DEGRADED, skew="skew"), POLICY)
    assert (decision.kind, "skew report" in decision.reason) == ("refuse", True)


@pytest.mark.parametrize(("days_ago", "kind"), [(0, "refuse"), (6, "refuse"), (7, "retrain"), (-1, "retrain")])
@pytest.mark.parametrize("field", ["trained_days", "requested_days"])
def test_cool_down(days_ago: int, kind: str, field: str) -> None:
    """Six days are too few, seven are enough; a model of a later day (a backfill) does not count; a request counts as a training."""
    assert decide_retraining(replace(DRIFT, **{field: ago(days_ago)}), POLICY).kind == kind


@pytest.mark.parametrize(
    ("trained", "requested", "kind"), [((5,), (3,), "refuse"), ((5,), (5,), "retrain"), ((5, 9), (), "retrain")]
)
def test_weekly_maximum(trained: tuple[int, ...], requested: tuple[int, ...], kind: str) -> None:
    """Two in seven days are enough, with a cool-down of two; one day that was asked for and trained is one."""
    situation = replace(DRIFT, trained_days=ago(*trained), requested_days=ago(*requested))
    decision = decide_retraining(situation, RetrainingPolicy(cooldown_days=2, weekly_maximum=2))
    assert decision.kind == kind


def test_a_month_of_drift_is_four_trainings() -> None:
    """Red every day, each request counted: the retrain loop is held to one a week."""
    requested: list[date] = []
    for n in range(28):
        day = DAY + timedelta(days=n)
        if decide_retraining(replace(DRIFT, day=day, requested_days=tuple(requested)), POLICY).is_requested:
            requested.append(day)
    assert requested == [DAY + timedelta(days=n) for n in (0, 7, 14, 21)]


def test_a_policy_that_means_nothing_is_refused() -> None:
    """A negative number of days."""
    with pytest.raises(ConfigurationError, match="cooldown_days -1"):
        RetrainingPolicy(cooldown_days=-1)
