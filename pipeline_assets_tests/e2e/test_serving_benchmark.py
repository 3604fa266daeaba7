"""The page of the serving benchmark: goals are judged by the figures, and a figure that misses is said to."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.serving_page import goals, page


def load(cpu_ms: float, **changes: Any) -> dict[str, Any]:
    figures = {
        "cpu_ms": cpu_ms,
        "requests_per_core_s": 1000 / cpu_ms,
        "requests_per_s": 500.0,
        "p50_ms": 1.5,
        "p99_ms": 9.0,
    }
    return {**figures, "broken": 0, "statuses": {"200": 10}, "offered": 250.0, **changes}


def found() -> dict[str, Any]:
    """CPU of 1 ms from memory, 2 ms with Feast, 100 ms naive, 16 ms MLflow: 1000 and 500 a core-second, 100, 50 and 16 times."""
    server = {"start_s": 2.5, "start_cpu_s": 2.4, "rss_mb": [330, 20]}

    def api(cpu_ms: float) -> dict[str, Any]:
        over = load(2 * cpu_ms, p99_ms=40.0, statuses={"200": 10, "429": 40})
        return {"one": load(cpu_ms), "saturated": load(cpu_ms), "half": load(cpu_ms), "overload": over, **server}

    peers = {
        name: {"one": load(cpu), "saturated": load(cpu), **server} for name, cpu in (("naive", 100.0), ("mlflow", 16.0))
    }
    return {
        "measured_at": "2017-11-13T00:00:00+00:00",
        "load_before": [1.0, 1.0, 1.0],
        "load_after": [2.0, 2.0, 2.0],
        "model": {"candidates": 200, "features": 81, "trees": 300, "customers": 100, "compiled": True},
        "slates": {"customers": 20, "equal": True, "largest_score_difference": 1e-14},
        "memory": api(1.0),
        "feast": api(2.0),
        "two_workers": {"saturated": load(1.0, requests_per_s=900.0)},
        **peers,
    }


def test_figures_that_meet_every_goal() -> None:
    """Eleven goals, all met."""
    assert [is_met for _, _, is_met in goals(found())] == [True] * 11
    assert "not met" not in page(found())


@pytest.mark.parametrize(
    ("server", "kind", "change", "missed"),
    [
        ("memory", "saturated", {"cpu_ms": 1.5, "requests_per_core_s": 667}, "700 answers"),
        ("feast", "saturated", {"cpu_ms": 2.3, "requests_per_core_s": 435}, "450 with Feast"),
        ("memory", "one", {"p50_ms": 2.1}, "p50 of 2 ms"),
        ("memory", "half", {"p99_ms": 10.1}, "p99 of 10 ms"),
        ("memory", "overload", {"statuses": {"200": 10, "500": 1}}, "five times the capacity"),
        ("memory", "overload", {"broken": 1}, "five times the capacity"),
        ("two_workers", "saturated", {"requests_per_s": 499.0}, "more workers"),
    ],
)
def test_a_figure_that_misses_its_goal(server: str, kind: str, change: dict[str, Any], missed: str) -> None:
    """Negative control, one at a time; the page says so."""
    figures = found()
    figures[server][kind] = {**figures[server][kind], **change}
    assert any(missed in goal for goal, _, is_met in goals(figures) if not is_met)
    assert "**not met**" in page(figures)
