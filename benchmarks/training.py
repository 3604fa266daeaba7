"""What a weekly retrain costs, at 1x and with ten times the customers, and a backtest from an empty folder.

    python -m benchmarks.training retrain    the jobs of a retrain, asset by asset, and the scoring of all customers
    python -m benchmarks.training chunks     training set and training, a process each
    python -m benchmarks.training replicate --copies 10 --to DIR   what both read, with ten times the customers
    python -m benchmarks.training chunks --data-dir DIR --copies 10 --rounds 16
    python -m benchmarks.training backtest --core 0 [--days 2]   `pipeline-assets backtest` from an empty folder, on one core
    python -m benchmarks.training histograms   the same trees by row and by column
    python -m benchmarks.training page       results/training.md from what was measured

All but `backtest` want a data folder in which the features of the label weeks are there (`make run UNTIL=2017-11-12`). `retrain` trains and
publishes in it, again. Stages are processes of their own; memory is that of the process, from the kernel.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measured import Meter, Run, measure
from benchmarks.scale import commit, environment, machine, record

DAY = date(2017, 11, 12)
# In the data folder: where the stage `training-set` of `chunks` put its file, and `replicate` the examples.
FILE, EXAMPLES = "training_set.txt", "examples.txt"


def retrain(meter: Meter, day: date) -> None:
    """The assets from the training set to the bundle and the recommendations, each as a Dagster run of its own in this process."""
    from benchmarks.jobs import run_job

    for job, *assets in (
        ("training", "training/training_set"),
        ("training", "training/model"),
        ("training", "evaluation/evaluation_report", "evaluation/promotion"),
        ("publish", "deployment/bundle"),
        ("publish", "recommendations/daily", "recommendations/discover"),
    ):
        run_job(meter, " and ".join(assets), job, [day], *assets)


def score(meter: Meter, day: date) -> None:
    """All customers of the day by the model of the day, from its text: reading their features, and ranking."""
    import lightgbm

    from pipeline_assets.recommender.ranker import rank_customers
    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.tracking import Tracking
    from pipeline_assets.resources.training_data import customer_ids, read_week
    from pipeline_assets.resources.training_run import model_run
    from pipeline_assets.settings import get_settings

    settings, features = get_settings(), FeatureStoreResource()
    lake, store = local_lake(settings.data_dir), features.apply()
    tracking = Tracking(tracking_uri=settings.mlflow_uri, artifact_root=str(settings.data_dir / "mlflow_artifacts"))
    booster = lightgbm.Booster(model_str=tracking.model_text(str(model_run(lake, day)["run_id"])))
    with meter.part("read features") as noted:
        week = read_week(features, store, customer_ids(lake, day), day)
        noted["rows"] = len(week.rows)
    with meter.part("rank") as noted:
        rank_customers(booster, week.rows, week.catalogue, settings.serving.top, settings.training.usable_threads)
        noted["rows"] = int(week.rows["candidate_ids"].str.len().sum())
    meter.facts["trees"] = booster.num_trees()


def replicate(day: date, copies: int, n_weeks: int, to: Path) -> None:
    """What a training as of `day` reads, with customers `copies` times and all else once, in the folder `to`: the tables of the newest
    `n_weeks` label weeks, and the examples of all of them, from the file that `chunks` left in the data folder.

    Copy k of a customer has `~k` behind her id, as in replicated.py, and the features of the original: what a training costs depends on
    rows, not on values. Products' features stay as they are.
    """
    import pyarrow
    import pyarrow.parquet

    from pipeline_assets.resources.day_file import DayFile
    from pipeline_assets.resources.lake import VERDICTS, local_lake
    from pipeline_assets.resources.rebuild import copy_version
    from pipeline_assets.resources.training_data import ROW_GROUP, training_weeks
    from pipeline_assets.schemas.tables import FEATURE_TABLES, TRAINING_EXAMPLES
    from pipeline_assets.settings import get_settings

    settings = get_settings()
    lake, there = local_lake(settings.data_dir), local_lake(to)
    weeks, horizon = training_weeks(lake, day, settings), settings.training.horizon_days
    days = [*weeks.training, *weeks.early_stopping][-n_weeks:]
    for table in (VERDICTS, "warehouse/dim_products", "features/product"):
        copy_version(lake, table, lake.version(table), there, days if table == "features/product" else None)

    def write(table: str, schema: Any, each: date, own_ids: Sequence[str], row_group: int) -> None:
        rows = lake.read_days(table, [each]).select(schema.names).cast(schema)
        with there.day_file(table, schema, each, row_group) as file:
            for part in _copies(rows, copies, own_ids):
                file.add(part)
            there.replace_day(table, file, "benchmark")

    for each in days:
        for name in ("customer", "customer_product"):
            write(f"features/{name}", FEATURE_TABLES[name], each, ["customer_id"], 512)
        bought = "warehouse/fct_purchases"
        schema = lake.read_days(bought, [each]).schema
        for later in (each + timedelta(days=n) for n in range(1, horizon + 1)):
            write(bought, schema, later, ["customer_id", "order_id"], ROW_GROUP)
    folder = to / "benchmark"
    folder.mkdir()
    source = pyarrow.parquet.ParquetFile((settings.data_dir / "benchmark" / FILE).read_text())
    with DayFile(str(folder), TRAINING_EXAMPLES, day, ROW_GROUP) as file:
        for group in range(source.num_row_groups):
            rows = source.read_row_group(group)
            rows = rows.append_column("event_date", pyarrow.array([day] * len(rows), pyarrow.date32()))
            for part in _copies(rows, copies, ["customer_id"]):
                file.add(part)
        content = file.finish()
    (folder / EXAMPLES).write_text(file.address)
    print(f"{content.rows:,} examples of {len(weeks.training) + 1} weeks, tables of {len(days)} weeks", file=sys.stderr)


def _copies(rows: Any, copies: int, own_ids: Sequence[str]) -> Iterator[Any]:
    import pyarrow.compute as pc

    yield rows
    for number in range(1, copies):
        copy = rows
        for name in own_ids:
            renamed = pc.binary_join_element_wise(rows[name], f"~{number}", "")
            copy = copy.set_column(copy.schema.get_field_index(name), copy.schema.field(name), renamed)
        yield copy


def training_set(meter: Meter, day: date) -> None:
    """The training set as of `day`, of the label weeks that have features, into a file of its own beside the lake."""
    from datetime import UTC, datetime

    from pipeline_assets.resources.day_file import DayFile
    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.holdout import Door
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.training_data import ROW_GROUP, training_weeks, write_training_set
    from pipeline_assets.schemas.tables import TRAINING_EXAMPLES
    from pipeline_assets.settings import get_settings

    settings = get_settings()
    lake = local_lake(settings.data_dir)
    found, folder = training_weeks(lake, day, settings), settings.data_dir / "benchmark"
    there = lake.days("features/customer_product")
    weeks = replace(found, training=tuple(week for week in found.training if week in there))
    folder.mkdir(exist_ok=True)
    door = Door(lake, "training", "benchmark", datetime.now(UTC), settings.calendar.holdout_start)
    with (
        meter.part("training set") as noted,
        DayFile(str(folder), TRAINING_EXAMPLES, day, ROW_GROUP) as file,
    ):
        write_training_set(file, lake, FeatureStoreResource(), weeks, settings.training, print, door)
        noted["rows"] = file.finish().rows
    (folder / FILE).write_text(file.address)
    meter.facts |= {"weeks": len(weeks.training) + 1, "file_mb": round(Path(file.address).stat().st_size / 1e6)}


def training(meter: Meter, day: date) -> None:
    """A model from that file, or from replicated examples."""
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.training_data import read_training_set, training_weeks
    from pipeline_assets.resources.training_run import fit
    from pipeline_assets.settings import get_settings

    settings = get_settings()
    weeks = training_weeks(local_lake(settings.data_dir), day, settings)
    folder = settings.data_dir / "benchmark"
    address = (folder / (EXAMPLES if (folder / EXAMPLES).exists() else FILE)).read_text()
    with meter.part("training") as noted:
        everything = read_training_set([address])
        noted["rows"] = len(everything.label)
        fitted = fit(everything, weeks, settings, study="benchmark", storage=None)
    meter.facts |= {
        "rounds": settings.training.max_rounds,
        "trees": fitted.trained.best_iteration,
        "digest": fitted.tree_digest,
        "matrix_mb": round(len(everything.label) * len(fitted.trained.booster.feature_name()) * 4 / 1e6),
    }


def histograms(meter: Meter, day: date) -> None:
    """The same training by row and by column, on `BASE_WEEKS` label weeks of the stored training set of `day`."""
    from benchmarks.declared import BASE_WEEKS
    from pipeline_assets.recommender import ranker
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.training_data import TRAINING_SET, read_training_set, training_weeks
    from pipeline_assets.settings import get_settings

    settings = get_settings()
    lake, chosen = local_lake(settings.data_dir), settings.training
    weeks = training_weeks(lake, day, settings)
    everything = read_training_set(lake.files(TRAINING_SET, day, day))
    first = ranker.dataset(everything.of(weeks.training[-(BASE_WEEKS - 1) :]))
    stopping, digests = ranker.dataset(everything.of(weeks.early_stopping), first), set()
    stopping.construct()  # which constructs the first: not a part of either way
    for name, limit in (("by row", ranker.BINS_TWICE), ("by column", 0)):
        ranker.BINS_TWICE = limit
        with meter.part(name) as noted:
            found = ranker.train(first, stopping, ranker.RankerParams(), chosen.max_rounds, chosen.seed, threads=1)
            noted["rows"] = first.num_data()
        digests.add(ranker.tree_digest(ranker.model_text(found.booster, found.best_iteration)))
    meter.facts |= {"rounds": chosen.max_rounds, "different_trees": len(digests) - 1}


STAGES: dict[str, Callable[[Meter, date], None]] = {
    "retrain": retrain, "score": score, "training-set": training_set, "training": training, "histograms": histograms,
}  # fmt: skip


def _told(run: Run, **more: object) -> dict[str, object]:
    if run.returncode:
        raise SystemExit(f"{' '.join(run.command)} ended with {run.returncode}")
    return {**asdict(run), **more}


def _backtest(day: date, days: int, core: int | None) -> dict[str, object]:
    """A backtest of `days` mornings a week apart, the last one after `day`, in one command."""
    with tempfile.TemporaryDirectory(prefix="bench-backtest-") as name:
        folder = Path(name)
        mornings = [str(day + timedelta(days=1 - 7 * n)) for n in reversed(range(days))]
        out = ["--out", str(folder / "slates.parquet"), "--json"]
        run = measure(["pipeline_assets.cli", "backtest", "--as-of", *mornings, *out], environment(folder), core)
    return _told(run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one thing, and write it with the page that shows all of them."""
    from benchmarks.training_page import write_page

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("way", choices=["retrain", "replicate", "chunks", "backtest", "histograms", "page", "stage"])
    parser.add_argument("stage", nargs="?", choices=list(STAGES), help="of `stage`: in this process")
    parser.add_argument("--as-of", type=date.fromisoformat, default=DAY)
    parser.add_argument("--data-dir", type=Path, help="default: PIPELINE_DATA_DIR")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--to", type=Path, help="of `replicate`: an empty folder")
    parser.add_argument("--weeks", type=int, default=2, help="of `replicate`: label weeks whose tables are copied")
    parser.add_argument("--rounds", type=int, help="boosting rounds (default: the setting)")
    parser.add_argument("--days", type=int, default=1, help="of `backtest`: as-of days in one command, a week apart")
    parser.add_argument("--core", type=int, help="the one core to use (default: any)")
    options = parser.parse_args(arguments)
    meter = Meter(Path(os.environ["BENCH_METER"]) if "BENCH_METER" in os.environ else None)
    from pipeline_assets.settings import get_settings, with_until

    if options.way == "stage":
        from pipeline_assets.cli import quiet

        quiet()
        with_until(options.as_of)
        STAGES[options.stage](meter, options.as_of)
        meter.write()
        return 0
    if options.way == "replicate":
        with_until(options.as_of)
        replicate(options.as_of, options.copies, options.weeks, options.to)
        return 0
    about: dict[str, object] = {"as_of": options.as_of, "commit": commit(), "machine": machine()}
    place = environment(options.data_dir or get_settings().data_dir) | {"PIPELINE_CALENDAR__UNTIL": str(options.as_of)}
    if options.rounds:
        place["PIPELINE_TRAINING__MAX_ROUNDS"] = str(options.rounds)

    def stage(name: str) -> dict[str, object]:
        part = ["benchmarks.training", "stage", name, "--as-of", str(options.as_of)]
        return _told(measure(part, place, options.core))

    if options.way == "retrain":
        record("training", "retrain", {**about, "retrain": stage("retrain"), "score": stage("score")})
    if options.way == "chunks":
        found = {name: stage(name) for name in ("training-set", "training")}
        record("training", f"chunks {options.copies}x", {**about, "copies": options.copies, **found})
    if options.way == "histograms":
        record("training", "histograms", {**about, "histograms": stage("histograms")})
    if options.way == "backtest":
        run = _backtest(options.as_of, options.days, options.core)
        record("training", f"backtest of {options.days}", {**about, "days": options.days, "backtest": run})
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
