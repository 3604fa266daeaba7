"""The Grafana dashboards, built with the official SDK: `python -m deploy.grafana.build` writes the JSON files beside this one.

Belongs here: panels and their queries. Does not: thresholds that page somebody (deploy/prometheus/rules). A contract test builds
again and compares, and looks for every metric in the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

FOLDER = Path(__file__).parent
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")
V1 = 'endpoint=~"/v1/.*"'
Query = tuple[str, str]  # PromQL, legend


def lines(title: str, text: str, unit: str, *queries: Query) -> timeseries.Panel:
    """A panel of lines, half a row wide."""
    panel = timeseries.Panel().title(title).description(text).unit(unit).datasource(PROMETHEUS).span(12).height(8)
    for expression, legend in queries:
        panel = panel.with_target(prometheus.Dataquery().expr(expression).legend_format(legend))
    return panel


def figure(title: str, text: str, unit: str, expression: str, legend: str = "") -> stat.Panel:
    """One number, or one for each series, a quarter of a row wide."""
    query = prometheus.Dataquery().expr(expression).legend_format(legend).instant()
    panel = stat.Panel().title(title).description(text).unit(unit).datasource(PROMETHEUS).span(6).height(5)
    return panel.no_value("unknown").with_target(query)


def page(uid: str, title: str, text: str, rows: Sequence[tuple[str, Sequence[timeseries.Panel | stat.Panel]]]) -> str:
    """A dashboard as JSON: rows of panels, the data source to choose."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["recommendations"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("1m")
        .time("now-24h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for name, panels in rows:
        board = board.with_row(dashboard.Row(name))
        for panel in panels:
            board = board.with_panel(panel)
    import json

    return json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def serving() -> str:
    """What customers get: budgets, traffic, latency, where answers come from, what is live."""
    return page(
        "recommendations-serving",
        "Recommendations: serving",
        "The API: is it up, fast, personal, and which model answers.",
        [
            (
                "Is it all right?",
                [
                    figure(
                        "Bad in the last hour",
                        "Share of bad events by objective of slo.toml.",
                        "percentunit",
                        "slo:errors:ratio_rate1h",
                        "{{indicator}}",
                    ),
                    figure("p99 latency", "Of answers in five minutes.", "s", "serving:latency_seconds:p99_5m"),
                    figure(
                        "Live model",
                        "Version and business day of what is served.",
                        "none",
                        "serving_model_info",
                        "{{model_version}} as of {{as_of}}",
                    ),
                    figure("Age of what is served", "26 hours are allowed.", "s", "serving_bundle_age_seconds"),
                ],
            ),
            (
                "Traffic",
                [
                    lines(
                        "Requests",
                        "By status, of the recommendation routes.",
                        "reqps",
                        ("serving:requests:rate5m", "{{status}}"),
                    ),
                    lines(
                        "Latency",
                        "Quantiles over five minutes.",
                        "s",
                        *(
                            (
                                f"histogram_quantile({q}, sum by (le) (rate(serving_latency_seconds_bucket{{{V1}}}[5m])))",
                                f"p{100 * q:g}",
                            )
                            for q in (0.5, 0.95, 0.99)
                        ),
                    ),
                    lines(
                        "Burn rate",
                        "How many times too fast the error budget goes; 14.4 and 6 page.",
                        "none",
                        ("slo:errors:ratio_rate1h / on(indicator) (1 - slo:objective:ratio)", "{{indicator}} 1 h"),
                        ("slo:errors:ratio_rate6h / on(indicator) (1 - slo:objective:ratio)", "{{indicator}} 6 h"),
                    ),
                    lines(
                        "Saturation",
                        "Answers being computed, and the share of requests that is refused.",
                        "none",
                        ("serving_in_flight", "in flight"),
                        ("serving:shed:ratio_rate5m", "refused, share"),
                    ),
                ],
            ),
            (
                "Answers",
                [
                    lines(
                        "Where answers come from",
                        "none: ranked now; batch: last night's list; popularity: for everybody.",
                        "reqps",
                        ("sum by (fallback_level) (rate(serving_answers_total[5m]))", "{{fallback_level}}"),
                    ),
                    lines(
                        "Why not ranked",
                        "Reasons of fallbacks.",
                        "reqps",
                        ("sum by (reason) (rate(serving_fallbacks_total[5m]))", "{{reason}}"),
                    ),
                    lines(
                        "By model version",
                        "During a rollout two versions answer.",
                        "reqps",
                        ("sum by (model_version) (rate(serving_answers_total[5m]))", "{{model_version}}"),
                    ),
                    lines(
                        "Latency by version and stage",
                        "p99 over five minutes: reading features, ranking, rules; whole is all of it, of fallbacks too.",
                        "s",
                        ("serving:stage_latency_seconds:p99_5m", "{{model_version}} {{stage}}"),
                    ),
                    lines(
                        "Bundles",
                        "Taken into service, and refused before traffic; log lines lost.",
                        "short",
                        ("increase(serving_bundle_swaps_total[1h])", "taken"),
                        ("increase(serving_bundle_refusals_total[1h])", "refused"),
                        ("increase(serving_prediction_log_dropped_total[1h])", "log lines lost"),
                    ),
                ],
            ),
        ],
    )


def pipeline() -> str:
    """What feeds it: days, runs, reports, models, budgets, decisions."""
    verdict = 'pipeline_report_verdict{verdict=~"drift|skew|degraded|exhausted"}'
    return page(
        "recommendations-pipeline",
        "Recommendations: pipeline",
        "Data, runs, reports and models, from the file that the sensor `metrics` writes.",
        [
            (
                "Is it all right?",
                [
                    figure(
                        "Days behind",
                        "Business days between the newest passed one and the calendar.",
                        "none",
                        "pipeline_day_lag_days",
                        "{{feed}}",
                    ),
                    figure("Red reports", "Reports whose newest verdict is bad.", "none", f"sum({verdict})"),
                    figure(
                        "Champion trained",
                        "Business days ago; old where nothing fresher was better.",
                        "d",
                        "pipeline_model_data_age_days",
                    ),
                    figure("Figures are of", "Seconds ago; 600 are allowed.", "s", "pipeline:metrics_age:seconds"),
                ],
            ),
            (
                "Data and runs",
                [
                    lines(
                        "Rows of the newest day",
                        "Valid, by feed.",
                        "short",
                        ('pipeline_rows{outcome="valid"}', "{{feed}}"),
                    ),
                    lines(
                        "In quarantine",
                        "Share of the newest day's rows.",
                        "percentunit",
                        ("pipeline:quarantined:ratio", "{{feed}}"),
                    ),
                    lines(
                        "Duration of runs",
                        "Of the newest successful one.",
                        "s",
                        ("pipeline_run_duration_seconds", "{{job}}"),
                    ),
                    lines(
                        "Slowest steps",
                        "Of the newest successful runs.",
                        "s",
                        ("topk(8, pipeline_step_duration_seconds)", "{{job}} {{step}}"),
                    ),
                    lines(
                        "Failed runs",
                        "In the last day.",
                        "short",
                        ('delta(pipeline_runs{status="failure"}[1d])', "{{job}}"),
                    ),
                    lines("Blocked days", "Of the last 28.", "short", ("pipeline_blocked_days", "{{feed}}")),
                ],
            ),
            (
                "Reports",
                [
                    lines(
                        "Verdicts",
                        "1: the newest verdict of the report is this one.",
                        "none",
                        ("pipeline_report_verdict == 1", "{{report}}: {{verdict}}"),
                    ),
                    lines(
                        "Drift", "PSI by column; drifted from 0.08.", "none", ("pipeline_drift_psi_ratio", "{{column}}")
                    ),
                    lines(
                        "Quality",
                        "Realised NDCG@10 and the limit below which it is degraded.",
                        "none",
                        ("pipeline_quality_ndcg_ratio", "realised"),
                        ("pipeline_quality_ndcg_limit_ratio", "limit"),
                    ),
                    lines(
                        "Error budgets",
                        "What is left; below 0 it is overspent.",
                        "percentunit",
                        ("pipeline_slo_budget_remaining_ratio", "{{indicator}}"),
                    ),
                ],
            ),
            (
                "Models",
                [
                    lines(
                        "Decisions of the gate",
                        "All that are recorded.",
                        "short",
                        ("pipeline_promotions", "{{outcome}}"),
                    ),
                    lines(
                        "Decisions about retraining",
                        "All that are recorded, and models of the last seven days.",
                        "short",
                        ("pipeline_retraining_decisions", "{{decision}}"),
                        ("pipeline_trainings_last_week", "trainings in a week"),
                    ),
                    figure(
                        "Promotion frozen",
                        "1: an exhausted budget holds new models back.",
                        "none",
                        "pipeline_promotion_frozen",
                    ),
                    figure(
                        "Alerts of the pipeline",
                        "90 days, delivered or not.",
                        "none",
                        "sum by (name) (pipeline_alerts)",
                        "{{name}}",
                    ),
                ],
            ),
        ],
    )


DASHBOARDS = {"serving.json": serving, "pipeline.json": pipeline}


def main() -> None:
    """Write the files."""
    for name, build in DASHBOARDS.items():
        (FOLDER / name).write_text(build())
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
