"""Groups of features, and models that do not see one."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_assets.recommender.ablation import feature_groups, without
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets.recommender.ranker import dataset, importance, train
from pipeline_assets_tests import tiny_examples as tiny


def test_every_feature_is_in_one_group() -> None:
    """Together the groups are the model's features, none twice."""
    members = [name for group in feature_groups().values() for name in group]
    assert sorted(members) == sorted(MODEL_FEATURES)


def test_groups_follow_from_names() -> None:
    """A promotion that is about a product is of the promotions; a feature without a table's prefix is refused."""
    names = ("pair_n_orders", "pair_overdue", "product_mailer_share", "product_orders_7d")
    assert feature_groups(names) == {
        "promotion": ("product_mailer_share",), "timing": ("pair_overdue",), "counters of the pair": ("pair_n_orders",),
        "product popularity": ("product_orders_7d",),
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="weather"):
        feature_groups(("weather",))


@pytest.mark.ml_test("I2", control=True)
def test_model_without_its_signal_does_not_use_it_and_ranks_by_chance() -> None:
    """The only useful feature is left out: no split on it, and the score does not move when it does."""
    parts = [without(part, [tiny.SIGNAL]) for part in tiny.parts()]
    data = dataset(parts[0])
    booster = train(data, dataset(parts[1], data), tiny.PARAMS, 10, 7, 1).booster
    assert importance(booster)[tiny.SIGNAL] == 0
    matrix = tiny.week(tiny.WEEKS[0], 5).matrix
    moved = matrix.copy()
    moved[:, MODEL_FEATURES.index(tiny.SIGNAL)] += 1
    np.testing.assert_array_equal(booster.predict(matrix), booster.predict(moved))


def test_examples_are_not_changed_in_place() -> None:
    """What is left out of one model is there for the next."""
    part = tiny.week(tiny.WEEKS[0], 1)
    without(part, [tiny.SIGNAL])
    assert not np.isnan(part.matrix).any()
