"""Catalogue and business rules: from ranked candidates to a slate, with what moved and why. Pure: no clock, no store.

Order: what may not be shown is left out (blocked, excluded, in the basket, filtered, recently bought); boosts and recent
behaviour move the rest; caps are kept from the best downwards; pins take their places. Caps hold for pins, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from pipeline_assets.settings_rules import ATTRIBUTES, Dated, Products, RecentlyBought, RulesSettings

Slate = Sequence[tuple[str, float]]


class Catalogue(Protocol):
    """What the rules know of products; a bundle is one."""

    @property
    def rows(self) -> Mapping[str, int]:
        """Product -> row."""

    @property
    def attributes(self) -> Mapping[str, Sequence[str | None]]:
        """Attribute -> value per row."""


@dataclass(frozen=True)
class RuleContext:
    """What the rules depend on besides the settings.

    Args:
        k: how many products, >= 1.
        today: the day of the answer; dated rules count by it.
        exclude, basket: products that are not shown.
        filters: attribute -> the values that are wanted.
        context: of the request; rules with a context count where theirs is part of it.
        days_since: level (product, type, category) -> product -> days since the customer bought it, or one of its type or category.
        shifts: product -> what recent behaviour adds to its score, and why (behaviour.py).
        is_by_place: the scores say nothing but the order (popularity). Strength then falls with the logarithm of the place, as
            sales do by Zipf's law, so a factor of 2 lifts place 10 to 5.
    """

    k: int
    today: date
    exclude: Sequence[str] = ()
    basket: Sequence[str] = ()
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    days_since: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shifts: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    is_by_place: bool = False


@dataclass(frozen=True)
class Applied:
    """One effect of one rule on one product. Places count from 1; None: not among the candidates, not in the slate."""

    rule: str
    product_id: str
    before: int | None
    after: int | None


def apply_rules(
    ranked: Slate, rules: RulesSettings, context: RuleContext, catalogue: Catalogue
) -> tuple[Slate, tuple[Applied, ...]]:
    """The best `k` that the rules allow, best first, and what the rules did.

    Args:
        ranked: distinct products of the catalogue, best first.

    Returns:
        The slate, with scores as the rules changed them: a pinned product that was not ranked has the score of the one after
        it. And the effects: what was left out on the way to the slate, and what rules moved into, within or out of it.
    """
    asks = context.exclude or context.basket or context.filters or context.shifts
    if rules.is_empty and not asks:
        return ranked[: context.k], ()
    return _Table(ranked, rules, context, catalogue).slate()


class _Table:
    """One application of the rules."""

    def __init__(self, ranked: Slate, rules: RulesSettings, context: RuleContext, catalogue: Catalogue) -> None:
        self._ranked, self._context, self._catalogue = ranked, context, catalogue
        self._place = {product: place for place, (product, _) in enumerate(ranked, 1)}
        self._barriers = self._barriers_of(rules)
        self._boosts = [
            (_named("boost", rule), math.log(rule.factor), about(rule, catalogue))
            for rule in rules.boosts
            if _counts(rule, context)
        ]
        self._pins = sorted((pin for pin in rules.pins if _counts(pin, context)), key=lambda pin: pin.place)
        self._caps = [(name, catalogue.attributes[name], most) for name, most in rules.caps.items()]
        self._taken: dict[tuple[str, str], int] = {}
        self._applied: list[Applied] = []

    def slate(self) -> tuple[Slate, tuple[Applied, ...]]:
        k, pinned = self._context.k, self._pinned()
        places = {place: product for product, place in pinned.items()}
        slate: list[tuple[str, float | None]] = []
        scores = {product: score for product, score in self._ranked if product in pinned}
        for score, product in self._moved():
            while (pin := places.pop(len(slate) + 1, None)) is not None:
                slate.append((pin, None))
            if len(slate) >= k:
                break
            if product in pinned:
                continue
            if rule := self._barrier(product) or self._over_cap(product):
                self._applied.append(Applied(rule, product, self._place[product], None))
            else:
                slate.append((product, score))
        slate += [(product, None) for _, product in sorted(places.items())]
        self._tell_moves([product for product, _ in slate], pinned)
        return _scored(slate, scores), tuple(self._applied)

    def _barriers_of(self, rules: RulesSettings) -> list[tuple[str, Callable[[str], bool]]]:
        """What keeps a product out, by name; the first that does is the one that is told."""
        context = self._context
        found: list[tuple[str, Callable[[str], bool]]] = []
        for name, products in (("exclude", context.exclude), ("basket", context.basket)):
            if products:
                found.append((name, frozenset(products).__contains__))
        for attribute, wanted in context.filters.items():
            found.append((f"filter: {attribute}", self._differs(attribute, frozenset(wanted))))
        for blocked in rules.blocked:
            if _counts(blocked, context):
                found.append((_named("blocked", blocked), about(blocked, self._catalogue)))
        for bought in rules.recently_bought:
            since = context.days_since.get(bought.level)
            if since and _counts(bought, context):
                name = _named(f"recently_bought: {bought.level}, {bought.days} days", bought)
                found.append((name, self._was_bought(bought, since)))
        return found

    def _differs(self, attribute: str, wanted: frozenset[str]) -> Callable[[str], bool]:
        rows, values = self._catalogue.rows, self._catalogue.attributes[attribute]
        return lambda product: values[rows[product]] not in wanted

    def _was_bought(self, rule: RecentlyBought, since: Mapping[str, float]) -> Callable[[str], bool]:
        is_about = about(rule, self._catalogue)
        return lambda product: since.get(product, math.inf) <= rule.days and is_about(product)

    def _barrier(self, product: str) -> str:
        return next((name for name, keeps_out in self._barriers if keeps_out(product)), "")

    def _over_cap(self, product: str) -> str:
        """The cap that the product would break; if none, it is counted."""
        row = self._catalogue.rows[product]
        keys = [(name, value, most) for name, values, most in self._caps if (value := values[row]) is not None]
        for name, value, most in keys:
            if self._taken.get((name, value), 0) >= most:
                return f"cap: {most} of {name}"
        for name, value, _ in keys:
            self._taken[name, value] = self._taken.get((name, value), 0) + 1
        return ""

    def _moved(self) -> Iterable[tuple[float, str]]:
        """(score as moved, product), strongest first; equal ones as they were."""
        shifts, by_place = self._context.shifts, self._context.is_by_place
        if not self._boosts and not shifts:
            return ((score, product) for product, score in self._ranked)
        rows = []
        for place, (product, score) in enumerate(self._ranked, 1):
            shift = sum(added for _, added, is_about in self._boosts if is_about(product))
            shift += shifts[product][0] if product in shifts else 0.0
            strength = (-math.log(place) if by_place else score) + shift
            rows.append((-strength, place, score if by_place else strength, product))
        return ((score, product) for _, _, score, product in sorted(rows))

    def _pinned(self) -> dict[str, int]:
        """Product -> place of the pins that count; a pin whose place is taken gets the next one."""
        found: dict[str, int] = {}
        place = 0
        for pin in self._pins:
            place = max(pin.place, place + 1)
            if pin.product not in self._catalogue.rows or place > self._context.k:
                continue
            if rule := self._barrier(pin.product) or self._over_cap(pin.product):
                self._applied.append(Applied(rule, pin.product, self._place.get(pin.product), None))
            else:
                found[pin.product] = place
        return found

    def _tell_moves(self, slate: Sequence[str], pinned: Mapping[str, int]) -> None:
        after = {product: place for place, product in enumerate(slate, 1)}
        for pin in self._pins:
            if pin.product in pinned:
                rule = _named("pin", pin)
                self._applied.append(Applied(rule, pin.product, self._place.get(pin.product), after.get(pin.product)))
        shown = [product for product, _ in self._ranked[: self._context.k]]
        for product in dict.fromkeys((*slate, *shown)):
            if product in pinned or product not in self._place:
                continue
            rules = [name for name, _, is_about in self._boosts if is_about(product)]
            if product in self._context.shifts:
                rules.append(f"recent: {self._context.shifts[product][1]}")
            self._applied += [Applied(rule, product, self._place[product], after.get(product)) for rule in rules]


def about(rule: Products, catalogue: Catalogue) -> Callable[[str], bool]:
    """Whether a rule is about a product of the catalogue, as a function: it is asked for each of 200 candidates."""
    rows, listed = catalogue.rows, rule.listed
    columns = [
        (catalogue.attributes[name], frozenset(wanted)) for name in ATTRIBUTES if (wanted := getattr(rule, name))
    ]

    def is_about(product: str) -> bool:
        if listed and product not in listed:
            return False
        return all(values[rows[product]] in wanted for values, wanted in columns)

    return is_about


def _counts(rule: Dated, context: RuleContext) -> bool:
    """Whether a rule counts on the day and in the place of the answer."""
    if (rule.first_day and context.today < rule.first_day) or (rule.last_day and context.today > rule.last_day):
        return False
    return all(context.context.get(name) == value for name, value in rule.context.items())


def _named(kind: str, rule: Dated) -> str:
    return f"{kind}: {rule.name}" if rule.name else kind


def _scored(slate: Sequence[tuple[str, float | None]], known: Mapping[str, float]) -> list[tuple[str, float]]:
    """Scores for pins that were not ranked: of the next product, of the one before at the end, 0 if there is none."""
    scores = [known.get(product) if score is None else score for product, score in slate]
    following: float | None = None
    for at in range(len(scores) - 1, -1, -1):
        if scores[at] is None:
            scores[at] = following
        following = scores[at]
    preceding = 0.0
    for at, score in enumerate(scores):
        preceding = scores[at] = preceding if score is None else score
    return [(product, score or 0.0) for (product, _), score in zip(slate, scores, strict=True)]
