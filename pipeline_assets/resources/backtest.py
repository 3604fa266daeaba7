"""Backtests: what the pipeline would have recommended on the morning of a past business day.

Belongs here: training and ranking as of that morning, with the functions that the assets use. Does not: registry, bundles, releases;
nothing is promoted, and no table of the lake is written but what `Loop.prepare` builds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from pipeline_assets.recommender.metrics import per_customer_metrics, summarise
from pipeline_assets.recommender.ranker import rank_customers
from pipeline_assets.recommender.training_set import targets_of
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.training_data import (
    customer_ids,
    read_training_set,
    read_week,
    require_features,
    sellable_purchases,
    training_set_aside,
    training_weeks,
    window_purchases,
)
from pipeline_assets.resources.training_run import fit, study_name
from pipeline_assets.settings import Settings

K = 10  # of the measures
SLATES = pyarrow.schema(
    [
        ("as_of", pyarrow.date32()),  # the recommendation day T: everything before it is known, nothing of it is
        ("customer_id", pyarrow.string()),
        ("rank", pyarrow.int32()),
        ("product_id", pyarrow.string()),
        ("score", pyarrow.float64()),
    ]
)


@dataclass(frozen=True, eq=False)
class Backtest:
    """Slates for the morning of `as_of`, and what they were made from. `measures`: metric -> mean over customers, when it was asked for."""

    as_of: date
    slates: pyarrow.Table
    customers: int
    label_weeks: tuple[date, ...]
    training_rows: int
    training_set_digest: str
    tree_digest: str
    trees: int
    measures: dict[str, float] | None = None

    def summary(self) -> dict[str, Any]:
        """Everything but the slates, for people and programs."""
        shown = {name: value for name, value in vars(self).items() if name != "slates"}
        return {**shown, "rows": len(self.slates)}


def cutoffs(lake: Lake, as_of: Sequence[date], settings: Settings) -> list[date]:
    """As-of days whose features backtests need: the label weeks of each training, and the day before each recommendation day."""
    days: set[date] = set()
    for day in (t - timedelta(days=1) for t in as_of):
        weeks = training_weeks(lake, day, settings)
        days |= {*weeks.training, *weeks.early_stopping, day}
    return sorted(days)


def backtest(
    lake: Lake,
    features: FeatureStoreResource,
    as_of: date,
    top: int,
    settings: Settings,
    training_door: Door,
    measuring_door: Door | None,
    say: Callable[[str], object],
) -> Backtest:
    """Train on what was known before `as_of` and rank for every known customer.

    Args:
        as_of: recommendation day T; rows with event_date < T are known.
        measuring_door: measure the slates on what was bought from T on; None: do not look.

    Raises:
        NotEnoughData: too few weeks are known to train on.
        BlockedPartition: features or labels of a week are missing.
    """
    day = as_of - timedelta(days=1)
    weeks = training_weeks(lake, day, settings)
    require_features(lake, [day])
    with training_set_aside(lake, features, day, weeks, settings.training, say, training_door) as (file, content):
        storage, study = f"sqlite:///{settings.data_dir / 'optuna.db'}", study_name(day, content.digest, settings)
        fitted = fit(read_training_set([file]), weeks, settings, study=study, storage=storage)
    say(f"trained: {fitted.trained.best_iteration} trees on {content.rows} examples")
    week = read_week(features, features.apply(), customer_ids(lake, day), day)
    import lightgbm

    booster = lightgbm.Booster(model_str=fitted.text)  # as it is served: from its text
    slates = rank_customers(booster, week.rows, week.catalogue, top, settings.training.usable_threads)
    measures = _measured(lake, day, slates, settings, measuring_door) if measuring_door else None
    slates.insert(0, "as_of", as_of)
    return Backtest(
        as_of,
        pyarrow.Table.from_pandas(slates, SLATES, preserve_index=False),
        slates["customer_id"].nunique(),
        (*weeks.training, *weeks.early_stopping),
        content.rows,
        content.digest,
        fitted.tree_digest,
        fitted.trained.best_iteration,
        measures,
    )


def _measured(lake: Lake, day: date, slates: pd.DataFrame, settings: Settings, door: Door) -> dict[str, float]:
    """Means over the customers who bought something in the window, as evaluations have them."""
    targets = targets_of(window_purchases(lake, day, settings.training.horizon_days, door))
    targets = targets[targets["customer_id"].isin(set(slates["customer_id"]))]
    purchases = sellable_purchases(lake, settings.calendar.first_day, day, day)
    history = purchases[["customer_id", "product_id"]].drop_duplicates()
    found = per_customer_metrics(slates[slates["rank"] <= K], targets, history, K)
    return {"customers": float(len(found)), **{name: float(value) for name, value in summarise(found).items()}}


def write_slates(path: Path, backtests: Sequence[Backtest]) -> None:
    """All slates as one Parquet file, whole or not at all."""
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    with closing(pyarrow.parquet.ParquetWriter(temporary, SLATES)) as writer:
        for found in backtests:
            writer.write_table(found.slates)
    temporary.replace(path)
