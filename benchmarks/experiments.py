"""What was tried to make the ranker better: each trial is a named change of weeks, settings or parameters, trained by the package's functions
and compared with the reference on the same customers of the development weeks, paired.

    python -m benchmarks.experiments list
    python -m benchmarks.experiments run --trials seeds leaves        on the fold of the data folder's model
    python -m benchmarks.experiments page                             results/model-experiments.md from what was measured

They read a data folder in which `make run UNTIL=...` has finished (`PIPELINE_DATA_DIR`); its training set has the label weeks that trials choose
from. A fold is its as-of day: another folder, or an earlier `--as-of` of the same, is another fold. Weeks of the holdout go through the door, as everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation import Place, place, say
from benchmarks.scale import RESULTS, commit, machine, record

if TYPE_CHECKING:
    from pipeline_assets.recommender.split import Weeks
    from pipeline_assets.recommender.training_set import Examples

BASE_WEEKS = 8  # of a trial: a quarter of what the pipeline trains on, so that ten trials take ten minutes
REFERENCE, STORED = "reference", "the day's model"


@dataclass(frozen=True)
class Trial:
    """One change. `seeds`: the scores of several are averaged. `phases`, `first`: as `ranker.train` has them. `is_weighed`: purchases by amount."""

    why: str
    weeks: int = BASE_WEEKS
    params: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (7,)
    phases: tuple[str, str] = ("binary", "lambdarank")
    first: float = 0.625
    is_weighed: bool = True
    rounds: int | None = None
    without: tuple[str, ...] = ()


TRIALS: dict[str, Trial] = {
    REFERENCE: Trial("the package's defaults"),
    "4 weeks": Trial("fewer label weeks", weeks=4),
    "16 weeks": Trial("more label weeks", weeks=16),
    "seeds": Trial("three seeds, mean of their scores: three times the cost of scoring", seeds=(7, 8, 9)),
    "leaves": Trial("larger trees", params={"num_leaves": 63}),
    "small leaves": Trial("smaller trees, more of them", params={"num_leaves": 15}, rounds=480),
    "slow": Trial("half the rate, twice the rounds", params={"learning_rate": 0.04}, rounds=640),
    "xendcg": Trial("another objective of order", phases=("binary", "rank_xendcg")),
    "binary only": Trial("no second phase", first=1.0),
    "order only": Trial("no first phase", first=0.0),
    "unweighed": Trial("every purchase weighs the same", is_weighed=False),
    "half the rows a tree": Trial("a third less time, if nothing is lost", params={"bagging_fraction": 0.5}),
    "few columns a tree": Trial("more different trees", params={"feature_fraction": 0.3}),
    "no customer features": Trial(
        "they say nothing of the order within a list", without=("customer_n_orders", "customer_n_orders_28d", "customer_amount_28d")
    ),
}  # fmt: skip


def weeks_of(at: Place, number: int) -> Weeks:
    """The newest `number` label weeks, the one that stops the training included."""
    return replace(at.weeks, training=at.weeks.training[-(number - len(at.weeks.early_stopping)) :])


def trained(at: Place, everything: Examples, trial: Trial) -> tuple[Any, int]:
    """The boosters of a trial as one model, and how many trees they have."""
    import lightgbm

    from benchmarks.trials import Mean
    from pipeline_assets.recommender.ablation import without
    from pipeline_assets.recommender.ranker import RankerParams, dataset, model_text, train

    weeks, chosen = weeks_of(at, trial.weeks), at.settings.training
    parts = [without(everything.of(part), trial.without) for part in (weeks.training, weeks.early_stopping)]
    if not trial.is_weighed:
        parts = [replace(part, weight=part.weight**0) for part in parts]
    training = dataset(parts[0])
    stopping = dataset(parts[1], training)
    params, rounds = replace(RankerParams(), **trial.params), trial.rounds or chosen.max_rounds
    boosters, trees = [], 0
    for seed in trial.seeds:
        found = train(
            training, stopping, params, rounds, seed, chosen.threads, objectives=trial.phases, first_phase=trial.first
        )
        boosters.append(lightgbm.Booster(model_str=model_text(found.booster, found.best_iteration)))
        trees += found.best_iteration
    return (boosters[0] if len(boosters) == 1 else Mean(boosters)), trees


def run(at: Place, names: Sequence[str]) -> dict[str, Any]:
    """Train the trials and the reference, and compare all of them, the day's stored model too, on the evaluation weeks."""
    import lightgbm

    from benchmarks.trials import compared, side_by_side, stored_examples, stored_model

    everything = stored_examples(at)
    models: dict[str, Any] = {}
    told: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([REFERENCE, *names]):
        trial, before = TRIALS[name], time.process_time()
        models[name], trees = trained(at, everything, trial)
        told[name] = {"why": trial.why, "weeks": trial.weeks, "trees": trees, "cpu_s": time.process_time() - before}
        say(f"trained {name}: {trees} trees, {told[name]['cpu_s']:.0f} CPU s")
    models[STORED] = lightgbm.Booster(model_str=stored_model(at))
    known = len(at.weeks.training) + len(at.weeks.early_stopping)
    told[STORED] = {
        "why": "as the pipeline trains it",
        "weeks": known,
        "trees": models[STORED].num_trees(),
        "cpu_s": None,
    }
    frames = side_by_side(at, models, methods=("TIFU-KNN",))
    seed = at.settings.training.seed
    return {
        "trials": {
            name: {
                **facts,
                "against_reference": compared(frames[name], frames[REFERENCE], seed),
                "against_tifu": compared(frames[name], frames["TIFU-KNN"], seed),
            }
            for name, facts in told.items()
        },
        "customer_weeks": len(frames[REFERENCE]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run trials and write the page that shows all of them."""
    from benchmarks.experiments_page import write_page

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("way", choices=["list", "run", "page"])
    parser.add_argument("--trials", nargs="*", choices=[name for name in TRIALS if name != REFERENCE], default=[])
    parser.add_argument("--as-of", type=date.fromisoformat, default=date(2017, 11, 12))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.way == "list":
        for name, trial in TRIALS.items():
            print(f"{name:22} {trial.why}")
        return 0
    if options.way == "run":
        at = place(options.as_of, None, options.threads)
        found = run(at, options.trials)
        path = RESULTS / "model-experiments.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        kept = before.get(str(options.as_of), {}).get("trials", {})
        about = {"commit": commit(), "machine": machine(), "weeks": list(at.weeks.evaluation), "base_weeks": BASE_WEEKS}
        record("model-experiments", str(options.as_of), {**found, **about, "trials": {**kept, **found["trials"]}})
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
