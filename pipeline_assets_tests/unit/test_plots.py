"""Plots: PNG bytes that repeat, and errors where there is nothing to draw."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import plots
from pipeline_assets.recommender.errors import NotEnoughData, SchemaError
from pipeline_assets.recommender.metrics import Estimate

PNG = b"\x89PNG\r\n\x1a\n"
ESTIMATES = {"personal": Estimate(0.25, 0.24, 0.26), "model $1": Estimate(0.28, 0.27, 0.29)}
COMPARISONS = pd.DataFrame(
    {"reference": ["popularity", "tifu"], "metric": ["ndcg", "ndcg"], "relative": [1.5, -0.01],
     "low": [0.02, -0.01], "high": [0.04, 0.005], "relative_low": [1.4, -0.04], "relative_high": [1.6, 0.02]}
)  # fmt: skip


def test_leaderboard_is_a_png_and_repeats() -> None:
    """The same numbers give the same bytes, also with a name that matplotlib would read as mathematics."""
    first = plots.leaderboard_plot(ESTIMATES, "ndcg", highlight="model $1")
    assert first.startswith(PNG)
    assert plots.leaderboard_plot(ESTIMATES, "ndcg", highlight="model $1") == first


def test_importance_is_a_png() -> None:
    """Two features with gain 3 and 1."""
    assert plots.importance_plot({"days_since": 3.0, "orders": 1.0}).startswith(PNG)


def test_calibration_is_a_png_also_with_bins_without_purchases() -> None:
    """Only the highest of ten bins has a purchase."""
    probabilities = np.linspace(0.01, 0.9, 100)
    assert plots.calibration_plot(probabilities, (probabilities > 0.88).astype(int)).startswith(PNG)


def test_gain_is_a_png() -> None:
    """One gain far beyond the limit of the axis, one within noise."""
    assert plots.gain_plot(COMPARISONS).startswith(PNG)


def test_gain_over_a_reference_of_zero_is_said_not_drawn() -> None:
    """There is no ratio to 0; the row is kept with a sentence."""
    columns = ["relative", "relative_low", "relative_high"]
    assert plots.gain_plot(COMPARISONS.assign(**dict.fromkeys(columns, float("nan")))).startswith(PNG)


def test_slices_are_a_png_also_where_there_is_no_ratio() -> None:
    """One slice with an interval, one whose baseline found nothing in some resample."""
    rows = COMPARISONS.assign(slice=["tenure: new", "brand: Own"], metric="ndcg", customers=[1200, 60])
    rows.loc[1, "relative_low"] = float("nan")
    assert plots.slice_plot(rows).startswith(PNG)


def test_positions_exposure_and_age_are_pngs() -> None:
    """Two methods over three ranks; two brands; a model that is two weeks old."""
    hits = {"ranker": np.array([0.4, 0.3, 0.2]), "counter": np.array([0.3, 0.3, 0.2])}
    assert plots.position_plot(hits, "ranker").startswith(PNG)
    shares = pd.DataFrame({"slots": [0.6, 0.4], "purchases": [0.7, 0.3]}, index=["Other", "Own"])
    assert plots.exposure_plot(shares, "By brand").startswith(PNG)
    ages = pd.DataFrame(
        {"relative": [0.0, -0.01], "relative_low": [0.0, -0.02], "relative_high": [0.0, 0.0]}, index=[0, 2]
    )
    assert plots.age_plot(ages).startswith(PNG)


def test_nothing_to_draw_is_refused() -> None:
    """An empty picture would look like a result."""
    with pytest.raises(NotEnoughData):
        plots.leaderboard_plot({}, "ndcg")
    with pytest.raises(NotEnoughData):
        plots.importance_plot({"days_since": 0.0})
    with pytest.raises(NotEnoughData):
        plots.gain_plot(COMPARISONS, "revenue")
    with pytest.raises(NotEnoughData):
        plots.calibration_plot(np.full(20, 0.1), np.zeros(20))
    for draw in (plots.slice_plot, plots.age_plot, lambda empty: plots.exposure_plot(empty, "none")):
        with pytest.raises(NotEnoughData):
            draw(pd.DataFrame())
    with pytest.raises(NotEnoughData):
        plots.position_plot({})


def test_raw_scores_are_not_probabilities() -> None:
    """Scores of a ranking objective leave [0, 1] and cannot be calibrated."""
    with pytest.raises(SchemaError, match="sigmoid"):
        plots.calibration_plot(np.linspace(-3, 3, 20), np.ones(20))
