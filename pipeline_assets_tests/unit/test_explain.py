"""Sentences from SHAP contributions (feature, value, contribution)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipeline_assets.recommender import explain
from pipeline_assets.recommender.explain import (
    SourceSizes,
    Standing,
    fact,
    merchant_sentence,
    reason,
    shopper_sentence,
    why_not,
)
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
    """Each phrase makes words of a plain value; some only of one above 1, such as what is due."""
    assert {reason([(name, 0.5, 0.1)]), reason([(name, 1.5, 0.1)])} != {NOTHING}


def test_shopper_hears_you_and_your() -> None:
    """The same facts, strongest first, in the second person and as one sentence."""
    said = shopper_sentence(
        "Milk", [("pair_order_share", 0.25, 0.5), ("pair_store_mailer", 1.0, 0.2), ("pair_has_coupon", 1.0, 0.1)]
    )
    assert said == "Milk: in 25% of your orders, in your store's mailer next week and you have a coupon for it."


def test_no_wording_speaks_of_the_customer_to_the_customer() -> None:
    """Each phrase alone, said to the shopper, has nothing left of the third person."""
    said = {shopper_sentence("Milk", [(name, value, 0.1)]) for name in explain._PHRASES for value in (0.5, 1.5)}
    assert [text for text in said if "the customer" in text] == []


def test_shopper_without_a_fact_is_told_so() -> None:
    """Nothing is made up."""
    assert "no single fact" in shopper_sentence("Milk", [("customer_basket_size", 9.0, 0.9)])


def test_merchant_sees_place_and_both_directions() -> None:
    """+0.5 and +0.2 raise, -0.3 holds back; each with its amount, the strongest first."""
    contributions = [
        ("pair_n_orders", 4.0, 0.2),
        ("product_orders_7d", 2.0, -0.3),
        ("pair_days_since_last", 7.0, 0.5),
    ]
    said = merchant_sentence("Milk", "7", 3, 200, contributions)
    assert said == (
        "Milk is number 3 of 200 candidates for customer 7. Raised by last bought 7 days ago (+0.50); bought 4 times (+0.20). "
        "Held back by orders of it in a week: 2 (-0.30)."
    )


@pytest.mark.parametrize(
    ("name", "value", "raises", "words"),
    [
        pytest.param("product_orders_7d", 90.0, True, "selling well this week", id="praise raises"),
        pytest.param("product_orders_7d", 0.0, False, "orders of it in a week: 0", id="praise does not hold back"),
        pytest.param("pair_n_orders", 1.0, False, "bought 1 times", id="a count is true either way"),
        pytest.param("pair_has_coupon", 0.0, False, "not so: the customer has a coupon for it", id="no flag"),
        pytest.param("pair_gap_days", math.nan, False, "usual days between purchases of it: not known", id="missing"),
        pytest.param("customer_basket_size", 9.0, True, "the customer's basket size: 9", id="no wording"),
    ],
)
def test_a_fact_is_true_of_its_direction(name: str, value: float, raises: bool, words: str) -> None:
    """A phrase that praises is not said of what holds a product back."""
    assert fact(name, value, raises) == words


def test_every_name_belongs_to_a_feature_of_the_model() -> None:
    """A renamed feature must not keep its name here."""
    assert set(explain._NAMES) <= set(MODEL_FEATURES)


SIZES = SourceSizes(history=180, neighbours=30, neighbour_items=2000, of_type=5, promoted=30, popular=20)
USUAL = Standing(True, True, True, 0, "MILK", 0, 9, 500, 300, False)


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (replace(USUAL, is_listed=False, is_sellable=False), "not in the catalogue"),
        (replace(USUAL, is_sellable=False), "not sellable"),
        (replace(USUAL, is_sold_or_promoted=False), "never sold and is not promoted"),
    ],
)
def test_what_nobody_can_get_has_one_reason(standing: Standing, reason: str) -> None:
    """The first thing in the way."""
    (said,) = why_not(standing, SIZES)
    assert reason in said


@pytest.mark.parametrize(
    ("standing", "source", "words"),
    [
        (USUAL, "history", "the customer never bought it"),
        (replace(USUAL, n_orders=2), "history", "bought 2 times, but 180 other products"),
        (USUAL, "neighbours", "30 others are closer"),
        (replace(USUAL, place_by_buyers=2001), "neighbours", "not among the 2000 products with the most buyers"),
        (USUAL, "type", "never bought a product of type MILK"),
        (replace(USUAL, n_type_orders=3), "type", "number 9 of type MILK; the 5 best sellers"),
        (replace(USUAL, n_type_orders=3, place_in_type=2), "type", "types that the customer buys more"),
        (replace(USUAL, n_type_orders=3, place_in_type=None), "type", "not sold in the last 28 days"),
        (replace(USUAL, type_name=None), "type", "its type is not known"),
        (USUAL, "promoted", "neither on display nor in a mailer"),
        (replace(USUAL, is_promoted=True), "promoted", "took the places"),
        (USUAL, "popular", "number 500 of all products; the first 20"),
        (replace(USUAL, place=None), "popular", "not sold in the last 28 days"),
    ],
)
def test_each_source_says_what_was_missing(standing: Standing, source: str, words: str) -> None:
    """One reason per candidate source, in their order."""
    said = why_not(standing, SIZES)
    assert [reason.split(":")[0] for reason in said] == ["history", "neighbours", "type", "promoted", "popular"]
    assert words in next(reason for reason in said if reason.startswith(source))
