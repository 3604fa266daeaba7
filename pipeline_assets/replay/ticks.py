"""The real sensors and the schedule, ticked once a day with the daemon's cursors and run keys; a policy is which of them are switched on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pipeline_assets.replay.lane_state import Lane
from pipeline_assets.replay.story import Policy
from pipeline_assets.settings import get_settings

if TYPE_CHECKING:
    import dagster as dg

RETRAINING: Mapping[Policy, tuple[str, ...]] = {  # the automation that a policy switches on, beside what all have
    "weekly": ("weekly_training",),
    "drift": ("retrain_on_decision",),
    "never": (),
}
OF_DATA = ("new_day", "late_data")  # sensors of the data lane


def asked_for(lane: Lane, day: date) -> list[dg.RunRequest]:
    """Tick every sensor that the policy has switched on, and the Monday schedule; returns the runs that they ask for."""
    import dagster as dg

    from pipeline_assets import automation
    from pipeline_assets.definitions import defs

    asked: list[dg.RunRequest] = []
    others = {name for names in RETRAINING.values() for name in names} - set(RETRAINING[lane.policy])
    morning = datetime.combine(
        day + timedelta(days=1), datetime.min.time(), ZoneInfo(get_settings().calendar.time_zone)
    )
    for sensor in automation.SENSORS:
        if sensor.name in {*others, *OF_DATA} or isinstance(sensor, dg.RunStatusSensorDefinition):
            continue
        with dg.build_sensor_context(
            lane.instance, lane.cursors.get(sensor.name), repository_def=lane.repository, resources=_needed(sensor)
        ) as context:
            tick = defs.resolve_sensor_def(sensor.name).evaluate_tick(context)
        lane.cursors[sensor.name] = tick.cursor
        asked += [
            request.with_replaced_attrs(job_name=request.job_name or sensor.job_name)
            for request in tick.run_requests or []
        ]
    for schedule in automation.SCHEDULES:
        if schedule.name not in RETRAINING[lane.policy] or morning.weekday() != 0:  # the training of Monday morning
            continue
        on_monday = dg.build_schedule_context(
            lane.instance, scheduled_execution_time=morning.astimezone(UTC), repository_def=lane.repository
        )
        evaluated = schedule.evaluate_tick(on_monday)
        asked += [request.with_replaced_attrs(job_name=schedule.job_name) for request in evaluated.run_requests or []]
    fresh = [request for request in asked if (request.run_key or "") not in lane.requested]
    lane.requested |= {request.run_key or "" for request in fresh}
    return fresh


def _needed(sensor: dg.SensorDefinition) -> dict[str, Any]:
    """The resources that a sensor asks for: the others would be opened too, and MLflow's is one of runs."""
    from pipeline_assets.definitions import defs

    return {
        name: resource for name, resource in (defs.resources or {}).items() if name in sensor.required_resource_keys
    }
