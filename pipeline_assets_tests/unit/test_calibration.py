"""Scores as probabilities, fitted on one week and judged on others."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_assets.recommender.calibration import expected_error, later_weeks
from pipeline_assets.recommender.errors import NotEnoughData


def test_curve_of_the_first_week_is_applied_to_later_ones() -> None:
    """Week one: score 1 is always bought, -1 never. In week two the same scores get high and low probabilities."""
    scores = np.array([1.0, -1.0] * 50 + [1.0, -1.0])
    labels = np.array([1, 0] * 50 + [0, 1])
    probabilities, later = later_weeks(scores, labels, (0, 100))
    assert later.tolist() == [0, 1]
    assert probabilities[0] > 0.8
    assert probabilities[1] < 0.2


def test_one_week_is_drawn_on_itself() -> None:
    """There is no later week."""
    probabilities, labels = later_weeks(np.array([1.0, -1.0] * 5), np.array([1, 0] * 5), (0,))
    assert len(probabilities) == len(labels) == 10


def test_week_without_purchases_is_refused() -> None:
    """A curve of zeros only says zero."""
    with pytest.raises(NotEnoughData):
        later_weeks(np.zeros(4), np.zeros(4), (0,))


def test_expected_error_is_relative_to_the_base_rate() -> None:
    """Two bins: predicted 0.1 and 0.5, observed 0 and 0.5: (0.1 + 0) / 2 = 0.05, of a base rate of 0.25: 20 %."""
    probabilities = np.array([0.1] * 4 + [0.5] * 4)
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 0])
    assert expected_error(probabilities, labels, bins=2) == pytest.approx(0.05 / 0.25)
    assert expected_error(np.array([0.0, 1.0]), np.array([0, 1]), bins=2) == 0
