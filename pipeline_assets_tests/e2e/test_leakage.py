"""Nothing after the as-of day is known: the future of a shop is replaced, and features, candidates, training set, trees and slates stay.

The marts of the generated shop are written again for all days after D, through the lake, and everything is computed with the code of
the assets and of `backtest`. The features of D are built in one run with those of a later day, so that days of a run cannot tell each
other anything either. Unit tests do the same on the tiny world, by bits (unit/test_features.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow
import pytest

from pipeline_assets.resources.backtest import Backtest, backtest, cutoffs
from pipeline_assets.resources.content import digest
from pipeline_assets.resources.feature_build import build_features
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.training_data import FEATURE_TABLES
from pipeline_assets.resources.versions import content_at
from pipeline_assets.resources.warehouse import MARTS
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, Pipeline

DAY = date(2017, 3, 12)  # six days more are known, and all of their purchases, plans and coupons
EARLY = date(2017, 1, 10)  # before every cut-off of the training
Computed = dict[str, object]


@pytest.fixture(scope="module")
def pipeline(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    shop = first_run.shop.copied(tmp_path_factory.mktemp("leakage") / "shop")
    with shop.opened() as pipeline:
        yield pipeline


def computed(pipeline: Pipeline) -> Computed:
    """Digests of all that is computed as of DAY, from the features that the lake has now."""
    lake, settings = pipeline.lake, pipeline.settings
    door = Door(lake, "training", "leakage", datetime.now(UTC), None)
    found: Backtest = backtest(
        lake, pipeline.features, DAY + timedelta(days=1), 20, settings, door, None, lambda _line: None
    )
    days = cutoffs(lake, [DAY + timedelta(days=1)], settings)
    contents = {table: content_at(lake.commits(table)) for table in FEATURE_TABLES}
    candidates = lake.read_days("features/customer_product", [DAY]).sort_by("customer_id")
    return {
        **{table: [contents[table][day].digest for day in days] for table in FEATURE_TABLES},
        "candidates": candidates["candidate_ids"].to_pylist(),
        "training set": found.training_set_digest,
        "trees": found.tree_digest,
        "slates": digest(found.slates),
    }


@pytest.fixture(scope="module")
def untouched(pipeline: Pipeline) -> Computed:
    return computed(pipeline)


def rewrite(lake: Lake, mart: str, days: list[date], change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Write days of a mart again; `change` gets their rows, and returns rows of any of those days."""
    table = lake.read_days(f"warehouse/{mart}", days)
    rows = pyarrow.Table.from_pandas(change(table.to_pandas()), table.schema, preserve_index=False)
    lake.replace_days(f"warehouse/{mart}", rows, days, "leakage")


def build(pipeline: Pipeline) -> None:
    """Features of all cut-offs, of DAY, and of the newest day, in one run."""
    days = cutoffs(pipeline.lake, [DAY + timedelta(days=1)], pipeline.settings)
    for _ in build_features(pipeline.lake, [*days, NEWEST], "leakage"):
        pass


def another(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with everything shuffled among them but the day, and one day later where there is one."""
    if rows.empty:
        return rows
    random = np.random.default_rng(5)
    changed = rows.copy()
    for column in rows.columns.drop("event_date"):
        changed[column] = random.permutation(rows[column].to_numpy())
    if {"amount", "quantity"} <= set(rows):
        changed["amount"], changed["quantity"] = changed["amount"] * 1000, changed["quantity"] + 7
    changed["event_date"] = [min(day + timedelta(days=1), NEWEST) for day in rows["event_date"]]
    return changed


def test_replacing_the_future_changes_nothing(pipeline: Pipeline, untouched: Computed) -> None:
    """Purchases, plans, mailings and coupons after DAY are shuffled, inflated and moved; every product changes its kind, every second
    may no longer be sold, and everybody's attributes change.
    """
    lake = pipeline.lake
    later = [DAY + timedelta(days=n) for n in range(1, (NEWEST - DAY).days + 1)]
    for mart in MARTS:
        if not mart.startswith("dim_"):
            rewrite(lake, mart, later, another)
    products = lake.read("warehouse/dim_products", None, DAY).to_pandas()
    every_second = np.arange(len(products)) % 2 == 0
    products = products.assign(is_sellable=every_second, type="X", category="X", event_date=later[0])
    rewrite(lake, "dim_products", later, lambda _: products)
    customers = lake.read("warehouse/dim_customers", None, DAY).to_pandas().assign(age_band="99", event_date=later[0])
    rewrite(lake, "dim_customers", later, lambda _: customers)
    assert len(lake.read_days("warehouse/fct_purchases", later)), "there is a future to look into"
    build(pipeline)
    assert computed(pipeline) == untouched


def test_a_change_of_the_past_changes_everything(pipeline: Pipeline, untouched: Computed) -> None:
    """The test above is not blind: purchases of one early day go to one customer, and no part stays as it was."""
    rewrite(pipeline.lake, "fct_purchases", [EARLY], lambda rows: rows.assign(customer_id=rows["customer_id"].iloc[0]))
    build(pipeline)
    after = computed(pipeline)
    assert {part for part in untouched if after[part] == untouched[part]} == set()
