"""Every alert of deploy/prometheus, seen firing and not firing, by Debian's promtool. A scenario is a healthy day with one thing changed.

Of each scenario the *whole* set of firing alerts is compared: a fault that rings another alarm too fails the test.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline_assets_tests.contract.repository import ROOT

PROMETHEUS = ROOT / "deploy/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
API = 'endpoint="/v1/customers/{customer_id}/recommendations"'
LONG = 6 * 60 + 20  # minutes: the longest window of a rule, and for how long it has to hold
HOURS = 60  # of the scenarios that are looked at every half hour
REPORTS = ("drift", "skew", "quality", "slo")
CLOCK = "0+{step}xN"  # a time that was just now, at every moment

# 60 requests a minute; all fast, none wrong, all known customers ranked; figures and reports are written every minute
HEALTHY: dict[str, str] = {
    'up{job="serving"}': "1xN",
    f'serving_requests_total{{{API},status="200"}}': "0+60xN",
    f'serving_requests_total{{{API},status="500"}}': "0xN",
    f'serving_latency_seconds_bucket{{{API},le="0.1"}}': "0+60xN",
    f'serving_latency_seconds_bucket{{{API},le="+Inf"}}': "0+60xN",
    f"serving_latency_seconds_count{{{API}}}": "0+60xN",
    'serving_answers_total{customer_kind="known",fallback_level="none"}': "0+50xN",
    'serving_answers_total{customer_kind="known",fallback_level="batch"}': "0xN",
    'serving_answers_total{customer_kind="new",fallback_level="popularity"}': "0+10xN",
    "serving_shed_total": "0xN",
    "serving_prediction_log_dropped_total": "0xN",
    "serving_bundle_refusals_total": "0xN",
    "serving_release_poll_age_seconds": "2xN",
    "serving_bundle_age_seconds": "3600xN",
    "pipeline_metrics_written_timestamp_seconds": CLOCK,
    'pipeline_runs{job="every_day",status="success"}': "0+1xN",
    'pipeline_runs{job="every_day",status="failure"}': "3xN",
    'pipeline_run_oldest_start_timestamp_seconds{job="every_day"}': CLOCK,
    'pipeline_day_lag_days{feed="purchases"}': "1xN",
    'pipeline_day_passed{feed="purchases"}': "1xN",
    'pipeline_rows{feed="purchases",outcome="read"}': "1000xN",
    'pipeline_rows{feed="purchases",outcome="quarantined"}': "10xN",
    'pipeline_model_data_age_days{}': "8xN",
    'pipeline_model_judged_age_days{}': "8xN",
    'pipeline_slo_budget_remaining_ratio{indicator="skew"}': "0.4xN",
    "pipeline_trainings_last_week": "2xN",
    **{f'pipeline_report_written_timestamp_seconds{{report="{report}"}}': CLOCK for report in REPORTS},
    'pipeline_report_verdict{report="drift",verdict="drift"}': "0xN",
    'pipeline_report_verdict{report="skew",verdict="skew"}': "0xN",
    'pipeline_report_verdict{report="quality",verdict="degraded"}': "0xN",
    'pipeline_report_verdict{report="quality",verdict="unknown"}': "0xN",
}  # fmt: skip

# name -> (what is changed from the start; None: the series is gone), minute at which it is looked at, alerts that fire then
Scenario = tuple[dict[str, str | None], int, set[str]]
BURNS = {"ErrorBudgetBurnsFast", "ErrorBudgetBurnsSlowly"}
SCENARIOS: dict[str, Scenario] = {
    "healthy": ({}, LONG, set()),
    # 2 % of the answers are 500: 20 times the budget of 0.1 %
    "2 % errors": ({f'serving_requests_total{{{API},status="500"}}': "0+1.2xN"}, LONG, BURNS),
    # 0.8 %: 8 times, above 6 and below 14.4
    "0.8 % errors": ({f'serving_requests_total{{{API},status="500"}}': "0+0.48xN"}, LONG, {"ErrorBudgetBurnsSlowly"}),
    "0.05 % errors": ({f'serving_requests_total{{{API},status="500"}}': "0+0.03xN"}, LONG, set()),
    # errors for six hours, then none: the longest window is still red an hour later, the short ones are not
    "errors are over": ({f'serving_requests_total{{{API},status="500"}}': "0+1.2x360 432xN"}, 430, set()),
    # an error of one minute in a quiet night: the long windows hold it back
    "one bad minute": ({f'serving_requests_total{{{API},status="500"}}': "0x380 2xN"}, 382, set()),
    # 20 % are slower than 100 ms: 20 times the budget of 1 %
    "slow": ({f'serving_latency_seconds_bucket{{{API},le="0.1"}}': "0+48xN"}, LONG, BURNS),
    # 40 % of the known customers get the batch list: 20 times the budget of 2 %
    "online store down": (
        {
            'serving_answers_total{customer_kind="known",fallback_level="none"}': "0+30xN",
            'serving_answers_total{customer_kind="known",fallback_level="batch"}': "0+20xN",
        },
        LONG,
        BURNS,
    ),
    "only new customers": (
        {'serving_answers_total{customer_kind="known",fallback_level="none"}': "0xN"},
        LONG,
        set(),  # 0 of 0 is no share
    ),
    "API down": ({'up{job="serving"}': "0xN"}, 5, {"ServingDown"}),
    "API unknown": ({'up{job="serving"}': None}, 5, {"ServingDown"}),
    "API restarts": ({'up{job="serving"}': "1x10 0x0 1xN"}, 12, set()),
    "sheds 5 %": ({"serving_shed_total": "0+3xN"}, 30, {"ServingSheds"}),
    "log lost a line": ({"serving_prediction_log_dropped_total": "0x20 7xN"}, 25, {"PredictionLogLosesLines"}),
    "bundle refused": ({"serving_bundle_refusals_total": "0x20 1xN"}, 25, {"BundleRefused"}),
    "release table down": ({"serving_release_poll_age_seconds": "0+60xN"}, 30, {"ReleaseTableUnread"}),
    "bundle of two days ago": ({"serving_bundle_age_seconds": "172800xN"}, 30, {"ServedFeaturesStale"}),
    "a run failed": ({'pipeline_runs{job="every_day",status="failure"}': "3x20 4xN"}, 25, {"RunFailed"}),
    "old runs were purged": ({'pipeline_runs{job="every_day",status="failure"}': "3x20 1xN"}, 25, set()),
    "a run hangs": ({'pipeline_run_oldest_start_timestamp_seconds{job="every_day"}': "0xN"}, 121, {"RunStuck"}),
    "a long run": ({'pipeline_run_oldest_start_timestamp_seconds{job="every_day"}': "0xN"}, 119, set()),
    "day blocked": ({'pipeline_day_passed{feed="purchases"}': "0xN"}, 5, {"DayBlocked"}),
    "day missing": ({'pipeline_day_lag_days{feed="purchases"}': "2xN"}, 5, {"DayMissing"}),
    "no day at all": ({'pipeline_day_lag_days{feed="purchases"}': None}, 5, {"DayMissing"}),
    "8 % quarantined": ({'pipeline_rows{feed="purchases",outcome="quarantined"}': "80xN"}, 5, {"QuarantineHigh"}),
    "drift": ({'pipeline_report_verdict{report="drift",verdict="drift"}': "1xN"}, 5, {"InputDrift"}),
    "skew": ({'pipeline_report_verdict{report="skew",verdict="skew"}': "1xN"}, 5, {"Skew"}),
    "degraded": ({'pipeline_report_verdict{report="quality",verdict="degraded"}': "1xN"}, 5, {"QualityDegraded"}),
    "no training": ({"pipeline_model_judged_age_days{}": "9xN"}, 5, {"ModelStale"}),
    "a champion that nothing beats": ({"pipeline_model_data_age_days{}": "60xN"}, 5, set()),
    "no model yet": ({"pipeline_model_judged_age_days{}": None, "pipeline_model_data_age_days{}": None}, 5, set()),
    "budget used up": ({'pipeline_slo_budget_remaining_ratio{indicator="skew"}': "-0.1xN"}, 5, {"BudgetExhausted"}),
    "retrain loop": ({"pipeline_trainings_last_week": "4xN"}, 5, {"RetrainLoop"}),
    "daemon dead": ({"pipeline_metrics_written_timestamp_seconds": "0xN"}, 20, {"MetricsSilent"}),
    "metrics gone": ({"pipeline_metrics_written_timestamp_seconds": None}, 20, {"MetricsSilent"}),
    "one monitor never ran": ({'pipeline_report_written_timestamp_seconds{report="slo"}': None}, 5, {"ReportMissing"}),
}  # fmt: skip
UNKNOWN = 'pipeline_report_verdict{report="quality",verdict="unknown"}'
SLOW_SCENARIOS: dict[str, Scenario] = {
    "healthy for days": ({}, 80 * HOURS, set()),
    "one monitor stopped 25 hours ago": (
        {'pipeline_report_written_timestamp_seconds{report="skew"}': "0xN"}, 25 * HOURS, set()
    ),
    "one monitor stopped 27 hours ago": (
        {'pipeline_report_written_timestamp_seconds{report="skew"}': "0xN"}, 27 * HOURS, {"ReportMissing"}
    ),
    "unknown for 71 hours": ({UNKNOWN: "1xN"}, 71 * HOURS, set()),
    "unknown for 73 hours": ({UNKNOWN: "1xN"}, 73 * HOURS, {"QualityUnknown"}),
}  # fmt: skip


def alerts() -> dict[str, dict[str, Any]]:
    """Alert -> its rule."""
    import yaml

    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def unit_test(name: str, scenario: Scenario, minutes: int = 1) -> dict[str, Any]:
    """A scenario as promtool wants it, with a sample every so many minutes, up to the one that is looked at."""

    def filled(values: str) -> str:
        return values.replace("xN", f"x{scenario[1] // minutes}").replace("{step}", str(60 * minutes))

    changed, minute, firing = scenario
    unknown = set(changed) - set(HEALTHY)
    assert not unknown, f"{name} changes what a healthy day does not have: {unknown}"
    series = {**HEALTHY, **changed}
    expected = sorted({*firing, "Watchdog"})
    return {
        "name": name,
        "interval": f"{minutes}m",
        "input_series": [
            {"series": key, "values": filled(values)} for key, values in series.items() if values is not None
        ],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in expected],
            }
        ],
    }


def promtool(folder: Path, tests: list[dict[str, Any]], minutes: int = 1) -> subprocess.CompletedProcess[str]:
    """`promtool test rules` of these tests; JSON is YAML."""
    binary = shutil.which("promtool")
    assert binary, "promtool is missing; .ci/run installs it (Debian package prometheus)"
    file = folder / "tests.yml"
    files = [str(path) for path in RULES]
    file.write_text(json.dumps({"rule_files": files, "evaluation_interval": f"{minutes}m", "tests": tests}))
    return subprocess.run([binary, "test", "rules", str(file)], capture_output=True, text=True, check=False)


def test_scenarios_ring_their_alarms_and_no_others(tmp_path: Path) -> None:
    """Every scenario in one run of promtool."""
    done = promtool(tmp_path, [unit_test(name, scenario) for name, scenario in SCENARIOS.items()])
    assert done.returncode == 0, done.stdout + done.stderr


def test_scenarios_of_days_do_too(tmp_path: Path) -> None:
    """Looked at every half hour, as three days by the minute would take a minute each."""
    done = promtool(tmp_path, [unit_test(name, scenario, 30) for name, scenario in SLOW_SCENARIOS.items()], 30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ml_test("Mo4", control=True)
def test_every_alert_is_seen_firing() -> None:
    """No rule without a fault that sets it off; that it is silent otherwise the healthy scenarios show."""
    fired = set().union(*(firing for _, _, firing in (SCENARIOS | SLOW_SCENARIOS).values()))
    assert set(alerts()) - {"Watchdog"} == fired


@pytest.mark.parametrize("name", ["API down", "skew"])
def test_a_wrong_expectation_fails(tmp_path: Path, name: str) -> None:
    """Negative control: the same scenario with an alarm too many in what is expected is a failure."""
    changed, minute, firing = SCENARIOS[name]
    done = promtool(tmp_path, [unit_test(name, (changed, minute, firing | {"RetrainLoop"}))])
    assert done.returncode == 1
    assert "RetrainLoop" in done.stdout + done.stderr


def test_the_configurations_are_valid() -> None:
    """promtool and amtool accept what is committed."""
    for command in (
        ["promtool", "check", "config", str(PROMETHEUS / "prometheus.yml")],
        ["amtool", "check-config", str(PROMETHEUS / "alertmanager.yml")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
