"""Checks of group `monitoring`: each seen passing and failing, on rows written by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow
import pytest

from pipeline_assets.checks import monitoring as checks
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import IMPRESSIONS, PREDICTION_LOG
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets_tests.checking import run_check

DAY = date(2017, 11, 5)
NOON = datetime(2017, 11, 6, 12, tzinfo=UTC)
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
PASSES, WARNS = (True, False, WARN), (False, False, WARN)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def put(lake: Lake, table: str, *rows: dict[str, Any], schema: pyarrow.Schema | None = None) -> None:
    """Make `rows` the content of `DAY`."""
    lake.replace_days(
        table, pyarrow.Table.from_pylist([{**row, "event_date": DAY} for row in rows], schema), [DAY], "run"
    )


def outcome(check: dg.AssetChecksDefinition, lake: Lake) -> tuple[bool, bool, dg.AssetCheckSeverity]:
    """passed, blocking, severity."""
    found = run_check(check, {"lake": lake}, DAY)
    return found.passed, found.blocking, found.severity


def test_answers_are_distinct(lake: Lake) -> None:
    """No answer yet passes; one answer twice, or one without products, warns."""
    check, table = checks.answers_are_distinct, checks.PREDICTION_LOG_TABLE
    put(lake, table, schema=PREDICTION_LOG)
    assert outcome(check, lake) == PASSES
    put(lake, table, *[{"answer_id": "x", "product_ids": ["p1"]}] * 2, schema=PREDICTION_LOG)
    assert outcome(check, lake) == WARNS
    put(lake, table, {"answer_id": "x", "product_ids": []}, schema=PREDICTION_LOG)
    assert outcome(check, lake) == WARNS


def test_impressions_are_whole(lake: Lake) -> None:
    """None yet passes, all labelled or none labelled passes; a place twice, or labels of some only, warns."""
    check, table = checks.impressions_are_whole, checks.IMPRESSIONS_TABLE
    first, second = ({"answer_id": "x", "rank": rank, "purchased": False} for rank in (1, 2))
    unknown = [{**row, "purchased": None} for row in (first, second)]
    put(lake, table, schema=IMPRESSIONS)
    assert outcome(check, lake) == PASSES
    for rows, expected in (
        ([first, second], PASSES),
        (unknown, PASSES),
        ([first, first], WARNS),
        ([first, unknown[1]], WARNS),
    ):
        put(lake, table, *rows, schema=IMPRESSIONS)
        assert outcome(check, lake) == expected


@pytest.mark.parametrize(
    ("verdict", "expected"), [("ok", PASSES), ("watch", PASSES), ("drift", WARNS), ("unknown", WARNS)]
)
def test_inputs_do_not_drift(lake: Lake, verdict: str, expected: tuple[bool, bool, Any]) -> None:
    """Unknown is not good."""
    put(lake, checks.DRIFT_TABLE, {"verdict": verdict, "reasons": ["because"]})
    assert outcome(checks.inputs_do_not_drift, lake) == expected


@pytest.mark.parametrize(("verdict", "expected"), [("ok", PASSES), ("degraded", WARNS), ("unknown", WARNS)])
def test_quality_is_not_degraded(lake: Lake, verdict: str, expected: tuple[bool, bool, Any]) -> None:
    """Unknown is not good."""
    put(lake, checks.QUALITY_TABLE, {"verdict": verdict, "reasons": ["because"]})
    assert outcome(checks.quality_is_not_degraded, lake) == expected


@pytest.mark.parametrize(("verdict", "expected"), [("ok", PASSES), ("skew", WARNS), ("unknown", WARNS)])
def test_predictions_are_not_skewed(lake: Lake, verdict: str, expected: tuple[bool, bool, Any]) -> None:
    """Unknown is not good."""
    put(lake, checks.SKEW_TABLE, {"verdict": verdict, "reasons": ["because"]})
    assert outcome(checks.predictions_are_not_skewed, lake) == expected


@pytest.mark.parametrize(("verdict", "expected"), [("ok", PASSES), ("exhausted", WARNS), ("unknown", WARNS)])
def test_budgets_are_not_exhausted(lake: Lake, verdict: str, expected: tuple[bool, bool, Any]) -> None:
    """Unknown is not good."""
    put(lake, checks.SLO_TABLE, {"verdict": verdict, "reasons": ["because"]})
    assert outcome(checks.budgets_are_not_exhausted, lake) == expected


@pytest.mark.parametrize(
    ("decision", "status", "passed"),
    [("retrain", "passed", True), ("retrain", "blocked", False), ("refuse", "blocked", True)],
)
def test_decision_respects_the_upstream(lake: Lake, decision: str, status: str, passed: bool) -> None:
    """To retrain although a day of the week is blocked is an error, and blocks."""
    days = [DAY - timedelta(days=n) for n in range(7)]
    verdicts = [Verdict("purchases", day, status if day == days[3] else "passed", 1, 1, 0) for day in days]
    lake.record_verdicts(verdicts, "run", NOON)
    put(lake, checks.DECISION_TABLE, {"decision": decision})
    assert outcome(checks.decision_respects_the_upstream, lake) == (passed, True, ERROR)
