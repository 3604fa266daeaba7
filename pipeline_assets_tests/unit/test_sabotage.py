"""A model that is broken on purpose is broken in the way that is said."""

from __future__ import annotations

import lightgbm
import numpy as np

from pipeline_assets.replay.sabotage import _flipped, _leaves, reversed_scores


def test_reversed_scores_order_backwards() -> None:
    """Every raw score has the opposite sign."""
    random = np.random.default_rng(1)
    features = random.normal(size=(300, 3))
    data = lightgbm.Dataset(features, (features[:, 0] > 0).astype(int))
    parameters = {"objective": "lambdarank", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    data.set_group([10] * 30)
    model = lightgbm.train(parameters, data, 5)
    broken = lightgbm.Booster(model_str=reversed_scores(model.model_to_string()))
    scores = model.predict(features)
    assert np.ptp(scores) > 0
    assert np.allclose(broken.predict(features), -scores)


def test_equal_leaves_score_the_same() -> None:
    """With one value in all leaves every score is as many times it as there are trees; with none it is no number."""
    random = np.random.default_rng(1)
    features = random.normal(size=(300, 3))
    data = lightgbm.Dataset(features, features[:, 0])
    text = lightgbm.train({"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}, data, 5).model_to_string()
    assert set(lightgbm.Booster(model_str=_leaves(text, "2")).predict(features)) == {10.0}
    assert np.isnan(lightgbm.Booster(model_str=_leaves(text, "nan")).predict(features)).all()


def test_one_bit_is_flipped() -> None:
    """In the middle, and only there."""
    assert _flipped(b"abc") == b"acc"
