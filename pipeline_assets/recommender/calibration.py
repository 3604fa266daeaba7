"""Scores as probabilities: how often candidates with such a score are bought."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline_assets.recommender.errors import NotEnoughData


def later_weeks(scores: np.ndarray, labels: np.ndarray, starts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the later weeks by a logistic curve that is fitted on the first week, and their labels.

    With one week the curve is drawn on what it was fitted on, which flatters it. Source: Platt, 1999.

    Args:
        starts: where each week begins in `scores`.

    Raises:
        NotEnoughData: the first week has no purchase, or nothing else.
    """
    from sklearn.linear_model import LogisticRegression

    first = slice(0, starts[1] if len(starts) > 1 else None)
    rest = slice(starts[1], None) if len(starts) > 1 else first
    if len(np.unique(labels[first])) < 2:
        raise NotEnoughData("calibration", found="one kind of label", wanted="two", fix="evaluate more customers")
    fitted = LogisticRegression().fit(scores[first, None], labels[first])
    return fitted.predict_proba(scores[rest, None])[:, 1], labels[rest]


def expected_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean |predicted - observed| over bins of equal size, as a share of the observed rate (ECE / base rate).

    Relative, because purchases are rare: an error of 0.01 is nothing at 0.5 and everything at 0.02.
    """
    parts = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    gaps = [abs(probabilities[part].mean() - labels[part].mean()) * len(part) for part in parts if len(part)]
    return float(sum(gaps) / len(labels) / labels.mean())
