"""Labelled examples that a ranker can learn in a second: what the customer bought often is what is bought."""

from __future__ import annotations

from datetime import date

import numpy as np

from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets.recommender.ranker import RankerParams
from pipeline_assets.recommender.training_set import Block, Examples

WEEKS = (date(2017, 2, 5), date(2017, 2, 12))  # the second is for early stopping
SIGNAL = "pair_n_orders"
GROUPS, ROWS = 30, 12  # per week
PARAMS = RankerParams(num_leaves=7, min_data_in_leaf=10)  # the defaults want 200 rows in a leaf


def week(day: date, seed: int) -> Examples:
    """30 customers with 12 candidates: bought when `pair_n_orders` (0 .. 1) plus a little noise is above 0.9."""
    random = np.random.default_rng(seed)
    matrix = random.random((GROUPS * ROWS, len(MODEL_FEATURES)), dtype=np.float32)
    signal = matrix[:, MODEL_FEATURES.index(SIGNAL)]
    label = (signal + 0.2 * random.random(len(signal)) > 0.9).astype(np.int8)
    return Examples(
        (Block(day, len(matrix), lambda: matrix),),
        label,
        np.ones(len(label), dtype=np.float32),
        np.full(GROUPS, ROWS),
        np.array([day] * GROUPS, dtype=object),
    )


def parts(seed: int = 1) -> tuple[Examples, Examples]:
    """Training and early-stopping examples."""
    return week(WEEKS[0], seed), week(WEEKS[1], seed + 1)
