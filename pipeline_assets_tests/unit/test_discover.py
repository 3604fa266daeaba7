"""Slates of three with a place for something new, from a few ranked candidates."""

from __future__ import annotations

import pandas as pd
import pytest

from pipeline_assets.recommender.discover import discover
from pipeline_assets.recommender.errors import SchemaError


def ranked(**products: str) -> pd.DataFrame:
    """ranked(ann="a b C"): ann's candidates, best first; capital letters are new to her."""
    rows = [
        (customer, rank, product, 1 / rank, product.isupper())
        for customer, names in products.items()
        for rank, product in enumerate(names.split(), start=1)
    ]
    return pd.DataFrame(rows, columns=["customer_id", "rank", "product_id", "score", "is_new"])


def slate(names: str, k: int = 3) -> str:
    return " ".join(discover(ranked(ann=names), k)["product_id"])


def test_last_place_is_for_the_best_new_product() -> None:
    """D is the best new one; c makes room."""
    assert slate("a b c D E") == "a b D"


@pytest.mark.parametrize("names", ["a b C D e", "a B c D e", "A b c d E"])
def test_a_slate_with_something_new_stays(names: str) -> None:
    """New in the last place or before it: nothing is moved."""
    assert slate(names) == names[:5]


def test_without_anything_new_the_slate_is_the_usual_one() -> None:
    """All candidates were bought before."""
    assert slate("a b c d") == "a b c"


def test_short_lists_keep_what_they_have() -> None:
    """Two candidates, none of them new, or one; a new one right behind the places is moved up by none."""
    assert slate("a b") == "a b"
    assert slate("a B") == "a B"


def test_ranks_scores_and_order_of_customers() -> None:
    """bob comes first as he did; ranks are 1 to 3, and the new product keeps its own score."""
    found = discover(ranked(bob="a b c D", ann="x Y z"), 3)
    assert found["customer_id"].tolist() == ["bob"] * 3 + ["ann"] * 3
    assert found["rank"].tolist() == [1, 2, 3] * 2
    assert found["product_id"].tolist() == ["a", "b", "D", "x", "Y", "z"]
    assert found["score"].tolist()[:3] == [1, 1 / 2, 1 / 4]


def test_one_place_is_not_enough() -> None:
    """Nothing usual would be left; and candidates have to say what is new."""
    with pytest.raises(SchemaError, match="two places"):
        discover(ranked(ann="a B"), 1)
    with pytest.raises(SchemaError, match="is_new"):
        discover(ranked(ann="a B").drop(columns="is_new"), 3)
