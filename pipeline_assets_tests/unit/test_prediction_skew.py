"""One verdict on predictions from three comparisons, each of which may be unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline_assets.monitoring.prediction_skew import (
    Answered,
    AnswerSkew,
    SkewPolicy,
    compare_answers,
    skew_decision,
    skew_page,
)
from pipeline_assets.monitoring.skew import ScoreSkew, SkewResult, compare_values

POLICY = SkewPolicy()
SLATES = ScoreSkew(0.01, 0.95, 100, 0.2, 0.2, 0.03)


def features(wrong: int) -> SkewResult:
    """1,000 values of one feature, so many of which are others online."""
    offline = np.zeros((1_000, 1), dtype=np.float32)
    online = offline.copy()
    online[:wrong] = 1.0
    return compare_values(offline, online, ["pair_orders"])


def answers(different: int) -> AnswerSkew:
    return AnswerSkew(1_000, different, 1.0, ())


def test_equal_answers_are_not_different() -> None:
    """The same products in the same order, scores that differ in the last bits of a sum."""
    served = {"a": Answered(["p1", "p2"], [2.0, 1.0])}
    again = {"a": Answered(["p1", "p2"], [2.0 + 1e-12, 1.0])}
    assert compare_answers(served, again, POLICY) == AnswerSkew(1, 0, 1.0, ())


@pytest.mark.parametrize(
    ("again", "overlap"),
    [
        (Answered(["p2", "p1"], [2.0, 1.0]), 1.0),
        (Answered(["p1", "p3"], [2.0, 1.0]), 0.5),
        (Answered(["p1", "p2"], [2.0, 1.1]), 1.0),
        (Answered(["p1"], [2.0]), 0.5),
    ],
)
def test_another_order_product_score_or_length_is_a_difference(again: Answered, overlap: float) -> None:
    """Each alone; the answer's id is an example."""
    found = compare_answers({"a": Answered(["p1", "p2"], [2.0, 1.0])}, {"a": again}, POLICY)
    assert found == AnswerSkew(1, 1, overlap, ("a",))


def test_answers_that_cannot_be_computed_again_are_left_out() -> None:
    """A customer who is not in the lake any more: nothing is compared, nothing is ruled out."""
    found = compare_answers({"a": Answered(["p1"], [1.0])}, {}, POLICY)
    assert (found.compared, math.isnan(found.overlap)) == (0, True)


@pytest.mark.ml_test("Mo3")
def test_all_as_it_should_be() -> None:
    """One wrong value or answer of a thousand is allowed."""
    assert skew_decision(features(1), answers(1), SLATES, POLICY).verdict == "ok"


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ((features(2), answers(0), SLATES), "2 of 1,000 online values differ"),
        ((features(0), answers(2), SLATES), "2 of 1,000 are not what the bundle gives"),
        ((features(0), answers(0), ScoreSkew(0.01, 0.4, 100, 0.2, 0.2, 0.5)), "40.0% of the top lists"),
        ((features(0), answers(0), ScoreSkew(0.3, 0.9, 100, 0.2, 0.2, 0.1)), "PSI of scores 0.3000"),
    ],
)
@pytest.mark.ml_test("Mo3", control=True)
def test_each_part_alone_turns_it_red(parts: tuple[SkewResult, AnswerSkew, ScoreSkew], word: str) -> None:
    """0.2 % of the values, of the answers; lists that moved; scores that moved. The first reason is the culprit."""
    decision = skew_decision(*parts, POLICY)
    assert decision.verdict == "skew"
    assert word in decision.reasons[0]


def test_nothing_known_is_unknown() -> None:
    """No online row of the day, too few answers, no day before: three reasons, and not a green verdict."""
    decision = skew_decision(None, AnswerSkew(19, 19, 0.0, ()), None, POLICY)
    assert (decision.verdict, len(decision.reasons)) == ("unknown", 3)


def test_one_known_part_is_enough() -> None:
    """The others are named as not known."""
    decision = skew_decision(features(0), None, None, POLICY)
    assert (decision.verdict, len(decision.reasons)) == ("ok", 3)


def test_the_page_names_the_features_that_differ_and_no_customer() -> None:
    """Red, with the feature; answer ids only."""
    found = features(5)
    page = skew_page("Skew", skew_decision(found, answers(0), SLATES, POLICY), found, answers(0), SLATES)
    assert "<strong>Skew</strong>" in page
    assert "pair_orders" in page
    assert "0.500%" in page


def test_the_page_of_nothing_has_dashes() -> None:
    """No figure is no 0."""
    page = skew_page("Skew", skew_decision(None, None, None, POLICY), None, None, None)
    assert "<strong>Unknown</strong>" in page
    assert "0.0%" not in page
