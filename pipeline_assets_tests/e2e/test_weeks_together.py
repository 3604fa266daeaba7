"""Features of several weeks that are read together are those of each week read alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.resources import training_data
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.training_data import customer_ids, read_week, read_weeks, training_weeks
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, Pipeline


@pytest.fixture(scope="module")
def pipeline(first_run: FirstRun) -> Iterator[Pipeline]:
    with first_run.shop.opened() as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def customers(pipeline: Pipeline) -> dict[date, list[str]]:
    """Of every week of a training run; in each all but some, others each time."""
    weeks = training_weeks(pipeline.lake, NEWEST, pipeline.settings).all
    known = {day: customer_ids(pipeline.lake, day) for day in weeks}
    return {day: [c for n, c in enumerate(ids) if n % 5 != place % 5] for place, (day, ids) in enumerate(known.items())}


@pytest.fixture
def retrievals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many days each retrieval of customers was for."""
    asked, found = [], FeatureStoreResource.customers_as_of

    def counted(self: FeatureStoreResource, store: Any, wanted: dict[date, list[str]]) -> dict[date, pd.DataFrame]:
        asked.append(len(wanted))
        return found(self, store, wanted)

    monkeypatch.setattr(FeatureStoreResource, "customers_as_of", counted)
    return asked


@pytest.mark.parametrize("at_once", [1, 100, 100_000])
def test_weeks_together_are_the_weeks_alone(
    pipeline: Pipeline,
    customers: dict[date, list[str]],
    retrievals: list[int],
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    """Customers, candidates, packed features, product matrices: equal to the bit, in the order that was asked for."""
    store = pipeline.features.apply()
    alone = [read_week(pipeline.features, store, ids, day) for day, ids in customers.items()]
    retrievals.clear()
    monkeypatch.setattr(training_data, "CUSTOMERS_AT_ONCE", at_once)
    together = list(read_weeks(pipeline.features, store, customers.items()))
    assert [each.day for each in together] == list(customers)
    for one, other in zip(alone, together, strict=True):
        assert len(one.rows) == len(customers[one.day])
        pd.testing.assert_frame_equal(one.rows, other.rows)
        assert one.catalogue.ids == other.catalogue.ids
        np.testing.assert_array_equal(one.catalogue.matrix, other.catalogue.matrix)
    if at_once == 1:
        assert retrievals == [1] * len(customers)
    if at_once == 100_000:
        assert retrievals == [len(customers)]


def test_the_training_set_is_the_same(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, retrievals: list[int]
) -> None:
    """Digest of the examples, however weeks and customers are cut."""
    lake, settings = pipeline.lake, pipeline.settings
    door = Door(lake, "training", "weeks together", datetime.now(UTC), None)
    weeks = training_weeks(lake, NEWEST, settings)
    digests = set()
    for at_once in (7, 100_000):
        monkeypatch.setattr(training_data, "CUSTOMERS_AT_ONCE", at_once)
        with training_data.training_set_aside(
            lake, pipeline.features, NEWEST, weeks, settings.training, lambda _line: None, door
        ) as (_, content):
            digests.add(content.digest)
    assert len(digests) == 1
    assert max(retrievals) > 1
    assert digests == {training_data.training_set_digest(lake.files("training/training_set", NEWEST, NEWEST), NEWEST)}
