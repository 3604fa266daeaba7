"""Why a product is recommended: the largest SHAP contributions of the model as a sentence a merchant understands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
    return "; ".join(said) or "chosen by its overall score"
