"""Season or broken upstream? Both turn the drift report red; only the first is a reason to train on what came.

A season changes *what* is bought. A fault of the source changes what the *same thing* looks like: the same products cost something
else, everybody shops four hours later, no line has a discount, a department is gone. So signs are looked for within
products, and in what no season does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import AMOUNT, DISCOUNT, EVENT_TS, PRODUCT_ID, QUANTITY
from pipeline_assets.recommender.errors import SchemaError

Cause = Literal["none", "shop", "upstream"]
DEPARTMENT = "department"


@dataclass(frozen=True)
class CausePolicy:
    """Limits of the signs. Figures: completejourney, 98 days from May to 11 November 2017 (every second one), each against its eight
    previous same weekdays, by `benchmarks/causes.py`: a sign on none of them clean, on all of them with a fault but for UTC."""

    # A product's usual price is known from this many lines of the reference.
    min_lines: int = 3
    # List prices (before discount) move by less than this from week to week; cents for dollars, taxes and factors move more.
    price_step: float = 0.15
    # Share of the lines whose product costs more than `price_step` more or less than usual: 0.12 to 0.21 clean, 0.54 to
    # 0.62 with half of the products x1.3. Without the largest department it is up to 0.43: others weigh more.
    max_repriced_share: float = 0.35
    # Hours by which the median moment of a purchase moves: -2.6 (4 July) to +1.6 clean, -6.3 to
    # -2.3 with UTC for local time. A clock change that is forgotten, one hour, is not seen.
    max_hour_shift: float = 3.0
    # Discounted lines fall below this part of their usual share: 0.91 to 1.11 clean; 0 without discounts.
    min_discount_part: float = 0.4
    # A department with this share of the lines, and none today. No clean day was without one.
    vanished_share: float = 0.02
    # Lines of products that the catalogue does not know: more than this, and than five times the usual share: 0.000 clean.
    unknown_share: float = 0.05


@dataclass(frozen=True)
class Signs:
    """What was measured (NaN: cannot be told), and in words what is out of bounds."""

    repriced_share: float
    hour_shift: float
    discount_part: float
    unknown_share: float
    found: tuple[str, ...]


def signs_of_a_fault(reference: pd.DataFrame, current: pd.DataFrame, policy: CausePolicy, *, time_zone: str) -> Signs:
    """Compare the lines of a day with those of its reference, product by product.

    Args:
        reference: validated lines of days before: product_id, quantity, amount and discount (currency), event_ts (UTC), department
            ('unknown' where the catalogue has none).
        current: the same columns, of the day.
        policy: the limits.
        time_zone: the shop's; hours in UTC jump with clock changes.

    Raises:
        SchemaError: a column is missing.
    """
    for name, lines in (("reference lines", reference), ("current lines", current)):
        wanted = [PRODUCT_ID, QUANTITY, AMOUNT, DISCOUNT, EVENT_TS, DEPARTMENT]
        if missing := [column for column in wanted if column not in lines.columns]:
            raise SchemaError(name, found=f"no column {missing}", wanted=wanted, fix="join the catalogue first")
    if reference.empty or current.empty:
        return Signs(np.nan, np.nan, np.nan, np.nan, ())
    found = []
    repriced = _repriced_share(reference, current, policy)
    if repriced > policy.max_repriced_share:
        found.append(f"{repriced:.0%} of the lines have another list price than their product's usual one")
    shift = _median_hour(current, time_zone) - _median_hour(reference, time_zone)
    if abs(shift) > policy.max_hour_shift:
        found.append(f"purchases are {shift:+.1f} h off their usual time of day")
    usual = float((reference[DISCOUNT] > 0).mean())
    part = float((current[DISCOUNT] > 0).mean()) / usual if usual > 0 else np.nan
    if part < policy.min_discount_part:
        found.append(f"lines with a discount are {part:.0%} of their usual share")
    shares = reference[DEPARTMENT].value_counts(normalize=True)
    gone = [
        str(name) for name in shares.index[shares >= policy.vanished_share] if not (current[DEPARTMENT] == name).any()
    ]
    if gone:
        found.append(f"no line of {', '.join(sorted(gone))}")
    unknown = float((current[DEPARTMENT] == "unknown").mean())
    if unknown > max(policy.unknown_share, 5 * float((reference[DEPARTMENT] == "unknown").mean())):
        found.append(f"{unknown:.0%} of the lines are of products without a department")
    return Signs(repriced, shift, part, unknown, tuple(found))


def cause_of(verdict: str, signs: Signs) -> Cause:
    """Whom a red report points at: nobody when it is not red, the source when there is a sign of a fault, else the shop."""
    if verdict != "drift":
        return "none"
    return "upstream" if signs.found else "shop"


def _repriced_share(reference: pd.DataFrame, current: pd.DataFrame, policy: CausePolicy) -> float:
    """Lines whose product costs another list price than its median in the reference, of those whose usual price is known."""
    before = _list_price(reference).groupby(reference[PRODUCT_ID]).agg(["median", "size"])
    usual = before.loc[(before["size"] >= policy.min_lines) & (before["median"] > 0), "median"]
    now = _list_price(current)
    ratio = (now / current[PRODUCT_ID].map(usual).astype("float64")).replace([np.inf, 0.0], np.nan).dropna()
    return float((np.abs(np.log(ratio)) > np.log1p(policy.price_step)).mean()) if len(ratio) else np.nan


def _list_price(lines: pd.DataFrame) -> pd.Series:
    return (lines[AMOUNT].astype("float64") + lines[DISCOUNT].astype("float64")) / lines[QUANTITY].astype("float64")


def _median_hour(lines: pd.DataFrame, time_zone: str) -> float:
    local = pd.to_datetime(lines[EVENT_TS], utc=True).dt.tz_convert(time_zone)
    return float((local.dt.hour + local.dt.minute / 60).median())
