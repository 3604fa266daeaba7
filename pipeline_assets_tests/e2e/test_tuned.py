"""A training run with a search: the run says how much better the tuned parameters are than the defaults, with an interval."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, Pipeline, Shop


@pytest.fixture(scope="module")
def tuned(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The model of the newest day, trained again with two trials."""
    copy = first_run.shop.copied(tmp_path_factory.mktemp("tuned") / "shop")
    with Shop(copy.root, {"PIPELINE_TRAINING__TRIALS": "2"}).opened() as pipeline:
        pipeline.materialize(NEWEST, "training/model")
        yield pipeline


def test_the_run_compares_tuned_with_default(tuned: Pipeline) -> None:
    """Three metrics with gain and interval around it, of the same customers of both evaluation weeks; zero where the defaults were best."""
    client = tuned.resources["tracking"].client()
    run_id = tuned.metadata("training/model", NEWEST)["mlflow_run_id"]
    metrics = client.get_run(run_id).data.metrics
    assert {"tuned_gain_ndcg", "tuned_gain_recall", "tuned_gain_revenue"} <= set(metrics)
    for name in ("ndcg", "recall", "revenue"):
        low, gain, high = (metrics[f"tuned_gain_{name}{end}"] for end in ("_low", "", "_high"))
        assert low <= gain <= high
    found = tuned.resources["tracking"].artifact_json(run_id, "tuned_against_default.json")
    assert [entry["metric"] for entry in found] == ["ndcg", "recall", "revenue"]
    for entry in found:
        assert entry["tuned"] - entry["default"] == pytest.approx(entry["gain"], abs=1e-9)
    assert "ndcg" in tuned.metadata("training/model", NEWEST)["tuned_against_default"]


def test_without_trials_nothing_is_compared(first_run: FirstRun) -> None:
    """Zero trials, as in the first run: the defaults are what was trained."""
    with first_run.shop.opened() as pipeline:
        assert "default parameters" in pipeline.metadata("training/model", NEWEST)["tuned_against_default"]
