"""The three online stores as servers: what is published is read back to the bit, nothing goes back in time, the API answers from each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PAIR_FEATURES
from pipeline_assets.recommender.packing import pack
from pipeline_assets.resources.erasure_stores import erase_online, look_at_online
from pipeline_assets.resources.feature_store import FeatureStoreResource, known_at
from pipeline_assets.resources.mentions import Mentions
from pipeline_assets.serving.__main__ import config_from
from pipeline_assets.serving.online import FeastOnlineFeatures
from pipeline_assets.serving.release_state import open_state, record_live
from pipeline_assets.settings import get_settings, load_settings
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests import tiny_store
from pipeline_assets_tests.e2e.test_online_order import CUSTOMERS, FIRST, day_rows, publish, served
from pipeline_assets_tests.postgres import Postgres, postgres  # noqa: F401  # the fixture
from pipeline_assets_tests.server import served as api

FEATURES = FeatureStoreResource()
STORES = ("sqlite", "redis", "postgres")


@pytest.fixture(params=STORES)
def online_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The setting `stores.online_store` of an empty store, as docs/configuration.md has it; nothing for SQLite."""
    if request.param == "redis":
        import redis

        port = request.getfixturevalue("redis_port")
        redis.Redis(port=port).flushall()
        return json.dumps({"type": "redis", "connection_string": f"127.0.0.1:{port}"})
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        server.database("online")
        place = {"host": str(server.socket), "database": "online", "user": "postgres", "password": ""}
        return json.dumps({"type": "postgres", "sslmode": "disable", "conn_type": "pool", **place})
    return "{}"


@pytest.fixture
def environment(online_store: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of this process, and of those it starts."""
    environ = {"PIPELINE_DATA_DIR": str(tmp_path), "PIPELINE_STORES__ONLINE_STORE": online_store}
    with mock.patch.dict(os.environ, environ):
        get_settings.cache_clear()
        yield environ
    get_settings.cache_clear()


def options(environ: dict[str, str]) -> dict[str, Any]:
    return dict(config_from(load_settings(environ)).feast)


def test_an_erased_customer_is_in_no_store(environment: dict[str, str]) -> None:
    """Asked with Feast's own keys: found before (control), not after, and the next one is still answered. Again there is nothing to remove."""
    settings = get_settings()
    publish(FEATURES.apply(), 0)
    her, other = CUSTOMERS[:2]
    assert len(look_at_online(settings, Mentions(her))) == 1
    assert erase_online(settings, Mentions(her)).rows > 0
    assert look_at_online(settings, Mentions(her)) == []
    assert erase_online(settings, Mentions(her)).rows == 0
    online = FeastOnlineFeatures(options(environment), CUSTOMER_FEATURES)
    assert online.read(her) is None
    assert online.read(other) is not None


def test_online_is_offline_to_the_bit(environment: dict[str, str]) -> None:
    """Random float32, missing values, no candidates at all, candidate ids in any script: what serving reads is what was published."""
    rng = np.random.default_rng(7)
    own = rng.normal(size=(3, len(CUSTOMER_FEATURES))).astype(np.float32)
    own[rng.random(own.shape) < 0.2] = np.nan
    pairs = [rng.normal(size=(n, len(PAIR_FEATURES))).astype(np.float32) for n in (200, 1, 0)]
    ids = [[f"p{n}" for n in range(200)], ["milk-牛奶"], []]
    key = {"customer_id": CUSTOMERS, "feature_ts": [known_at(FIRST)] * 3}
    candidates = pd.DataFrame({**key, "candidate_ids": ids, "pair_features": [pack(pair) for pair in pairs]})
    customers = pd.concat([pd.DataFrame(key), pd.DataFrame(own, columns=list(CUSTOMER_FEATURES))], axis=1)
    assert FEATURES.publish_online(FEATURES.apply(), customers, candidates, FIRST) == {"written": 3, "kept_newer": 0}
    online = FeastOnlineFeatures(options(environment), CUSTOMER_FEATURES)
    for at, customer in enumerate(CUSTOMERS):
        found = online.read(customer)
        assert found is not None
        assert list(found.candidate_ids) == ids[at]
        assert found.pair_features == pack(pairs[at])
        assert np.array_equal(found.customer_features, own[at], equal_nan=True)
        assert found.feature_ts == known_at(FIRST)
    assert online.read("stranger") is None


def test_days_in_random_order_end_at_the_newest(environment: dict[str, str]) -> None:
    """Twelve publications, every third killed between its views: each view is at the newest day that was ever written to it."""
    store, rng = FEATURES.apply(), np.random.default_rng(7)
    first = second = 0
    publish(store, 0)
    for at in range(12):
        number, killed = int(rng.integers(1, 30)), at % 3 == 0
        publish(store, number, killed)
        first = max(first, number)
        second = second if killed else max(second, number)
        assert served(store) == (first, second), f"after publication {at} of day {number}"


def test_without_the_comparison_two_of_three_go_back(environment: dict[str, str], online_store: str) -> None:
    """Negative control (E4): Feast itself writes day 3 over day 5 on SQLite and PostgreSQL; Redis compares."""
    store = FEATURES.apply()
    for number in (5, 3):
        for view, frame in zip(("customer", "customer_candidates"), day_rows(number), strict=True):
            store.write_to_online_store(view, df=frame)
    assert served(store) == ((5, 5) if "redis" in online_store else (3, 3))


def test_the_api_answers_from_it(environment: dict[str, str], tmp_path: Path) -> None:
    """The process of `make serve`: c1 is ranked from the store's features, a stranger gets what is popular."""
    tiny_store.fill(tmp_path, options(environment))
    tiny.trust(tmp_path)
    directory, _ = tiny.write(tmp_path / "bundles")
    facts = {"bundle_path": str(directory), "model_version": "m1", "as_of": tiny.AS_OF, "recommendations_path": None}
    record_live(open_state(load_settings(environment).release_url), **facts, recorded_at=tiny_store.FEATURE_TS)
    with api({**os.environ, **environment}, tmp_path / "server.log") as client:
        known = client.get("/v1/customers/c1/recommendations").raise_for_status().json()
        stranger = client.get("/v1/customers/c9/recommendations").raise_for_status().json()
    assert (known["fallback_level"], [item["product_id"] for item in known["items"]]) == ("none", tiny.RANKED)
    assert known["feature_ts"] == tiny_store.FEATURE_TS.isoformat()
    assert (stranger["customer_kind"], stranger["fallback_level"]) == ("new", "popularity")
