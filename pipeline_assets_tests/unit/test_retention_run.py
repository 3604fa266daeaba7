"""What retention removes, and what it never does: files with ages of our choice, a real Dagster instance, a real release database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow
import pytest

from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import PREDICTION_LOG, PREDICTION_LOG_TABLE
from pipeline_assets.resources.retention_run import expired, remove
from pipeline_assets.serving.release_state import open_state, record_live
from pipeline_assets.serving.rollout import RolloutPolicy
from pipeline_assets.serving.rollout_state import Offered, offer
from pipeline_assets.settings import Settings

NOW = datetime.now(UTC)  # runs of a test end now, by Dagster's clock: the days that pass are added to it
DAYS = dg.StaticPartitionsDefinition(["2017-01-01", "2017-01-02", "2017-01-03"])
KEY = dg.AssetKey("table")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Its databases where dagster.yaml has them: in the folder `dagster` of the data folder."""
    place = {"base_dir": str(tmp_path / "dagster")}
    storages = {
        "run_storage": ("dagster._core.storage.runs", "SqliteRunStorage"),
        "event_log_storage": ("pipeline_assets.resources.event_log", "PooledSqliteEventLogStorage"),
        "compute_logs": ("dagster.core.storage.local_compute_log_manager", "LocalComputeLogManager"),
    }
    overrides = {name: {"module": module, "class": of, "config": place} for name, (module, of) in storages.items()}
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home"), overrides) as found:
        yield found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def lake_of(settings: Settings) -> Lake:
    return Lake(root=str(settings.data_dir / "lake"))


def found(settings: Settings, instance: dg.DagsterInstance, days: float = 0.0) -> dict[str, set[str]]:
    """Kind -> names that are expired `days` from now."""
    kinds: dict[str, set[str]] = {}
    for each in expired(settings, lake_of(settings), instance, NOW + timedelta(days=days)):
        kinds.setdefault(each.kind, set()).add(each.path.name)
    return kinds


def old(path: Path, days: float, content: str = "x") -> Path:
    """A file that was written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    moment = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (moment, moment))
    return path


def materialised(instance: dg.DagsterInstance, day: str) -> str:
    """Run a job for a day; returns the run's id."""

    @dg.asset(key=KEY, partitions_def=DAYS)
    def table() -> None:
        pass

    return dg.materialize([table], instance=instance, partition_key=day).run_id


def test_logs_of_runs_go_and_what_they_materialised_stays(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Three runs of a job: after 29 days all are kept, after 31 the newest. The days are still known, and a second time there is nothing to do."""
    runs = [materialised(instance, day) for day in DAYS.get_partition_keys()]
    assert "run_logs" not in found(settings, instance, 29)
    gone = found(settings, instance, 31)["run_logs"]
    assert {name.split(".")[0] for name in gone} == set(runs[:2])
    remove(expired(settings, lake_of(settings), instance, NOW + timedelta(days=31)))
    assert instance.get_materialized_partitions(KEY) == set(DAYS.get_partition_keys())
    assert {path.stem for path in (settings.data_dir / "dagster").glob("*-*-*.db")} == {runs[2]}
    assert "run_logs" not in found(settings, instance, 31)


def test_removing_the_runs_themselves_would_forget_their_days(instance: dg.DagsterInstance) -> None:
    """The control: with Dagster's own way the day has never come, and the sensor new_day would land it again."""
    run = materialised(instance, "2017-01-01")
    assert instance.get_materialized_partitions(KEY) == {"2017-01-01"}
    instance.delete_run(run)
    assert instance.get_materialized_partitions(KEY) == set()


def test_pages_of_daily_reports(settings: Settings, instance: dg.DagsterInstance) -> None:
    """181 days are too old, 179 are not; the newest page stays however old it is, and so do the evaluations."""
    for name, days in (("drift/a.html", 400), ("drift/b.html", 181), ("drift/c.html", 179), ("slo/a.html", 400), ("evaluation/a.html", 400)):  # fmt: skip
        old(settings.data_dir / "reports" / name, days)
    assert found(settings, instance) == {"reports": {"a.html", "b.html"}}
    removed = remove(expired(settings, lake_of(settings), instance, NOW))
    assert removed["reports"] == (2, 2)
    assert sorted(path.name for path in settings.data_dir.glob("reports/*/*")) == ["a.html", "a.html", "c.html"]


def released(settings: Settings, version: str, days: float, on_trial: bool = False) -> Path:
    """A bundle that was written so many days ago, and is live or on trial since."""
    path = settings.data_dir / "bundles" / f"v{version}"
    old(path / "manifest.json", days)
    moment = NOW - timedelta(days=days)
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    engine = open_state(settings.release_url)
    if on_trial:
        policy = RolloutPolicy((0.5,), 0.0, ("errors",))
        offered = Offered(str(path), version, "2017-01-01", None)
        offer(engine, offered, policy, salt="s", fits=True, actor="test", at=moment)
    else:
        known = {"bundle_path": str(path), "model_version": version, "as_of": "2017-01-01"}
        record_live(engine, **known, recommendations_path=None, recorded_at=moment)
    engine.dispose()
    return path


def test_bundles_that_somebody_may_need_stay(settings: Settings, instance: dg.DagsterInstance) -> None:
    """All are older than 90 days. 3 is live, 2 is where a rollback goes, 4 is on trial; 1 may go. With 5 live, 2 may go as well."""
    for number, days in ((1, 104), (2, 103), (3, 102)):
        released(settings, str(number), days)
    released(settings, "4", 101, on_trial=True)
    assert found(settings, instance)["bundles"] == {"v1"}
    assert "bundles" not in found(settings, instance, -20), "84 days ago"
    released(settings, "5", 100)
    assert found(settings, instance)["bundles"] == {"v1", "v2"}


def landed(settings: Settings, name: str) -> None:
    """An answer in the lake that was read from the log file `name`."""
    day = datetime(2017, 1, 1).date()
    row = {"answer_id": "a1", "log_file": name, "log_end": 1, "event_date": day}
    table = pyarrow.Table.from_pylist([row], PREDICTION_LOG)
    lake_of(settings).replace_days(PREDICTION_LOG_TABLE, table, [day], "run", key="answer_id", evolves=True)


def test_answers_that_are_not_in_the_lake_stay(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Files of 100, 95 and 89 days ago: nothing may go before a landing; after one of the 95th day, the two that it went past."""
    names = [f"{(NOW - timedelta(days=days)).date()}.jsonl" for days in (100, 95, 89)]
    for name in names:
        old(settings.data_dir / "prediction_log" / name, 0)
    assert "prediction_log" not in found(settings, instance)
    landed(settings, names[0])
    assert found(settings, instance)["prediction_log"] == {names[0]}
    landed(settings, names[1])
    assert found(settings, instance)["prediction_log"] == set(names[:2])


def test_evidence_of_an_open_rollout_stays(settings: Settings, instance: dg.DagsterInstance) -> None:
    """A model is on trial for 120 days: what was computed in its shadow 100 days ago is still looked at, 130 days ago is not."""
    names = [f"{(NOW - timedelta(days=days)).date()}.jsonl" for days in (130, 100)]
    for name in names:
        old(settings.data_dir / "prediction_log" / "shadow" / name, 0)
    assert found(settings, instance)["prediction_log"] == set(names)
    released(settings, "1", 125)
    released(settings, "2", 120, on_trial=True)
    assert found(settings, instance)["prediction_log"] == {names[0]}


def test_versions_of_tables_are_never_expired(settings: Settings, instance: dg.DagsterInstance) -> None:
    """A day is written twice; ten years later both versions can be read, and only a file that no commit names is expired."""
    landed(settings, "one")
    landed(settings, "two")
    lake = lake_of(settings)
    stray = old(Path(lake.root) / PREDICTION_LOG_TABLE / "event_date=2017-01-01" / "stray.parquet", 2)
    assert found(settings, instance, 3650)["orphans"] == {stray.name}
    remove(expired(settings, lake, instance, NOW + timedelta(days=3650)))
    versions = [lake.read(PREDICTION_LOG_TABLE, columns=["log_file"], version=number) for number in (1, 2)]
    assert [table["log_file"].to_pylist() for table in versions] == [["one"], ["two"]]
