"""Business rules: each alone on five products, and what holds for all of them together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_assets.serving.rules import Applied, RuleContext, apply_rules
from pipeline_assets.settings_rules import RulesSettings

TODAY = date(2027, 3, 1)


@dataclass(frozen=True)
class Shelf:
    """A catalogue: product -> (department, type)."""

    rows: Mapping[str, int]
    attributes: Mapping[str, Sequence[str | None]]


def shelf(products: Mapping[str, tuple[str | None, str | None]]) -> Shelf:
    departments, types = zip(*products.values(), strict=True)
    rows = {product: row for row, product in enumerate(products)}
    blank = [None] * len(products)
    return Shelf(rows, {"department": departments, "type": types, "category": blank, "brand": blank})


SHELF = shelf({"a": ("D1", "milk"), "b": ("D1", "milk"), "c": ("D1", "tea"), "d": ("D2", "soap"), "e": (None, None)})
RANKED = [("a", 5.0), ("b", 4.0), ("c", 3.0), ("d", 2.0)]  # e is in the catalogue, but no candidate


def slate(
    rules: dict[str, Any], k: int = 3, **context: Any
) -> tuple[list[str], list[tuple[str, str, int | None, int | None]]]:
    """Products, and the effects as (rule, product, before, after)."""
    ruled, applied = apply_rules(RANKED, RulesSettings(**rules), RuleContext(k, TODAY, **context), SHELF)
    return [product for product, _ in ruled], [(x.rule, x.product_id, x.before, x.after) for x in applied]


def test_without_rules_nothing_moves() -> None:
    """The first k as they are, the same objects: the default cannot change what was measured."""
    ruled, applied = apply_rules(RANKED, RulesSettings(), RuleContext(2, TODAY), SHELF)
    assert (ruled, applied) == (RANKED[:2], ())


def test_excluded_products_and_the_basket_are_left_out() -> None:
    """a is excluded, c is in the basket; the next ones take their places."""
    assert slate({}, exclude=["a"], basket=["c"]) == (
        ["b", "d"],
        [("exclude", "a", 1, None), ("basket", "c", 3, None)],
    )


def test_filters_keep_the_wanted_values() -> None:
    """Of department D1, type tea or soap: c alone. A product without the attribute is not of it."""
    assert slate({}, filters={"department": ["D1"], "type": ["tea", "soap"]})[0] == ["c"]


def test_blocked_products_are_left_out_in_their_time() -> None:
    """A recall of b from today on, of all soap until yesterday."""
    rules = {
        "blocked": [
            {"name": "recall 12", "products": ["b"], "first_day": TODAY},
            {"type": ["soap"], "last_day": date(2027, 2, 28)},
        ]
    }
    assert slate(rules) == (["a", "c", "d"], [("blocked: recall 12", "b", 2, None)])


def test_all_conditions_of_a_rule_must_hold() -> None:
    """Department D1 and type tea: c, not a."""
    assert slate({"blocked": [{"department": ["D1"], "type": ["tea"]}]})[0] == ["a", "b", "d"]


def test_recently_bought_counts_days_to_the_limit() -> None:
    """b was bought 7 days ago, a 8: seven days leave out b alone; restricted to department D2, neither."""
    since = {"product": {"a": 8.0, "b": 7.0}}
    rule = {"level": "product", "days": 7}
    assert slate({"recently_bought": [rule]}, days_since=since)[0] == ["a", "c", "d"]
    assert slate({"recently_bought": [{**rule, "department": ["D2"]}]}, days_since=since)[0] == ["a", "b", "c"]


def test_recently_bought_by_type() -> None:
    """Milk was bought yesterday: a and b are left out, whichever of them it was."""
    rules = {"recently_bought": [{"level": "type", "days": 3}]}
    found = slate(rules, days_since={"type": {"a": 1.0, "b": 1.0, "c": 40.0}})
    assert found[0] == ["c", "d"]
    assert found[1][0] == ("recently_bought: type, 3 days", "a", 1, None)


def test_caps_keep_the_best_of_each_value() -> None:
    """Two of a department: c is the third of D1. A product without a department counts for none."""
    assert slate({"caps": {"department": 2}}) == (["a", "b", "d"], [("cap: 2 of department", "c", 3, None)])
    assert slate({"caps": {"department": 1, "type": 1}}, shifts={"e": (9.0, "x")})[0] == ["a", "d"]


def test_boost_adds_the_logarithm_to_the_score() -> None:
    """d has 2 and gets ln(30) = 3.4: 5.4 is more than the 5 of a."""
    ruled, applied = apply_rules(
        RANKED,
        RulesSettings(boosts=[{"name": "spring", "products": ["d"], "factor": 30}]),
        RuleContext(2, TODAY),
        SHELF,
    )  # type: ignore[arg-type]
    assert ruled == [("d", 2.0 + math.log(30)), ("a", 5.0)]
    assert applied == (Applied("boost: spring", "d", 4, 1),)


def test_boost_below_one_lowers_and_says_so() -> None:
    """a has 5 and ln(0.1) = -2.3 takes it to 2.7, behind b and c."""
    assert slate({"boosts": [{"products": ["a"], "factor": 0.1}]}, k=2) == (
        ["b", "c"],
        [("boost", "a", 1, None)],
    )


def test_boost_of_a_popular_list_moves_by_places() -> None:
    """Scores that say only the order: a factor of 4 lifts place 4 to 1, level with the first, which stays before it."""
    rules = {"boosts": [{"products": ["d"], "factor": 4}]}
    assert slate(rules, is_by_place=True)[0] == ["a", "d", "b"]


def test_rules_of_a_context_count_there_only() -> None:
    """A boost for the home page does nothing in the basket."""
    rules = {"boosts": [{"products": ["d"], "factor": 1000, "context": {"placement": "home"}}]}
    assert slate(rules, context={"placement": "home", "device": "app"})[0][0] == "d"
    assert slate(rules, context={"placement": "basket"})[0][0] == "a"
    assert slate(rules)[0][0] == "a"


def test_pin_puts_a_product_at_its_place() -> None:
    """e is no candidate and comes second, with the score of the one after it; d comes last of three."""
    rules = RulesSettings(pins=[{"name": "week 9", "product": "e", "place": 2}, {"product": "d", "place": 3}])  # type: ignore[list-item]
    ruled, applied = apply_rules(RANKED, rules, RuleContext(3, TODAY), SHELF)
    assert ruled == [("a", 5.0), ("e", 2.0), ("d", 2.0)]
    assert applied == (Applied("pin: week 9", "e", None, 2), Applied("pin", "d", 4, 3))


def test_pin_that_is_not_in_the_catalogue_or_beyond_the_slate_does_nothing() -> None:
    """Nobody can buy x; place 4 of 3 does not exist."""
    assert slate({"pins": [{"product": "x", "place": 1}, {"product": "d", "place": 4}]})[0] == ["a", "b", "c"]


def test_excluded_pin_stays_out() -> None:
    """What the caller does not want, and what is blocked, is not shown by a pin either."""
    rules = {"pins": [{"product": "e", "place": 1}]}
    assert slate(rules, exclude=["e"]) == (["a", "b", "c"], [("exclude", "e", None, None)])


def test_caps_count_pins_first() -> None:
    """c is pinned: with one of D1 the best of D1 gives way to it."""
    assert slate({"caps": {"department": 1}, "pins": [{"product": "c", "place": 2}]})[0] == ["d", "c"]


def test_shifts_of_recent_behaviour_are_named() -> None:
    """d gets 2.5 for a reason: 4.5 is second."""
    assert slate({}, shifts={"d": (2.5, "viewed")}) == (["a", "d", "b"], [("recent: viewed", "d", 4, 2)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"boosts": [{"factor": 2}]},
        {"boosts": [{"products": ["a"], "factor": 0}]},
        {"blocked": [{"name": "all"}]},
        {"blocked": [{"products": ["a"], "first_day": "2027-03-02", "last_day": "2027-03-01"}]},
        {"recently_bought": [{"level": "brand", "days": 1}]},
        {"recently_bought": [{"level": "type", "days": 0}]},
        {"caps": {"department": 0}},
        {"caps": {"colour": 2}},
        {"pins": [{"product": "a", "place": 1}, {"product": "a", "place": 2}]},
        {"boost": []},
        {"boosts": [{"products": ["a"], "factor": 2, "from": "2027-03-01"}]},
    ],
)
def test_wrong_rules_are_refused(wrong: dict[str, Any]) -> None:
    """A rule about everything, a factor or a cap of nothing, days in the wrong order, levels, attributes and keys that do not exist."""
    with pytest.raises(pydantic.ValidationError):
        RulesSettings(**wrong)


IDS = [f"p{n}" for n in range(12)]
BIG = shelf({p: (None if n % 5 == 4 else f"D{n % 3}", f"t{n % 4}") for n, p in enumerate(IDS)})
some_ids = st.lists(st.sampled_from([*IDS, "elsewhere"]), max_size=4, unique=True)
what = st.fixed_dictionaries({"products": st.lists(st.sampled_from(IDS), min_size=1, max_size=3)})
any_rules = st.fixed_dictionaries(
    {},
    optional={
        "blocked": st.lists(what, max_size=2),
        "caps": st.dictionaries(st.sampled_from(["department", "type"]), st.integers(1, 3)),
        "boosts": st.lists(
            st.builds(lambda w, f: {**w, "factor": f}, what, st.sampled_from([0.1, 0.5, 3.0, 20.0])), max_size=3
        ),
        "pins": st.lists(
            st.tuples(st.sampled_from([*IDS, "elsewhere"]), st.integers(1, 12)), max_size=3, unique_by=lambda x: x[0]
        ).map(lambda pins: [{"product": p, "place": n} for p, n in pins]),
        "recently_bought": st.just([{"level": "product", "days": 7}]),
    },
)
any_ranked = st.lists(st.sampled_from(IDS), unique=True, max_size=12).flatmap(
    lambda ids: st.lists(st.floats(-9, 9), min_size=len(ids), max_size=len(ids)).map(
        lambda scores: list(zip(ids, sorted(scores, reverse=True), strict=True))
    )
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    any_ranked,
    any_rules,
    some_ids,
    some_ids,
    st.integers(1, 12),
    st.dictionaries(st.sampled_from(IDS), st.floats(0, 14)),
)
def test_what_holds_for_all_rules_together(
    ranked: list[tuple[str, float]],
    rules: dict[str, Any],
    exclude: list[str],
    basket: list[str],
    k: int,
    since: dict[str, float],
) -> None:
    """No product twice, none that is excluded, blocked, in the basket, lately bought or unknown; caps hold; no place stays empty while a
    candidate could fill it; every candidate that is missing from an unfilled slate has a rule that says why."""
    settled = RulesSettings(**rules)
    context = RuleContext(k, TODAY, exclude=exclude, basket=basket, days_since={"product": since})
    ruled, applied = apply_rules(ranked, settled, context, BIG)
    shown = [product for product, _ in ruled]
    assert len(shown) <= k
    assert len(set(shown)) == len(shown)
    blocked = {product for rule in settled.blocked for product in rule.products}
    late = {product for product, days in since.items() if days <= 7} if settled.recently_bought else set()
    assert not set(shown) & {*exclude, *basket, *blocked, *late, "elsewhere"}
    for name, most in settled.caps.items():
        values = [BIG.attributes[name][BIG.rows[product]] for product in shown]
        assert all(values.count(value) <= most for value in values if value is not None)
    told = {effect.product_id for effect in applied if effect.after is None}
    if len(shown) < k:
        assert {product for product, _ in ranked} - set(shown) <= told
    assert all(math.isfinite(score) for _, score in ruled)
    assert apply_rules(ranked, settled, context, BIG) == (ruled, applied)
