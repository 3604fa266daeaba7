"""Measures of slates: every expectation is arithmetic on the frames in the test."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import metrics
from pipeline_assets.recommender.errors import NotEnoughData, SchemaError


def slates(**lists: str) -> pd.DataFrame:
    """slates(ann="abc"): Ann is recommended a, b, c in this order."""
    rows = [(customer, at, product) for customer, products in lists.items() for at, product in enumerate(products, 1)]
    return pd.DataFrame(rows, columns=["customer_id", "rank", "product_id"])


def pairs(amount: float = 1.0, **lists: str) -> pd.DataFrame:
    """pairs(ann="ab"): Ann bought a and b, for `amount` each."""
    rows = [(customer, product, amount) for customer, products in lists.items() for product in products]
    return pd.DataFrame(rows, columns=["customer_id", "product_id", "amount"])


def measure(shown: pd.DataFrame, bought: pd.DataFrame, known: pd.DataFrame | None = None, k: int = 10) -> pd.DataFrame:
    return metrics.per_customer_metrics(shown, bought, pairs() if known is None else known, k)


def frame(**columns: list[float]) -> pd.DataFrame:
    """Per-customer frame with customers c0, c1, ... and the given columns."""
    n = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=pd.Index([f"c{i}" for i in range(n)], name="customer_id"))


def test_recall_precision_and_hit_rate_count_hits() -> None:
    """a, b are 2 hits of 3 targets in 4 places: recall 2/3, precision 2/4, hit rate 1."""
    row = measure(slates(ann="axby"), pairs(ann="abc"), k=4).loc["ann"]
    assert row["recall"] == pytest.approx(2 / 3)
    assert row["precision"] == pytest.approx(2 / 4)
    assert row["hit_rate"] == 1.0


def test_precision_divides_by_k_even_if_the_slate_is_shorter() -> None:
    """One hit on a slate of one, judged at 10: 1/10."""
    assert measure(slates(ann="a"), pairs(ann="a")).loc["ann", "precision"] == pytest.approx(1 / 10)


def test_ndcg_discounts_by_rank_and_divides_by_the_ideal() -> None:
    """Hits at ranks 1 and 3 of two targets: (1 + 1/log2 4) / (1 + 1/log2 3)."""
    row = measure(slates(ann="axb"), pairs(ann="ab")).loc["ann"]
    assert row["ndcg"] == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))


def test_ideal_is_limited_to_k_products() -> None:
    """Three targets, k = 2, both places hit: the best possible, so ndcg and map are 1 while recall is 2/3."""
    row = measure(slates(ann="ab"), pairs(ann="abc"), k=2).loc["ann"]
    assert row["ndcg"] == pytest.approx(1.0)
    assert row["map"] == pytest.approx(1.0)
    assert row["recall"] == pytest.approx(2 / 3)


def test_map_averages_the_precision_at_each_hit() -> None:
    """Hits at ranks 2 and 3: (1/2 + 2/3) / min(10, 2)."""
    assert measure(slates(ann="xab"), pairs(ann="ab")).loc["ann", "map"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_row_order_of_the_slates_does_not_matter() -> None:
    """Rank decides, not the position of the row in the frame."""
    shown = slates(ann="xab", bob="ba")
    bought = pairs(ann="ab", bob="b")
    pd.testing.assert_frame_equal(measure(shown.iloc[::-1], bought), measure(shown, bought))


def test_products_beyond_k_do_not_count() -> None:
    """The only target is at rank 3 of a list judged at 2."""
    assert measure(slates(ann="xya"), pairs(ann="a"), k=2).loc["ann", "recall"] == 0.0


def test_repeat_and_new_recall_split_the_targets_by_history() -> None:
    """Targets a, b (bought before) and c, d (not); shown a, c, d: 1/2 of the repeats, 2/2 of the new ones."""
    row = measure(slates(ann="acd"), pairs(ann="abcd"), pairs(ann="abz", bob="cd")).loc["ann"]
    assert row["repeat_recall"] == pytest.approx(1 / 2)
    assert row["new_item_recall"] == pytest.approx(2 / 2)


def test_repeat_and_new_recall_are_nan_where_the_customer_has_none() -> None:
    """Ann's only target is a repeat, Bob's only target is new."""
    result = measure(slates(ann="a", bob="a"), pairs(ann="a", bob="a"), pairs(ann="a"))
    assert np.isnan(result.loc["ann", "new_item_recall"])
    assert np.isnan(result.loc["bob", "repeat_recall"])


def test_revenue_counts_the_amount_of_hits_and_of_targets() -> None:
    """a for 3.00 is hit, b for 7.00 is not."""
    bought = pd.DataFrame({"customer_id": ["ann", "ann"], "product_id": ["a", "b"], "amount": [3.0, 7.0]})
    row = measure(slates(ann="ax"), bought).loc["ann"]
    assert (row["revenue_hit"], row["revenue_target"]) == (3.0, 10.0)


def test_customer_with_a_target_but_no_slate_scores_zero() -> None:
    """Bob bought and was shown nothing; his row exists and is 0."""
    result = measure(slates(ann="a"), pairs(ann="a", bob="a"))
    assert list(result.index) == ["ann", "bob"]
    assert result.loc["bob", ["recall", "ndcg", "map", "hit_rate", "revenue_hit"]].tolist() == [0, 0, 0, 0, 0]


def test_customer_without_a_target_is_not_evaluated() -> None:
    """Cleo was shown a list and bought nothing: no row."""
    assert list(measure(slates(ann="a", cleo="a"), pairs(ann="a")).index) == ["ann"]


@pytest.mark.parametrize(
    ("spoil", "culprit"),
    [
        (lambda s, t: (pd.concat([s, s]), t), "slates"),
        (lambda s, t: (s.assign(rank=[1, 1]), t), "slates"),
        (lambda s, t: (s.assign(rank=[0, 1]), t), "slates.rank"),
        (lambda s, t: (s, pd.concat([t, t])), "targets"),
        (lambda s, t: (s, t.assign(amount=float("nan"))), "targets.amount"),
        (lambda s, t: (s.drop(columns="rank"), t), "slates"),
    ],
)
def test_malformed_frames_are_refused(
    spoil: Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]], culprit: str
) -> None:
    """A repeated product, rank or target, rank 0, a null amount, a missing column: an error that names the frame."""
    shown, bought = spoil(slates(ann="ab"), pairs(ann="ac"))
    with pytest.raises(SchemaError) as caught:
        measure(shown, bought)
    assert caught.value.culprit == culprit


def test_window_without_purchases_is_refused() -> None:
    """There is nothing to measure; 0 would be a lie."""
    with pytest.raises(NotEnoughData):
        measure(slates(ann="a"), pairs())


def test_summary_averages_customers_and_pools_revenue() -> None:
    """recall (1 + 0)/2; new_item_recall over the one customer that has it; revenue (9 + 0)/(10 + 20)."""
    bought = pd.DataFrame(
        {"customer_id": ["ann", "ann", "bob"], "product_id": ["a", "b", "c"], "amount": [9.0, 1.0, 20.0]}
    )
    summary = metrics.summarise(measure(slates(ann="a"), bought, pairs(ann="ab")))
    assert summary["recall"] == pytest.approx((1 / 2 + 0) / 2)
    assert summary["repeat_recall"] == pytest.approx(1 / 2)
    assert summary["new_item_recall"] == pytest.approx(0 / 1)
    assert summary["revenue"] == pytest.approx(9 / 30)


def test_summary_of_nothing_is_refused() -> None:
    """A mean of no customers does not exist."""
    with pytest.raises(NotEnoughData):
        metrics.summarise(measure(slates(ann="a"), pairs(ann="a")).iloc[:0])


def test_paired_bootstrap_of_a_constant_difference_has_no_width() -> None:
    """a is b + 0.1 for everybody, so every resample gives 0.1."""
    b = frame(ndcg=[0.1, 0.3, 0.2, 0.4])
    interval = metrics.paired_bootstrap(b + 0.1, b, "ndcg", draws=200, seed=1)
    assert (interval.mean_difference, interval.low, interval.high) == pytest.approx((0.1, 0.1, 0.1))
    assert interval.relative == pytest.approx(0.1 / 0.25)


def test_paired_bootstrap_matches_the_normal_interval() -> None:
    """Differences of sd s on n customers: the bounds are near mean +- 1.96 s / sqrt(n)."""
    rng = np.random.default_rng(3)
    b = frame(ndcg=list(rng.uniform(0, 0.5, 900)))
    d = rng.normal(0.02, 0.1, 900)
    interval = metrics.paired_bootstrap(b.assign(ndcg=b["ndcg"] + d), b, "ndcg", seed=1)
    half = 1.96 * d.std() / math.sqrt(900)
    assert (interval.low, interval.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.1 * half)


def test_paired_bootstrap_pools_revenue() -> None:
    """(5 + 1)/(10 + 2) - (2 + 1)/(10 + 2) = 0.25, relative 0.25 / 0.25 = 1; not the mean of shares."""
    a = frame(revenue_hit=[5.0, 1.0], revenue_target=[10.0, 2.0])
    b = frame(revenue_hit=[2.0, 1.0], revenue_target=[10.0, 2.0])
    interval = metrics.paired_bootstrap(a, b, "revenue", draws=200, seed=1)
    assert (interval.mean_difference, interval.relative) == pytest.approx((6 / 12 - 3 / 12, 1.0))
    assert (interval.low, interval.high) == pytest.approx((0.0, 0.3))  # only the second customer, only the first


def test_paired_bootstrap_ignores_customers_without_the_metric() -> None:
    """Only c1 has new targets: the difference is hers."""
    a, b = frame(new_item_recall=[np.nan, 0.5]), frame(new_item_recall=[np.nan, 0.2])
    interval = metrics.paired_bootstrap(a, b, "new_item_recall", draws=200, seed=1)
    assert interval.mean_difference == pytest.approx(0.3)


def test_paired_bootstrap_draws_a_customer_with_all_her_weeks() -> None:
    """The same differences in four windows are not four times the evidence: the interval is that of one window."""
    rng = np.random.default_rng(5)
    b = frame(ndcg=[0.3] * 50)
    a = b.assign(ndcg=b["ndcg"] + rng.normal(0, 0.1, 50))
    one = metrics.paired_bootstrap(a, b, "ndcg", seed=1)
    weeks = [str(week) for week in range(4)]
    four = metrics.paired_bootstrap(
        pd.concat(dict.fromkeys(weeks, a), names=["window"]),
        pd.concat(dict.fromkeys(weeks, b), names=["window"]),
        "ndcg",
        seed=1,
    )
    assert (four.low, four.high) == pytest.approx((one.low, one.high))


def test_paired_bootstrap_aligns_rows_and_repeats_with_its_seed() -> None:
    """Reversed rows give the same result; another seed gives other bounds."""
    rng = np.random.default_rng(5)
    a, b = frame(ndcg=list(rng.random(30))), frame(ndcg=list(rng.random(30)))
    first = metrics.paired_bootstrap(a, b, "ndcg", draws=200, seed=1)
    assert metrics.paired_bootstrap(a, b.iloc[::-1], "ndcg", draws=200, seed=1) == first
    assert metrics.paired_bootstrap(a, b, "ndcg", draws=200, seed=2).low != first.low


def test_relative_gain_over_zero_is_nan_not_infinite() -> None:
    """b is 0 for everybody: there is a difference, and no ratio."""
    interval = metrics.paired_bootstrap(frame(ndcg=[0.1, 0.2]), frame(ndcg=[0.0, 0.0]), "ndcg", draws=200, seed=1)
    assert interval.mean_difference == pytest.approx(0.15)
    assert np.isnan([interval.relative, interval.relative_low, interval.relative_high]).all()


@pytest.mark.parametrize("b", [frame(ndcg=[0.1]), frame(ndcg=[0.1, 0.2]).rename(index={"c1": "zoe"})])
def test_paired_bootstrap_refuses_other_customers(b: pd.DataFrame) -> None:
    """One customer is missing, or is somebody else: not a pair."""
    with pytest.raises(SchemaError, match="same customer-weeks"):
        metrics.paired_bootstrap(frame(ndcg=[0.1, 0.2]), b, "ndcg", seed=1)


def test_paired_bootstrap_refuses_repeated_rows() -> None:
    """Windows concatenated without a window level repeat a customer."""
    twice = pd.concat([frame(ndcg=[0.1]), frame(ndcg=[0.2])])
    with pytest.raises(SchemaError, match="repeated rows"):
        metrics.paired_bootstrap(twice, twice, "ndcg", seed=1)


def test_paired_bootstrap_refuses_different_targets() -> None:
    """The two sides were judged against different sales."""
    a = frame(revenue_hit=[1.0], revenue_target=[10.0])
    with pytest.raises(SchemaError, match="different targets"):
        metrics.paired_bootstrap(a, a.assign(revenue_target=11.0), "revenue", seed=1)


def test_unknown_metric_is_refused_by_name() -> None:
    """`auc` is not a measure of slates; the message lists what is."""
    with pytest.raises(SchemaError, match=r"auc.*ndcg"):
        metrics.paired_bootstrap(frame(ndcg=[0.1]), frame(ndcg=[0.1]), "auc", seed=1)


def test_metric_that_nobody_has_is_refused() -> None:
    """No customer has a new target."""
    nobody = frame(new_item_recall=[np.nan, np.nan])
    with pytest.raises(NotEnoughData):
        metrics.paired_bootstrap(nobody, nobody, "new_item_recall", seed=1)
    with pytest.raises(NotEnoughData):
        metrics.bootstrap_interval(nobody, "new_item_recall", seed=1)


def test_bootstrap_interval_surrounds_the_value() -> None:
    """Half of 100 customers have recall 1, half 0: 0.5 +- 1.96 x 0.5 / 10."""
    estimate = metrics.bootstrap_interval(frame(recall=[0.0, 1.0] * 50), "recall", seed=1)
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - 0.098, 0.5 + 0.098), abs=0.02)
