"""The pages say what was decided, escape what data say, and show a dash where nothing is known."""

from __future__ import annotations

import math
from datetime import date, timedelta

import pandas as pd
import pytest

from pipeline_assets.monitoring.causes import CausePolicy, Signs
from pipeline_assets.monitoring.drift import ColumnDrift, DriftDecision, DriftPolicy, DriftResult
from pipeline_assets.monitoring.pages import banner, drift_page, quality_page, share, slo_page
from pipeline_assets.monitoring.quality import COLUMNS, QualityDecision
from pipeline_assets.monitoring.slo import Counts, Objective, budget

DAY = date(2017, 11, 12)
CALM = Signs(0.15, -0.6, 1.06, 0.0, ())


def column(name: str, psi: float) -> ColumnDrift:
    return ColumnDrift(name, "numerical", psi, 0.0, 0.0, 1.5, psi >= 0.08, psi >= 0.5)


def drift(verdict: str, *columns: ColumnDrift, signs: Signs = CALM, evidently: str = "../evidently/x.html") -> str:
    result = DriftResult(40_000, 5_000, columns)
    decision = DriftDecision(verdict, ("because",))  # type: ignore[arg-type]
    past = [(DAY - timedelta(days=1), "ok")]
    return drift_page(DAY, result, decision, DriftPolicy(), signs, CausePolicy(), past, evidently)


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [("ok", "#1b7f4d"), ("watch", "#9a6700"), ("unknown", "#6b7785"), ("drift", "#b3261e"), ("exhausted", "#b3261e")],
)
def test_the_banner_has_the_colour_of_the_verdict(verdict: str, colour: str) -> None:
    """Green, amber, grey, red; unknown is not green."""
    assert banner(verdict, ()).colour == colour


def test_the_drift_page_points_at_the_source() -> None:
    """With a sign of a fault a red page names the source and the sign; without, the shop."""
    signs = Signs(0.6, 0.0, 1.0, 0.0, ("60% of the lines have another list price",))
    page = drift("drift", column("unit_price_log1p", 0.6), signs=signs)
    assert "<b>upstream</b>" in page
    assert "60% of the lines have another list price" in page
    assert "<b>shop</b>" in drift("drift", column("unit_price_log1p", 0.6))


def test_the_drift_page_links_evidently() -> None:
    """A relative link, so that the folder can be moved; none where there is no page."""
    assert 'href="../evidently/x.html"' in drift("ok", column("brand", 0.01))
    assert "href" not in drift("unknown", evidently="")


def test_what_data_say_is_escaped() -> None:
    """A department with a tag in its name."""
    signs = Signs(0.1, 0.0, 1.0, 0.0, ("no line of <script>alert(1)</script>",))
    assert "<script>" not in drift("drift", column("brand", 0.6), signs=signs)


def row(day: date, maturity: str, ndcg: float, baseline: float) -> dict[str, object]:
    known = dict.fromkeys(COLUMNS, math.nan)
    return known | {
        "as_of": day, "labels_as_of": DAY, "horizon_days": 7, "maturity": maturity, "reason": "", "k": 10,
        "customers": 100, "ndcg": ndcg, "recall": ndcg, "revenue": ndcg, "ndcg_standard_error": 0.01,
        "baseline": baseline,
    }  # fmt: skip


def test_the_quality_page_marks_maturity() -> None:
    """One complete day with its baseline, one open window: the open one has dashes and is counted as open."""
    history = pd.DataFrame(
        [row(DAY - timedelta(days=8), "complete", 0.3, 0.29), row(DAY, "partial", math.nan, math.nan)]
    )
    served = history.iloc[:0]
    decision = QualityDecision("unknown", ("too few days",), math.nan, math.nan)
    page = quality_page(DAY, history, decision, served, "decayed frequency")
    assert "1 of 2" in page
    assert "1 windows are still open" in page
    assert "<td>0.2900</td>" in page
    assert "No answer was logged" in page
    assert ">nan<" not in page


def test_the_slo_page_lists_the_days_that_used_a_budget() -> None:
    """An exhausted budget, its worst day and what is frozen; an unknown one is a dash."""
    skew = Objective("skew", 0.999, 28, "values", True)
    unknown = Objective("latency", 0.99, 28, "requests", True)
    history = {DAY: Counts(1_000, 5)}
    budgets = [budget(skew, history, DAY), budget(unknown, {}, DAY)]
    page = slo_page(DAY, "exhausted", ("skew: used up",), budgets, {"skew": history}, ["skew"])
    assert "<b>frozen</b>" in page
    assert "5 of 1,000" in page
    assert "<td>-400%</td>" in page
    assert "28 days, 0 measured" in page


def test_a_share_that_is_not_known_is_a_dash() -> None:
    """And one that is known has a digit."""
    assert (share(math.nan), share(0.125), share(0.0012, 3)) == ("–", "12.5%", "0.120%")
