"""Was tuning worth it: the tuned ranker against the defaults, on the evaluation weeks, paired by customer.

The search judges itself on the early-stopping week, where the defaults are one of its trials: it can only look better there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import pandas as pd

from pipeline_assets.recommender.metrics import paired_bootstrap, per_customer_metrics, summarise
from pipeline_assets.recommender.ranker import rank_customers
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.training_data import (
    read_week,
    require_features,
    sellable_purchases,
    week_targets,
)
from pipeline_assets.settings import Settings

K = 10
METRICS = ("ndcg", "recall", "revenue")


@dataclass(frozen=True)
class TunedGain:
    """Tuned less default of one metric, with its paired 95 % interval by customer."""

    metric: str
    tuned: float
    default: float
    gain: float
    low: float
    high: float

    @property
    def ends(self) -> dict[str, float]:
        """Gain and bounds by the end of their metric's name."""
        return {"": self.gain, "_low": self.low, "_high": self.high}

    @property
    def verdict(self) -> str:
        """better or worse beyond noise, or within it."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "within noise"


def tuned_against_default(
    lake: Lake,
    features: FeatureStoreResource,
    tuned: str,
    default: str,
    weeks: tuple[date, ...],
    settings: Settings,
    door: Door,
    say: Callable[[str], object],
) -> list[TunedGain]:
    """Rank the customers of the evaluation weeks with both models and compare.

    Args:
        tuned, default: native texts.
        weeks: as-of days, none of which was trained on.

    Raises:
        BlockedPartition: features or labels of a week are missing.
    """
    import lightgbm

    require_features(lake, weeks)
    store, threads = features.apply(), settings.training.usable_threads
    boosters = {"tuned": lightgbm.Booster(model_str=tuned), "default": lightgbm.Booster(model_str=default)}
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in boosters}
    for day in weeks:
        targets = week_targets(lake, day, settings.training.horizon_days, door)
        customers = sorted(targets["customer_id"].unique())
        purchases = sellable_purchases(lake, settings.calendar.first_day, day, day)
        history = purchases[["customer_id", "product_id"]].drop_duplicates()
        week = read_week(features, store, customers, day)
        for name, booster in boosters.items():
            slates = rank_customers(booster, week.rows, week.catalogue, K, threads)
            found = per_customer_metrics(slates, targets, history, K)
            parts[name].append(pd.concat({day: found}, names=["window"]))
        say(f"tuned against defaults, week as of {day}: {len(customers)} customers")
    mine, theirs = pd.concat(parts["tuned"]), pd.concat(parts["default"])
    means = summarise(mine), summarise(theirs)
    gains = []
    for metric in METRICS:
        interval = paired_bootstrap(mine, theirs, metric, seed=settings.training.seed)
        values = (float(means[0][metric]), float(means[1][metric]))
        gains.append(TunedGain(metric, *values, interval.mean_difference, interval.low, interval.high))
    return gains
