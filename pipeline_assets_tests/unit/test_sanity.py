"""Slates that may not be shown: each fault alone, and none in good ones."""

from __future__ import annotations

import pandas as pd
import pytest

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.sanity import changed_share, slate_faults
from pipeline_assets_tests.unit.test_metrics import slates

GOOD = slates(ann="abc", bob="bcd", cleo="cde")
CUSTOMERS = ["ann", "bob", "cleo"]


def faults(shown: pd.DataFrame, sellable: str = "abcde") -> tuple[str, ...]:
    return slate_faults(shown, CUSTOMERS, set(sellable), 3)


def test_good_slates_have_no_fault() -> None:
    """Three different lists of three sellable products."""
    assert faults(GOOD) == ()


@pytest.mark.parametrize(
    ("shown", "sellable", "said"),
    [
        (
            slates(ann="abc", bob="bcd", cleo="cd"),
            "abcde",
            "1 customers have fewer than 3 products, such as cleo with 2",
        ),
        (slates(ann="abc", bob="bcd"), "abcde", "such as cleo with 0"),
        (GOOD, "abcd", "1 slots have a product that is not sellable, such as e for cleo"),
        (slates(ann="abb", bob="bcd", cleo="cde"), "abcde", "1 slots repeat a product of the slate, such as b for ann"),
        (slates(ann="abc", bob="abc", cleo="cde"), "abcde", "67% of the customers have one and the same slate"),
    ],
)
def test_each_fault_is_found_alone(shown: pd.DataFrame, sellable: str, said: str) -> None:
    """One sentence with a number and an example."""
    found = faults(shown, sellable)
    assert len(found) == 1
    assert said in found[0]


def test_places_after_k_do_not_matter() -> None:
    """The fourth place of Ann has an unsellable product; the first three are shown."""
    assert faults(slates(ann="abcz", bob="bcd", cleo="cde")) == ()


def test_changed_share_counts_products_not_places() -> None:
    """Ann's list only changes its order, one of Bob's three products is new: 1 of 6 slots."""
    assert changed_share(slates(ann="cba", bob="bce"), GOOD, 3) == pytest.approx(1 / 6)


def test_no_common_customer_is_refused() -> None:
    """Nothing can be said to have changed."""
    with pytest.raises(NotEnoughData):
        changed_share(slates(zoe="a"), GOOD, 3)
