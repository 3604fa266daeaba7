"""Age of a model: which weeks it saw, what it loses, and the cadence that follows."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.split import Weeks
from pipeline_assets.recommender.staleness import cadence_weeks, quality_by_age, shifted
from pipeline_assets_tests.unit.test_metrics import frame

KNOWN = [date(2017, 1, 29) + timedelta(days=7 * n) for n in range(6)]
WEEKS = Weeks(tuple(KNOWN[3:5]), (KNOWN[5],), (date(2017, 3, 12),))


def ages(*bounds: tuple[int, float, float]) -> pd.DataFrame:
    """Rows (age, relative, upper bound)."""
    rows = [(age, value, value - 0.01, high) for age, value, high in bounds]
    return pd.DataFrame(rows, columns=["age", "relative", "relative_low", "relative_high"]).set_index("age")


def test_older_model_has_as_many_weeks_that_end_earlier() -> None:
    """Two weeks older: weeks 1 and 2 train and 3 stops, where the fresh one has 3, 4 and 5; the same weeks judge both."""
    older = shifted(WEEKS, 2, list(KNOWN))
    assert (older.training, older.early_stopping) == (tuple(KNOWN[1:3]), (KNOWN[3],))
    assert older.evaluation == WEEKS.evaluation
    assert shifted(WEEKS, 0, list(KNOWN)) == WEEKS


def test_too_few_weeks_before_are_refused() -> None:
    """Four weeks older would need seven label weeks."""
    with pytest.raises(NotEnoughData, match="wanted 7"):
        shifted(WEEKS, 4, list(KNOWN))


def test_loss_is_relative_to_the_fresh_model() -> None:
    """0.3 fresh, 0.27 after four weeks, for everybody: -10 %, an interval of no width."""
    found = quality_by_age({0: frame(ndcg=[0.3] * 5), 4: frame(ndcg=[0.27] * 5)}, seed=1, draws=200)
    np.testing.assert_allclose(found.loc[4, ["relative", "relative_low", "relative_high"]].astype(float), -0.1)
    assert found.loc[0, "relative"] == 0


def test_ages_without_a_fresh_model_are_refused() -> None:
    """There is nothing to be older than."""
    with pytest.raises(NotEnoughData):
        quality_by_age({4: frame(ndcg=[0.27])}, seed=1)


@pytest.mark.parametrize(
    ("bounds", "weeks"),
    [
        (((0, 0, 0), (1, 0.0, 0.01), (2, -0.003, 0.002), (4, -0.02, -0.011)), 2),
        (((0, 0, 0), (1, -0.02, -0.01)), 1),
        (((0, 0, 0), (1, 0.0, 0.01), (8, -0.004, -0.002)), 8),
        (((0, 0, 0), (1, 0.0, 0.0), (2, -0.02, -0.01), (4, 0.0, 0.01)), 1),
    ],
)
def test_cadence_is_the_greatest_age_without_a_certain_loss(
    bounds: tuple[tuple[int, float, float], ...], weeks: int
) -> None:
    """Certain losses above 0.5 %: after two weeks; at once; never (0.4 % is tolerated); one age that fails ends it."""
    assert cadence_weeks(ages(*bounds)) == weeks
