"""The asset graph as a whole: every node is presentable and judged, and each job holds what its name says."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg
import pytest

from pipeline_assets.definitions import defs

GRAPH = defs.resolve_asset_graph()
KEYS = sorted(GRAPH.get_all_asset_keys(), key=lambda key: key.to_user_string())
FEEDS = ("customers", "exposures", "products", "purchases")
MARTS = (
    "dim_customers",
    "dim_products",
    "fct_campaign_mailings",
    "fct_coupons",
    "fct_purchases",
    "fct_store_promotions",
)
INGEST = {*(f"{layer}/{feed}" for layer in ("raw", "validated") for feed in FEEDS), *(f"warehouse/{m}" for m in MARTS)}
FEATURES = {"features/customer", "features/product", "features/customer_product"}
TRAINING = {"training/training_set", "training/model", "evaluation/evaluation_report", "evaluation/promotion"}
SERVE = {
    "features/online_store",
    "deployment/bundle",
    "recommendations/daily",
    "recommendations/discover",
    "deployment/release",
}
MONITOR = {
    "monitoring/prediction_log",
    "monitoring/impressions",
    "monitoring/drift_report",
    "monitoring/quality_report",
    "monitoring/skew_report",
    "monitoring/slo_report",
    "monitoring/retraining_decision",
}
JOBS = {
    "ingest": INGEST,
    "marts": {name for name in INGEST if name.startswith("warehouse/")},
    "features": FEATURES,
    "first_days": INGEST | FEATURES | {"monitoring/drift_report"},
    "every_day": INGEST | FEATURES | SERVE | MONITOR,
    "training": TRAINING,
    "publish": SERVE | MONITOR,
    "retraining": TRAINING | SERVE,
}


def names(keys: Iterable[dg.AssetKey]) -> set[str]:
    """Keys as people write them."""
    return {key.to_user_string() for key in keys}


def test_the_graph_is_complete() -> None:
    """8 feeds tables, 6 marts, 4 features, 2 + 2 for the model, 2 to deploy, 2 lists, 7 monitors: 33."""
    assert len(KEYS) == 33
    assert names(KEYS) == INGEST | FEATURES | TRAINING | SERVE | MONITOR


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.to_user_string())
def test_an_asset_is_presentable(key: dg.AssetKey) -> None:
    """Owner, kinds, layer tag, description, code version, group and daily partitions."""
    node = GRAPH.get(key)
    assert node.owners
    assert node.kinds
    assert node.tags["layer"] == node.group_name == key.path[0]
    assert len(node.description or "") > 40
    assert node.code_version
    assert node.partitions_def is not None


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.to_user_string())
def test_an_asset_is_judged(key: dg.AssetKey) -> None:
    """At least one check, and every check says what it checks or is dbt's and named after its test."""
    checks = GRAPH.get(key).check_keys
    assert checks
    for check in checks:
        assert GRAPH.get(check).description or key.path[0] == "warehouse", check


@pytest.mark.parametrize("job", JOBS)
def test_a_job_holds_what_its_name_says(job: str) -> None:
    """Exactly these assets, and one daily partition for all of them."""
    definition = defs.resolve_job_def(job)
    assert names(definition.asset_layer.selected_asset_keys) == JOBS[job]
    assert definition.partitions_def is not None


def test_there_is_no_other_job() -> None:
    """A job that nobody tests is a job that nobody knows."""
    assert {job.name for job in defs.jobs or ()} == {*JOBS, "retention"}, "retention has no assets"


def test_a_blocked_day_stops_what_depends_on_it_in_its_own_run() -> None:
    """Schema checks, parity, bundle and gate block; distributions and the monitors' verdicts warn (style.md)."""
    warning = {
        key.name
        for key in GRAPH.asset_check_keys
        if not GRAPH.get(key).blocking and key.asset_key.path[0] != "warehouse"
    }
    assert warning == {
        "quarantine_is_usual",
        "batch_is_usual",
        "positives_are_plausible",
        "gate_is_passed",
        "coverage_is_not_collapsed",
        "answers_are_distinct",
        "impressions_are_whole",
        "inputs_do_not_drift",
        "quality_is_not_degraded",
        "predictions_are_not_skewed",
        "budgets_are_not_exhausted",
    }
