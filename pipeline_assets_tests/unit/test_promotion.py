"""The gate: each rule is seen passing and failing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.errors import ConfigurationError, NotEnoughData, SchemaError
from pipeline_assets.recommender.promotion import Decision, Evidence, GatePolicy, decide

N = 100
POLICY = GatePolicy(min_customers=N, draws=200)
NOISE = np.tile([-0.05, 0.05], N // 2)  # mean 0, so means stay what the test says


def frame(ndcg: float, revenue: float = 0.10, noise: float = 0.0, n: int = N) -> pd.DataFrame:
    """n customers with mean NDCG `ndcg`, spread by `noise` times NOISE, and `revenue` of 10.00 hit each."""
    return pd.DataFrame(
        {"ndcg": ndcg + noise * NOISE[:n], "revenue_hit": revenue * 10.0, "revenue_target": 10.0},
        index=pd.Index([f"c{i:03}" for i in range(n)], name="customer_id"),
    )


def judge(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None = None,
    **baselines: pd.DataFrame,
) -> Decision:
    return decide(challenger, champion, baselines or {"personal": frame(0.25)}, POLICY, 1, Evidence(0.2))


@pytest.mark.ml_test("M5")
def test_first_model_that_beats_every_baseline_is_promoted() -> None:
    """0.28 against 0.25 and 0.26, the same for every customer: lower bounds +0.03 and +0.02."""
    decision = judge(frame(0.28), personal=frame(0.25), tifu=frame(0.26))
    assert decision.outcome == "promote"
    assert len(decision.reasons) == 2
    assert decision.comparisons["is_passed"].all()


@pytest.mark.ml_test("M5", control=True)
def test_first_model_that_loses_to_one_baseline_is_rejected() -> None:
    """Beating popularity does not help against TIFU at 0.29."""
    decision = judge(frame(0.28), popularity=frame(0.10), tifu=frame(0.29))
    assert decision.outcome == "reject"
    assert len(decision.reasons) == 1
    assert "baseline tifu" in decision.reasons[0]
    assert "Worse" in decision.reasons[0]


def test_gain_below_the_margin_over_baselines_is_rejected() -> None:
    """+0.4 % for everybody is significant, and less than the +1 % asked for: 1.01 x 0.2500 = 0.2525 is needed."""
    decision = judge(frame(0.251))
    assert decision.outcome == "reject"
    assert "0.2525" in decision.reasons[0]


def test_gain_within_noise_of_the_champion_is_rejected_with_what_is_missing() -> None:
    """+0.001 with a spread of 0.05 on 100 customers is noise; the reason names the difference and the sample needed."""
    decision = judge(frame(0.281, noise=1.0), frame(0.280))
    row = decision.comparisons.query("role == 'champion' and metric == 'ndcg'").iloc[0]
    needed = int(np.ceil(N * ((row["difference"] - row["low"]) / row["difference"]) ** 2)) + 1
    assert decision.outcome == "reject"
    assert "Equal within noise" in decision.reasons[0]
    assert f"grow by more than {-row['low']:.4f}" in decision.reasons[0]
    assert f"{needed:,} customer-weeks instead of 100" in decision.reasons[0]


def test_equal_model_is_rejected() -> None:
    """A copy of the champion is not better: new is no reason."""
    decision = judge(frame(0.28), frame(0.28))
    assert decision.outcome == "reject"
    assert "Equal within noise" in decision.reasons[0]


def test_any_significant_gain_over_the_champion_is_enough() -> None:
    """+0.0005 for everybody: lower bound +0.0005, and no margin is asked for against a champion."""
    assert judge(frame(0.2805), frame(0.28)).outcome == "promote"


def test_model_better_than_a_bad_champion_still_has_to_beat_the_baselines() -> None:
    """0.20 beats the champion's 0.15 and loses to the personal counter at 0.25."""
    decision = judge(frame(0.20), frame(0.15))
    assert decision.outcome == "reject"
    assert "baseline personal" in decision.reasons[0]


def test_significant_fall_of_revenue_is_rejected() -> None:
    """Revenue 0.099 against 0.100 for everybody: a fall of 1 %, below the 3 % allowed, and certain."""
    decision = judge(frame(0.30, revenue=0.099), frame(0.28))
    assert decision.outcome == "reject"
    assert "significant fall" in decision.reasons[0]
    assert "rise by 0.0010" in decision.reasons[0]


def test_large_fall_of_revenue_is_rejected_even_within_noise() -> None:
    """One customer of 100 loses 0.8 of her 10.00 a hundredfold: -8 % in the pool, an interval that reaches 0."""
    challenger, champion = frame(0.30), frame(0.28)
    challenger.iloc[0, challenger.columns.get_loc("revenue_hit")] -= 8.0
    champion_hit = champion["revenue_hit"].sum()
    assert (challenger["revenue_hit"].sum() - champion_hit) / champion_hit == pytest.approx(-0.08)
    decision = judge(challenger, champion)
    assert decision.outcome == "reject"
    assert "more than 3%" in decision.reasons[0]


def test_revenue_is_judged_against_the_champion_only_where_there_is_one() -> None:
    """0.10 holds the champion's revenue; a baseline with 0.12 blocks a first model, no successor."""
    baselines = {"personal": frame(0.25, revenue=0.12)}
    assert judge(frame(0.30), frame(0.28), **baselines).outcome == "promote"
    assert judge(frame(0.30), None, **baselines).outcome == "reject"


def test_too_few_customers_is_inconclusive() -> None:
    """90 of 100 customers: neither good nor bad, and the reason says how many are missing."""
    decision = judge(frame(0.50, n=90), personal=frame(0.10, n=90))
    assert decision.outcome == "inconclusive"
    assert "10 more" in decision.reasons[0]
    assert decision.comparisons.empty


def test_weeks_of_one_customer_are_not_more_customers() -> None:
    """60 customers in two windows are 120 customer-weeks and 60 customers."""
    weeks = {w: frame(0.30, n=60) for w in ("2017-10-23", "2017-10-30")}
    challenger = pd.concat(weeks, names=["window"])
    assert judge(challenger, personal=challenger - 0.01).outcome == "inconclusive"


def brands(own_slots: float, own_purchases: float = 0.3) -> pd.DataFrame:
    """Who gets the slots of two brands."""
    found = pd.DataFrame(
        {"slots": [own_slots, 1 - own_slots], "purchases": [own_purchases, 1 - own_purchases]}, index=["Own", "Other"]
    )
    return found.assign(ratio=found["slots"] / found["purchases"])


def exposed(table: pd.DataFrame) -> Decision:
    evidence = Evidence(0.2, brands=table)
    return decide(frame(0.30), None, {"personal": frame(0.25)}, POLICY, 1, evidence)


@pytest.mark.ml_test("M7")
def test_a_brand_with_half_of_its_share_of_the_purchases_passes() -> None:
    """30 % of the purchases and 15 % of the slots is the limit; a brand with 9 % of the purchases is too small to be judged."""
    assert exposed(brands(0.15)).outcome == "promote"
    assert exposed(brands(0.0, own_purchases=0.09)).outcome == "promote"


@pytest.mark.ml_test("M7", control=True)
@pytest.mark.parametrize("slots", [0.149, 0.0])
def test_a_brand_that_is_bought_and_hardly_shown_is_a_reason_to_reject(slots: float) -> None:
    """A good NDCG that hides a brand: the reason names it and the share that it would have to get."""
    decision = exposed(brands(slots))
    assert decision.outcome == "reject"
    assert len(decision.reasons) == 1
    assert f"brand Own has 30% of the purchases and {slots:.1%} of the slots" in decision.reasons[0]
    assert "15.0%" in decision.changes[0]


@pytest.mark.parametrize("coverage", [0.001, 0.0, float("nan")])
def test_collapsed_coverage_is_rejected(coverage: float) -> None:
    """A good NDCG with the same few products for everybody; an unknown coverage does not pass either."""
    decision = decide(frame(0.30), None, {"personal": frame(0.25)}, POLICY, 1, Evidence(coverage))
    assert decision.outcome == "reject"
    assert "coverage" in decision.reasons[0]


def test_every_broken_rule_is_reported() -> None:
    """Worse NDCG than two baselines and lost revenue: four reasons, not the first only."""
    decision = judge(frame(0.20, revenue=0.05), personal=frame(0.25), tifu=frame(0.26))
    assert len(decision.reasons) == 4


def test_comparisons_have_a_row_for_each_reference_and_metric() -> None:
    """One baseline and one champion, NDCG and revenue; the unjudged revenue of a baseline is marked as such."""
    table = judge(frame(0.30), frame(0.28)).comparisons
    assert list(zip(table["reference"], table["metric"], strict=True)) == [
        ("personal", "ndcg"), ("personal", "revenue"), ("champion", "ndcg"), ("champion", "revenue"),
    ]  # fmt: skip
    assert table["is_passed"].tolist() == [True, None, True, True]
    assert table["difference"].iloc[0] == pytest.approx(0.30 - 0.25)


def test_same_seed_gives_the_same_decision() -> None:
    """The gate is a function: its reasons are identical when it is asked again."""
    first, second = (judge(frame(0.281, noise=1.0), frame(0.28)) for _ in range(2))
    assert first.reasons == second.reasons


def test_different_customer_weeks_are_refused() -> None:
    """The champion lacks a customer: not a paired comparison."""
    with pytest.raises(SchemaError) as caught:
        judge(frame(0.30), frame(0.28).iloc[1:])
    assert caught.value.culprit == "champion"


def test_judging_without_a_baseline_is_refused() -> None:
    """The simple methods are always in the table."""
    with pytest.raises(NotEnoughData):
        decide(frame(0.30), None, {}, POLICY, 1, Evidence(0.2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"primary_metric": "auc"},
        {"min_customers": 1},
        {"confidence": 1.0},
        {"max_revenue_loss": -0.1},
        {"min_brand_exposure": 2},
    ],
)
def test_impossible_policy_is_refused(wrong: dict[str, object]) -> None:
    """A gate that cannot work is refused where it is written, by field name."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        GatePolicy(**wrong)  # type: ignore[arg-type]


def test_refusal_lists_the_smallest_changes() -> None:
    """One change for each reason, and the reason ends with it; a promotion lists none."""
    decision = judge(frame(0.20, revenue=0.05))
    assert len(decision.changes) == len(decision.reasons) == 2
    assert all(reason.endswith(f"{change}.") for reason, change in zip(decision.reasons, decision.changes, strict=True))
    assert judge(frame(0.28)).changes == ()


def with_evidence(evidence: Evidence, policy: GatePolicy = POLICY) -> Decision:
    """A challenger that beats champion and baseline, with other evidence."""
    return decide(frame(0.30), frame(0.28), {"personal": frame(0.25)}, policy, 1, evidence)


def test_absolute_floor_stops_a_winner_among_broken_methods() -> None:
    """0.006 beats 0.004 by half and is below the floor of 0.01; with the floor at 0.005 it passes."""
    baselines = {"personal": frame(0.004)}
    assert decide(frame(0.006), None, baselines, POLICY, 1, Evidence(0.2)).outcome == "reject"
    lower = GatePolicy(min_customers=N, draws=200, min_primary=0.005)
    assert decide(frame(0.006), None, baselines, lower, 1, Evidence(0.2)).outcome == "promote"


def slice_rows(*is_below: bool) -> pd.DataFrame:
    row = {
        "slice": "tenure: new", "metric": "ndcg", "challenger": 0.20, "baseline": "personal", "baseline_value": 0.22,
        "low": -0.03, "high": -0.01,
    }  # fmt: skip
    return pd.DataFrame([{**row, "is_below": below} for below in is_below])


def test_slice_below_its_baseline_rejects() -> None:
    """The reason names the slice and what it lacks, 0.01 to be within noise; slices that hold do not matter."""
    decision = with_evidence(Evidence(0.2, slices=slice_rows(False, True)))
    assert decision.outcome == "reject"
    assert "slice tenure: new: ndcg 0.2000 against personal 0.2200" in decision.reasons[0]
    assert "rise by 0.0100" in decision.changes[0]
    assert with_evidence(Evidence(0.2, slices=slice_rows(False, False))).outcome == "promote"
    assert with_evidence(Evidence(0.2, slices=slice_rows())).outcome == "promote"


def test_slates_that_cannot_be_shown_reject() -> None:
    """A fault of one slate is enough, whatever the measures say."""
    decision = with_evidence(Evidence(0.2, faults=("1 slots repeat a product",)))
    assert decision.outcome == "reject"
    assert decision.reasons == ("1 slots repeat a product: no slate may have this fault.",)


def test_change_beyond_the_limit_asks_for_a_person() -> None:
    """51 % of the slots are new where 50 % may be: inconclusive, and it says which setting lets it pass; 50 % passes."""
    decision = with_evidence(Evidence(0.2, change=0.51))
    assert decision.outcome == "inconclusive"
    assert "training.gate_max_change of 0.51" in decision.changes[0]
    assert with_evidence(Evidence(0.2, change=0.50)).outcome == "promote"
    assert with_evidence(Evidence(0.2, change=0.51), GatePolicy(min_customers=N, max_change=0.51)).outcome == "promote"


def test_worse_model_with_a_large_change_is_rejected_not_inconclusive() -> None:
    """A person is asked only about models that pass everything else."""
    decision = decide(frame(0.20), frame(0.28), {"personal": frame(0.25)}, POLICY, 1, Evidence(0.2, change=0.9))
    assert decision.outcome == "reject"
