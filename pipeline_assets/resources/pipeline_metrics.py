"""Prometheus metrics of the pipeline: read from the lake, the runs and the alerts, written as one text file, pushed where that is set.

Everything is computed from what is recorded, so that a metric cannot be lost with a process, and writing twice is harmless. The
file goes to a textfile collector or to `pipeline-assets metrics --port`. No customer or product id is ever a label.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from pipeline_assets.resources.alerts import AlertMemory, memory_path
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

REPORTS = ("drift", "skew", "quality", "slo")
VERDICTS = ("ok", "watch", "drift", "skew", "degraded", "exhausted", "unknown")
OUTCOMES = ("promote", "reject", "inconclusive", "frozen")
LOOK_BACK = timedelta(days=28)  # the longest budget but one is of 28 days, and so is the window of late data
_NO_CHAMPION = "none"
# run id -> its steps: reading all events of the newest run of each job again every minute was two thirds of what the metrics cost (0.7 CPU s a tick)
_STEPS: dict[str, dict[str, float]] = {}
MAX_KEPT = 64  # runs


class PipelineMetrics:
    """The metrics, in a registry of their own; a gauge each, because all are read anew."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"pipeline_{name}", text, labels, registry=self.registry)

        self.written = gauge("metrics_written_timestamp_seconds", "When these figures were read")
        self.runs = gauge("runs", "Runs that are recorded", "job", "status")
        self.run_seconds = gauge("run_duration_seconds", "Of the newest successful run", "job")
        self.success = gauge("run_last_success_timestamp_seconds", "End of the newest successful run", "job")
        self.failure = gauge("run_last_failure_timestamp_seconds", "End of the newest failed run", "job")
        self.oldest = gauge("run_oldest_start_timestamp_seconds", "Start of the oldest run that has not ended", "job")
        self.step_seconds = gauge("step_duration_seconds", "In the newest successful run that has it", "job", "step")
        self.day_lag = gauge("day_lag_days", "Business days between the newest passed one and the clock's", "feed")
        self.passed = gauge("day_passed", "1: the newest day with a verdict is passed", "feed")
        self.blocked = gauge("blocked_days", "Of the last 28 with a verdict", "feed")
        self.rows = gauge("rows", "Of the newest day with a verdict", "feed", "outcome")
        self.verdict = gauge("report_verdict", "1 for the verdict of the newest report", "report", "verdict")
        self.report = gauge("report_written_timestamp_seconds", "When the newest report was written", "report")
        self.psi = gauge("drift_psi_ratio", "Population stability index of the newest day", "column")
        self.skew = gauge("skew_mismatch_ratio", "Values that differ between serving and the lake, newest report")
        self.quality = gauge("quality_ndcg_ratio", "Realised NDCG@10 of the days that can be judged")
        self.quality_limit = gauge("quality_ndcg_limit_ratio", "Below it quality is degraded")
        self.model_age = gauge("model_data_age_days", "Business days since the data of the champion's training")
        self.judged_age = gauge(
            "model_judged_age_days", "Business days since the gate judged a model, whatever it decided"
        )
        self.champion = gauge("champion_info", "1 for the champion", "version")
        self.promotions = gauge("promotions", "Decisions of the gate", "outcome")
        self.decisions = gauge("retraining_decisions", "Decisions about retraining", "decision")
        self.trainings = gauge("trainings_last_week", "Models trained for the last seven business days")
        self.budget = gauge("slo_budget_remaining_ratio", "Of the error budget; below 0 it is overspent", "indicator")
        self.objective = gauge("slo_objective_ratio", "What slo.toml asks for", "indicator")
        self.frozen = gauge("promotion_frozen", "1: an exhausted budget holds new models back")
        self.alerts = gauge("alerts", "Alerts of the pipeline itself, 90 days, delivered or not", "name", "severity")
        for unknown in (self.skew, self.quality, self.quality_limit, self.model_age, self.judged_age, self.frozen):
            unknown.set(float("nan"))  # no figure is not a figure of 0

    def read(
        self, lake: Lake, instance: dg.DagsterInstance, settings: Settings, newest: date | None, now: datetime
    ) -> None:
        """Set every metric from what is recorded.

        Args:
            newest: the business day that should have arrived by now (None: none yet).
            now: wall clock, for the age of these figures.
        """
        self.written.set(now.timestamp())
        self._runs(instance)
        if newest:
            self._data(lake, newest)
            self._reports(lake, newest)
            self._models(lake, newest)
        for (name, severity), count in AlertMemory(memory_path(settings.data_dir), timedelta(), 1).counts().items():
            self.alerts.labels(name, severity).set(count)

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)

    def _runs(self, instance: dg.DagsterInstance) -> None:
        import dagster as dg

        from pipeline_assets.automation import JOBS

        status = dg.DagsterRunStatus
        for job in (job.name for job in JOBS):
            for outcome in (status.SUCCESS, status.FAILURE):
                chosen = dg.RunsFilter(job_name=job, statuses=[outcome])
                self.runs.labels(job, outcome.value.lower()).set(instance.get_runs_count(chosen))
                for record in instance.get_run_records(chosen, limit=1):
                    if record.end_time is None or record.start_time is None:
                        continue
                    if outcome is status.FAILURE:
                        self.failure.labels(job).set(record.end_time)
                        continue
                    self.success.labels(job).set(record.end_time)
                    self.run_seconds.labels(job).set(record.end_time - record.start_time)
                    for step, seconds in _seconds_of_steps(instance, record.dagster_run.run_id).items():
                        self.step_seconds.labels(job, step).set(seconds)
        going = dg.RunsFilter(statuses=[status.STARTING, status.STARTED, status.CANCELING])
        oldest: dict[str, float] = {}
        for record in instance.get_run_records(going):
            job, began = record.dagster_run.job_name, record.start_time
            if began:
                oldest[job] = min(began, oldest.get(job, began))
        for job in oldest.keys() & {job.name for job in JOBS}:
            self.oldest.labels(job).set(oldest[job])

    def _data(self, lake: Lake, newest: date) -> None:
        for feed in FEEDS:
            statuses = lake.statuses(feed, newest - LOOK_BACK, newest)
            if not statuses:
                continue
            day = max(statuses)
            last = lake.verdicts(feed, day, day)[day]
            passed = [day for day, status in statuses.items() if status == "passed"]
            lag = (newest - max(passed)).days if passed else LOOK_BACK.days
            self.day_lag.labels(feed).set(lag)
            self.passed.labels(feed).set(last.status == "passed")
            self.blocked.labels(feed).set(len(statuses) - len(passed))
            for outcome in ("read", "valid", "quarantined"):
                self.rows.labels(feed, outcome).set(getattr(last, f"rows_{outcome}"))

    def _reports(self, lake: Lake, newest: date) -> None:
        import json

        for report in REPORTS:
            row = newest_row(lake, f"monitoring/{report}_report", newest)
            if row is None:
                continue
            for verdict in VERDICTS:
                self.verdict.labels(report, verdict).set(row["verdict"] == verdict)
            if row.get("recorded_at"):
                self.report.labels(report).set(row["recorded_at"].timestamp())
            figures = json.loads(row.get("figures") or "{}")
            for column, value in figures.get("psi", {}).items():
                self.psi.labels(column).set(value)
            for name, gauge in (
                ("mismatch_share", self.skew),
                ("ndcg", self.quality),
                ("ndcg_limit", self.quality_limit),
            ):
                if figures.get(name) is not None:
                    gauge.set(figures[name])
            for indicator, budget in figures.get("budgets", {}).items():
                self.objective.labels(indicator).set(budget["objective"])
                if budget["remaining"] is not None:
                    self.budget.labels(indicator).set(budget["remaining"])
            if "frozen" in figures:
                self.frozen.set(bool(figures["frozen"]))

    def _models(self, lake: Lake, newest: date) -> None:
        trained = {day for day in lake.days("training/model") if day <= newest}
        self.trainings.set(sum(day > newest - timedelta(days=7) for day in trained))
        if lake.exists("evaluation/promotion"):
            rows = lake.read("evaluation/promotion", None, newest).sort_by("event_date").to_pylist()
            for outcome in OUTCOMES:
                self.promotions.labels(outcome).set(sum(row["outcome"] == outcome for row in rows))
            if rows:
                self.judged_age.set((newest - rows[-1]["event_date"]).days)
            if rows and rows[-1]["champion_version"] != _NO_CHAMPION:
                version = rows[-1]["champion_version"]
                self.champion.labels(version).set(1)
                born = [row["event_date"] for row in rows if row["version"] == version]
                if born:  # a champion of another lake's registry has no row here
                    self.model_age.set((newest - born[0]).days)
        if lake.exists("monitoring/retraining_decision"):
            found = lake.read("monitoring/retraining_decision", None, newest, ["event_date", "decision"])
            for decision in ("retrain", "refuse", "nothing"):
                self.decisions.labels(decision).set(found["decision"].to_pylist().count(decision))


def _seconds_of_steps(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    """Step -> seconds of a run that has ended, which do not change: they are read once in this process."""
    if run_id not in _STEPS:
        if len(_STEPS) >= MAX_KEPT:
            _STEPS.clear()
        steps = instance.get_run_step_stats(run_id)
        _STEPS[run_id] = {step.step_key: step.end_time - step.start_time for step in steps if step.start_time and step.end_time}  # fmt: skip
    return _STEPS[run_id]


def newest_row(lake: Lake, table: str, newest: date) -> Mapping[str, Any] | None:
    """The newest row of a report's table up to a day, or nothing."""
    days = [day for day in lake.days(table) if day <= newest]
    return lake.read(table, max(days), max(days)).to_pylist()[0] if days else None


def clock_day(settings: Settings, now: datetime) -> date | None:
    """The business day that should be complete: yesterday in the shop's zone, or where the replay clock stands."""
    from zoneinfo import ZoneInfo

    calendar = settings.calendar
    if calendar.clock == "replay":
        return calendar.until or calendar.last_day
    return now.astimezone(ZoneInfo(calendar.time_zone)).date() - timedelta(days=1)


def text_file(settings: Settings) -> Path:
    """Where the metrics of a data folder are."""
    return settings.monitoring.metrics_file or settings.data_dir / "metrics" / "pipeline.prom"


def write_metrics(lake: Lake, instance: dg.DagsterInstance, settings: Settings, now: datetime) -> Path:
    """Read everything, write the file whole (a collector reads the old one or the new one), and push it where that is set.

    A gateway that is down is no reason to fail a run: its URL error is raised to the caller, which logs it.

    Raises:
        OSError: the file cannot be written, or the gateway does not answer.
    """
    metrics = PipelineMetrics()
    metrics.read(lake, instance, settings, clock_day(settings, now), now)
    path = text_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(metrics.exposition())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if settings.monitoring.pushgateway:
        from prometheus_client import push_to_gateway

        push_to_gateway(settings.monitoring.pushgateway, job="pipeline_assets", registry=metrics.registry, timeout=5)
    return path


def serve_text_file(path: Path, host: str, port: int) -> Any:
    """An HTTP server whose `/metrics` is the file as it is now; 503 while there is none. Not started: `serve_forever` is the caller's."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, body = (200, path.read_bytes()) if self.path == "/metrics" else (404, b"/metrics\n")
            except FileNotFoundError:
                status, body = 503, b"no metrics were written yet\n"
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape every few seconds is no news."""

    return ThreadingHTTPServer((host, port), Handler)
