"""A day that is blocked, or passed and not yet in the marts, is invisible to everything after it, by every route.

A blocking check stops only its own run (reliability.md, E1), so each step is tried in a run of its own, as a person with the
UI would start it. Sunday 03-19 arrives with nothing but bad rows, Monday 03-20 is sound and stops after validation, and
Wednesday 03-08, which was fine and used, is delivered again and is now bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, Pipeline, failure

BLOCKED, NOT_BUILT, REDELIVERED = date(2017, 3, 19), date(2017, 3, 20), date(2017, 3, 8)
_PURCHASES = ("raw/purchases", "validated/purchases")
_FEEDS = [
    f"{layer}/{feed}" for layer in ("raw", "validated") for feed in ("purchases", "exposures", "products", "customers")
]


@pytest.fixture(scope="module")
def pipeline(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    shop = first_run.shop.copied(tmp_path_factory.mktemp("fail_closed") / "shop")
    shop.deliver(BLOCKED, NOT_BUILT, faults={BLOCKED: "all_bad"})
    shop.deliver(REDELIVERED, faults={REDELIVERED: "all_bad"})
    with shop.opened() as pipeline:
        for day in (BLOCKED, NOT_BUILT):
            pipeline.execute("ingest", day, *_FEEDS, raise_on_error=False)
        pipeline.execute("ingest", REDELIVERED, *_PURCHASES, raise_on_error=False)
        yield pipeline


def says_what_is_blocked(text: str, day: date) -> bool:
    """Feed, day, reason and fix."""
    return all(
        part in text
        for part in (
            f"purchases of {day}",
            "quantity_positive",
            "a passed verdict",
            f"materialise validated/purchases for {day}",
        )
    )


@pytest.mark.parametrize(
    "asset", ["warehouse/fct_purchases", "features/customer", "features/online_store", "monitoring/drift_report"]
)
def test_nothing_is_computed_from_a_blocked_day(pipeline: Pipeline, asset: str) -> None:
    """The error names the feed, the day, the rule that most rows broke, and what to do."""
    result = pipeline.materialize(BLOCKED, asset, raise_on_error=False)
    assert says_what_is_blocked(failure(result), BLOCKED)
    assert BLOCKED not in pipeline.lake.days(asset)


@pytest.mark.parametrize("asset", ["deployment/bundle", "recommendations/daily", "deployment/release"])
def test_nothing_is_served_for_a_blocked_day(pipeline: Pipeline, asset: str) -> None:
    """What stands on features and bundles of the day finds none and says which."""
    result = pipeline.materialize(BLOCKED, asset, raise_on_error=False)
    assert str(BLOCKED) in failure(result)
    assert "Fix: materialise" in failure(result)


def test_a_week_with_a_blocked_day_is_neither_trained_nor_judged_on(pipeline: Pipeline) -> None:
    """03-08 lies in the window of cut-off 03-05: that week is left out and the one before takes its place."""
    pipeline.materialize(NEWEST, "training/training_set")
    used = pipeline.metadata("training/training_set", NEWEST)["label_weeks"]
    assert used == ["2017-01-29", "2017-02-05", "2017-02-12"]  # then 02-19 and 02-26 judge; first six were known


def test_labels_of_a_window_with_a_blocked_day_are_refused(pipeline: Pipeline) -> None:
    """Whoever asks for that week directly gets no labels rather than incomplete ones."""
    from pipeline_assets.recommender.errors import BlockedPartition
    from pipeline_assets.resources.holdout import Door
    from pipeline_assets.resources.training_data import window_purchases

    door = Door(pipeline.lake, "evaluation", "run", datetime.now(UTC), None)
    with pytest.raises(BlockedPartition) as refused:
        window_purchases(pipeline.lake, date(2017, 3, 5), 7, door)
    assert says_what_is_blocked(str(refused.value), REDELIVERED)


def test_a_passed_day_that_is_not_in_the_marts_has_no_features(pipeline: Pipeline) -> None:
    """Otherwise its purchases would count as not made; the fix is to build the marts."""
    assert pipeline.lake.verdicts("purchases", NOT_BUILT, NOT_BUILT)[NOT_BUILT].status == "passed"
    text = failure(pipeline.materialize(NOT_BUILT, "features/customer", raise_on_error=False))
    assert f"warehouse/fct_purchases of {NOT_BUILT}" in text
    assert f"run the job `marts` for {NOT_BUILT}" in text


def test_a_day_without_a_verdict_is_refused_too(pipeline: Pipeline) -> None:
    """03-21 has not arrived: no verdict means no work."""
    text = failure(pipeline.materialize(date(2017, 3, 21), "features/customer", raise_on_error=False))
    assert "purchases of 2017-03-21: found no verdict; wanted a passed verdict" in text
