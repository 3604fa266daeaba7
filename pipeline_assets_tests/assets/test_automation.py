"""Schedules and sensors by simulated ticks, on an instance that was only told what has happened.

What a drifted day does to the real pipeline is in e2e/test_closed_loop.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow
import pytest

from pipeline_assets.automation import MAX_DAYS_A_TICK, has_champion
from pipeline_assets.definitions import defs
from pipeline_assets.resources.alerts import Alerts
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets_tests.ticks import requested, tick

DAY = date(2017, 3, 20)
NOON = datetime(2017, 3, 21, 12, tzinfo=UTC)


class Arrived(SourceResource):
    """A source that only says which days have arrived."""

    days: list[str]

    def arrived_days(self) -> list[date]:
        return [date.fromisoformat(day) for day in self.days]


@dataclass
class Desk:
    """An instance, a lake, and what the source says."""

    instance: dg.DagsterInstance
    lake: Lake

    def happened(self, asset: str, day: date, **metadata: str) -> None:
        """An asset's partition was materialised."""
        event = dg.AssetMaterialization(asset.split("/"), partition=str(day), metadata=metadata)
        self.instance.report_runless_asset_event(event)

    def decided(self, day: date, decision: str, trigger: str = "drift") -> None:
        """It was decided about retraining."""
        reason = f"because of {day}"
        self.happened("monitoring/retraining_decision", day, decision=decision, trigger=trigger, reason=reason)

    def judged(self, day: date, status: str, at: datetime = NOON) -> None:
        """The purchases of a day got a verdict; the newest counts."""
        self.lake.record_verdicts([Verdict("purchases", day, status, 1, 1, 0)], "run", at)

    def tick(self, sensor: str, cursor: str | None = None, arrived: list[date] | None = None) -> Any:
        source = Arrived(days=[str(day) for day in arrived or []])
        resources = {"source": source, "lake": self.lake, "alerts": Alerts(webhook_url="")}
        return tick(defs, sensor, self.instance, resources, cursor)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """The week up to `DAY` is passed; nothing was ever trained."""
    with dg.DagsterInstance.ephemeral() as instance:
        desk = Desk(instance, Lake(root=str(tmp_path / "lake")))
        for n in range(7):
            desk.judged(DAY - timedelta(days=n), "passed")
        yield desk


def promoted(lake: Lake, champion: str) -> None:
    """A gate decided, and this version is champion since."""
    row = {"event_date": DAY, "champion_version": champion}
    lake.replace_days("evaluation/promotion", pyarrow.Table.from_pylist([row]), [DAY], "run")


def test_new_day_requests_exactly_what_arrived_and_was_not_landed(desk: Desk) -> None:
    """Of three days one is landed: the other two, oldest first, each with a key of its own."""
    days = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    desk.happened("raw/purchases", days[1])
    found = desk.tick("new_day", arrived=days)
    assert requested(found) == [("first_days", "2017-03-20"), ("first_days", "2017-03-22")]
    assert [request.run_key for request in found.run_requests] == ["day-2017-03-20", "day-2017-03-22"]


def test_new_day_skips_with_a_reason(desk: Desk) -> None:
    """Nothing arrived."""
    found = desk.tick("new_day")
    assert (requested(found), found.skip_message) == ([], "no business day has arrived that was not landed")


def test_new_day_catches_up_in_order_and_bounded(desk: Desk) -> None:
    """Ten days down: the seven oldest now, the rest at the next tick."""
    days = [DAY + timedelta(days=n) for n in range(10)]
    found = desk.tick("new_day", arrived=days)
    assert [partition for _, partition in requested(found)] == [str(day) for day in days[:MAX_DAYS_A_TICK]]


def test_three_days_down_are_caught_up_once_and_in_order(desk: Desk) -> None:
    """The daemon is back: each day is asked for once, oldest first; when they have run, nothing more is asked for."""
    days = [DAY + timedelta(days=n) for n in range(3)]
    found = desk.tick("new_day", arrived=days)
    assert requested(found) == [("first_days", str(day)) for day in days]
    for done, day in enumerate(days, 1):
        desk.happened("raw/purchases", day)
        assert [partition for _, partition in requested(desk.tick("new_day", arrived=days))] == [
            str(d) for d in days[done:]
        ]


def test_a_double_trigger_asks_for_the_same_run(desk: Desk) -> None:
    """Two schedulers tick before the run has begun: one key, and Dagster starts a key once."""
    keys = [[r.run_key for r in desk.tick("new_day", arrived=[DAY]).run_requests] for _ in range(2)]
    assert keys == [["day-2017-03-20"], ["day-2017-03-20"]]


def test_new_day_serves_once_there_is_a_champion(desk: Desk) -> None:
    """Before the first promotion a day is not served, because nothing could be."""
    assert not has_champion(desk.lake)
    promoted(desk.lake, "none")
    assert not has_champion(desk.lake)
    promoted(desk.lake, "1")
    assert has_champion(desk.lake)
    assert requested(desk.tick("new_day", arrived=[DAY])) == [("every_day", "2017-03-20")]


def test_a_decision_requests_one_training(desk: Desk) -> None:
    """Of two days one was decided on: its run, with a key of its own; the newest event is not the only one that is read."""
    desk.judged(DAY - timedelta(days=7), "passed")
    desk.decided(DAY - timedelta(days=1), "retrain")
    desk.decided(DAY, "nothing", "none")
    found = desk.tick("retrain_on_decision")
    assert requested(found) == [(None, "2017-03-19")]
    assert found.run_requests[0].run_key == "retrain-2017-03-19"


@pytest.mark.parametrize("decision", ["refuse", "nothing"])
def test_another_decision_requests_nothing_and_says_why(desk: Desk, decision: str) -> None:
    """The skip is the recorded reason."""
    desk.decided(DAY, decision)
    found = desk.tick("retrain_on_decision")
    assert (requested(found), found.skip_message) == ([], "because of 2017-03-20")


def test_a_decision_is_read_once(desk: Desk) -> None:
    """The cursor of the first tick hides its event from the second."""
    desk.decided(DAY, "retrain")
    first = desk.tick("retrain_on_decision")
    second = desk.tick("retrain_on_decision", first.cursor)
    assert (len(requested(first)), requested(second), second.skip_message) == (1, [], "no new decision")


def test_a_day_that_was_blocked_since_the_decision_is_not_trained_on(desk: Desk) -> None:
    """It was passed when the report was written and is blocked now: not started, and the day is named."""
    desk.decided(DAY, "retrain")
    desk.judged(DAY - timedelta(days=3), "blocked", NOON + timedelta(hours=1))
    found = desk.tick("retrain_on_decision")
    assert requested(found) == []
    assert found.skip_message == "because of 2017-03-20; since then not passed: 2017-03-17"


@pytest.mark.parametrize(
    ("decision", "trigger", "names"),
    [("retrain", "drift", ["input_drift"]), ("refuse", "quality", ["quality_degraded"]), ("nothing", "none", [])],
)
def test_what_asked_for_a_training_is_an_alert(
    desk: Desk, caplog: pytest.LogCaptureFixture, decision: str, trigger: str, names: list[str]
) -> None:
    """Also when it was refused; nothing to do is no news."""
    desk.decided(DAY, decision, trigger)
    desk.tick("retrain_on_decision")
    said = [json.loads(r.getMessage()) for r in caplog.records if r.name == "pipeline_assets.alerts"]
    assert [alert["name"] for alert in said] == names
    assert all(alert["details"] == {"day": "2017-03-20", "retraining": decision == "retrain"} for alert in said)


def weekly(instance: dg.DagsterInstance) -> Any:
    """One tick of the weekly schedule, on a Monday morning."""
    context = dg.build_schedule_context(
        instance, datetime(2017, 3, 20, 11, tzinfo=UTC), repository_def=defs.get_repository_def()
    )
    return defs.resolve_schedule_def("weekly_training").evaluate_tick(context)


def test_weekly_training_is_as_of_the_newest_day_with_features(tmp_path: Path) -> None:
    """Nothing to train on at first; then business time, not the wall clock's, says which day, and a key guards a second tick."""
    with dg.DagsterInstance.local_temp(
        str(tmp_path)
    ) as instance:  # schedules want an instance that other processes can open
        skipped = weekly(instance)
        assert (skipped.run_requests, skipped.skip_message) == ([], "no business day has features yet")
        for day in (DAY - timedelta(days=8), DAY - timedelta(days=1)):
            Desk(instance, Lake(root="")).happened("features/customer_product", day)
        (request,) = weekly(instance).run_requests
    assert (request.partition_key, request.run_key) == ("2017-03-19", "weekly-2017-03-19")


def test_what_runs_by_itself_is_known() -> None:
    """Six sensors and two schedules, Monday 07:00 and every night in the shop's time; alerts and rollouts are on from the start."""
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or ()}
    assert set(sensors) == {"new_day", "late_data", "retrain_on_decision", "alert_on_failure", "metrics", "rollout"}
    assert {sensors["alert_on_failure"], sensors["metrics"], sensors["rollout"]} == {dg.DefaultSensorStatus.RUNNING}
    assert [job.name for job in defs.resolve_sensor_def("retrain_on_decision").jobs] == ["retraining"]
    schedule = defs.resolve_schedule_def("weekly_training")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 7 * * 1", "America/New_York")
    nightly = defs.resolve_schedule_def("daily_retention")
    assert (nightly.cron_schedule, nightly.job_name) == ("0 4 * * *", "retention")
