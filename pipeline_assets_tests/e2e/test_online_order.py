"""Days published online in any order, with kills between the two views: values never go back, and a mix is mended (real Feast, SQLite)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.features import CUSTOMER_FEATURES
from pipeline_assets.resources.feature_store import FeatureStoreResource, known_at
from pipeline_assets.settings import get_settings

FIRST = date(2017, 3, 1)
CUSTOMERS = ["ann", "bob", "cleo"]
FEATURES = FeatureStoreResource()


class Killed(BaseException):
    """As abrupt as a signal: nothing that handles exceptions sees it."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    """An empty online store and registry with the project's views."""
    with mock.patch.dict(os.environ, {"PIPELINE_DATA_DIR": str(tmp_path)}):
        get_settings.cache_clear()
        yield FEATURES.apply()
    get_settings.cache_clear()


def day_rows(number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Customers and candidates of day `number`, whose every value is that number."""
    key = {"customer_id": CUSTOMERS, "feature_ts": [known_at(FIRST + timedelta(days=number))] * 3}
    customer = pd.DataFrame({**key, **dict.fromkeys(CUSTOMER_FEATURES, np.float32(number))})
    candidates = {"candidate_ids": [[str(number)]] * 3, "pair_features": [bytes([number])] * 3}
    return customer, pd.DataFrame({**key, **candidates})


def publish(store: Any, number: int, killed: bool = False) -> dict[str, int] | None:
    """Publish day `number`; `killed` before the second view is written, if it would be."""
    day, (customer, candidates) = FIRST + timedelta(days=number), day_rows(number)
    write = store.write_to_online_store

    def write_one(view: str, df: pd.DataFrame) -> None:
        if view != "customer":
            raise Killed
        write(view, df=df)

    if not killed:
        return FEATURES.publish_online(store, customer, candidates, day)
    with mock.patch.object(store, "write_to_online_store", write_one), contextlib.suppress(Killed):
        FEATURES.publish_online(store, customer, candidates, day)
    return None


def served(store: Any) -> tuple[int, int]:
    """The days that the two views are of, the same for every customer."""
    rows = FEATURES.read_online(store, CUSTOMERS)
    days = {
        (int(value), pack[0]) for value, pack in zip(rows[CUSTOMER_FEATURES[0]], rows["pair_features"], strict=True)
    }
    (found,) = days
    return found


def test_a_kill_between_the_views_is_mended(store: Any) -> None:
    """Day 5, then 6 killed: a mix. Day 4 moves neither back, 5 leaves both as they are, and 6 again writes the second view too."""
    assert publish(store, 5) == {"written": 3, "kept_newer": 0}
    publish(store, 6, killed=True)
    assert served(store) == (6, 5)
    assert publish(store, 4) == {"written": 0, "kept_newer": 3}
    assert served(store) == (6, 5)
    assert publish(store, 5) == {"written": 3, "kept_newer": 3}
    assert served(store) == (6, 5)
    assert publish(store, 6) == {"written": 3, "kept_newer": 0}
    assert served(store) == (6, 6)


def test_a_second_view_that_lags_takes_a_day_in_between(store: Any) -> None:
    """Day 3, then 7 killed, then 5: the customers stay at 7, the candidates go from 3 to 5 and no further back."""
    publish(store, 3)
    publish(store, 7, killed=True)
    publish(store, 5)
    assert served(store) == (7, 5)
    publish(store, 4)
    assert served(store) == (7, 5)


def test_any_order_of_days_and_kills_ends_at_the_newest(store: Any) -> None:
    """25 publications in random order, every third killed: each view is at the newest day that was ever written to it."""
    rng = np.random.default_rng(7)
    first, second = 0, 0
    publish(store, 0)
    for at in range(25):
        number, killed = int(rng.integers(1, 30)), at % 3 == 0
        publish(store, number, killed)
        first = max(first, number)
        second = second if killed else max(second, number)
        assert served(store) == (first, second), f"after publication {at} of day {number}"
    publish(store, first)
    assert served(store) == (first, first)
