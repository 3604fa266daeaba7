"""Rules of the shop on nightly slates: what must not be shown is not there, caps hold, and no rule changes nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.bundle import Bundle, FeatureLists, load_bundle
from pipeline_assets.recommender.packing import pack
from pipeline_assets.resources.nightly_rules import barriers, caps, ruled
from pipeline_assets.settings_rules import RulesSettings
from pipeline_assets_tests import tiny_bundle as tiny

TODAY = date(2017, 11, 6)
FEATURES = FeatureLists(("pair_orders", "pair_days_since_last"), tiny.FEATURES.customer, tiny.FEATURES.product)
RANKED = pd.DataFrame(
    {
        "customer_id": ["c1"] * 4 + ["c2"] * 2,
        "rank": np.array([1, 2, 3, 4, 1, 2], dtype=np.int32),
        "product_id": ["p2", "p4", "p3", "p1", "p5", "p3"],
        "score": [4.0, 3.0, 2.0, 1.0, 9.0, 8.0],
        "is_new": [False, False, True, True, True, True],
    }
)
# p2 was bought 1 day ago, p4 3, p3 5, p1 9 by c1; c2 bought nothing.
ROWS = pd.DataFrame(
    {
        "customer_id": ["c1", "c2"],
        "candidate_ids": [list(tiny.CANDIDATES), ["p5", "p3"]],
        "pair_features": [pack(tiny.PAIR), pack(np.full((2, 2), np.nan, dtype=np.float32))],
    }
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("nightly")
    text = tiny.model_text().replace("pair_days", "pair_days_since_last")
    directory, _ = tiny.write(root, features=FEATURES, text=text)
    return load_bundle(directory, tiny.TRUSTED)


def slates(bundle: Bundle, rules: dict[str, Any], k: int = 3) -> dict[str, list[str]]:
    """Products of each customer after barriers and caps, as `recommend` applies them."""
    settings = RulesSettings.model_validate(rules)
    allowed = ruled(RANKED, ROWS, bundle, barriers(settings), TODAY, 1_000)
    found = ruled(allowed, ROWS, bundle, caps(settings), TODAY, k)
    for _, slate in found.groupby("customer_id"):
        assert slate["rank"].tolist() == list(range(1, len(slate) + 1))
    assert found.dtypes.equals(RANKED.dtypes)
    return {str(customer): slate["product_id"].tolist() for customer, slate in found.groupby("customer_id")}


def test_without_rules_the_slates_are_the_rankers(bundle: Bundle) -> None:
    """The first k of each, the same rows."""
    found = ruled(RANKED, ROWS, bundle, RulesSettings(), TODAY, 2)
    pd.testing.assert_frame_equal(found, RANKED[RANKED["rank"] <= 2])


def test_blocked_and_recently_bought_are_left_out(bundle: Bundle) -> None:
    """p3 is recalled; three days leave out p2 and p4 of c1, nothing of c2."""
    rules = {"blocked": [{"products": ["p3"]}], "recently_bought": [{"level": "product", "days": 3}]}
    assert slates(bundle, rules) == {"c1": ["p1"], "c2": ["p5"]}


def test_caps_hold_and_the_next_ones_take_the_places(bundle: Bundle) -> None:
    """One of a department: p2 of GROCERY, p4 of none, p3 of DRUG; p5 and p3 are both of DRUG."""
    assert slates(bundle, {"caps": {"department": 1}}) == {"c1": ["p2", "p4", "p3"], "c2": ["p5"]}


def test_boosts_pins_and_contexts_wait_for_the_request(bundle: Bundle) -> None:
    """Served slates get them; applied here too, they would count twice."""
    rules = {
        "boosts": [{"products": ["p1"], "factor": 1000}],
        "pins": [{"product": "p5", "place": 1}],
        "blocked": [{"products": ["p2"], "context": {"placement": "home"}}],
    }
    assert slates(bundle, rules) == {"c1": ["p2", "p4", "p3"], "c2": ["p5", "p3"]}
