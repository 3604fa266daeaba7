"""The transition function and the draw of customers."""

from __future__ import annotations

import itertools

import pytest

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.serving.guardrails import Finding, Verdict
from pipeline_assets.serving.rollout import (
    FULL,
    ROLLED_BACK,
    SHADOW,
    Evidence,
    RolloutPolicy,
    RolloutState,
    is_canary,
    next_step,
)

POLICY = RolloutPolicy((0.05, 0.25), 600.0, ("errors", "latency"))
FIVE, QUARTER = RolloutState("canary", 0.05), RolloutState("canary", 0.25)


def evidence(errors: Verdict = "ok", latency: Verdict = "ok", seconds: float = 601.0) -> Evidence:
    return Evidence((Finding("errors", errors, "2 %"), Finding("latency", latency, "9 ms")), seconds)


def test_good_evidence_leads_from_shadow_to_full() -> None:
    """Shadow, 5 %, 25 %, full: one step a decision, and full is the end."""
    states = [SHADOW]
    for _ in range(4):
        states.append(next_step(states[-1], evidence(), POLICY)[0])
    assert states == [SHADOW, FIVE, QUARTER, FULL, FULL]


@pytest.mark.parametrize("state", [SHADOW, FIVE, QUARTER])
def test_a_breach_rolls_back_at_once_and_is_named(state: RolloutState) -> None:
    """Whatever else is not known, and however short the stage was."""
    following, reason = next_step(state, evidence("breach", "inconclusive", 0.0), POLICY)
    assert following == ROLLED_BACK
    assert reason == "errors: 2 %"


@pytest.mark.parametrize("state", [SHADOW, FIVE, QUARTER])
def test_inconclusive_holds_for_ever(state: RolloutState) -> None:
    """A year without data is no reason to promote."""
    following, reason = next_step(state, evidence(latency="inconclusive", seconds=3e7), POLICY)
    assert following == state
    assert "latency: 9 ms" in reason


def test_no_finding_is_inconclusive() -> None:
    """A guardrail that was not looked at has not said ok."""
    following, reason = next_step(FIVE, Evidence((), 3e7), POLICY)
    assert following == FIVE
    assert "errors: not looked at" in reason


def test_a_stage_lasts_its_time() -> None:
    """Good findings before the time are not enough."""
    assert next_step(SHADOW, evidence(seconds=599.0), POLICY)[0] == SHADOW
    assert next_step(SHADOW, evidence(seconds=600.0), POLICY)[0] == FIVE


def test_quality_aborts_but_its_labels_are_not_waited_for() -> None:
    """They come after weeks; when they are there and bad, the rollout ends."""
    policy = RolloutPolicy((0.05,), 0.0, ("errors", "quality"))
    ok = Finding("errors", "ok", "")
    assert next_step(SHADOW, Evidence((ok, Finding("quality", "inconclusive", "")), 1.0), policy)[0] == FIVE
    assert next_step(FIVE, Evidence((ok, Finding("quality", "breach", "")), 1.0), policy)[0] == ROLLED_BACK


@pytest.mark.parametrize("guardrails", [(), ("quality",)])
def test_without_an_armed_guardrail_nothing_moves(guardrails: tuple[str, ...]) -> None:
    """Nothing could stop a bad model: that is an error, and neither start nor promotion."""
    policy = RolloutPolicy((0.05,), 0.0, guardrails)
    with pytest.raises(ConfigurationError, match="at least one guardrail"):
        policy.require_armed()
    with pytest.raises(ConfigurationError, match="at least one guardrail"):
        next_step(FIVE, Evidence((), 3e7), policy)


@pytest.mark.parametrize(
    ("steps", "seconds", "guardrails", "culprit"),
    [
        ((), 0.0, ("errors",), "steps"),
        ((0.25, 0.05), 0.0, ("errors",), "steps"),
        ((0.0, 0.5), 0.0, ("errors",), "steps"),
        ((0.5, 1.0), 0.0, ("errors",), "steps"),
        ((0.5, float("nan")), 0.0, ("errors",), "steps"),
        ((0.5,), -1.0, ("errors",), "stage_minutes"),
        ((0.5,), float("inf"), ("errors",), "stage_minutes"),
        ((0.5,), 0.0, ("errors", "magic"), "magic"),
    ],
)
def test_what_is_not_supported_is_an_error(
    steps: tuple[float, ...], seconds: float, guardrails: tuple[str, ...], culprit: str
) -> None:
    """Never ignored, never corrected in silence."""
    with pytest.raises(ConfigurationError, match=culprit):
        RolloutPolicy(steps, seconds, guardrails)


def test_every_combination_ends_where_it_may() -> None:
    """All states, verdicts and times: full only from the last step with all ok, rolled back only for a breach, and ended stays ended."""
    verdicts: tuple[Verdict, ...] = ("ok", "breach", "inconclusive")
    for state, a, b, seconds in itertools.product(
        (SHADOW, FIVE, QUARTER, FULL, ROLLED_BACK), verdicts, verdicts, (0.0, 601.0)
    ):
        following, _ = next_step(state, evidence(a, b, seconds), POLICY)
        if not state.is_open:
            assert following == state
        elif "breach" in (a, b):
            assert following == ROLLED_BACK
        elif (a, b) == ("ok", "ok") and seconds > 600:
            assert following.share > state.share
            assert (following == FULL) == (state == QUARTER)
        else:
            assert following == state


def test_a_customer_keeps_their_arm_as_the_share_grows() -> None:
    """Who is in 5 % is in 25 %; and the shares are met within four standard errors of 20,000 draws."""
    customers = [f"c{n}" for n in range(20_000)]
    five = {c for c in customers if is_canary(c, 7, "salt", 0.05)}
    quarter = {c for c in customers if is_canary(c, 7, "salt", 0.25)}
    assert five < quarter
    assert abs(len(five) - 1_000) < 4 * (20_000 * 0.05 * 0.95) ** 0.5
    assert abs(len(quarter) - 5_000) < 4 * (20_000 * 0.25 * 0.75) ** 0.5


def test_another_rollout_draws_other_customers() -> None:
    """Not always the same people meet what is new: of 5 %, 5 % are drawn again."""
    customers = [f"c{n}" for n in range(20_000)]
    first = {c for c in customers if is_canary(c, 7, "a", 0.05)}
    second = {c for c in customers if is_canary(c, 8, "a", 0.05)}
    assert len(first & second) < 100


def test_nobody_and_everybody() -> None:
    """Share 0 is nobody, share 1 everybody."""
    assert not any(is_canary(f"c{n}", 7, "", 0.0) for n in range(100))
    assert all(is_canary(f"c{n}", 7, "", 1.0) for n in range(100))
