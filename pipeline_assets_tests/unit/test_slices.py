"""Slices of customers and products, each with a group that is served worse."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import slices
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets_tests.unit.test_baselines import purchases
from pipeline_assets_tests.unit.test_metrics import pairs, slates

AS_OF = date(2017, 6, 30)
N = 60  # customers in a slice


def frame(**ndcg: float) -> pd.DataFrame:
    """N customers of each slice, all with its NDCG; the slice is the first letter of the customer."""
    rows = {(AS_OF, f"{name}{n:02}"): value for name, value in ndcg.items() for n in range(N)}
    index = pd.MultiIndex.from_tuples(list(rows), names=["window", "customer_id"])
    return pd.DataFrame({"ndcg": list(rows.values())}, index=index)


def by_letter(per_customer: pd.DataFrame) -> pd.DataFrame:
    letters = per_customer.index.get_level_values("customer_id").str[0]
    return pd.DataFrame({"letter": letters}, index=per_customer.index)


def judged(challenger: pd.DataFrame, **baselines: pd.DataFrame) -> pd.DataFrame:
    frames = {"ranker": challenger, **baselines}
    return slices.compare_slices(
        frames,
        by_letter(challenger),
        {},
        challenger="ranker",
        metric="ndcg",
        confidence=0.95,
        seed=1,
        min_customers=N // 2,
    )


def test_customers_are_light_medium_or_heavy_by_recent_orders() -> None:
    """Ann 1 order, Bob 2, Cleo 3 in the last 91 days; Ann's five of January do not count."""
    shop = purchases(
        *(("ann", f"2017-01-0{n}", "a") for n in range(1, 6)), ("ann", "2017-06-01", "a"),
        *(("bob", f"2017-06-0{n}", "a") for n in (1, 2)), *(("cleo", f"2017-06-0{n}", "a") for n in (1, 2, 3)),
    )  # fmt: skip
    found = slices.customer_slices(shop, AS_OF)
    assert found["activity"].to_dict() == {"ann": "light", "bob": "medium", "cleo": "heavy"}
    assert found["tenure"].to_dict() == {"ann": "known", "bob": "new", "cleo": "new"}


def test_small_departments_are_one_group() -> None:
    """With one group kept, the department with most purchases; a product without one is other too."""
    groups = pd.Series({"a": "DAIRY", "b": "BAKERY", "c": None})
    found = slices.product_groups(groups, pairs(ann="ab", bob="a"), most=1)
    assert found.to_dict() == {"a": "DAIRY", "b": "other", "c": "other"}


def test_recall_by_group_divides_by_the_targets_of_the_group() -> None:
    """Ann bought a, b (DAIRY) and c (BAKERY), her slate has a and c: 1/2 and 1/1. Bob bought nothing of BAKERY."""
    groups = pd.Series({"a": "DAIRY", "b": "DAIRY", "c": "BAKERY"})
    found = slices.recall_by_group(slates(ann="ac", bob="a"), pairs(ann="abc", bob="a"), groups)
    assert found["recall"].to_dict() == {("BAKERY", "ann"): 1.0, ("DAIRY", "ann"): 0.5, ("DAIRY", "bob"): 1.0}


@pytest.mark.ml_test("M6", control=True)
def test_slice_below_its_baseline_is_found_behind_a_better_mean() -> None:
    """Better for x by 0.10 and worse for y by 0.02, for everybody: y is below, x is not."""
    found = judged(frame(x=0.4, y=0.2), counter=frame(x=0.3, y=0.22)).set_index("slice")
    assert found["is_below"].to_dict() == {"letter: x": False, "letter: y": True}
    assert found.loc["letter: y", "difference"] == pytest.approx(-0.02)


def test_each_slice_has_its_own_strongest_baseline() -> None:
    """Popularity is the stronger one for y, the counter for x."""
    found = judged(frame(x=0.4, y=0.4), counter=frame(x=0.3, y=0.1), popularity=frame(x=0.1, y=0.2))
    assert found["baseline"].tolist() == ["counter", "popularity"]


@pytest.mark.ml_test("M6")
def test_noise_is_not_below() -> None:
    """Worse by 0.001 on average with differences of +-0.1 from customer to customer."""
    challenger, baseline = frame(x=0.3), frame(x=0.301)
    challenger["ndcg"] += np.tile([0.1, -0.1], N // 2)
    assert not judged(challenger, counter=baseline)["is_below"].any()


def test_small_slices_are_left_out() -> None:
    """Four customers are not judged."""
    challenger = frame(x=0.4, y=0.2)
    few = challenger.iloc[: N + 4]
    assert judged(few, counter=few)["slice"].tolist() == ["letter: x"]


def test_more_slices_widen_every_interval() -> None:
    """The same slice alone and beside another one: together each has 97.5 % instead of 95 %."""
    noisy = frame(x=0.4, y=0.4)
    noisy["ndcg"] += np.tile([0.1, -0.1, 0.05, -0.05], N // 2)
    base = frame(x=0.4, y=0.4)
    alone = judged(noisy.iloc[:N], counter=base.iloc[:N]).iloc[0]
    together = judged(noisy, counter=base).iloc[0]
    assert together["high"] - together["low"] > alone["high"] - alone["low"]


def test_slices_without_a_baseline_are_refused() -> None:
    """There is nothing to be below of."""
    with pytest.raises(NotEnoughData):
        judged(frame(x=0.4))
