"""The generated shop (world.py) as labelled weeks in memory: the pipeline's own features, examples, rankers and measures without lake or Dagster.

A week costs 0.2 CPU s, a model 0.3: cheap enough to train the many models that ablation, tuning, staleness and agreement are about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import duckdb
import lightgbm
import numpy as np
import pandas as pd

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.features import (
    PRODUCT_FEATURES,
    customer_features,
    customer_product_features,
    product_features,
)
from pipeline_assets.recommender.metrics import per_customer_metrics
from pipeline_assets.recommender.ranker import RankerParams, Trained, dataset, rank_customers, train
from pipeline_assets.recommender.training_set import Catalogue, Examples, examples, label_week, matrix_of, targets_of
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets_tests.scenario import register_marts
from pipeline_assets_tests.world import BAG, World, day

K = 10
HORIZON = 7
ROUNDS = 40
PARAMS = RankerParams(num_leaves=15, min_data_in_leaf=30)  # the defaults want 200 rows in a leaf; a week has 6,000
SUNDAYS = tuple(day(n) for n in range(28, 113, 7))  # as-of days whose window is over; 13 of them


@dataclass(frozen=True, eq=False)
class Week:
    """One as-of day: features of everybody, their candidates' products, what was bought in the window and before."""

    day: date
    rows: pd.DataFrame
    catalogue: Catalogue
    targets: pd.DataFrame
    history: pd.DataFrame

    @cached_property
    def examples(self) -> Examples:
        """Labelled candidates, all negatives kept."""
        tables = label_week([(self.rows, self.catalogue)], self.targets, self.day, 1.0, 7)
        return examples((table, lambda table=table: matrix_of(table)) for table in tables)  # type: ignore[misc]


class ShopWeeks:
    """The weeks of one shop; each is computed when it is first asked for.

    Args:
        purchases: the shop's lines of orders, where they are others than the world's.
    """

    def __init__(self, world: World, purchases: pd.DataFrame | None = None) -> None:
        self._feeds = {name: getattr(world, name)[list(FEEDS[name].columns)] for name in FEEDS}
        if purchases is not None:
            self._feeds["purchases"] = purchases
        self._con = duckdb.connect(config={"threads": 1})
        register_marts(self._con, self._feeds)
        self._weeks: dict[date, Week] = {}

    def week(self, as_of: date) -> Week:
        if as_of not in self._weeks:
            self._weeks[as_of] = self._computed(as_of)
        return self._weeks[as_of]

    def _computed(self, as_of: date) -> Week:
        snapshot = Snapshot(self._con, as_of)
        products = product_features(snapshot).to_pandas()
        packed = customer_product_features(snapshot).to_pandas()
        rows = customer_features(snapshot).to_pandas().merge(packed, on="customer_id")
        catalogue = Catalogue(
            list(products["product_id"]), products[list(PRODUCT_FEATURES)].to_numpy(np.float32, copy=True)
        )
        bought = self._feeds["purchases"]
        bought = bought[bought["product_id"] != BAG]
        last = as_of + timedelta(days=HORIZON)
        window = bought[(bought["event_date"] > as_of) & (bought["event_date"] <= last)]
        before = bought.loc[bought["event_date"] <= as_of, ["customer_id", "product_id"]].drop_duplicates()
        return Week(as_of, rows, catalogue, targets_of(window), before)

    def examples(self, days: Sequence[date]) -> Examples:
        """The examples of several weeks as one."""
        parts = [self.week(each).examples for each in days]
        joined = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "weight", "groups", "week")
        )
        return Examples(tuple(block for part in parts for block in part.blocks), *joined)

    def trained(
        self,
        training: Sequence[date],
        stopping: Sequence[date],
        params: RankerParams = PARAMS,
        changed: Callable[[Examples], Examples] = lambda part: part,
        rounds: int = ROUNDS,
    ) -> Trained:
        """A ranker of some weeks; `changed` is done to its examples."""
        first = dataset(changed(self.examples(training)))
        return train(first, dataset(changed(self.examples(stopping)), first), params, rounds, 7, 1)

    def slates(self, model: Trained, as_of: date) -> pd.DataFrame:
        """The first ten of everybody."""
        week, booster = self.week(as_of), lightgbm.Booster(model_str=model.booster.model_to_string())
        return rank_customers(booster, week.rows, week.catalogue, K, 1)

    def measured(self, slates: pd.DataFrame, as_of: date) -> pd.DataFrame:
        """Measures by customer of slates as of a day, index (window, customer_id)."""
        week = self.week(as_of)
        return pd.concat({as_of: per_customer_metrics(slates, week.targets, week.history, K)}, names=["window"])

    def judged(self, model: Trained, days: Sequence[date]) -> pd.DataFrame:
        """Measures of a model on several weeks."""
        return pd.concat([self.measured(self.slates(model, each), each) for each in days])
