"""One training run: read the examples, tune, train, log to MLflow, record what was trained in the lake."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.plots import importance_plot
from pipeline_assets.recommender.ranker import (
    RankerParams,
    Trained,
    dataset,
    importance,
    model_text,
    train,
    tree_digest,
)
from pipeline_assets.recommender.split import Weeks
from pipeline_assets.recommender.training_set import Examples
from pipeline_assets.recommender.tuning import tune
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.tracking import git_commit, lock_digest, log_training
from pipeline_assets.resources.training_data import (
    TRAINING_SET,
    read_training_set,
    training_set_digest,
    training_weeks,
)
from pipeline_assets.resources.tuning_run import TunedGain, tuned_against_default
from pipeline_assets.settings import Settings

MODEL_TABLE = "training/model"
SETTINGS_FILE, PARAMS_FILE = "settings.json", "ranker_params.json"  # artifacts of a training run
TUNING_FILE = "tuned_against_default.json"


@dataclass(frozen=True)
class TrainingOutcome:
    """What was trained, for metadata and the stages after it."""

    run_id: str
    tree_digest: str
    trained_through: date
    trees: int
    stopping_ndcg: float
    params: dict[str, Any]
    importance_plot: bytes
    tuned_gains: tuple[TunedGain, ...]  # against the defaults; empty without trials


@dataclass(frozen=True, eq=False)
class Fitted:
    """A ranker that was trained on a training set; `text` is its native text, cut at the best iteration."""

    trained: Trained
    params: RankerParams
    text: str

    @property
    def tree_digest(self) -> str:
        return tree_digest(self.text)


def study_name(day: date, training_set_digest: str, settings: Settings) -> str:
    """The name of a search: the same training set and settings go on with the same trials, also when the budget was raised."""
    kept = settings.recorded["training"]
    searched = {name: value for name, value in kept.items() if name not in ("trials", "trial_seconds", "threads")}
    content = json.dumps([training_set_digest, searched], sort_keys=True)
    return f"ranker-{day}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def fit(
    everything: Examples,
    weeks: Weeks,
    settings: Settings,
    *,
    study: str,
    storage: str | None,
    params: RankerParams | None = None,
) -> Fitted:
    """Tune and train on a training set: what the asset, a backtest and a reproduction do.

    Args:
        everything: as of `read_training_set`; of the training and early-stopping weeks.
        study, storage: name and place of the tuning's trials; storage None for memory.
        params: train with these and do not tune.
    """
    chosen = settings.training
    training = dataset(everything.of(weeks.training))
    stopping = dataset(everything.of(weeks.early_stopping), training)
    params = params or tune(
        training,
        stopping,
        trials=chosen.trials,
        seconds=chosen.trial_seconds,
        max_rounds=chosen.max_rounds,
        seed=chosen.seed,
        threads=chosen.usable_threads,
        storage=storage,
        study_name=study,
    )
    trained = train(training, stopping, params, chosen.max_rounds, chosen.seed, chosen.usable_threads)
    return Fitted(trained, params, model_text(trained.booster, trained.best_iteration))


def train_and_log(
    lake: Lake,
    features: FeatureStoreResource,
    day: date,
    settings: Settings,
    mlflow: Any,
    dagster_run_id: str,
    recorded_at: datetime,
    log: Callable[[str], object],
) -> TrainingOutcome:
    """Train on `training/training_set` of `day` and record the MLflow run in `training/model`.

    The run keeps what a reproduction needs (resources/reproduction.py): the training set's version, settings and parameters. After a
    search the model is compared with one of the default parameters, on the evaluation weeks, and the run says by how much it is better.
    """
    chosen, weeks = settings.training, training_weeks(lake, day, settings)
    version = lake.version(TRAINING_SET)
    files = lake.files(TRAINING_SET, day, day, version)
    everything, data_digest = read_training_set(files), training_set_digest(files, day)
    storage, study = f"sqlite:///{settings.data_dir / 'optuna.db'}", study_name(day, data_digest, settings)
    fitted = fit(everything, weeks, settings, study=study, storage=storage)
    trained, params, text = fitted.trained, fitted.params, fitted.text
    trees, plot = fitted.tree_digest, importance_plot(importance(trained.booster))
    gains: list[TunedGain] = []
    if chosen.trials:
        default = text  # where nothing better was found, the gain is zero
        if params != RankerParams():
            default = fit(everything, weeks, settings, study=study, storage=None, params=RankerParams()).text
        door = Door(lake, "tuning", dagster_run_id, recorded_at, settings.calendar.holdout_start)
        gains = tuned_against_default(lake, features, text, default, weeks.evaluation, settings, door, log)
    trained_through = weeks.early_stopping[-1] + timedelta(days=chosen.horizon_days)
    tags = {
        "as_of": day.isoformat(),
        "trained_through": trained_through.isoformat(),
        "training_set_digest": data_digest,
        "training_set_version": str(version),
        "tree_digest": trees,
        "config_digest": settings.digest,
        "commit": git_commit(),
        "lock_digest": lock_digest(),
        "dagster_run_id": dagster_run_id,
    }
    run_id = log_training(
        mlflow,
        trained.booster,
        text,
        params={
            **params.lightgbm(chosen.seed, chosen.usable_threads),
            "label_weeks": len(weeks.training),
            "negative_share": chosen.negative_share,
        },
        metrics={
            "stopping_ndcg_best": max(trained.curve),
            "trees": trained.best_iteration,
            "rows": len(everything.label),
            **{f"tuned_gain_{gain.metric}{end}": value for gain in gains for end, value in gain.ends.items()},
        },
        curve=trained.curve,
        tags=tags,
        images={"importance.png": plot},
        dataset={"name": f"training_set-{day}", "digest": data_digest, "uri": lake.uri(TRAINING_SET)},
        texts={
            SETTINGS_FILE: json.dumps(settings.recorded, indent=1, sort_keys=True),
            PARAMS_FILE: json.dumps(asdict(params), indent=1, sort_keys=True),
            TUNING_FILE: json.dumps([{**asdict(gain), "verdict": gain.verdict} for gain in gains], indent=1),
        },
    )
    stored = {name: value for name, value in tags.items() if name != "training_set_version"}
    row = {"event_date": day, "run_id": run_id, **stored, "trees": trained.best_iteration, "recorded_at": recorded_at}
    lake.replace_days(MODEL_TABLE, pyarrow.Table.from_pylist([row]), [day], dagster_run_id)
    return TrainingOutcome(
        run_id, trees, trained_through, trained.best_iteration, max(trained.curve), asdict(params), plot, tuple(gains)
    )


def model_run(lake: Lake, day: date) -> dict[str, Any]:
    """The row of `training/model` of a day."""
    rows = lake.read(MODEL_TABLE, day, day).to_pylist()
    if not rows:
        raise NotEnoughData(
            f"training/model of {day}",
            found="no model",
            wanted="a trained one",
            fix=f"materialise training/model for {day}",
        )
    return dict(rows[0])
