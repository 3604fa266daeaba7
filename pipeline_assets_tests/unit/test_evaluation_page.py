"""The report of an evaluation, from judged weeks to the page."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd

from pipeline_assets.recommender.evaluation_page import (
    evaluation_page,
    example_slates,
    leaderboard_table,
    slice_table,
)
from pipeline_assets.recommender.judging import CHALLENGER, DISCOVER, join_weeks
from pipeline_assets.recommender.metrics import Estimate
from pipeline_assets.recommender.promotion import GatePolicy, decide
from pipeline_assets.recommender.slices import COLUMNS
from pipeline_assets_tests.unit.test_judging import DAY, METHODS, facts, judged


def test_leaderboard_has_the_best_first_with_bounds_below() -> None:
    """The challenger is called ranker; a measure that a method lacks is a dash."""
    table = leaderboard_table(
        {"popularity": {"ndcg": Estimate(0.1, 0.09, 0.11)}, CHALLENGER: {"ndcg": Estimate(0.3, 0.29, 0.31)}}
    )
    assert table["method"].tolist() == ["ranker", "popularity"]
    assert table["NDCG@10"].tolist() == ["0.3000\n0.2900 to 0.3100", "0.1000\n0.0900 to 0.1100"]
    assert table["recall@10"].tolist() == ["–", "–"]


def test_slices_show_ratios_and_differences_where_there_is_no_ratio() -> None:
    """+10 % where there is a ratio; +0.0010 where the baseline found nothing in some resample."""
    row = {
        **dict.fromkeys(COLUMNS, 0.0), "slice": "tenure: new", "metric": "ndcg", "customers": 1200, "baseline": "TIFU-KNN",
        "relative": 0.1, "relative_low": 0.05, "relative_high": 0.15, "difference": 0.001, "low": 0.0, "high": 0.002,
        "is_below": False,
    }  # fmt: skip
    table = slice_table(pd.DataFrame([row, {**row, "relative_low": float("nan")}]))
    assert table["gain"].tolist() == ["+10.0%\n+5.0% to +15.0%", "+0.0010\n+0.0000 to +0.0020"]
    assert table["customers"].tolist() == ["1,200", "1,200"]


def test_examples_name_products_and_mark_what_was_bought() -> None:
    """Ann's list is milk, bread, cheese, of which she bought milk and bread."""
    slices = judged().slices.assign(activity=["heavy", "light", "light"])
    examples = example_slates(facts(), METHODS[CHALLENGER], slices).set_index("customer")
    assert examples.loc["ann (heavy)"].dropna().tolist()[:3] == ["milk ✓\na", "bread ✓\nc", "cheese\nb"]


def test_page_has_verdict_leaderboard_slices_exposure_and_card() -> None:
    """Three weeks of three customers: everything a reader looks for is there, and drawn."""
    discover = {DISCOVER: METHODS[CHALLENGER]}
    weeks = join_weeks([judged(DAY + timedelta(days=7 * n), **discover) for n in range(3)])
    policy = GatePolicy(min_customers=2, min_slice_customers=2, draws=100)
    evidence, estimates = weeks.evidence(policy, 1), weeks.estimates(1)
    decision = decide(weeks.challenger, None, weeks.baselines, policy, 1, evidence)
    examples = example_slates(facts(), METHODS[CHALLENGER], judged().slices)
    report = evaluation_page(
        "Title",
        "subtitle",
        weeks,
        decision,
        evidence,
        estimates,
        {"champion": "none"},
        "# ranker 7",
        examples,
        1,
    )
    for text in (
        "Title", "<strong>Rejected</strong>", "The smallest change", "NDCG@10", "All methods, the same customers",
        "Slices against their strongest baseline", "tenure: new", "Who gets the slots", "Slates of three customers",
        "<h1>ranker 7</h1>",
    ):  # fmt: skip
        assert text in report.html
    assert len(report.plots) == 8
    assert all(image.startswith(b"\x89PNG") for image in report.plots.values())
    assert list(report.tables["leaderboard"]["method"]) == ["ranker", DISCOVER, "popularity"]
