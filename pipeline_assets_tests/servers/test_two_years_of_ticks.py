"""Sensors on an instance with two years of events: the cost of a tick does not grow with the past. Writing the events takes longer than reading them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from pipeline_assets.automation import SENSORS
from pipeline_assets.definitions import defs
from pipeline_assets.resources.alerts import Alerts
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.settings import get_settings
from pipeline_assets_tests.ticks import tick

DAYS = [date(2016, 1, 2) + timedelta(days=n) for n in range(730)]
ASSETS = ("raw/purchases", "monitoring/retraining_decision")
MOST_SECONDS = 5.0  # of CPU, a tick
NOT_POLLED = {"alert_on_failure"}  # starts from the newest failure by itself, whatever was before


class Arrived(SourceResource):
    """A source that only says which days have arrived."""

    def arrived_days(self) -> list[date]:
        return DAYS

    def changed_days(self, days: list[date]) -> dict[date, list[str]]:
        return {}


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder of the test's own: two sensors read and write there."""
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path))
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def test_a_tick_is_cheap(own_data: Path) -> None:
    """730 days of events and verdicts; every sensor with its cursor at the very start, the worst case."""
    found = {"decision": "refuse", "trigger": "none", "reason": "r", "verdict": "ok"}
    spent = {}
    with dg.DagsterInstance.ephemeral() as instance:  # on disk the events alone would take minutes to write
        lake = Lake(root=str(own_data / "lake"))
        tracking = Tracking(
            tracking_uri=f"sqlite:///{own_data / 'mlflow.db'}", artifact_root=str(own_data / "artifacts")
        )
        resources = {"source": Arrived(), "lake": lake, "alerts": Alerts(), "tracking": tracking}
        for feed in FEEDS:
            lake.record_verdicts([Verdict(feed, day, "passed", 1, 1, 0) for day in DAYS], "run", datetime.now(UTC))
        for asset in ASSETS:
            for day in DAYS[:-1]:
                event = dg.AssetMaterialization(asset.split("/"), partition=str(day), metadata=found)
                instance.report_runless_asset_event(event)
        for sensor in SENSORS:
            if sensor.name not in NOT_POLLED:
                started = time.process_time()
                tick(defs, sensor.name, instance, resources)
                spent[sensor.name] = round(time.process_time() - started, 2)
    print(spent)
    assert {"new_day", "late_data", "retrain_on_decision", "metrics", "rollout"} <= set(spent)
    assert {sensor: seconds for sensor, seconds in spent.items() if seconds >= MOST_SECONDS} == {}
