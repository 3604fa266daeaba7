"""Judging a week of three customers and joining weeks; one letter a product."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.judging import CHALLENGER, CHAMPION, DISCOVER, Facts, Judged, join_weeks, judge_week
from pipeline_assets.recommender.promotion import GatePolicy, decide
from pipeline_assets_tests.unit.test_baselines import purchases
from pipeline_assets_tests.unit.test_metrics import pairs, slates

DAY = date(2017, 6, 25)
PRODUCTS = pd.DataFrame(
    {
        "department": ["DAIRY", "DAIRY", "BAKERY", "DRUG"], "type": ["milk", "cheese", "bread", "soap"],
        "brand": ["Own", "Other", "Own", "Other"], "is_sellable": True,
    },
    index=pd.Index(list("abcd"), name="product_id"),
)  # fmt: skip
SHOP = purchases(
    ("ann", "2017-06-01", "ab"), ("bob", "2017-06-05", "ac"), ("bob", "2017-06-12", "a"), ("cleo", "2017-06-20", "d"),
)  # fmt: skip


def scored(**lists: str) -> pd.DataFrame:
    """Slates with the score 1 / rank."""
    shown = slates(**lists)
    return shown.assign(score=1.0 / shown["rank"])


def facts(day: date = DAY) -> Facts:
    """Ann buys a and c, Bob a, Cleo b."""
    return Facts(day, pairs(ann="ac", bob="a", cleo="b"), SHOP, PRODUCTS)


METHODS = {
    CHALLENGER: scored(ann="acb", bob="adc", cleo="bda"),
    "popularity": scored(ann="abc", bob="abc", cleo="abc"),
}


def judged(day: date = DAY, **methods: pd.DataFrame) -> Judged:
    return judge_week(facts(day), {**METHODS, **methods}, 2)


def test_every_method_has_the_same_customer_weeks_and_all_measures() -> None:
    """Recall of the first two: 1, 1, 1 against 1/2, 1, 1; the index is (week, customer)."""
    week = judged()
    assert week.challenger.index.tolist() == [(DAY, "ann"), (DAY, "bob"), (DAY, "cleo")]
    assert week.challenger["recall"].tolist() == [1, 1, 1]
    assert week.baselines["popularity"]["recall"].tolist() == [1 / 2, 1, 1]
    assert week.summaries()[CHALLENGER]["departments"] == pytest.approx((2 + 2 + 2) / 3)


def test_recall_is_split_by_department_and_brand() -> None:
    """Popularity misses c, the only purchase of BAKERY."""
    week = judged()
    assert week.by_group["department"]["popularity"].loc["BAKERY", "recall"].tolist() == [0.0]
    assert week.by_group["department"][CHALLENGER].loc["BAKERY", "recall"].tolist() == [1.0]
    assert week.by_group["brand"][CHALLENGER].loc["Other", "recall"].tolist() == [1.0]


def test_hits_by_rank_are_shares_of_customers() -> None:
    """Challenger: a, a and b at rank 1 (3 of 3), Ann's c at rank 2 (1 of 3)."""
    assert judged().hit_rate[CHALLENGER].tolist() == pytest.approx([3 / 3, 1 / 3])


def test_all_candidates_of_the_challenger_are_scored_and_labelled() -> None:
    """Nine candidates, four of them bought, also at rank 3."""
    week = judged()
    assert (len(week.scores), int(week.labels.sum())) == (9, 4)


def test_champion_is_not_a_baseline_and_its_slates_are_compared() -> None:
    """The champion shows Cleo d and a instead of b and d: one of six slots of the challenger is new."""
    week = judged(**{CHAMPION: scored(ann="ac", bob="da", cleo="da")})
    assert set(week.baselines) == {"popularity"}
    assert week.champion is not None
    assert week.change == pytest.approx(1 / 6)
    assert week.changes["popularity"] == pytest.approx(3 / 6)
    assert judged().change is None


def test_discover_slates_are_measured_and_nobodys_baseline() -> None:
    """Ann gets d instead of her c: recall 1/2 instead of 1. One of six slots differs from the challenger's."""
    week = judged(**{DISCOVER: scored(ann="ad", bob="ad", cleo="bd")})
    assert week.per_customer[DISCOVER]["recall"].tolist() == [1 / 2, 1, 1]
    assert set(week.baselines) == {"popularity"}
    assert week.changes[DISCOVER] == pytest.approx(1 / 6)


def test_unsellable_product_is_a_fault() -> None:
    """c may not be sold any more; Ann is shown it, Bob only at rank 3."""
    week = judge_week(
        Facts(DAY, facts().targets, SHOP, PRODUCTS.assign(is_sellable=[True, True, False, True])), METHODS, 2
    )
    assert week.faults == ("1 slots have a product that is not sellable, such as c for ann",)
    assert judged().faults == ()


def test_joined_weeks_keep_their_rows_and_average_what_is_a_rate() -> None:
    """Two equal weeks: twice the customer-weeks, the same rates and coverage; candidates begin at 0 and 9."""
    one, two = judged(), judged(DAY + timedelta(days=7))
    both = join_weeks([one, two])
    assert len(both.challenger) == 6
    assert both.starts == (0, 9)
    assert both.coverage[CHALLENGER].value == one.coverage[CHALLENGER].value
    np.testing.assert_allclose(both.hit_rate[CHALLENGER], one.hit_rate[CHALLENGER])
    assert both.exposure["brand"].loc["Own", "purchases"] == pytest.approx(3 / 4)
    assert len(both.by_group["department"][CHALLENGER].loc["DAIRY"]) == 6


def test_evidence_compares_slices_with_baselines_only() -> None:
    """All three are new and bought dairy, all other slices are smaller; the champion is nobody's baseline."""
    week = judged(**{CHAMPION: METHODS[CHALLENGER]})
    evidence = week.evidence(GatePolicy(min_customers=2, min_slice_customers=3), seed=1)
    assert evidence.slices is not None
    assert evidence.slices["slice"].tolist() == ["tenure: new", "department: DAIRY"]
    assert set(evidence.slices["baseline"]) == {"popularity"}
    assert evidence.change == 0


def test_evidence_has_who_gets_the_slots() -> None:
    """The first two of the three lists: Own (a, c) has a c, a and a, Other (b, d) has d and b; of four purchases three are Own's."""
    brands = judged().evidence(GatePolicy(min_slice_customers=2), 1).brands
    assert brands is not None
    assert brands.loc["Own", ["slots", "purchases"]].tolist() == [3 / 6, 3 / 4]


def test_judged_weeks_go_through_the_gate() -> None:
    """Three customers are too few for any decision: inconclusive, with the number that is missing."""
    week, policy = judged(), GatePolicy()
    decision = decide(week.challenger, None, week.baselines, policy, 1, week.evidence(policy, 1))
    assert decision.outcome == "inconclusive"
    assert "197 more are needed" in decision.changes[0]
