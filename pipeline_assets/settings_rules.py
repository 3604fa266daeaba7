"""The section `rules` of the settings: what the shop wants of a slate besides relevance. settings.py reads it, as every section.

Nothing is set by default: a rule that costs relevance is the shop's decision (docs/adr/0034-rules.md).
"""

from __future__ import annotations

import functools
from datetime import date
from typing import Literal

import pydantic

from pipeline_assets.settings_base import Section

Attribute = Literal["department", "category", "type", "brand"]
ATTRIBUTES: tuple[Attribute, ...] = ("department", "category", "type", "brand")
MAX_PRODUCTS = 10_000  # of one rule; a longer list belongs into the catalogue's is_sellable


class Dated(Section):
    """A rule with a name, for the days and the place where it counts. Days are inclusive; absent ends are open."""

    name: str = pydantic.Field("", max_length=64)  # shown in answers, after the kind of the rule
    first_day: date | None = None
    last_day: date | None = None
    context: dict[str, str] = pydantic.Field(default_factory=dict)  # only requests whose context has these values

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Dated:
        if self.first_day and self.last_day and self.first_day > self.last_day:
            raise ValueError(f"first_day {self.first_day} is after last_day {self.last_day}")
        return self


class Products(Dated):
    """A rule about products: those that are listed, or whose attributes have one of the listed values; all that is given must hold."""

    products: tuple[str, ...] = pydantic.Field((), max_length=MAX_PRODUCTS)
    department: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    brand: tuple[str, ...] = ()

    @functools.cached_property
    def listed(self) -> frozenset[str]:
        """`products` to look up in."""
        return frozenset(self.products)

    @property
    def is_about_all(self) -> bool:
        return not (self.products or any(getattr(self, name) for name in ATTRIBUTES))


class Selected(Products):
    """A rule that must say which products it is about."""

    @pydantic.model_validator(mode="after")
    def _says_which(self) -> Selected:
        if self.is_about_all:
            raise ValueError(f"a rule about products needs products or one of {', '.join(ATTRIBUTES)}")
        return self


class Blocked(Selected):
    """Products that must not be recommended: a recall, a licence, an empty warehouse."""


class RecentlyBought(Products):
    """Leaves out what the customer bought in the last `days` (1: yesterday or today): the product, or all of its type or category."""

    level: Literal["product", "type", "category"]
    days: int = pydantic.Field(ge=1, le=365)


class Boost(Selected):
    """Multiplies the odds of a purchase in the model's eyes: above 1 raises, below 1 lowers; ln(factor) is added to the score."""

    factor: float = pydantic.Field(gt=0, le=1000)


class Pin(Dated):
    """Puts a product at a place, whatever its score; it need not be a candidate, but it must be in the catalogue."""

    product: str = pydantic.Field(min_length=1, max_length=128)
    place: int = pydantic.Field(ge=1, le=100)


class RulesSettings(Section):
    """Rules of the shop. They hold for every answer, fallbacks too."""

    blocked: tuple[Blocked, ...] = ()
    recently_bought: tuple[RecentlyBought, ...] = ()
    caps: dict[Attribute, int] = pydantic.Field(default_factory=dict)  # most products of one value in a slate
    boosts: tuple[Boost, ...] = ()
    pins: tuple[Pin, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.blocked or self.recently_bought or self.caps or self.boosts or self.pins)

    @pydantic.field_validator("caps")
    @classmethod
    def _positive(cls, value: dict[Attribute, int]) -> dict[Attribute, int]:
        if any(most < 1 for most in value.values()):
            raise ValueError("a cap of 1 or more")
        return value

    @pydantic.model_validator(mode="after")
    def _distinct_pins(self) -> RulesSettings:
        pinned = [pin.product for pin in self.pins]
        if len(set(pinned)) != len(pinned):
            raise ValueError("each product is pinned once")
        return self
