"""A model that is broken on purpose is broken in the way that is said."""

from __future__ import annotations

import lightgbm
import numpy as np

from pipeline_assets.replay.sabotage import reversed_scores


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
