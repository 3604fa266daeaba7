"""Slates of three with places for something new, from a few ranked candidates whose scores fall in even steps."""

from __future__ import annotations

import pandas as pd
import pytest

from pipeline_assets.recommender.discover import discover
from pipeline_assets.recommender.errors import SchemaError


def ranked(step: float, **products: str) -> pd.DataFrame:
    """ranked(1, ann="a b C"): ann's candidates with scores 0, -1, -2; capital letters are new to her."""
    rows = [
        (customer, rank, product, step * (1 - rank), product.isupper())
        for customer, names in products.items()
        for rank, product in enumerate(names.split(), start=1)
    ]
    return pd.DataFrame(rows, columns=["customer_id", "rank", "product_id", "score", "is_new"])


def slate(names: str, step: float) -> str:
    return " ".join(discover(ranked(step, ann=names), 3, margin=1.5)["product_id"])


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        pytest.param(2.0, "a b c", id="D at -6 counts -4.5, less than c at -4"),
        pytest.param(1.0, "a b D", id="D at -3 counts -1.5, more than c at -2; E at -4 counts -2.5, less than b at -1"),
        pytest.param(0.4, "a D E", id="D at -1.2 counts 0.3, E at -1.6 counts -0.1, more than b at -0.4"),
    ],
)
def test_new_products_come_in_where_they_cost_little(step: float, shown: str) -> None:
    """Of a b c D E; the steeper the scores fall, the dearer is a place."""
    assert slate("a b c D E", step) == shown


def test_what_is_new_by_its_score_stays() -> None:
    """Three new products lead by themselves; nothing moves."""
    assert slate("A B C D e", 0.1) == "A B C"


@pytest.mark.parametrize("names", ["a b c d", "a b", "a B"])
def test_without_another_new_product_the_slate_is_the_usual_one(names: str) -> None:
    """All candidates were bought before, or all of them are shown."""
    assert slate(names, 0.1) == names[:5]


def test_ranks_scores_and_order_of_customers() -> None:
    """bob comes first as he did; ranks are 1 to 3, and the new product keeps its own score, -3."""
    found = discover(ranked(1.0, bob="a b c D", ann="x Y z"), 3, margin=1.5)
    assert found["customer_id"].tolist() == ["bob"] * 3 + ["ann"] * 3
    assert found["rank"].tolist() == [1, 2, 3] * 2
    assert found["product_id"].tolist() == ["a", "b", "D", "x", "Y", "z"]
    assert found["score"].tolist()[:3] == [0, -1, -3]


def test_candidates_say_what_is_new() -> None:
    """Without it there is nothing to discover."""
    with pytest.raises(SchemaError, match="is_new"):
        discover(ranked(1.0, ann="a B").drop(columns="is_new"), 3)
