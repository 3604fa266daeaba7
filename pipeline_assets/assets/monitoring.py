"""Group `monitoring`: what was served, whether inputs drift, what the recommendations were worth. Each decides on its own."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from pipeline_assets.assets.common import ML_TEAM, bullets, each_day, png
from pipeline_assets.assets.training import lookback
from pipeline_assets.monitoring.drift import DriftPolicy
from pipeline_assets.monitoring.quality import QualityPolicy
from pipeline_assets.monitoring.summary import drift_plot, drift_table, quality_table
from pipeline_assets.partitions import daily
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.monitoring_run import drift_of, quality_of
from pipeline_assets.resources.prediction_log_run import land_impressions, land_prediction_log
from pipeline_assets.settings import get_settings

GROUP = "monitoring"
HORIZON_DAYS = get_settings().training.horizon_days


@dg.asset(
    key=[GROUP, "prediction_log"],
    deps=[["deployment", "release"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"fastapi", "deltalake"},
    tags={"layer": GROUP},
    code_version="2",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One row: one answer that the API gave from a bundle of the business day, with its arm, model and whole log line. From the API's log "
    "files, from where the last landing ended; materialise again for newer answers. Read by impressions, the skew report and `replay-answer`.",
)
def prediction_log(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        landed = land_prediction_log(lake, day, get_settings().data_dir / "prediction_log", context.run.run_id)
        counts = {"dagster/row_count": len(landed.table), "new": landed.new, "unreadable": landed.unreadable}
        return {**counts, "table": lake.uri("monitoring/prediction_log")}

    return each_day(context, one_day)


@dg.asset(
    key=[GROUP, "impressions"],
    deps=[
        dg.AssetDep(dg.AssetKey([GROUP, "prediction_log"]), partition_mapping=lookback(HORIZON_DAYS)),
        dg.AssetDep(dg.AssetKey(["warehouse", "fct_purchases"]), partition_mapping=lookback(HORIZON_DAYS)),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"deltalake"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One row: one product of one answer, and whether its customer bought it in the week after the answer's business day, which ends with this "
    "day; null where labels are not complete. Fresh daily. Read by the guardrail `quality` of a rollout and by the quality report.",
)
def impressions(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        door = Door(lake, "monitoring", context.run.run_id, datetime.now(UTC), get_settings().calendar.holdout_start)
        table = land_impressions(lake, day, HORIZON_DAYS, context.run.run_id, door)
        known = table.filter(pc.is_valid(table["purchased"]))
        return {
            "dagster/row_count": len(table),
            "labelled": len(known),
            "purchased": pc.sum(known["purchased"]).as_py() or 0,
        }

    return each_day(context, one_day)


@dg.asset(
    key=[GROUP, "drift_report"],
    deps=[
        dg.AssetDep(
            dg.AssetKey(["validated", "purchases"]),
            partition_mapping=lookback(7 * get_settings().monitoring.reference_weeks),
        ),
        dg.AssetKey(["warehouse", "dim_products"]),
        dg.AssetKey([GROUP, "prediction_log"]),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"evidently"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One verdict (ok, watch, drift, unknown) on the day's purchase lines against the same weekdays of the weeks before, by our own policy, "
    "beside Evidently's page. Fresh daily. Read by the drift sensor, which asks for training.",
)
def drift_report(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        report = drift_of(lake, day, get_settings(), drift_policy(), context.run.run_id, datetime.now(UTC))
        metadata: dict[str, Any] = {"verdict": report.decision.verdict, "reasons": bullets(report.decision.reasons)}
        if report.html_path:
            metadata["columns"] = dg.MetadataValue.md(drift_table(report.result, report.decision))
            metadata["plot"] = png(drift_plot(report.result, report.policy), "effect size per column")
            metadata["evidently"] = dg.MetadataValue.json(report.evidently)
            metadata["report"] = dg.MetadataValue.path(str(report.html_path))
        return metadata

    return each_day(context, one_day)


def drift_policy() -> DriftPolicy:
    """The drift policy with the settings' least number of rows."""
    return DriftPolicy(min_rows=get_settings().monitoring.drift_min_rows)


@dg.asset(
    key=[GROUP, "quality_report"],
    deps=[
        dg.AssetDep(dg.AssetKey(["recommendations", "daily"]), partition_mapping=lookback(21)),
        dg.AssetKey(["warehouse", "fct_purchases"]),
        dg.AssetKey([GROUP, "prediction_log"]),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"pandas"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One verdict (ok, degraded, unknown) on what became of the batch recommendations whose week is over, against the champion's figure at "
    "promotion. Unknown until enough weeks are complete. Fresh daily. Read by people and the alerts.",
)
def quality_report(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        door = Door(lake, "monitoring", context.run.run_id, datetime.now(UTC), get_settings().calendar.holdout_start)
        history, decision = quality_of(lake, day, get_settings(), QualityPolicy(), context.run.run_id, door)
        return {
            "verdict": decision.verdict,
            "reasons": bullets(decision.reasons),
            "days": dg.MetadataValue.md(quality_table(history, decision)),
        }

    return each_day(context, one_day)
