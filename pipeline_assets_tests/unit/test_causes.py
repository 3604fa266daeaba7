"""Season or broken upstream, on a shop of two products whose every line a reader can count."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.monitoring.causes import CausePolicy, Signs, cause_of, signs_of_a_fault
from pipeline_assets.recommender.errors import SchemaError

POLICY = CausePolicy()


def lines(milk: int, bread: int, *, price: float = 1.0, discount: float = 0.1, hour: int = 17) -> pd.DataFrame:
    """So many lines of milk and bread, at a list price of `price`, at `hour` UTC (five hours earlier in New York's winter)."""
    n = milk + bread
    return pd.DataFrame(
        {
            "product_id": ["milk"] * milk + ["bread"] * bread,
            "quantity": 1.0,
            "amount": price - discount,
            "discount": discount,
            "event_ts": pd.Timestamp("2017-03-01", tz="UTC") + pd.Timedelta(hours=hour),
            "department": ["DAIRY"] * milk + ["BAKERY"] * bread,
        },
        index=range(n),
    )


def signs(current: pd.DataFrame, reference: pd.DataFrame | None = None) -> Signs:
    return signs_of_a_fault(
        lines(50, 50) if reference is None else reference, current, POLICY, time_zone="America/New_York"
    )


def test_a_season_has_no_sign() -> None:
    """95 milk and 5 bread instead of 50 and 50: the mix is another, each product is what it was."""
    found = signs(lines(95, 5))
    assert found.found == ()
    assert (found.repriced_share, found.hour_shift, found.discount_part) == (0.0, 0.0, 1.0)


def test_a_promotion_has_no_sign() -> None:
    """Twice the discount at the same list price."""
    assert signs(lines(50, 50, discount=0.2)).found == ()


@pytest.mark.parametrize(
    ("current", "word"),
    [
        (lines(50, 50, price=1.3), "100% of the lines have another list price"),
        (pd.concat([lines(50, 0, price=100.0), lines(0, 50)]), "50% of the lines have another list price"),
        (lines(50, 50, hour=21), "+4.0 h off"),
        (lines(50, 50, discount=0.0), "lines with a discount are 0%"),
        (lines(100, 0), "no line of BAKERY"),
        (
            lines(50, 50).assign(department=["unknown"] * 10 + ["DAIRY"] * 40 + ["BAKERY"] * 50),
            "10% of the lines are of products",
        ),
    ],
)
def test_a_broken_upstream_has_one(current: pd.DataFrame, word: str) -> None:
    """Prices x1.3, one product in cents, four hours, no discounts, a department gone, a catalogue with holes: named."""
    (found,) = signs(current).found
    assert word in found


def test_a_product_that_was_hardly_sold_has_no_usual_price() -> None:
    """Two lines of bread in the reference are too few to say what it costs."""
    found = signs(lines(0, 50, price=9.0), lines(98, 2))
    assert np.isnan(found.repriced_share)


def test_clocks_of_the_shop_count() -> None:
    """17 UTC in March's second half is an hour later in New York than in its first: a zone change of one hour is no sign."""
    summer = lines(50, 50).assign(event_ts=pd.Timestamp("2017-03-20 17:00", tz="UTC"))
    assert signs(summer).hour_shift == 1.0
    assert signs(summer).found == ()


def test_nothing_to_compare_with_has_no_sign() -> None:
    """An empty reference says nothing."""
    found = signs(lines(5, 5), lines(5, 5).iloc[:0])
    assert found.found == ()
    assert np.isnan(found.repriced_share)


@pytest.mark.parametrize(
    ("verdict", "found", "cause"),
    [
        ("drift", (), "shop"),
        ("drift", ("no line of X",), "upstream"),
        ("ok", ("no line of X",), "none"),
        ("watch", (), "none"),
    ],
)
def test_cause(verdict: str, found: tuple[str, ...], cause: str) -> None:
    """A red report points at the shop unless there is a sign; a green one points at nobody."""
    assert cause_of(verdict, Signs(0.0, 0.0, 1.0, 0.0, found)) == cause


def test_a_missing_column_is_named() -> None:
    """Lines that were not joined with the catalogue."""
    with pytest.raises(SchemaError, match="department"):
        signs(lines(5, 5).drop(columns="department"))
