"""Tuning with Optuna inside a budget of trials and seconds; resumable; zero trials means the defaults."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pipeline_assets.recommender.ranker import RankerParams, train

if TYPE_CHECKING:
    import lightgbm
    import optuna


def suggest(trial: optuna.Trial) -> RankerParams:
    """The search space: around the defaults, where the prototype's gains were."""
    return RankerParams(
        learning_rate=trial.suggest_float("learning_rate", 0.02, 0.15, log=True),
        num_leaves=trial.suggest_int("num_leaves", 15, 127, log=True),
        min_data_in_leaf=trial.suggest_int("min_data_in_leaf", 50, 1000, log=True),
        feature_fraction=trial.suggest_float("feature_fraction", 0.4, 1.0),
        bagging_fraction=trial.suggest_float("bagging_fraction", 0.5, 1.0),
        lambda_l2=trial.suggest_float("lambda_l2", 0.1, 50.0, log=True),
        truncation_level=trial.suggest_int("truncation_level", 10, 40),
    )


def _has_tried(study: optuna.Study, params: dict[str, float]) -> bool:
    """Whether a trial with these parameters has finished, or waits. One that was killed is still running in the storage, and is neither."""
    return any(
        trial.params == params if trial.state.is_finished() else trial.state.name == "WAITING" for trial in study.trials
    )


def tune(
    training: lightgbm.Dataset,
    stopping: lightgbm.Dataset,
    *,
    trials: int,
    seconds: int,
    max_rounds: int,
    seed: int,
    threads: int,
    storage: str | None,
    study_name: str,
) -> RankerParams:
    """The best parameters by NDCG@10 on the early-stopping weeks; the defaults are the first trial, so never worse there.

    Args:
        trials: how many in all; trials of an interrupted study with the same name in `storage` count, those that were killed do not.
        seconds: no trial starts after this time; the first always does.
        storage: SQLAlchemy URL of the study, None for memory.
    """
    if trials == 0:
        return RankerParams()
    import optuna
    from optuna_integration.lightgbm import LightGBMPruningCallback

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=study_name,
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=30),
    )
    if not _has_tried(study, dataclasses.asdict(RankerParams())):
        study.enqueue_trial(dataclasses.asdict(RankerParams()))

    def objective(trial: optuna.Trial) -> float:
        callback = LightGBMPruningCallback(trial, "ndcg@10", valid_name="stopping")
        return max(train(training, stopping, suggest(trial), max_rounds, seed, threads, [callback]).curve)

    remaining = trials - sum(t.state.is_finished() for t in study.trials)
    if remaining > 0:
        study.optimize(objective, n_trials=remaining, timeout=seconds)
    return RankerParams(**study.best_params)
