"""The gate on real rankers: trained in a second each, judged on the same customers. Degraded, equal, better, and better but unsafe ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.judging import CHALLENGER, CHAMPION, Facts, Judged, judge_week
from pipeline_assets.recommender.promotion import Decision, GatePolicy, decide
from pipeline_assets.recommender.ranker import dataset, train
from pipeline_assets.recommender.training_set import Block, Examples
from pipeline_assets_tests import tiny_examples as tiny

DAY = date(2017, 2, 19)  # the week after the tiny examples' last
K = 3
POLICY = GatePolicy(min_customers=30, min_slice_customers=30, draws=200, max_change=1.0)
SIGNAL = tiny.MODEL_FEATURES.index(tiny.SIGNAL)
JUDGED = tuple(tiny.week(DAY, seed) for seed in range(100, 105))  # 150 customers that no model was trained on
MATRIX = np.concatenate([part.matrix for part in JUDGED])
LABEL = np.concatenate([part.label for part in JUDGED])
CUSTOMER = np.repeat([f"c{n:03}" for n in range(5 * tiny.GROUPS)], tiny.ROWS)
PRODUCT = np.tile([f"p{n:02}" for n in range(tiny.ROWS)], 5 * tiny.GROUPS)
IS_LIGHT = np.repeat(np.arange(5 * tiny.GROUPS) < 50, tiny.ROWS)  # the first 50 customers, a third


def noisy(part: Examples, spread: float, seed: int) -> Examples:
    """The same examples with a signal that is blurred by normal noise: a model that learns less from them."""
    matrix = part.matrix.copy()
    matrix[:, SIGNAL] += np.random.default_rng(seed).normal(0, spread, len(matrix)).astype(np.float32)
    return replace(part, blocks=(Block(DAY, len(matrix), lambda: matrix),))


@cache
def scores(kind: str) -> np.ndarray:
    """Scores of the judged candidates by a ranker that was trained on good, blurred or shuffled examples."""
    training, stopping = tiny.parts()
    if kind == "blurred":
        training, stopping = noisy(training, 0.5, 1), noisy(stopping, 0.5, 2)
    if kind == "shuffled":
        training = replace(training, label=np.random.default_rng(3).permutation(training.label))
    data = dataset(training)
    trained = train(data, dataset(stopping, data), tiny.PARAMS, 15, 7, 1)
    matrix = (
        noisy(replace(JUDGED[0], blocks=(Block(DAY, len(MATRIX), lambda: MATRIX),)), 0.3, 5).matrix
        if kind == "blurred"
        else MATRIX
    )
    return np.asarray(trained.booster.predict(matrix, num_iteration=trained.best_iteration, num_threads=1))


def slates(values: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame({"customer_id": CUSTOMER, "product_id": PRODUCT, "score": values})
    frame = frame.sort_values(["customer_id", "score", "product_id"], ascending=[True, False, True])
    return frame.assign(rank=frame.groupby("customer_id").cumcount() + 1)


def judged(challenger: np.ndarray, champion: np.ndarray | None) -> Judged:
    """Every customer bought all candidates before, light ones on one day and the others on two; the baseline guesses."""
    bought = pd.DataFrame({"customer_id": CUSTOMER, "product_id": PRODUCT, "amount": 1.0})
    orders = [bought.assign(order_id="o1", event_date=pd.Timestamp("2017-02-01"))]
    orders.append(bought[~IS_LIGHT].assign(order_id="o2", event_date=pd.Timestamp("2017-02-02")))
    catalogue = pd.DataFrame(
        {"department": "DAIRY", "type": "milk", "brand": "Own", "is_sellable": True},
        index=pd.Index(sorted(set(PRODUCT)), name="product_id"),
    )
    methods = {CHALLENGER: slates(challenger), "guess": slates(np.random.default_rng(9).random(len(CUSTOMER)))}
    if champion is not None:
        methods[CHAMPION] = slates(champion)
    return judge_week(Facts(DAY, bought[LABEL == 1], pd.concat(orders), catalogue), methods, K)


def gate(challenger: np.ndarray, champion: np.ndarray | None, policy: GatePolicy = POLICY) -> Decision:
    week = judged(challenger, champion)
    return decide(week.challenger, week.champion, week.baselines, policy, 1, week.evidence(policy, 1))


def test_first_model_that_learned_is_promoted() -> None:
    """It beats a guess."""
    assert gate(scores("good"), None).outcome == "promote"


@pytest.mark.ml_test("I4", control=True)
def test_model_trained_on_shuffled_labels_is_rejected() -> None:
    """Degraded: it knows nothing, loses to the champion, and is no better than a guess."""
    decision = gate(scores("shuffled"), scores("good"))
    assert decision.outcome == "reject"
    assert any("champion" in reason and "Worse" in reason for reason in decision.reasons)


def test_same_model_again_is_rejected() -> None:
    """Equal: the difference is 0 for every customer, and it says by how much it would have to grow."""
    decision = gate(scores("good").copy(), scores("good"))
    assert decision.outcome == "reject"
    assert len(decision.reasons) == 1
    assert "Equal within noise" in decision.reasons[0]
    assert "grow by more than 0.0000" in decision.changes[0]


@pytest.mark.ml_test("I4")
def test_better_model_is_promoted_and_the_worse_one_is_not() -> None:
    """The champion learned from a blurred signal; exchanged, the same pair is rejected."""
    assert gate(scores("good"), scores("blurred")).outcome == "promote"
    assert gate(scores("blurred"), scores("good")).outcome == "reject"


def test_better_model_that_changes_too_much_waits_for_a_person() -> None:
    """The limit is just below, then just above what changes."""
    change = judged(scores("good"), scores("blurred")).change
    assert change is not None
    assert 0.1 < change < 0.9
    assert gate(scores("good"), scores("blurred"), replace(POLICY, max_change=change - 0.01)).outcome == "inconclusive"
    assert gate(scores("good"), scores("blurred"), replace(POLICY, max_change=change + 0.01)).outcome == "promote"


def test_better_model_that_fails_light_customers_is_rejected() -> None:
    """Good for two thirds, upside down for light customers: better than the guess on average, and worse for them."""
    spoiled = np.where(IS_LIGHT, -scores("good"), scores("good"))
    decision = gate(spoiled, None)
    assert decision.outcome == "reject"
    assert any(reason.startswith("slice activity: light") for reason in decision.reasons)
    assert not any("baseline guess" in reason for reason in decision.reasons)


def test_better_model_with_one_list_for_all_is_rejected() -> None:
    """The same scores for every customer: a product that is bought often beats no personal list, and cannot be shown."""
    decision = gate(np.tile(np.arange(tiny.ROWS, dtype=float), 5 * tiny.GROUPS), None)
    assert decision.outcome == "reject"
    assert any("one and the same slate" in reason for reason in decision.reasons)
