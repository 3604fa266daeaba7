"""Every route that can start work on a day without a passed verdict: it does none; and with the verdicts overruled it would.

The same run, a run of its own, the sensors, the schedule, a range of a backfill, and the command lines of ours and of Dagster.
Sunday 03-19 and Tuesday 03-21 arrive with nothing but bad rows; Wednesday 02-15, good once and in the window of a
training week, is delivered again and is bad now. `overruled` is the negative control: every verdict reads as passed, and the
same route then computes. A backfill through GraphQL and Dagster's daemon is in chaos/test_backfill_route.py (`make chaos`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow
import pytest
from click.testing import CliRunner

from pipeline_assets import cli, definitions
from pipeline_assets.checks import data as data_checks
from pipeline_assets.loop import Loop, execute
from pipeline_assets.resources import training_data
from pipeline_assets.resources.alerts import Alerts
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.resources.warehouse import Warehouse
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, Pipeline, Shop
from pipeline_assets_tests.ticks import requested, tick
from pipeline_assets_tests.world import FIRST_DAY

BLOCKED, ARRIVING, ARRIVING_NEXT, REDELIVERED = (
    date(2017, 3, 19),
    date(2017, 3, 21),
    date(2017, 3, 22),
    date(2017, 2, 15),
)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
Began = list[str]  # what a route began to compute on a day that is not passed


class WouldCompute(Exception):
    """The work would be done now."""


@pytest.fixture(scope="module")
def shop(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = first_run.shop.copied(tmp_path_factory.mktemp("routes") / "shop")
    for day in (BLOCKED, ARRIVING, ARRIVING_NEXT, REDELIVERED):
        shop.deliver(day, faults={day: "all_bad"})
    with shop.opened() as pipeline:
        feeds = [f"{layer}/{feed}" for layer in ("raw", "validated") for feed in FEEDS]
        pipeline.execute("ingest", BLOCKED, *feeds, raise_on_error=False)
        pipeline.execute("ingest", REDELIVERED, "raw/purchases", "validated/purchases", raise_on_error=False)
    return shop


@pytest.fixture
def pipeline(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    with shop.opened() as pipeline:
        monkeypatch.setattr(definitions, "defs", pipeline.definitions)  # what command lines load
        yield pipeline


@pytest.fixture
def began(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Began:
    """What was begun on a day that is not passed: marts, features, or labels of its purchases. It goes no further, so that each
    test finds the shop as it was."""
    begun: Began = []
    replace_days, day_file = Lake.replace_days, Lake.day_file

    def build(_: Warehouse, _lake: Lake, days: list[date], *_rest: object) -> None:
        begun.extend(f"marts {day}" for day in days)
        raise WouldCompute

    def write(lake: Lake, table: str, rows: pyarrow.Table, days: list[date], *rest: Any, **more: Any) -> Any:
        if not table.startswith("training/"):
            return replace_days(lake, table, rows, days, *rest, **more)
        return {day: SimpleNamespace(rows=0, digest="") for day in days}

    def open_features(lake: Lake, table: str, schema: pyarrow.Schema, day: date, *rest: Any) -> Any:
        if day == BLOCKED:
            begun.append(f"features {BLOCKED}")
            raise WouldCompute
        return day_file(lake, table, schema, day, *rest)

    def labels(purchases: pd.DataFrame) -> dict[str, set[str]]:
        used = {REDELIVERED} & set(purchases["event_date"])
        begun.extend(f"labels {day}" for day in used)
        return {"customer_id": set()}

    monkeypatch.setattr(Warehouse, "run", build)
    monkeypatch.setattr(Lake, "replace_days", write)
    monkeypatch.setattr(Lake, "day_file", open_features)
    monkeypatch.setattr(Lake, "replace_day", lambda *_: SimpleNamespace(rows=0, digest=""))
    # training: everything up to the labels is real; what Feast would add to them is not needed to see which were read
    monkeypatch.setattr(training_data, "targets_of", labels)
    monkeypatch.setattr(FeatureStoreResource, "apply", lambda _: None)
    monkeypatch.setattr(
        training_data,
        "read_weeks",
        lambda _, __, wanted: (SimpleNamespace(day=day, rows=None, catalogue=None) for day, _ in wanted),
    )
    monkeypatch.setattr(training_data, "label_week", lambda *_: [])
    return begun


@pytest.fixture
def overruled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verdict reads as passed, and the rows that are missing in `validated` are not missed."""
    counts = data_checks._counts

    def passed(_: Lake, feed: str, start: date, end: date, *_rest: str) -> dict[date, Verdict]:
        first = max(start, FIRST_DAY)
        days = [first + timedelta(days=n) for n in range((end - first).days + 1)]
        return {day: Verdict(feed, day, "passed", 0, 0, 0) for day in days}

    def all_there(lake: Lake, table: str, days: list[date]) -> dict[date, int]:
        layer, feed = table.split("/")
        return dict.fromkeys(days, 0) if layer == "quarantine" else counts(lake, f"raw/{feed}", days)

    monkeypatch.setattr(Lake, "verdicts", passed)
    monkeypatch.setattr(Lake, "statuses", lambda *read: dict.fromkeys(passed(*read), "passed"))
    monkeypatch.setattr(data_checks, "_counts", all_there)


def same_run(pipeline: Pipeline) -> None:
    """One run lands, validates and would go on to the marts."""
    pipeline.execute("ingest", BLOCKED, raise_on_error=False)


def separate_run(pipeline: Pipeline) -> None:
    """A person materialises the features of the day in the UI."""
    pipeline.materialize(BLOCKED, "features/customer", raise_on_error=False)


def marts_in_a_separate_run(pipeline: Pipeline) -> None:
    """The job `marts` for the day."""
    pipeline.execute("marts", BLOCKED, raise_on_error=False)


def sensor_new_day(pipeline: Pipeline) -> None:
    """A day arrives, and the run that the sensor asks for is made."""
    resources = {"source": SourceResource(), "lake": pipeline.lake}
    job, day = requested(tick(pipeline.definitions, "new_day", pipeline.instance, resources))[0]
    assert (job, day) in (("every_day", str(ARRIVING)), ("every_day", str(ARRIVING_NEXT)))
    pipeline.execute(str(job), date.fromisoformat(str(day)), raise_on_error=False)


def sensor_retrain_on_decision(pipeline: Pipeline) -> None:
    """A decision to retrain on the day after a blocked one: the sensor asks for a training, and it is made."""
    found = {"decision": "retrain", "trigger": "drift", "reason": "drift"}
    report = dg.AssetMaterialization(["monitoring", "retraining_decision"], partition="2017-03-20", metadata=found)
    seen = pipeline.instance.fetch_materializations(dg.AssetKey(["monitoring", "drift_report"]), limit=1).records
    pipeline.instance.report_runless_asset_event(report)
    resources = {"lake": pipeline.lake, "alerts": Alerts(webhook_url="")}
    asked = tick(pipeline.definitions, "retrain_on_decision", pipeline.instance, resources, str(seen[0].storage_id))
    for _, day in requested(asked):
        train(pipeline, date.fromisoformat(str(day)))


def schedule_weekly_training(pipeline: Pipeline) -> None:
    """Monday 07:00, and the run that the schedule asks for is made."""
    context = dg.build_schedule_context(
        pipeline.instance,
        datetime(2017, 3, 20, 11, tzinfo=UTC),
        repository_def=pipeline.definitions.get_repository_def(),
    )
    (request,) = pipeline.definitions.resolve_schedule_def("weekly_training").evaluate_tick(context).run_requests
    train(pipeline, date.fromisoformat(str(request.partition_key)))


def train(pipeline: Pipeline, day: date) -> None:
    """The first step of the job `retraining`."""
    pipeline.execute("retraining", day, "training/training_set", raise_on_error=False)


def backfill(pipeline: Pipeline) -> None:
    """A range of days in one run, as a backfill of `features` makes it."""
    span = {"dagster/asset_partition_range_start": str(NEWEST), "dagster/asset_partition_range_end": str(BLOCKED)}
    pipeline.definitions.resolve_job_def("features").execute_in_process(
        instance=pipeline.instance, tags=span, run_config=QUIET, raise_on_error=False
    )


def our_command_line(pipeline: Pipeline) -> None:
    """`pipeline-assets run --until 2017-03-19`; its workers are this process, and what it plans for other days alone is left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_run", lambda _, tasks: [execute(task) for task in tasks if BLOCKED in task.days])
        cli.main(["run", "--until", str(BLOCKED)])


def dagsters_command_line(pipeline: Pipeline) -> None:
    """`dagster asset materialize`."""
    from dagster._cli.asset import asset_cli

    chosen = ["--select", "key:features/customer", "--partition", str(BLOCKED), "-m", "pipeline_assets.definitions"]
    CliRunner().invoke(asset_cli, ["materialize", *chosen])


ROUTES: dict[Callable[[Pipeline], None], str] = {
    same_run: f"marts {BLOCKED}",
    separate_run: f"features {BLOCKED}",
    marts_in_a_separate_run: f"marts {BLOCKED}",
    sensor_new_day: f"marts {ARRIVING_NEXT}",
    sensor_retrain_on_decision: f"labels {REDELIVERED}",
    schedule_weekly_training: f"labels {REDELIVERED}",
    backfill: f"features {BLOCKED}",
    our_command_line: f"marts {BLOCKED}",
    dagsters_command_line: f"features {BLOCKED}",
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
def test_route_does_no_work_on_a_day_that_is_not_passed(
    route: Callable[[Pipeline], None], pipeline: Pipeline, began: Began
) -> None:
    """Nothing is begun."""
    route(pipeline)
    assert began == []


@pytest.mark.usefixtures("overruled")
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
def test_without_verdicts_the_route_would_compute(
    route: Callable[[Pipeline], None], pipeline: Pipeline, began: Began
) -> None:
    """Negative control: the same route on the same day begins its work."""
    route(pipeline)
    assert ROUTES[route] in began
