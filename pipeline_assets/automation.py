"""Everything that happens by itself, written down once: jobs, schedules, sensors, each with its reason.

Belongs here: what is started when. Does not: what a run does (assets) or how a verdict is reached (monitoring).
Runs are requested by partition with a run key, so that a double tick or a second scheduler has one effect. Declarative automation
conditions are not used: they follow the wall clock's newest partition, and this pipeline also lives on a replay clock (docs/design/stack.md);
whoever adds one must add `all_deps_blocking_checks_passed()` (docs/design/reliability.md E2; a contract test looks for it).
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from pipeline_assets.assets.common import DATA_TEAM, ML_TEAM
from pipeline_assets.maintenance import retention
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.alerts import Alert, Alerts
from pipeline_assets.resources.decision_run import DECISION_TABLE, blocked_days
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.pipeline_metrics import write_metrics
from pipeline_assets.resources.rollout_run import ended_by, follow_alias, look
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.resources.training_data import training_cutoffs
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.serving.release_state import open_state
from pipeline_assets.settings import get_settings
from pipeline_assets.sources.landing import landed_batches
from pipeline_assets.sources.late import redelivered, stale_features

RUNBOOK = "docs/runbook.md"
MAX_DAYS_A_TICK = 7  # after three days down the sensor catches up in order without flooding the queue

_INGEST = dg.AssetSelection.groups("raw", "validated", "warehouse")
_FEATURES = dg.AssetSelection.assets(
    ["features", "customer"], ["features", "product"], ["features", "customer_product"]
)
_ONLINE = dg.AssetSelection.assets(["features", "online_store"])
_SERVE = dg.AssetSelection.groups("deployment", "recommendations")
_MONITOR = dg.AssetSelection.groups("monitoring")
_DRIFT = dg.AssetSelection.assets(["monitoring", "drift_report"])

_AUTOMATION = get_settings().automation
_SENSOR = dg.DefaultSensorStatus.RUNNING if _AUTOMATION.is_on else dg.DefaultSensorStatus.STOPPED
_SCHEDULE = dg.DefaultScheduleStatus.RUNNING if _AUTOMATION.is_on else dg.DefaultScheduleStatus.STOPPED

_RUN = {"dagster/max_retries": "1"}  # a second try for a locked database or a lost worker; a blocked day fails both

ingest = dg.define_asset_job(
    "ingest", _INGEST, description="Land, validate and build the marts: one day or a range in one run.", tags=_RUN
)
marts = dg.define_asset_job(
    "marts",
    dg.AssetSelection.groups("warehouse"),
    description="Build and publish the marts: one day or a range in one run.",
    tags=_RUN,
)
build_features = dg.define_asset_job("features", _FEATURES, description="Features as of one day.", tags=_RUN)
first_days = dg.define_asset_job(
    "first_days",
    _INGEST | _FEATURES | _DRIFT,
    description="A business day before the first champion: everything that needs no model.",
    tags=_RUN,
)
every_day = dg.define_asset_job(
    "every_day",
    _INGEST | _FEATURES | _ONLINE | _SERVE | _MONITOR,
    description="A business day: from its raw data to live recommendations.",
    tags=_RUN,
)
training = dg.define_asset_job(
    "training",
    dg.AssetSelection.groups("training", "evaluation"),
    description="Train, evaluate, decide. Weekly, and when inputs drift.",
    tags=_RUN,
)
publish = dg.define_asset_job(
    "publish",
    _ONLINE | _SERVE | _MONITOR,
    description="Serve a day with the champion: online store, bundle, recommendations, release, monitors.",
    tags=_RUN,
)
retraining = dg.define_asset_job(
    "retraining",
    dg.AssetSelection.groups("training", "evaluation") | _ONLINE | _SERVE,
    description="Train, evaluate, decide, and publish the day with whoever is champion then.",
    tags=_RUN,
)
JOBS = [ingest, marts, build_features, first_days, every_day, training, publish, retraining, retention]


def has_champion(lake: Lake) -> bool:
    """Whether any model was ever promoted (read from the lake: importing MLflow would cost every tick 3 CPU s)."""
    if not lake.exists("evaluation/promotion"):
        return False
    return any(
        version != "none"
        for version in lake.read("evaluation/promotion", columns=["champion_version"])["champion_version"].to_pylist()
    )


@dg.sensor(
    name="new_day",
    jobs=[first_days, every_day],
    minimum_interval_seconds=60,
    default_status=_SENSOR,
    description="Requests exactly the business days that have arrived and were never landed, oldest first.",
)
def new_day(
    context: dg.SensorEvaluationContext, source: SourceResource, lake: Lake
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    landed = context.instance.get_materialized_partitions(dg.AssetKey(["raw", "purchases"]))
    arrived = [day for day in source.arrived_days() if day.isoformat() not in landed]
    if not arrived:
        yield dg.SkipReason("no business day has arrived that was not landed")
        return
    job = every_day if has_champion(lake) else first_days
    for day in arrived[:MAX_DAYS_A_TICK]:
        yield dg.RunRequest(
            run_key=f"day-{day}",
            job_name=job.name,
            partition_key=day.isoformat(),
            tags={"started_by": "sensor new_day"},
        )


@dg.sensor(
    name="late_data",
    jobs=[ingest, build_features],
    minimum_interval_seconds=1800,  # 1.3 CPU s a look; a day that is corrected waits for the next training anyway
    default_status=_SENSOR,
    description="Lands a day again whose delivery has changed, and computes features again that were made from it: the cut-offs that training "
    "will read. Looks back calendar.late_days; older corrections are a backfill that a person starts.",
)
def late_data(
    context: dg.SensorEvaluationContext, source: SourceResource, lake: Lake, alerts: Alerts
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    arrived = source.arrived_days()
    if not arrived:
        yield dg.SkipReason("no business day has arrived")
        return
    late = redelivered(source.changed_days, lake, arrived[-1], get_settings().calendar.late_days)
    for day, feeds in list(late.items())[:MAX_DAYS_A_TICK]:
        batches = [landed_batches(lake, FEEDS[feed], day, day)[day].digest[:12] for feed in feeds]
        summary = f"{', '.join(feeds)} of {day} changed after the day was landed"
        details = {"day": str(day), "feeds": feeds}
        alerts.send(
            Alert(
                "late_data",
                "info",
                summary,
                f"{RUNBOOK}#late-data",
                datetime.now(UTC),
                details,
                owner=DATA_TEAM[0],
                suspected_cause="The source corrected what it had delivered.",
                subject="-".join([str(day), *batches]),
            )
        )
        yield dg.RunRequest(
            run_key=f"late-{day}-{'-'.join(batches)}",  # of what it supersedes: another correction has another key
            job_name=ingest.name,
            partition_key=day.isoformat(),
            tags={"started_by": "sensor late_data", "reason": summary},
        )
    if late:
        return  # what depends on these days is looked at when they are landed
    try:
        cutoffs = training_cutoffs(lake, arrived[-1], get_settings())
    except NotEnoughData as error:
        yield dg.SkipReason(f"no training reads features yet: {error}")
        return
    stale = stale_features(lake, cutoffs)
    for day, reasons in list(stale.items())[:MAX_DAYS_A_TICK]:
        yield dg.RunRequest(
            run_key=f"stale-{day}-{lake.version('warehouse/fct_purchases')}",
            job_name=build_features.name,
            partition_key=day.isoformat(),
            tags={"started_by": "sensor late_data", "reason": "; ".join(reasons)},
        )
    if not stale:
        yield dg.SkipReason("every landed day is as it was delivered, and nothing that training reads is stale")


@dg.schedule(
    name="weekly_training",
    job=retraining,
    cron_schedule=_AUTOMATION.training_cron,
    default_status=_SCHEDULE,
    description="Mondays at 07:00, unless automation.training_cron says otherwise: retrain as of the newest day with features. The cadence follows the "
    "measured cost of stale models: lists lose little from an older model, so a week is enough (docs/design/evaluation.md).",
    execution_timezone=get_settings().calendar.time_zone,
)
def weekly_training(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    days = context.instance.get_materialized_partitions(dg.AssetKey(["features", "customer_product"]))
    if not days:
        return dg.SkipReason("no business day has features yet")
    return dg.RunRequest(
        run_key=f"weekly-{max(days)}", partition_key=max(days), tags={"started_by": "schedule weekly_training"}
    )


daily_retention = dg.ScheduleDefinition(
    name="daily_retention",
    job=retention,
    tags=_RUN,
    cron_schedule=_AUTOMATION.retention_cron,
    default_status=_SCHEDULE,
    description="Every night: disk stays bounded (docs/runbook.md#disk). Twice has one effect.",
    execution_timezone=get_settings().calendar.time_zone,
)


@dg.sensor(
    name="retrain_on_decision",
    job=retraining,
    minimum_interval_seconds=120,  # decisions come once a day
    default_status=_SENSOR,
    description="Starts the trainings that monitoring/retraining_decision decided on, and tells what it refused. A day that was blocked since then is "
    "looked at again.",
)
def retrain_on_decision(
    context: dg.SensorEvaluationContext, lake: Lake, alerts: Alerts
) -> dg.SensorResult | dg.SkipReason:
    # A cursor over event ids: asset sensors look at the newest event only and would skip partitions of a range run.
    decisions = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(DECISION_TABLE.split("/")), after_storage_id=int(context.cursor or 0)
        ),
        limit=50,
        ascending=True,
    )
    if not decisions.records:
        return dg.SkipReason("no new decision")
    requests, reasons = [], []
    for record in decisions.records:
        event = record.asset_materialization
        assert event is not None, "a materialization record has its event"
        assert event.partition is not None, "decisions are partitioned"
        day, found = date.fromisoformat(event.partition), {n: str(v.value) for n, v in event.metadata.items()}
        blocked = blocked_days(lake, day, get_settings()) if found["decision"] == "retrain" else ()
        reason = (
            f"{found['reason']}; since then not passed: {', '.join(map(str, blocked))}" if blocked else found["reason"]
        )
        is_requested = found["decision"] == "retrain" and not blocked
        reasons.append(reason)
        if found["trigger"] in _TRIGGERS:
            alerts.send(_of_decision(day, found["trigger"], reason, is_requested))
        if is_requested:
            tags = {"started_by": "sensor retrain_on_decision", "reason": reason}
            requests.append(dg.RunRequest(run_key=f"retrain-{day}", partition_key=day.isoformat(), tags=tags))
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason("; ".join(reasons[-3:])),
        cursor=str(decisions.records[-1].storage_id),
    )


_TRIGGERS = {  # what asked for a training -> name of the alert, section of the runbook, suspected cause
    "drift": ("input_drift", f"{RUNBOOK}#input-drift", "The shop or the season changed, or the source did: see the report."),
    "quality": ("quality_degraded", f"{RUNBOOK}#quality", "A stale model, broken features, or a bad release."),
}  # fmt: skip


def _of_decision(day: date, trigger: str, reason: str, is_requested: bool) -> Alert:
    name, runbook, cause = _TRIGGERS[trigger]
    details = {"day": str(day), "retraining": is_requested}
    now = datetime.now(UTC)
    return Alert(name, "warning", reason, runbook, now, details, suspected_cause=cause, subject=str(day))


def _root_cause(error: Any) -> str:
    """First line of what was raised: Dagster's own error says only which step it was."""
    while error.cause is not None:
        error = error.cause
    return str(error.message.splitlines()[0])


@dg.run_failure_sensor(
    name="alert_on_failure",
    monitor_all_code_locations=False,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Every failed run is an alert: log and webhook.",
)
def alert_on_failure(context: dg.RunFailureSensorContext, alerts: Alerts) -> None:
    run = context.dagster_run
    steps = context.get_step_failure_events()
    cause = _root_cause(steps[0].event_specific_data.error) if steps else context.failure_event.message
    details: dict[str, Any] = {
        "run_id": run.run_id,
        "job": run.job_name,
        "partition": run.tags.get("dagster/partition", ""),
        "steps": [s.step_key for s in steps],
        "cause": cause,
    }
    alerts.send(
        Alert(
            "run_failed",
            "critical",
            f"run {run.run_id[:8]} of {run.job_name} failed: {cause}"[:500],
            f"{RUNBOOK}#run-failed",
            datetime.now(UTC),
            details,
            owner=DATA_TEAM[0],
            suspected_cause=cause[:500],
            subject=f"{run.job_name} {'+'.join(details['steps'])}",  # a hundred runs that fail alike are one alert
        )
    )


@dg.sensor(
    name="metrics",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Writes the pipeline's Prometheus metrics, and pushes them where a gateway is set. Once a minute, not once a run: that "
    "the time in them moves on is what shows that the daemon lives, and a run that hangs never ends.",
)
def metrics(context: dg.SensorEvaluationContext, lake: Lake) -> dg.SkipReason:
    path = write_metrics(lake, context.instance, get_settings(), datetime.now(UTC))
    return dg.SkipReason(f"wrote {path}")


@dg.sensor(
    name="rollout",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks at the model on trial: a breach of a guardrail rolls it back, all guardrails ok lead it one step on, anything unknown holds "
    "it. After a rollback the registry's champion is what is served again. Half a minute, because a bad model is to be restored within one.",
)
def rollout(context: dg.SensorEvaluationContext, lake: Lake, tracking: Tracking, alerts: Alerts) -> dg.SensorResult:
    settings, now = get_settings(), datetime.now(UTC)
    looked = look(settings, lake, now, "sensor rollout")
    seen, newest = ended_by(open_state(settings.release_url))
    if newest is not None and seen != context.cursor and not newest.state.is_open:
        champion = follow_alias(tracking, open_state(settings.release_url))
        is_bad = newest.state.stage == "rolled_back"
        details = {"model_version": newest.model_version, "rollout": newest.id, "champion_moved_to": champion}
        summary = f"model {newest.model_version}: {newest.state.stage}: {newest.reason}"
        runbook, severity = f"{RUNBOOK}#rollout", "critical" if is_bad else "info"
        alerts.send(
            Alert(
                "rollout_ended",
                severity,
                summary[:500],
                runbook,
                now,
                details,
                owner=ML_TEAM[0],
                subject=f"rollout {newest.id}",
            )
        )
    reason = f"{looked.after.stage} {looked.after.share:.0%}: {looked.reason}" if looked else "nothing is on trial"
    return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=seen)


SCHEDULES = [weekly_training, daily_retention]
SENSORS = [new_day, late_data, retrain_on_decision, alert_on_failure, metrics, rollout]
