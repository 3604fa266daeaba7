"""Tuning on the tiny examples, with few rounds; the study is in memory or in an SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from pipeline_assets.recommender import tuning
from pipeline_assets.recommender.ranker import RankerParams, Trained, dataset, train
from pipeline_assets.recommender.tuning import suggest, tune
from pipeline_assets_tests import tiny_examples as tiny


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[RankerParams]:
    """The parameters of every trial; each is trained with leaves that fit 360 rows."""
    seen: list[RankerParams] = []

    def recorded(training: Any, stopping: Any, params: RankerParams, *args: Any) -> Trained:
        seen.append(params)
        small = RankerParams(**{**vars(params), "min_data_in_leaf": 10})
        return train(training, stopping, small, *args)

    monkeypatch.setattr(tuning, "train", recorded)
    return seen


def run(trials: int, storage: str | None = None, seed: int = 7, seconds: int = 600, rounds: int = 4) -> RankerParams:
    training, stopping = tiny.parts()
    first = dataset(training)
    return tune(
        first, dataset(stopping, first), trials=trials, seconds=seconds, max_rounds=rounds, seed=seed, threads=1,
        storage=storage, study_name="tiny",
    )  # fmt: skip


def test_no_trial_means_the_defaults(tried: list[RankerParams]) -> None:
    """Nothing is trained."""
    assert run(trials=0) == RankerParams()
    assert tried == []


def test_first_trial_is_the_defaults(tried: list[RankerParams]) -> None:
    """So the result is never worse than they are on the stopping weeks."""
    assert run(trials=1) == RankerParams()
    assert tried == [RankerParams()]


@pytest.mark.ml_test("M3")
def test_two_trials_return_the_better_one(tried: list[RankerParams]) -> None:
    """The answer is one of what was tried, and the second differs from the defaults."""
    best = run(trials=2)
    assert len(tried) == 2
    assert tried[1] != RankerParams()
    assert best in tried


def test_same_seed_tries_the_same(tried: list[RankerParams]) -> None:
    """Two studies with seed 7 are one; seed 8 tries something else after the defaults."""
    assert run(trials=2) == run(trials=2)
    run(trials=2, seed=8)
    first, again, other = tried[1], tried[3], tried[5]
    assert first == again != other


def test_interrupted_study_goes_on_where_it_was(tried: list[RankerParams], tmp_path: Path) -> None:
    """Two trials are stored: asking for two trains nothing, asking for three trains one, without the defaults again."""
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    first = run(trials=2, storage=storage)
    assert run(trials=2, storage=storage) == first
    assert len(tried) == 2
    run(trials=3, storage=storage)
    assert len(tried) == 3
    assert tried.count(RankerParams()) == 1


def test_killed_study_tries_the_defaults_again(tried: list[RankerParams], tmp_path: Path) -> None:
    """A process that was killed in the first trial leaves it running for ever: it counts for nothing, and two trials are two more."""
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    study.enqueue_trial(vars(RankerParams()))
    suggest(study.ask())  # asked and never told
    run(trials=2, storage=storage)
    assert tried[0] == RankerParams()
    assert len(tried) == 2
    states = [trial.state.name for trial in optuna.load_study(study_name="tiny", storage=storage).trials]
    assert states == ["RUNNING", "COMPLETE", "COMPLETE"]


def test_a_study_that_waits_does_not_queue_the_defaults_twice(tried: list[RankerParams], tmp_path: Path) -> None:
    """Killed between queueing the defaults and trying them: they are tried once."""
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    study.enqueue_trial(vars(RankerParams()))
    run(trials=2, storage=storage)
    assert tried.count(RankerParams()) == 1
    assert len(tried) == 2


def test_no_trial_starts_after_the_budget_of_seconds(tried: list[RankerParams]) -> None:
    """A thousand trials of some 0.05 s do not fit into one second; what was found until then is the answer."""
    best = run(trials=1000, seconds=1)
    assert 1 <= len(tried) < 1000
    assert best in tried


def test_a_trial_that_falls_behind_is_pruned_and_counts(tried: list[RankerParams], tmp_path: Path) -> None:
    """Four finished trials had an NDCG of 1 in every round. The fifth has less, so it ends after round 31, the first that is judged; it
    is no answer, and it is part of the budget: asking for five again trains nothing.
    """
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    space = optuna.trial.FixedTrial(vars(RankerParams()))
    suggest(space)
    for leaves in (16, 17, 18, 19):
        params = {**vars(RankerParams()), "num_leaves": leaves}
        perfect = dict.fromkeys(range(40), 1.0)
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=space.distributions, value=1.0, intermediate_values=perfect
            )
        )
    best = run(trials=5, storage=storage, rounds=40)
    last = optuna.load_study(study_name="tiny", storage=storage).trials[-1]
    assert (last.state.name, max(last.intermediate_values)) == ("PRUNED", 30)
    assert best.num_leaves in (16, 17, 18, 19)
    assert tried == [RankerParams()]
    assert run(trials=5, storage=storage, rounds=40) == best
    assert len(tried) == 1


def test_every_suggestion_is_a_valid_set_of_parameters() -> None:
    """The search space has exactly the tunable parameters, and the defaults lie inside it."""
    trial = optuna.trial.FixedTrial(vars(RankerParams()))
    assert suggest(trial) == RankerParams()
    for name, distribution in trial.distributions.items():
        assert distribution._contains(getattr(RankerParams(), name)), name
    assert set(trial.distributions) == set(vars(RankerParams()))
