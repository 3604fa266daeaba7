"""Latency by model version and stage: what is counted, and for how many versions."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline_assets.serving.answers import Answer
from pipeline_assets.serving.metrics import STAGES, VERSIONS, Metrics

RANKED = Answer("c1", "known", "none", [("p1", 1.0)], latency_ms=4.0,
                stages=(("features", 0.001), ("rank", 0.002), ("rules", 0.0005)))  # fmt: skip
FALLBACK = Answer(None, "anonymous", "popularity", [("p1", 1.0)], "anonymous", latency_ms=0.3)


def metrics() -> Metrics:
    return Metrics(lambda: datetime(2017, 11, 6, tzinfo=UTC))


def value(found: Metrics, name: str, version: str, stage: str) -> float | None:
    labels = {"model_version": version, "stage": stage}
    return found.registry.get_sample_value(f"serving_stage_latency_seconds_{name}", labels)


def versions(found: Metrics) -> set[str]:
    """Model versions with a latency."""
    (family,) = [each for each in found.registry.collect() if each.name == "serving_stage_latency_seconds"]
    return {sample.labels["model_version"] for sample in family.samples}


def test_a_ranked_answer_counts_in_each_stage() -> None:
    """1, 2 and 0.5 ms in three parts, 4 ms in all: what is between them is of no stage."""
    found = metrics()
    found.answered(RANKED, "m1")
    assert {stage: value(found, "sum", "m1", stage) for stage in STAGES} == {
        "features": 0.001, "rank": 0.002, "rules": 0.0005, "whole": 0.004,
    }  # fmt: skip


def test_a_fallback_counts_as_a_whole_only() -> None:
    """Nothing was read and nothing ranked."""
    found = metrics()
    found.answered(FALLBACK, "m1")
    assert {stage: value(found, "count", "m1", stage) for stage in STAGES} == {
        "features": 0, "rank": 0, "rules": 0, "whole": 1,
    }  # fmt: skip


def test_two_versions_of_a_rollout_are_apart() -> None:
    """Two answers of one, one of the other."""
    found = metrics()
    for version in ("m1", "m2", "m1"):
        found.answered(RANKED, version)
    assert [value(found, "count", version, "rank") for version in ("m1", "m2")] == [2, 1]


def test_old_versions_are_forgotten() -> None:
    """A process that lives for a year of promotions has the series of four versions, the newest among them."""
    found = metrics()
    for number in range(52):
        found.answered(RANKED, f"m{number}")
    assert versions(found) == {f"m{number}" for number in range(52 - VERSIONS, 52)}
