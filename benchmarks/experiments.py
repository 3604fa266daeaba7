"""What was tried to make the ranker better: each trial is a named change of weeks, settings or parameters, trained by the package's functions
and compared with the reference on the same customers of the development weeks, paired.

    python -m benchmarks.experiments list
    python -m benchmarks.experiments run --trials seeds leaves        on the fold of the data folder's model
    python -m benchmarks.experiments run --as-of 2017-10-08 --examples-of 2017-11-12 --trials ...     an earlier fold
    python -m benchmarks.experiments run --beyond --trials "all weeks"   with label weeks that the stored training set has not: built aside
    python -m benchmarks.experiments page                             results/model-experiments.md from what was measured

They read a data folder in which `make run UNTIL=...` has finished (`PIPELINE_DATA_DIR`); its training set has the label weeks that trials choose
from (declared.py has the trials). A fold is its as-of day: an earlier one reads the weeks that it may know of the same training set. Weeks of the
holdout go through the door, as everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.declared import ALL_WEEKS, BASE_WEEKS, REFERENCE, STORED, TRIALS, Trial
from benchmarks.evaluation import Place, labelled, place, say
from benchmarks.scale import RESULTS, commit, machine, record

if TYPE_CHECKING:
    from benchmarks.extra_columns import Extras
    from pipeline_assets.recommender.split import Weeks
    from pipeline_assets.recommender.training_set import Examples


HALF_WEEK = timedelta(days=3)


def weeks_of(at: Place, trial: Trial) -> Weeks:
    """The newest label weeks of a trial, the one that stops the training included."""
    training = at.weeks.training[-(trial.weeks - len(at.weeks.early_stopping)) :]
    if trial.midweek:  # but the last one's, whose window would reach into the week that stops the training
        training = tuple(sorted({*training, *(week + HALF_WEEK for week in training[:-1])}))
    return replace(at.weeks, training=training)


@contextmanager
def opened(at: Place, names: Sequence[str], source: date, beyond: bool) -> Iterator[Bench]:
    """The examples of the training set of `source`, or, `beyond` it, of all weeks that the trials ask for."""
    from pipeline_assets.resources.training_data import TRAINING_SET

    if not beyond:
        yield Bench.of(at, at.lake.files(TRAINING_SET, source, source))
        return
    weeks = {week for name in {REFERENCE, *names} for week in weeks_of(at, TRIALS[name]).training}
    with labelled(at, sorted({*weeks, *at.weeks.early_stopping})) as file:
        yield Bench.of(at, [file])


@dataclass(frozen=True, eq=False)
class Bench:
    """What the trials of a fold share: examples with the keys of their rows, and extra columns."""

    at: Place
    everything: Examples
    keys: Any
    extras: Extras

    @classmethod
    def of(cls, at: Place, addresses: Sequence[str]) -> Bench:
        """Open the label weeks of stored examples that the fold may know."""
        from benchmarks.extra_columns import Extras, stored_with_keys

        return cls(at, *stored_with_keys(addresses, at.weeks.early_stopping[-1]), Extras(at))

    def trained(self, trial: Trial) -> tuple[Any, int, float]:
        """The boosters of a trial as one model, how many trees they have, and the extra columns' share of the split gain."""
        import lightgbm

        from benchmarks.trials import Mean
        from pipeline_assets.recommender.ablation import without
        from pipeline_assets.recommender.features import MODEL_FEATURES
        from pipeline_assets.recommender.ranker import dataset, model_text, train

        weeks, chosen = weeks_of(self.at, trial), self.at.settings.training
        names = [*MODEL_FEATURES, *(self.extras.names(trial.extra) if trial.extra else [])]
        parts = [self.everything.of(part) for part in (weeks.training, weeks.early_stopping)]
        if trial.extra:
            parts = [self.extras.widened(part, self.keys, trial.extra) for part in parts]
        parts = [without(part, trial.without, names) for part in parts]
        if not trial.is_weighed:
            parts = [replace(part, weight=part.weight**0) for part in parts]
        training = dataset(parts[0], names=names)
        stopping = dataset(parts[1], training, names)
        rounds, boosters, trees, gains = trial.rounds or chosen.max_rounds, [], 0, []
        for seed in trial.seeds:
            found = train(
                training,
                stopping,
                trial.ranker,
                rounds,
                seed,
                chosen.usable_threads,
                objectives=trial.phases,
                first_phase=trial.first,
            )
            gain = found.booster.feature_importance("gain")
            gains.append(float(gain[len(MODEL_FEATURES) :].sum() / gain.sum()))
            boosters.append(lightgbm.Booster(model_str=model_text(found.booster, found.best_iteration)))
            trees += found.best_iteration
        return (boosters[0] if len(boosters) == 1 else Mean(boosters)), trees, sum(gains) / len(gains)


def run(bench: Bench, names: Sequence[str]) -> dict[str, Any]:
    """Train the trials and the reference, and compare all of them, the day's stored model too, on the evaluation weeks."""
    import lightgbm

    from benchmarks.trials import compared, side_by_side, stored_model
    from pipeline_assets.resources.training_run import MODEL_TABLE
    from pipeline_assets.settings import get_settings

    at = bench.at
    n_known = len(at.weeks.training) + len(at.weeks.early_stopping)
    models: dict[str, Any] = {}
    told: dict[str, dict[str, Any]] = {}
    more = {name: partial(_columns, bench.extras, TRIALS[name].extra) for name in names if TRIALS[name].extra}
    for name in dict.fromkeys([REFERENCE, *names]):
        trial, before = TRIALS[name], time.process_time()
        models[name], trees, gain = bench.trained(trial)
        told[name] = {
            "why": trial.why,
            "weeks": min(trial.weeks, n_known),
            "trees": trees,
            "gain": gain,
            "cpu_s": time.process_time() - before,
        }
        say(f"trained {name}: {trees} trees, {told[name]['cpu_s']:.0f} CPU s, {gain:.1%} of the gain by extra columns")
    if at.day in at.lake.days(MODEL_TABLE):
        models[STORED] = lightgbm.Booster(model_str=stored_model(at))
        told[STORED] = {
            "commit": commit(),
            "why": "as the pipeline trains it",
            "weeks": min(get_settings().training.label_weeks, n_known),
            "trees": models[STORED].num_trees(),
            "gain": 0.0,
            "cpu_s": None,
        }
    frames = side_by_side(at, models, methods=("TIFU-KNN",), more=more)
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


def _columns(extras: Extras, groups: Sequence[str], day: date) -> Any:
    return partial(extras.looked_up, day, groups)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run trials and write the page that shows all of them."""
    from benchmarks.experiments_page import write_page

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("way", choices=["list", "run", "page"])
    parser.add_argument("--trials", nargs="*", choices=[name for name in TRIALS if name != REFERENCE], default=[])
    parser.add_argument("--as-of", type=date.fromisoformat, default=date(2017, 11, 12))
    parser.add_argument("--examples-of", type=date.fromisoformat, help="day of the training set (default: --as-of)")
    parser.add_argument(
        "--beyond", action="store_true", help="build the label weeks that the stored training set has not"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.way == "list":
        for name, trial in TRIALS.items():
            print(f"{name:22} {trial.why}")
        return 0
    if options.way == "run":
        at = place(options.as_of, ALL_WEEKS if options.beyond else None, options.threads)
        with opened(at, options.trials, options.examples_of or options.as_of, options.beyond) as bench:
            found = run(bench, options.trials)
        path = RESULTS / "model-experiments.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        kept = before.get(str(options.as_of), {}).get("trials", {})
        about = {"commit": commit(), "machine": machine(), "weeks": list(at.weeks.evaluation), "base_weeks": BASE_WEEKS}
        record("model-experiments", str(options.as_of), {**found, **about, "trials": {**kept, **found["trials"]}})
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
