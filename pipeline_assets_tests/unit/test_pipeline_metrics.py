"""The pipeline's metrics: read from what is recorded, written whole, pushed where that is set; what is unknown is no 0."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pyarrow
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline_assets.resources.alerts import Alert, AlertMemory, memory_path
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.pipeline_metrics import clock_day, write_metrics
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.settings import Settings, load_settings

DAY = date(2017, 3, 20)
NOON = datetime(2017, 3, 21, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"PIPELINE_DATA_DIR": str(tmp_path), "PIPELINE_CALENDAR__UNTIL": str(DAY)})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def put(lake: Lake, table: str, day: date, **row: object) -> None:
    lake.replace_days(table, pyarrow.Table.from_pylist([{**row, "event_date": day}]), [day], "run")


def samples(lake: Lake, settings: Settings, instance: dg.DagsterInstance | None = None) -> dict[str, float]:
    """`name{a,b}` -> value, of the file that is written."""
    with dg.DagsterInstance.ephemeral() as fresh:
        path = write_metrics(lake, instance or fresh, settings, NOON)
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_an_empty_lake_has_no_figures(lake: Lake, settings: Settings) -> None:
    """Only the time and the runs, of which there are none: what is not known is NaN or absent, never 0."""
    found = samples(lake, settings)
    assert found["pipeline_metrics_written_timestamp_seconds"] == NOON.timestamp()
    assert found["pipeline_runs{training,failure}"] == 0
    assert found["pipeline_quality_ndcg_ratio"] != found["pipeline_quality_ndcg_ratio"]  # NaN
    assert not any(name.startswith(("pipeline_day_", "pipeline_report_")) for name in found)


def test_days_and_rows(lake: Lake, settings: Settings) -> None:
    """The newest verdict counts: two days behind, the newest blocked, 100 read of which 20 set aside."""
    passed = Verdict("purchases", DAY - timedelta(days=2), "passed", 50, 50, 0)
    blocked = Verdict("purchases", DAY, "blocked", 100, 80, 20)
    lake.record_verdicts([passed, blocked], "run", NOON)
    found = samples(lake, settings)
    assert found["pipeline_day_lag_days{purchases}"] == 2
    assert (found["pipeline_day_passed{purchases}"], found["pipeline_blocked_days{purchases}"]) == (0, 1)
    assert [found[f"pipeline_rows{{purchases,{n}}}"] for n in ("read", "valid", "quarantined")] == [100, 80, 20]


def test_the_newest_report_counts(lake: Lake, settings: Settings) -> None:
    """Yesterday drift, today ok: one verdict is 1, the others 0; its figures are there."""
    put(lake, "monitoring/drift_report", DAY - timedelta(days=1), verdict="drift", recorded_at=NOON, figures="{}")
    put(lake, "monitoring/drift_report", DAY, verdict="ok", recorded_at=NOON, figures='{"psi": {"brand": 0.02}}')
    found = samples(lake, settings)
    assert {n: v for n, v in found.items() if n.startswith("pipeline_report_verdict") and v} == {
        "pipeline_report_verdict{drift,ok}": 1
    }
    assert found["pipeline_report_written_timestamp_seconds{drift}"] == NOON.timestamp()
    assert found["pipeline_drift_psi_ratio{brand}"] == 0.02


def test_budgets_and_freeze(lake: Lake, settings: Settings) -> None:
    """Of the service-level report: what remains, and that promotion is frozen; an unknown budget has no figure."""
    budgets = (
        '{"skew": {"objective": 0.999, "remaining": -0.5}, "availability": {"objective": 0.999, "remaining": null}}'
    )
    figures = f'{{"budgets": {budgets}, "frozen": ["skew"]}}'
    put(lake, "monitoring/slo_report", DAY, verdict="exhausted", recorded_at=NOON, figures=figures)
    found = samples(lake, settings)
    assert found["pipeline_slo_budget_remaining_ratio{skew}"] == -0.5
    assert "pipeline_slo_budget_remaining_ratio{availability}" not in found
    assert found["pipeline_promotion_frozen"] == 1


@pytest.mark.ml_test("Mo4")
def test_the_age_of_the_champion(lake: Lake, settings: Settings) -> None:
    """Version 1 was trained nine days ago; the model of today was rejected, so it is still the champion, and nothing is stale."""
    old = DAY - timedelta(days=9)
    for day, outcome, version in ((old, "promote", "1"), (DAY, "reject", "2")):
        put(lake, "evaluation/promotion", day, outcome=outcome, version=version, champion_version="1", reasons=["r"])
        put(lake, "training/model", day, run_id="r")
    found = samples(lake, settings)
    assert (found["pipeline_model_data_age_days"], found["pipeline_champion_info{1}"]) == (9, 1)
    assert found["pipeline_model_judged_age_days"] == 0
    assert (found["pipeline_promotions{promote}"], found["pipeline_promotions{reject}"]) == (1, 1)
    assert found["pipeline_trainings_last_week"] == 1


def test_runs_and_their_steps(lake: Lake, settings: Settings) -> None:
    """A run of a job of ours that ended, and one that failed: counted, with the seconds of its steps."""

    @dg.op
    def work() -> None: ...

    @dg.op
    def breaks() -> None:
        raise ValueError

    @dg.job(name="ingest")
    def fine() -> None:
        work()

    @dg.job(name="training")
    def broken() -> None:
        breaks()

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        fine.execute_in_process(instance=instance, run_config=quiet)
        broken.execute_in_process(instance=instance, run_config=quiet, raise_on_error=False)
        found = samples(lake, settings, instance)
    assert (found["pipeline_runs{ingest,success}"], found["pipeline_runs{training,failure}"]) == (1, 1)
    assert found["pipeline_step_duration_seconds{ingest,work}"] >= 0
    assert "pipeline_run_last_failure_timestamp_seconds{training}" in found
    assert "pipeline_run_last_success_timestamp_seconds{training}" not in found


def test_alerts_are_samples(lake: Lake, settings: Settings) -> None:
    """R4: what was said is a figure too."""
    AlertMemory(memory_path(settings.data_dir), timedelta(), 1).admit(Alert("late_data", "info", "s", "r", NOON))
    assert samples(lake, settings)["pipeline_alerts{late_data,info}"] == 1


def test_the_clock_of_the_calendar(settings: Settings) -> None:
    """Replay: `until`. Wall: yesterday in New York, which is the 19th there until 04:00 UTC of the 21st."""
    assert clock_day(settings, NOON) == DAY
    wall = load_settings({"PIPELINE_CALENDAR__CLOCK": "wall"})
    assert clock_day(wall, datetime(2017, 3, 21, 3, tzinfo=UTC)) == date(2017, 3, 19)
    assert clock_day(wall, NOON) == DAY


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """What a pushgateway is asked: method and path, and the body."""
    seen: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            seen.append((f"PUT {self.path}", self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def test_figures_are_pushed_where_that_is_set(
    lake: Lake, settings: Settings, gateway: tuple[str, list[tuple[str, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PUT replaces the group of the job, so that figures that are gone are gone there too."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    address, seen = gateway
    chosen = settings.model_copy(update={"monitoring": settings.monitoring.model_copy(update={"pushgateway": address})})
    samples(lake, chosen)
    ((request, body),) = seen
    assert request == "PUT /metrics/job/pipeline_assets"
    assert b"pipeline_metrics_written_timestamp_seconds" in body


def test_a_silent_gateway_is_an_error_and_the_file_is_there(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    """The file comes first; the error is one that the caller tells."""
    chosen = settings.model_copy(
        update={"monitoring": settings.monitoring.model_copy(update={"pushgateway": "127.0.0.1:1"})}
    )
    with pytest.raises(OSError, match="refused"):
        samples(lake, chosen)
    assert (tmp_path / "metrics/pipeline.prom").exists()
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == ["pipeline.prom"]
