"""The quality of the model, on development weeks: all baselines, models that are older, models that lack a group of features.

    python -m benchmarks.evaluation leaderboard   the model of the day beside all baselines (1 CPU minute)
    python -m benchmarks.evaluation holdout       the model of the day on every week of the holdout, which is counted (4 CPU minutes)
    python -m benchmarks.evaluation staleness     models that are 1, 2, 4 and 8 weeks older (one training each)
    python -m benchmarks.evaluation ablation      models without a group of features (one training each)
    python -m benchmarks.evaluation discover      what new products in a slate cost and bring, by rule
    python -m benchmarks.evaluation gate          champion against challenger on two models (one training)
    python -m benchmarks.evaluation tuning        a study of a few minutes, its model against the default one's
    python -m benchmarks.evaluation page          results/evaluation.md from what was measured

They read a data folder in which `make run UNTIL=...` has finished (`PIPELINE_DATA_DIR`) and train with its settings. Labels go through the
same door as everywhere: with --as-of in the holdout, each week is recorded.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.scale import commit, machine, record

if TYPE_CHECKING:
    import pandas as pd

    from pipeline_assets.recommender.judging import Judged
    from pipeline_assets.recommender.split import Weeks
    from pipeline_assets.recommender.training_set import Examples
    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.holdout import Door
    from pipeline_assets.resources.lake import Lake
    from pipeline_assets.settings import Settings

AGES = (1, 2, 4, 8)  # weeks
FRESH = "challenger"  # the name of the model that the others are compared with
DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Place:
    """Where the experiments read, and the weeks of a training as of `day`."""

    lake: Lake
    features: FeatureStoreResource
    settings: Settings
    day: date
    weeks: Weeks
    door: Door


def say(line: str) -> None:
    """Progress, with the CPU seconds of this process."""
    print(f"[{time.process_time():6.0f} CPU s] {line}", file=sys.stderr, flush=True)


def place(day: date, label_weeks: int | None, threads: int) -> Place:
    """Open the data folder of the settings; `label_weeks` overrides how many weeks a model is trained on."""
    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.holdout import Door
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.training_data import training_weeks
    from pipeline_assets.settings import with_until

    settings = with_until(day)
    chosen = settings.training.model_copy(
        update={"threads": threads, "label_weeks": label_weeks or settings.training.label_weeks}
    )
    settings = settings.model_copy(update={"training": chosen})
    lake, now = local_lake(settings.data_dir), datetime.now(UTC)
    door = Door(lake, "evaluation", f"benchmark-{uuid.uuid4()}", now, settings.calendar.holdout_start)
    return Place(lake, FeatureStoreResource(), settings, day, training_weeks(lake, day, settings), door)


@contextmanager
def labelled(at: Place, weeks: Sequence[date]) -> Iterator[str]:
    """Address of the examples of label weeks; features that are missing are built."""
    from pipeline_assets.recommender.split import Weeks
    from pipeline_assets.resources.feature_build import build_features
    from pipeline_assets.resources.training_data import FEATURE_TABLES, training_set_aside

    missing = sorted(set(weeks) - set.intersection(*(set(at.lake.days(table)) for table in FEATURE_TABLES)))
    for built, name, _ in build_features(at.lake, missing, at.door.run_id) if missing else ():
        say(f"features/{name} as of {built}")
    chosen = Weeks(tuple(weeks[:-1]), (weeks[-1],), at.weeks.evaluation)
    with training_set_aside(at.lake, at.features, at.day, chosen, at.settings.training, say, at.door) as (file, _):
        yield file


def trained(at: Place, everything: Examples, weeks: Weeks) -> str:
    """Native text of a model that is trained with the default parameters."""
    from pipeline_assets.recommender.ranker import RankerParams, dataset, model_text, train

    chosen = at.settings.training
    training = dataset(everything.of(weeks.training))
    stopping = dataset(everything.of(weeks.early_stopping), training)
    found = train(training, stopping, RankerParams(), chosen.max_rounds, chosen.seed, chosen.usable_threads)
    return model_text(found.booster, found.best_iteration)


def judged(at: Place, models: Mapping[str, str], methods: Sequence[str]) -> Judged:
    """All models and baselines on the evaluation weeks."""
    from pipeline_assets.resources.evaluation_run import judge_weeks

    found, _, _ = judge_weeks(at.lake, at.features, at.weeks.evaluation, models, methods, at.settings, at.door, say)
    return found


def _paired(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> dict[str, dict[str, float]]:
    from benchmarks.trials import interval_of
    from pipeline_assets.recommender.metrics import paired_bootstrap

    return {
        metric: interval_of(paired_bootstrap(a, b, metric, DRAWS, seed=seed))
        for metric in ("ndcg", "recall", "revenue")
    }


def leaderboard(at: Place) -> dict[str, Any]:
    """The stored model of the day beside every baseline: all measures with intervals, and the model's gain over each."""
    from benchmarks.trials import stored_model
    from pipeline_assets.recommender import baselines

    found = judged(at, {FRESH: stored_model(at)}, tuple(baselines.ALL))
    return board(found, at.settings.training.seed)


def board(found: Judged, seed: int) -> dict[str, Any]:
    """Every method's measures with intervals, and the model's gain over each baseline."""
    return {
        "methods": {
            name: {metric: [e.value, e.low, e.high] for metric, e in estimates.items()}
            for name, estimates in found.estimates(seed).items()
        },
        "gains": {name: _paired(found.challenger, frame, seed) for name, frame in found.baselines.items()},
        "customer_weeks": len(found.challenger),
    }


def staleness(at: Place) -> dict[str, Any]:
    """A model that is trained through the first evaluation week, and ones that are older with as many label weeks."""
    from pipeline_assets.recommender.staleness import cadence_weeks, quality_by_age, shifted
    from pipeline_assets.resources.training_data import read_training_set

    newest = [*at.weeks.training, *at.weeks.early_stopping]
    horizon = timedelta(days=at.settings.training.horizon_days)
    known = [newest[0] - n * horizon for n in range(max(AGES), 0, -1)] + newest
    models = {}
    with labelled(at, known) as file:
        everything = read_training_set([file])
        for age in (0, *AGES):
            models[FRESH if age == 0 else str(age)] = trained(at, everything, shifted(at.weeks, age, list(known)))
            say(f"trained the model that is {age} weeks older")
    found = judged(at, models, ("TIFU-KNN",))
    frames = {0: found.challenger, **{age: found.baselines[str(age)] for age in AGES}}
    ages = quality_by_age(frames, seed=at.settings.training.seed, draws=DRAWS)
    return {
        "ages": ages.to_dict("index"),
        "cadence_weeks": cadence_weeks(ages),
        "label_weeks": len(newest),
        "changed_slots": {age: found.changes[str(age)] for age in AGES},
        "customer_weeks": len(found.challenger),
    }


def ablation(at: Place) -> dict[str, Any]:
    """Models that do not see one group of features, against the model that sees all."""
    from pipeline_assets.recommender.ablation import feature_groups, without
    from pipeline_assets.resources.training_data import read_training_set

    groups = feature_groups()
    with labelled(at, [*at.weeks.training, *at.weeks.early_stopping]) as file:
        everything = read_training_set([file])
        models = {FRESH: trained(at, everything, at.weeks)}
        for group, members in groups.items():
            models[group] = trained(at, without(everything, members), at.weeks)
            say(f"trained without {group} ({len(members)} features)")
    found = judged(at, models, ("TIFU-KNN",))
    seed = at.settings.training.seed
    return {
        "groups": {name: list(members) for name, members in groups.items()},
        "loss": {name: _paired(found.baselines[name], found.challenger, seed) for name in groups},
        "gain_over_tifu": _paired(found.challenger, found.baselines["TIFU-KNN"], seed),
        "label_weeks": len(at.weeks.training) + len(at.weeks.early_stopping),
        "customer_weeks": len(found.challenger),
    }


def kinds() -> dict[str, Callable[[Place], dict[str, Any]]]:
    """What can be measured."""
    from benchmarks import evaluation_pairs as pairs
    from benchmarks.evaluation_holdout import holdout

    return {
        "leaderboard": leaderboard, "holdout": holdout, "staleness": staleness, "ablation": ablation, "discover": pairs.discover,
        "gate": pairs.gate, "tuning": pairs.tuning,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one kind, and write it with the page that shows all of them."""
    from benchmarks.evaluation_page import write_page

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kind", choices=[*kinds(), "page"])
    parser.add_argument("--as-of", type=date.fromisoformat, default=date(2017, 11, 12))
    parser.add_argument("--label-weeks", type=int, help="weeks that each model is trained on (default: the setting)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.kind != "page":
        at = place(options.as_of, options.label_weeks, options.threads)
        found = kinds()[options.kind](at)
        used = resource.getrusage(resource.RUSAGE_SELF)
        record(
            "evaluation",
            options.kind,
            {
                "as_of": options.as_of,
                "weeks": list(at.weeks.evaluation),
                **found,
                "commit": commit(),
                "machine": machine(),
                "cpu_s": round(time.process_time()),
                "peak_mb": round(used.ru_maxrss / 1024),
            },
        )
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
