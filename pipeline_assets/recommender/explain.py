"""Why a product is recommended, or is not: the SHAP contributions of the model as sentences for the shopper and for a merchant.

Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", 2017: contributions and a base value that add up to the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Contribution = tuple[str, float, float]  # feature, value, contribution to the score


def _days(value: float) -> str:
    return "yesterday" if value <= 1 else f"{value:.0f} days ago"


# Only features that speak for a product are phrased; the value decides the words.
_PHRASES: dict[str, Callable[[float], str]] = {
    "pair_n_orders": lambda v: f"bought {v:.0f} times",
    "pair_n_orders_28d": lambda v: f"bought {v:.0f} times in four weeks",
    "pair_n_orders_91d": lambda v: f"bought {v:.0f} times in three months",
    "pair_decayed_fast": lambda v: "bought often lately",
    "pair_decayed_slow": lambda v: "a regular purchase",
    "pair_order_share": lambda v: f"in {v:.0%} of the customer's orders",
    "pair_days_since_last": lambda v: f"last bought {_days(v)}",
    "pair_days_since_first": lambda v: "bought for a long time",
    "pair_gap_days": lambda v: f"bought about every {v:.0f} days",
    "pair_overdue": lambda v: "due again by its usual rhythm",
    "pair_type_days": lambda v: "a kind of product the customer buys often",
    "pair_type_decayed": lambda v: "a kind of product the customer buys often",
    "pair_type_share": lambda v: "the customer's choice within its kind",
    "pair_type_days_since_last": lambda v: f"its kind was last bought {_days(v)}",
    "pair_type_overdue": lambda v: "its kind is due again",
    "pair_category_decayed": lambda v: "from a category the customer likes",
    "pair_category_days_since_last": lambda v: "from a category bought lately",
    "pair_knn_score": lambda v: "goes with what similar customers buy",
    "pair_decayed_share": lambda v: "among what the customer buys most",
    "pair_place_fast": lambda v: "bought often lately" if v <= 10 else "",
    "pair_trip_rate": lambda v: f"in {v:.0%} of the orders since it was first bought",
    "pair_trip_decayed": lambda v: f"in {v:.0%} of the customer's orders, recent ones first",
    "pair_trip_overdue": lambda v: "due again by the customer's shopping trips",
    "pair_gap_median_overdue": lambda v: "due again by its usual rhythm",
    "pair_gap_max_overdue": lambda v: "due again by its usual rhythm",
    "pair_hazard": lambda v: "about due again",
    "pair_product_hazard": lambda v: "about when people buy it again",
    "pair_type_hazard": lambda v: "about when people buy its kind again",
    "pair_type_mailed_share": lambda v: "its kind is in the store's mailer" if v > 0 else "",
    "pair_mailer_pull": lambda v: "in a part of the mailer that sells",
    "pair_mailer_sales": lambda v: "in a part of the mailer that sells",
    "product_buyers_7d": lambda v: "selling well this week",
    "product_repeats_7d": lambda v: "bought again by many this week",
    "product_repeat_ratio": lambda v: "bought again by many this week",
    "product_mailer_sales": lambda v: "in a part of the mailer that sells",
    "pair_store_display": lambda v: "on display in the customer's store next week",
    "pair_store_mailer": lambda v: "in the store's mailer next week",
    "pair_has_coupon": lambda v: "the customer has a coupon for it",
    "pair_promoted_share": lambda v: "usually bought on promotion",
    "product_orders_7d": lambda v: "selling well this week",
    "product_orders_28d": lambda v: "popular this month",
    "product_orders_91d": lambda v: "popular",
    "product_customers_91d": lambda v: "bought by many customers",
    "product_repeat_rate": lambda v: "a product people buy again",
    "product_trend": lambda v: "selling more than usual",
    "product_mailer_share": lambda v: "in next week's mailer",
    "product_display_share": lambda v: "on display next week",
    "product_is_new_in_mailer": lambda v: "new in next week's mailer",
    "product_price_ratio": lambda v: "cheaper than usual" if v < 1 else "",
}
_NOTHING = "chosen by its overall score"
# Yes/no features say something only when they are yes.
_FLAGS = {"pair_store_display", "pair_store_mailer", "pair_has_coupon", "product_is_new_in_mailer"}


def reason(contributions: Sequence[Contribution], most: int = 2) -> str:
    """A sentence from the contributions that raise the score: facts of customer and product first, then by strength.

    Args:
        contributions: (feature, value, contribution) of one recommendation.
        most: how many facts to name.

    Returns:
        For example "last bought 5 days ago; in the store's mailer next week". "chosen by its overall score" when nothing
        with a wording raises it.
    """
    said: list[str] = []
    # the customer's own facts come first: "popular" explains nothing that another shop could not say
    for name, value, share in sorted(contributions, key=lambda c: (not c[0].startswith("pair_"), -c[2])):
        phrase = _PHRASES.get(name)
        if share <= 0 or phrase is None or math.isnan(value) or (name in _FLAGS and value == 0):
            continue
        words = phrase(value)
        if words and words not in said:
            said.append(words)
        if len(said) == most:
            break
    return "; ".join(said) or _NOTHING


# The same facts, said to the customer.
_TO_SHOPPER = (
    ("the customer's store", "your store"),
    ("the customer's", "your"),
    ("the customer buys", "you buy"),
    ("the customer likes", "you like"),
    ("the customer has", "you have"),
    ("similar customers buy", "people who shop like you buy"),
    ("in the store's mailer", "in your store's mailer"),
    ("the customer", "you"),  # last: what is left
)


def shopper_sentence(product: str, contributions: Sequence[Contribution]) -> str:
    """Why the product is on the list, said to who gets it: at most three facts, no figure of the model.

    Args:
        product: how the shopper knows it, such as "FLUID MILK".
    """
    words = reason(contributions, most=3)
    if words == _NOTHING:
        return f"{product} fits what you usually buy overall; no single fact stands out."
    for ours, yours in _TO_SHOPPER:
        words = words.replace(ours, yours)
    *first, last = words.split("; ")
    return f"{product}: {', '.join(first)}{' and ' if first else ''}{last}."


def merchant_sentence(
    product: str, customer: str, rank: int, n_candidates: int, contributions: Sequence[Contribution], most: int = 3
) -> str:
    """Where the product stands for a customer, and the facts that moved it up and down, by strength, in units of the score.

    Args:
        rank: among the customer's candidates, 1 is best.
    """
    ordered = sorted(contributions, key=lambda c: (-abs(c[2]), c[0]))
    up = [f"{fact(name, value, True)} (+{share:.2f})" for name, value, share in ordered if share > 0][:most]
    down = [f"{fact(name, value, False)} (-{-share:.2f})" for name, value, share in ordered if share < 0][:most]
    return (
        f"{product} is number {rank} of {n_candidates} candidates for customer {customer}. "
        f"Raised by {'; '.join(up) or 'nothing'}. Held back by {'; '.join(down) or 'nothing'}."
    )


# What a feature is, where its phrase would praise what holds a product back.
_NAMES = {
    "pair_decayed_fast": "purchases of the last weeks, weighted by age",
    "pair_decayed_slow": "purchases of the last months, weighted by age",
    "pair_days_since_first": "days since the customer first bought it",
    "pair_gap_days": "usual days between purchases of it",
    "pair_overdue": "days since the last purchase as part of the usual gap",
    "pair_place": "place in the list of candidates that named it",
    "pair_source": "number of the list of candidates that named it",
    "pair_type_days": "days on which the customer bought its kind",
    "pair_type_decayed": "purchases of its kind, weighted by age",
    "pair_type_share": "its part of the customer's purchases of its kind",
    "pair_type_overdue": "days since its kind was bought as part of the usual gap",
    "pair_category_decayed": "purchases of its category, weighted by age",
    "pair_category_days_since_last": "days since its category was bought",
    "pair_knn_score": "likeness to what similar customers buy",
    "pair_promoted_share": "part of the customer's purchases of it on promotion",
    "pair_discount_share": "part of its price that the customer saved",
    "product_orders_7d": "orders of it in a week",
    "product_orders_28d": "orders of it in four weeks",
    "product_orders_91d": "orders of it in three months",
    "product_customers_91d": "its customers in three months",
    "product_repeat_rate": "part of its buyers who buy it again",
    "product_trend": "its orders this week against four weeks",
    "product_mailer_share": "part of the stores that have it in next week's mailer",
    "product_display_share": "part of the stores that display it next week",
    "product_price_ratio": "its price against the usual one",
}


def fact(name: str, value: float, raises: bool) -> str:
    """A feature and its value in words: its phrase where that is true of a contribution of this sign, else what it is and the value."""
    if name in _FLAGS and value == 0:
        return f"not so: {_PHRASES[name](1.0)}"
    words = _PHRASES[name](value) if name in _PHRASES and not math.isnan(value) else ""
    if words and (raises or name in _FLAGS or any(letter.isdigit() for letter in words) or words.endswith("yesterday")):
        return words
    of, _, quantity = name.partition("_")
    subject = {"customer": "the customer's ", "product": "the product's "}.get(of, "")
    named = _NAMES.get(name, subject + quantity.replace("_", " "))
    return f"{named}: {'not known' if math.isnan(value) else f'{value:.4g}'}"


@dataclass(frozen=True)
class Standing:
    """What is known of a product that is no candidate of a customer. Places are ranks over all sold products, 1 is best; None: not sold then."""

    is_listed: bool  # in the catalogue
    is_sellable: bool
    is_sold_or_promoted: bool
    n_orders: int  # of the customer with the product
    type_name: str | None
    n_type_orders: int  # of the customer with the product's type
    place_in_type: int | None  # by orders of 28 days
    place: int | None  # by orders of 28 days
    place_by_buyers: int | None
    is_promoted: bool  # on display or in a mailer next week


@dataclass(frozen=True)
class SourceSizes:
    """How many products each candidate source names a customer (recommender/candidates.py)."""

    history: int
    neighbours: int
    neighbour_items: int  # products that have neighbours at all
    of_type: int
    promoted: int
    popular: int


def why_not(standing: Standing, sizes: SourceSizes) -> list[str]:
    """Why a product is no candidate: one reason if it can be recommended to nobody, otherwise what each source would have needed."""
    if not standing.is_listed:
        return ["it is not in the catalogue as of that day"]
    if not standing.is_sellable:
        return ["it is not sellable: the catalogue says so"]
    if not standing.is_sold_or_promoted:
        return ["it was never sold and is not promoted, so nothing is known that could rank it"]
    history = (
        f"history: bought {standing.n_orders} times, but {sizes.history} other products were bought more or more recently"
        if standing.n_orders
        else "history: the customer never bought it"
    )
    neighbours = (
        f"neighbours: {sizes.neighbours} others are closer to what the customer buys"
        if standing.place_by_buyers and standing.place_by_buyers <= sizes.neighbour_items
        else f"neighbours: it is not among the {sizes.neighbour_items} products with the most buyers, so it has none"
    )
    if standing.type_name is None:
        kind = "type: its type is not known"
    elif not standing.n_type_orders:
        kind = f"type: the customer never bought a product of type {standing.type_name}"
    elif standing.place_in_type is None:
        kind = f"type: it was not sold in the last 28 days, so it is no best seller of type {standing.type_name}"
    elif standing.place_in_type > sizes.of_type:
        kind = f"type: number {standing.place_in_type} of type {standing.type_name}; the {sizes.of_type} best sellers are taken"
    else:
        kind = f"type: products of types that the customer buys more took the places before {standing.type_name}"
    promoted = (
        "promoted: promoted products of types that the customer buys more took the places"
        if standing.is_promoted
        else "promoted: it is neither on display nor in a mailer next week"
    )
    popular = (
        f"popular: number {standing.place} of all products; the first {sizes.popular} are taken"
        if standing.place
        else "popular: it was not sold in the last 28 days"
    )
    return [history, neighbours, kind, promoted, popular]
