"""A model that is broken on purpose is broken in the way that is said."""

from __future__ import annotations

import json

import lightgbm
import numpy as np

from pipeline_assets.replay.sabotage import _cpu_seconds, _flipped, _leaves, _slowed, reversed_scores
from pipeline_assets.serving.probe import MAX_ANSWER_CPU_MS


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


def test_a_slowed_model_answers_as_before_and_takes_longer() -> None:
    """The same scores to the last bit, for more CPU time than an answer may take."""
    random = np.random.default_rng(1)
    features = random.normal(size=(300, 3))
    text = lightgbm.train(
        {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}, lightgbm.Dataset(features, features[:, 0]), 20
    ).model_to_string()
    asked = {"requests": [{"candidate_ids": [f"p{n}" for n in range(100)]}]}
    slowed = _slowed({"model.txt": text.encode(), "warmup.json": json.dumps(asked).encode()}).decode()
    assert (
        lightgbm.Booster(model_str=slowed).predict(features) == lightgbm.Booster(model_str=text).predict(features)
    ).all()
    assert _cpu_seconds(slowed, 100) * 1e3 > MAX_ANSWER_CPU_MS
