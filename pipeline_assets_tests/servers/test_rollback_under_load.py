"""A sabotaged model reaches customers under load, is found by a guardrail and is gone; nobody gets an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.rollback import experiment, page
from benchmarks.rollback_world import Shop, read_wrk


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A reversed ranker in canary, then a good model to the end, a rollback and its rollback: two workers, wrk, one run."""
    return experiment(Shop(tmp_path_factory.mktemp("shop")), [("reversed", "canary")])


@pytest.mark.ml_test("I6", control=True)
def test_the_sabotaged_model_is_rolled_back(found: dict[str, Any]) -> None:
    """It answered real requests first; a guardrail that knows slates named it; it is gone within the goals."""
    (shipped,) = found["shipped"]
    assert shipped["bad_answers"] > 0
    assert "change: 100.0%" in shipped["guardrail"]
    assert shipped["detect_s"] < 600
    assert shipped["restore_s"] < 60


def test_no_request_failed(found: dict[str, Any]) -> None:
    """While four models were swapped in and out of two processes."""
    assert found["load"]["requests"] > 1_000
    assert found["load"]["failed"] == 0


@pytest.mark.ml_test("I6")
def test_a_good_model_is_promoted_by_its_evidence(found: dict[str, Any]) -> None:
    """Shadow, canary, full: each step from what the log says."""
    assert found["steps"] == ["canary 25%", "full 100%"]


def test_rollback_and_rollback_of_the_rollback(found: dict[str, Any]) -> None:
    """Live in turn: the good model, the one before, the good one again; after another rollback a promotion by hand."""
    assert found["live_in_turn"] == ["3", "1", "3", "3"]


def test_every_change_is_in_the_audit_log(found: dict[str, Any]) -> None:
    """First model; start, past the shadow, rollback; start, canary, full; three rollbacks and a promotion by hand: 11 rows, and the chain holds."""
    assert (found["audit"]["rows"], found["audit"]["broken_at"]) == (11, None)


def test_the_page_says_what_was_measured(found: dict[str, Any], tmp_path: Path) -> None:
    """Its row holds the figures of the run."""
    text = page({**found, "workers": 2, "machine": "m", "recorded_at": "2026-01-01T00:00:00"})
    assert f"| reversed | canary | {found['shipped'][0]['detect_s']} s |" in text


def test_failed_requests_would_be_seen() -> None:
    """Negative control: wrk's summary with refused statuses and broken connections."""
    text = "  100 requests in 1.00s\n  Socket errors: connect 0, read 2, write 0, timeout 1\n  Non-2xx or 3xx responses: 4\nRequests/sec: 99.0\n"
    assert read_wrk(text) == {"requests": 100, "failed": 7, "requests_per_second": 99.0}
