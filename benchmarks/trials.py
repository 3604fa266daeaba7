"""Models and slates side by side on the same customer-weeks: what `evaluation` and `experiments` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation import DRAWS, Place, say

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_assets.recommender.metrics import Interval
    from pipeline_assets.recommender.training_set import Examples

K = 10
MEASURES = ("ndcg", "recall", "revenue", "new_item_recall")


def stored_examples(at: Place) -> Examples:
    """The training set of the day as it is in the lake."""
    from pipeline_assets.resources.training_data import TRAINING_SET, read_training_set

    return read_training_set(at.lake.files(TRAINING_SET, at.day, at.day))


def stored_model(at: Place) -> str:
    """Native text of the model of the day."""
    from pipeline_assets.resources.tracking import Tracking
    from pipeline_assets.resources.training_run import model_run

    settings = at.settings
    tracking = Tracking(tracking_uri=settings.mlflow_uri, artifact_root=str(settings.data_dir / "mlflow_artifacts"))
    return tracking.model_text(str(model_run(at.lake, at.day)["run_id"]))


class Mean:
    """Several rankers as one: the mean of their scores."""

    def __init__(self, boosters: Sequence[Any]) -> None:
        self._boosters = boosters

    def predict(self, matrix: Any, num_threads: int) -> Any:
        return sum(booster.predict(matrix, num_threads=num_threads) for booster in self._boosters) / len(self._boosters)


def side_by_side(
    at: Place,
    models: Mapping[str, Any],
    variants: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] | None = None,
    methods: Sequence[str] = (),
    more: Mapping[str, Callable[[date], Callable[..., Any]]] | None = None,
) -> dict[str, pd.DataFrame]:
    """Each model's, variant's and baseline's measures per customer of the evaluation weeks, index (window, customer_id).

    Args:
        models: name -> booster, or what predicts as one. variants: name -> slates from all ranked candidates of the first model.
        methods: names of `baselines.ALL`.
        more: of a model that wants more columns than the package's, what looks them up as of a day (`ranker.rank_customers`).
    """
    import pandas as pd

    from pipeline_assets.recommender import baselines
    from pipeline_assets.recommender.metrics import per_customer_metrics
    from pipeline_assets.recommender.ranker import rank_customers
    from pipeline_assets.resources.evaluation_run import week_facts
    from pipeline_assets.resources.training_data import read_week, sellable_purchases, week_targets

    parts: dict[str, list[pd.DataFrame]] = {}
    store = at.features.apply()
    for day in at.weeks.evaluation:
        purchases = sellable_purchases(at.lake, at.settings.calendar.first_day, day, day)
        targets = week_targets(at.lake, day, at.settings.training.horizon_days, at.door)
        facts = week_facts(at.lake, day, targets, purchases)
        history = facts.purchases[["customer_id", "product_id"]].drop_duplicates()
        week = read_week(at.features, store, facts.customers, day)
        slates = dict(baselines.baseline_slates(methods, facts.purchases, facts.customers, day, K))
        for name, model in models.items():
            columns = more[name](day) if more and name in more else None
            ranked = rank_customers(
                model, week.rows, week.catalogue, 1000, at.settings.training.usable_threads, columns
            )
            slates[name] = ranked[ranked["rank"] <= K]
            if variants and name == next(iter(models)):
                slates |= {variant: make(ranked) for variant, make in variants.items()}
        for name, frame in slates.items():
            found = per_customer_metrics(frame, facts.targets, history, K)
            parts.setdefault(name, []).append(pd.concat({day: found}, names=["window"]))
        say(f"week as of {day}: {len(facts.customers)} customers")
    return {name: pd.concat(frames) for name, frames in parts.items()}


def compared(mine: pd.DataFrame, reference: pd.DataFrame, seed: int) -> dict[str, dict[str, float]]:
    """Of each measure the value, and the paired difference to the reference with its 95 % interval."""
    from pipeline_assets.recommender.metrics import paired_bootstrap, summarise

    values = summarise(mine)
    return {
        name: {"value": float(values[name]), **interval_of(paired_bootstrap(mine, reference, name, DRAWS, seed=seed))}
        for name in MEASURES
    }


def interval_of(found: Interval) -> dict[str, float]:
    """As it is stored."""
    return {
        "difference": found.mean_difference, "low": found.low, "high": found.high, "relative": found.relative,
        "relative_low": found.relative_low, "relative_high": found.relative_high,
    }  # fmt: skip
