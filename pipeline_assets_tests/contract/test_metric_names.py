"""Rules and dashboards name metrics that the code has; every alert says who, how bad, what to do and why."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from pipeline_assets.resources.pipeline_metrics import PipelineMetrics
from pipeline_assets.serving.metrics import Metrics
from pipeline_assets_tests.contract.repository import ROOT, anchors

RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
METRIC = re.compile(r"\b(?:pipeline|serving|slo)[_:][a-z0-9_:]+\b")
OWNERS = {"team:recommendations", "team:data-platform"}
FORBIDDEN_LABELS = {"customer", "customer_id", "product", "product_id", "answer_id"}


def exposed() -> dict[str, tuple[str, ...]]:
    """Sample name -> labels, of everything that serving and the pipeline expose."""
    found: dict[str, tuple[str, ...]] = {}
    for registry in (PipelineMetrics().registry, Metrics(lambda: datetime(2024, 1, 1, tzinfo=UTC)).registry):
        for collector, names in registry._collector_to_names.items():
            found |= dict.fromkeys(names, tuple(getattr(collector, "_labelnames", ())))
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def unknown(expressions: list[str], known: set[str]) -> set[str]:
    """Metrics of ours that an expression names and nobody has."""
    return {name for text in expressions for name in METRIC.findall(text)} - known


def known() -> set[str]:
    return set(exposed()) | {rule["record"] for rule in rules() if "record" in rule}


def faults(alert: dict[str, Any], headings: set[str]) -> list[str]:
    """What an alert lacks."""
    labels, notes = alert.get("labels", {}), alert.get("annotations", {})
    page, _, anchor = notes.get("runbook", "").partition("#")
    holds = {
        "a severity": labels.get("severity") in ("info", "warning", "critical"),
        "an owner": labels.get("owner") in OWNERS,
        "a component": bool(labels.get("component")),
        "a summary": len(notes.get("summary", "")) >= 20,
        "a suspected cause": len(notes.get("suspected_cause", "")) >= 20,
        "a section of the runbook": page == "docs/runbook.md" and anchor in headings,
        "how long it holds": "for" in alert,
    }
    return [f"{alert['alert']} has not {what}" for what, held in holds.items() if not held]


def headings() -> set[str]:
    return set(anchors((ROOT / "docs/runbook.md").read_text()))


def test_rules_name_metrics_that_exist() -> None:
    """Every metric of ours in a rule is exposed by the code or recorded by another rule."""
    expressions = [rule["expr"] for rule in rules()]
    assert len(METRIC.findall(" ".join(expressions))) > 50
    assert unknown(expressions, known()) == set()


def test_a_renamed_metric_is_found() -> None:
    """Negative control: a metric that nobody has."""
    assert unknown(["rate(serving_requests_count[5m]) > pipeline_rows"], known()) == {"serving_requests_count"}


DASHBOARDS = ROOT / "deploy/grafana"


def queries(board: str) -> list[str]:
    """Every PromQL expression of a dashboard."""
    return [target["expr"] for panel in json.loads(board)["panels"] for target in panel.get("targets", [])]


def test_dashboards_name_metrics_that_exist() -> None:
    """Every query of every panel, in panels that have one."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        found = queries(path.read_text())
        assert len(found) >= 15, path.name
        assert unknown(found, known()) == set(), path.name
        assert all(METRIC.search(query) for query in found), path.name


def test_the_committed_dashboards_are_what_the_script_builds() -> None:
    """`python -m deploy.grafana.build` after a change of it."""
    from deploy.grafana.build import DASHBOARDS as builders

    assert {name: build() for name, build in builders.items()} == {
        path.name: path.read_text() for path in DASHBOARDS.glob("*.json")
    }


def test_a_panel_of_a_metric_that_is_gone_is_found() -> None:
    """Negative control: a dashboard whose metric was renamed in the code."""
    board = (DASHBOARDS / "serving.json").read_text().replace("serving_in_flight", "serving_busy")
    assert unknown(queries(board), known()) == {"serving_busy"}


@pytest.mark.ml_test("D5")
def test_no_person_and_no_product_is_a_label() -> None:
    """R60: ids as labels would be personal data in a system that keeps them for weeks, and a series for each."""
    labels = exposed()
    assert {"pipeline_rows", "serving_answers_total"} <= set(labels)
    assert {name: found for name, found in labels.items() if FORBIDDEN_LABELS & set(found)} == {}


def test_every_alert_is_complete() -> None:
    """Severity, owner, component, summary, suspected cause, hold time, and a runbook link that resolves."""
    assert [fault for alert in alerts() for fault in faults(alert, headings())] == []


@pytest.mark.parametrize(
    ("part", "key", "fault"),
    [
        ("labels", "severity", "a severity"),
        ("labels", "owner", "an owner"),
        ("annotations", "runbook", "a section of the runbook"),
        ("annotations", "suspected_cause", "a suspected cause"),
    ],
)
def test_an_incomplete_alert_is_found(part: str, key: str, fault: str) -> None:
    """Negative control: without one of them the alert is named."""
    alert = json.loads(json.dumps(alerts()[0]))
    del alert[part][key]
    assert faults(alert, headings()) == [f"{alert['alert']} has not {fault}"]
