"""Sentences from SHAP contributions (feature, value, contribution)."""

from __future__ import annotations

import math

import pytest

from pipeline_assets.recommender import explain
from pipeline_assets.recommender.explain import reason
from pipeline_assets.recommender.features import MODEL_FEATURES

NOTHING = "chosen by its overall score"


def test_strongest_contributions_come_first() -> None:
    """0.5 before 0.3; 0.1 is the third and only two are said."""
    said = reason([("pair_n_orders", 4.0, 0.3), ("pair_days_since_last", 7.0, 0.5), ("product_orders_91d", 6.0, 0.1)])
    assert said == "last bought 7 days ago; bought 4 times"


def test_most_says_how_many_facts() -> None:
    """One fact: the strongest."""
    facts = [("pair_n_orders", 4.0, 0.3), ("pair_days_since_last", 7.0, 0.5)]
    assert reason(facts, most=1) == "last bought 7 days ago"


def test_age_of_one_day_is_yesterday() -> None:
    """A purchase on D has age 1 at T."""
    assert reason([("pair_days_since_last", 1.0, 0.2)]) == "last bought yesterday"


@pytest.mark.parametrize("share", [0.0, -0.4])
def test_what_does_not_raise_the_score_is_not_a_reason(share: float) -> None:
    """A feature that lowers the score or does nothing explains no recommendation."""
    assert reason([("pair_n_orders", 4.0, share)]) == NOTHING


def test_missing_value_is_not_a_fact() -> None:
    """ "bought about every nan days" is not said."""
    assert reason([("pair_gap_days", math.nan, 0.9), ("pair_n_orders", 2.0, 0.1)]) == "bought 2 times"


@pytest.mark.parametrize(
    "flag", ["pair_store_display", "pair_store_mailer", "pair_has_coupon", "product_is_new_in_mailer"]
)
def test_flag_is_said_only_when_it_is_set(flag: str) -> None:
    """0 can raise a score too, but "in the mailer" would be untrue."""
    assert reason([(flag, 0.0, 0.5)]) == NOTHING
    assert reason([(flag, 1.0, 0.5)]) != NOTHING


def test_same_words_are_said_once() -> None:
    """Type days and type decayed have one wording."""
    said = reason([("pair_type_days", 9.0, 0.5), ("pair_type_decayed", 3.0, 0.4), ("pair_n_orders", 2.0, 0.3)])
    assert said == "a kind of product the customer buys often; bought 2 times"


def test_price_is_praised_only_when_it_is_lower() -> None:
    """Ratio 0.8 of the usual price is cheaper; 1.2 is passed over for the next fact."""
    assert reason([("product_price_ratio", 0.8, 0.5)]) == "cheaper than usual"
    assert reason([("product_price_ratio", 1.2, 0.5), ("pair_n_orders", 2.0, 0.1)]) == "bought 2 times"


def test_feature_without_a_wording_is_passed_over() -> None:
    """How large the customer's baskets are says nothing about a product."""
    assert reason([("customer_basket_size", 9.0, 0.9)]) == NOTHING


def test_no_contribution_has_an_answer() -> None:
    """An empty list is explained honestly."""
    assert reason([]) == NOTHING


def test_every_wording_belongs_to_a_feature_of_the_model() -> None:
    """A renamed feature must not keep its sentence under the old name."""
    assert set(explain._PHRASES) <= set(MODEL_FEATURES)
    assert set(explain._FLAGS) <= set(explain._PHRASES)


@pytest.mark.parametrize("name", sorted(explain._PHRASES))
def test_every_wording_can_be_said(name: str) -> None:
    """Each phrase makes words of a plain value."""
    assert reason([(name, 0.5, 0.1)]) != NOTHING
