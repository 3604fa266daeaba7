"""A policy's process: it publishes each day, answers the morning's requests, watches, and does what the sensors ask for (ticks.py)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from pipeline_assets.replay import operations
from pipeline_assets.replay.injections import process_faults
from pipeline_assets.replay.lane_state import Lane
from pipeline_assets.replay.lanes import DATA, Told, share
from pipeline_assets.replay.serving_faults import OF_CUSTOMERS, asked_without_end, serving_faults, tried_requests
from pipeline_assets.replay.story import Event, Injected, Policy, event
from pipeline_assets.replay.ticks import asked_for
from pipeline_assets.replay.traffic import level_of, path_of
from pipeline_assets.settings import get_settings, with_until

if TYPE_CHECKING:
    import dagster as dg

ONLINE = ("features/online_store", "deployment/bundle", "recommendations/daily", "recommendations/discover")
RELEASE = ("deployment/release",)
UNPUBLISHED = ("held", "run_failed")  # events of a morning whose publication did not take place
OF_MODELS = ("training/training_set", "training/model", "evaluation/evaluation_report", "evaluation/promotion")
SILENT_AFTER = timedelta(hours=26)  # as the alert ReportMissing has it (deploy/prometheus/rules/monitors.yml)
CROWD_OF_A_ROLLOUT = 20  # answers while a day is published; four who ask all the time get hundreds
OWN_REPORTS = ("skew_report", "quality_report", "slo_report")
REPORTS = ("drift_report", *OWN_REPORTS)  # the first is the data lane's
MONITORS = tuple(
    f"monitoring/{name}" for name in ("prediction_log", "impressions", *OWN_REPORTS, "retraining_decision")
)


_lane: Lane | None = None  # of this process


def open_lane(policy: Policy, faults: Sequence[Injected], requests: int, seed: int) -> None:
    """Make this process the lane of a policy; to be called once."""
    global _lane
    _lane = Lane(policy, faults, requests, seed)


def close_lane() -> None:
    """Stop what the lane has running."""
    if _lane is not None:
        _lane.close()


def first_model(day: date) -> Told:
    """Train as of `day` and publish it: where every policy starts."""
    from pipeline_assets.loop import Task
    from pipeline_assets.resources.lake import local_lake

    lane = _opened()
    watch = lane.watch()
    with_until(day)
    share(get_settings().data_dir.parent / DATA, get_settings().data_dir)
    _know(lane, sorted(local_lake(get_settings().data_dir).days("features/customer_product")))
    events = lane.run(day, Task("training", f"as of {day}", (day,)))
    events += _decisions(day)
    return watch.told([*events, *_published(lane, day)])


def serve(day: date) -> Told:
    """A business day of a policy: publish it, answer the morning's requests, watch, and do what the sensors ask for."""
    from pipeline_assets.loop import Task

    lane = _opened()
    watch = lane.watch()
    with_until(day)
    share(get_settings().data_dir.parent / DATA, get_settings().data_dir)
    events = _left_out(lane, day)
    faults = lane.faults_of(day)
    if lane.is_in("daemon_down", day):
        lane.missed.append(day)
        return watch.told([*events, event(day, "fault", "daemon_down"), *_morning(lane, day)])
    events += _caught_up(lane, day) + _injected(lane, day)
    with process_faults(lane.instance, faults, Task("publish", f"build {day}", (day,), ONLINE)) as acting:
        events += [event(day, "fault", told) for told in acting]
        events += _published_under_load(lane, day) if "rollout_under_load" in faults else _published(lane, day)
    events += _morning(lane, day) + _operations(lane, day)
    # a blocked day's run ends at its check: nothing downstream runs
    is_held = any((each.kind, each.day) == ("held", day) for each in events)
    events += _watched(lane, day, is_held)
    events += _verdicts(lane, day)
    cursors = dict(lane.cursors)
    requests = asked_for(lane, day)
    if "double_trigger" in faults:
        lane.cursors = cursors  # a second scheduler, that knows nothing of the first
        again = asked_for(lane, day)
        events.append(event(day, "fault", f"double_trigger: {len(requests)} runs asked for, then {len(again)} more"))
        requests += again
    for request in requests:
        reason = dict(request.tags or {}).get("reason", "")
        events.append(event(day, "run_requested", f"{request.job_name}: {reason or request.run_key}"))
        events += _started(lane, day, request, is_published=not any(each.kind in UNPUBLISHED for each in events))
    events += [
        event(day, "alert", f"{alert['severity']}: {alert['name']}: {alert['summary']}") for alert in lane.alerts
    ]
    lane.alerts.clear()
    return watch.told([*events, *_releases(lane, day)])


def _left_out(lane: Lane, day: date) -> list[Event]:
    """Faults that need somebody who asks, on a day on which nobody bought anything: it did not arrive, is blocked, or the shop was shut."""
    left_out = [fault for fault in lane.faults if fault.day == day and fault.name in OF_CUSTOMERS]
    if not left_out or _customers_of(day):
        return []
    lane.left_out |= set(left_out)
    return [event(day, "fault", f"{fault.name}: left out, as nobody shopped on this day") for fault in left_out]


def _watched(lane: Lane, day: date, is_held: bool) -> list[Event]:
    """The monitors' run of the day, after those of days that nobody watched; where they stand still, what the dead-man alert says."""
    from pipeline_assets.loop import Task

    if lane.is_in("monitor_stops", day):
        lane.unwatched += [] if is_held else [day]
        told = [event(day, "fault", "monitor_stops")]
        written = _written(day)
        silent = [name for name, at in written.items() if day - at > SILENT_AFTER]
        if silent:
            told.append(
                event(day, "dead_man", f"ReportMissing: {', '.join(silent)}: nothing since {min(written.values())}")
            )
        return told
    events: list[Event] = []
    days, lane.unwatched = [*lane.unwatched, *([] if is_held else [day])], []
    for each in days:
        events += lane.run(day, Task("publish", f"watch {each}", (each,), MONITORS))
    return events + [event(day, "caught_up", f"watched {each}") for each in days if each != day]


def _written(day: date) -> dict[str, date]:
    """The newest day of each of the policy's reports."""
    from pipeline_assets.resources.lake import local_lake

    lake = local_lake(get_settings().data_dir)
    return {
        name: max(each for each in days if each <= day)
        for name in OWN_REPORTS
        if (days := lake.days(f"monitoring/{name}"))
    }


def _published_under_load(lane: Lane, day: date) -> list[Event]:
    """Publish while four customers ask without a pause, up to the new release's being taken up."""
    api = lane.start_api()
    with asked_without_end(api, _customers_of(day)[0]) as found:
        events = _published(lane, day)
        api.follow()
    failed = sum(number for status, number in found.items() if status != 200)
    asked = "many" if found.total() > CROWD_OF_A_ROLLOUT else "few"
    return [*events, event(day, "fault", f"rollout_under_load: {asked} answers, {failed} failed")]


def _operations(lane: Lane, day: date) -> list[Event]:
    """What people do after the morning's requests, where that is a fault of the day."""
    faults, own, told = lane.faults_of(day), get_settings().data_dir, list[str]()
    events: list[Event] = []
    if "rollback_in_rollout" in faults:
        told.append(f"rollback_in_rollout: {operations.rolled_back()}")
    if "rollback_twice" in faults:
        told.append(f"rollback_twice: {operations.rolled_back_twice()}")
    if "backfilled_twice" in faults:
        more, what = operations.published_again(day, lambda task: lane.run(day, task))
        events += more
        told.append(f"backfilled_twice: {what}")
    if "alert_storm" in faults:
        before = len(lane.alerts)
        told.append(
            f"alert_storm: {operations.alert_storm(day, own / f'storm-{day}.db')}, {len(lane.alerts) - before} in the log"
        )
        del lane.alerts[before:]
    if faults & {"restored_backup", "erased_in_training"}:
        copy = own.parent / f"{own.name}-restored-{day}"
        what = operations.restored_backup(own.parent / DATA, own, day, copy)
        told += [f"restored_backup: {what}"] if "restored_backup" in faults else []
        if "erased_in_training" in faults:
            what = operations.erased_in_training(copy / "own", _customers_of(day)[0], day)
            told.append(f"erased_in_training: {what}")
        shutil.rmtree(copy)
    return events + [event(day, "fault", words) for words in told]


def _customers_of(day: date) -> list[str]:
    """Who of those that are replayed bought something on `day`, by id; nobody where it did not arrive or is blocked."""
    from pipeline_assets.resources.lake import local_lake

    lake = local_lake(get_settings().data_dir)
    return sorted(set(lake.read("warehouse/fct_purchases", day, day, ["customer_id"])["customer_id"].to_pylist()))


def _started(lane: Lane, day: date, request: dg.RunRequest, is_published: bool) -> list[Event]:
    """The run that was asked for. The morning's publication is the champion's: only another champion, or a morning without one, has something to publish."""
    from pipeline_assets.loop import Task

    job, days = str(request.job_name), (date.fromisoformat(str(request.partition_key)),)
    events = lane.run(day, Task(job, f"train as of {days[0]}", days, OF_MODELS))
    decisions = _decisions(day)
    if not is_published or any(each.kind == "gate_promote" for each in decisions):
        events += lane.run(day, Task(job, f"publish {days[0]}", days, ONLINE + RELEASE))
    return events + decisions


def _caught_up(lane: Lane, day: date) -> list[Event]:
    """The days that were missed, published and watched one after the other."""
    from pipeline_assets.loop import Task

    events: list[Event] = []
    for missed in lane.missed:
        with_until(missed)
        events += [event(day, "caught_up", str(missed)), *_published(lane, missed)]
        events += lane.run(missed, Task("publish", f"watch {missed}", (missed,), MONITORS))
    lane.missed.clear()
    with_until(day)
    return events


def _know(lane: Lane, days: Sequence[date]) -> None:
    """Tell this policy's Dagster what the data lane has materialised: its sensors and schedule ask for that."""
    import dagster as dg

    for day in days:
        for name in ("customer", "product", "customer_product"):
            made = dg.AssetMaterialization(["features", name], partition=day.isoformat())
            lane.instance.report_runless_asset_event(made)


def _opened() -> Lane:
    assert _lane is not None, "open_lane() was called first"
    return _lane


def _published(lane: Lane, day: date) -> list[Event]:
    """Bundle, lists and release of `day`; without features as of it, the lists of the day before stay."""
    import dagster as dg

    from pipeline_assets.loop import Task
    from pipeline_assets.replay.sabotage import BUNDLE_FAULTS, spoil_bundle
    from pipeline_assets.resources.lake import local_lake

    if day not in local_lake(get_settings().data_dir).days("features/customer_product"):
        return [event(day, "held", "no features as of the day: the lists of the day before stay")]
    if str(day) not in lane.instance.get_materialized_partitions(dg.AssetKey(["features", "customer_product"])):
        _know(lane, [day])
    spoilt = sorted(lane.faults_of(day) & set(BUNDLE_FAULTS))
    if not spoilt:
        return lane.run(day, Task("publish", f"publish {day}", (day,), ONLINE + RELEASE))
    events = lane.run(day, Task("publish", f"build {day}", (day,), ONLINE))
    events += [event(day, "fault", f"{fault}: {spoil_bundle(day, fault)}") for fault in spoilt]
    return events + lane.run(day, Task("publish", f"release {day}", (day,), RELEASE))


def _morning(lane: Lane, day: date) -> list[Event]:
    """Requests of the customers who shop next, and what came back where it was not a personal list."""
    faults, events = lane.faults_of(day), list[Event]()
    customers = _customers_of(day)[: lane.requests]
    if "cold_start" in faults:
        lane.stop_api()
        first = level_of(lane.start_api().client.get(path_of(customers[0])))
        events.append(event(day, "fault", f"cold_start: the first answer is {first}"))
    api = lane.start_api()
    api.follow()
    with serving_faults(api, faults) as acting:
        found = api.morning(day, customers, lane.seed)
    for fault in acting:
        events.append(event(day, "fault", f"{fault}: {found['failed']} answers failed"))
    if set(found) - {"ranked", "popularity"}:
        told = ", ".join(f"{number} {name}" for name, number in sorted(found.items()))
        events.append(event(day, "answers", told, dict(sorted(found.items()))))
    events += [event(day, "fault", told) for told in tried_requests(api, faults, customers)]
    if "shadow_dead" in faults:
        lane.stop_api()
    return events


def _injected(lane: Lane, day: date) -> list[Event]:
    """Faults of the model that are done before the day is published."""
    from pipeline_assets.loop import Task
    from pipeline_assets.replay.sabotage import force_champion, register_degraded

    faults, events = lane.faults_of(day), []
    if faults & {"degraded_model", "gate_bypassed"}:
        version = register_degraded(day)
        events.append(event(day, "fault", f"degraded_model: run {version[:8]}"))
        judged = Task("training", f"judge {day}", (day,), ("evaluation/evaluation_report", "evaluation/promotion"))
        events += lane.run(day, judged) + _decisions(day)
    if "gate_bypassed" in faults:
        events.append(event(day, "fault", f"gate_bypassed: version {force_champion(day)} is champion by force"))
    return events


def _decisions(day: date) -> list[Event]:
    """What the gate decided about the model of `day`."""
    from pipeline_assets.resources.lake import local_lake

    rows = local_lake(get_settings().data_dir).read("evaluation/promotion", day, day).to_pylist()
    return [event(day, f"gate_{row['outcome']}", "; ".join(row["reasons"])[:600]) for row in rows]


def _verdicts(lane: Lane, day: date) -> list[Event]:
    """Verdicts of the reports that are others than the day before, and what was decided about retraining where something asked for it."""
    from pipeline_assets.resources.decision_run import DECISION_TABLE
    from pipeline_assets.resources.lake import local_lake

    lake, events = local_lake(get_settings().data_dir), []
    for name in REPORTS:
        for row in lake.read(f"monitoring/{name}", day, day).to_pylist() if lake.exists(f"monitoring/{name}") else []:
            if lane.verdicts.get(name) != row["verdict"]:
                lane.verdicts[name] = row["verdict"]
                events.append(event(day, name, row["verdict"]))
    for row in lake.read(DECISION_TABLE, day, day).to_pylist() if lake.exists(DECISION_TABLE) else []:
        if row["decision"] != "nothing":
            events.append(event(day, f"decision_{row['decision']}", row["reason"]))
    return events


def _releases(lane: Lane, day: date) -> list[Event]:
    """What has become of releases since they were last told: refusals, other models that went live, and the newest rollout's stage."""
    from pipeline_assets.serving.release_state import history, open_state
    from pipeline_assets.serving.rollout_state import newest

    engine = open_state(get_settings().release_url)
    try:
        rows = [row for row in reversed(history(engine)) if row.id > lane.releases]
        rollout = newest(engine)
    finally:
        engine.dispose()
    lane.releases = max([lane.releases, *(row.id for row in rows)])
    events = [
        event(day, "refused_bundle", f"version {row.model_version}: {row.reason}")
        for row in rows
        if row.state == "refused"
    ]
    if rollout and (stage := (rollout.id, rollout.state)) != lane.rollout:
        lane.rollout = stage
        share = f" {rollout.state.share:.0%}" if rollout.state.stage == "canary" else ""
        # guardrails' figures are of this machine and this hour; their names are not
        why = "" if rollout.state.is_open else ": " + ", ".join(re.findall(r"(?:^|; )(\w+):", rollout.reason))
        events.append(event(day, rollout.state.stage, f"version {rollout.model_version}{share}{why}"))
    return events
