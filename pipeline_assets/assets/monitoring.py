"""Group `monitoring`: what was served, whether inputs drift, what the recommendations were worth. Each decides on its own."""

from datetime import UTC, datetime

import dagster as dg

from pipeline_assets.assets.common import ML_TEAM, png
from pipeline_assets.assets.training import lookback
from pipeline_assets.monitoring.drift import DriftPolicy
from pipeline_assets.monitoring.quality import QualityPolicy
from pipeline_assets.monitoring.summary import drift_plot, drift_table, quality_table
from pipeline_assets.partitions import daily, day_of
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.monitoring_run import drift_of, land_prediction_log, quality_of
from pipeline_assets.settings import get_settings

GROUP = "monitoring"


@dg.asset(
    key=[GROUP, "prediction_log"],
    deps=[["deployment", "release"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"fastapi", "deltalake"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    description="One row: one answer that the API gave from the bundle of the business day. From the API's log files; materialise again for newer "
    "answers. Read by whoever asks what a customer was shown.",
)
def prediction_log(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    table = land_prediction_log(lake, day_of(context), get_settings().data_dir / "prediction_log", context.run_id)
    return dg.MaterializeResult(metadata={"dagster/row_count": len(table), "table": lake.uri("monitoring/prediction_log")})


@dg.asset(
    key=[GROUP, "drift_report"],
    deps=[
        dg.AssetDep(dg.AssetKey(["validated", "purchases"]), partition_mapping=lookback(7 * get_settings().monitoring.reference_weeks)),
        dg.AssetKey(["warehouse", "dim_products"]),
        dg.AssetKey([GROUP, "prediction_log"]),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"evidently"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    description="One verdict (ok, watch, drift, unknown) on the day's purchase lines against the same weekdays of the weeks before, by our own policy, "
    "beside Evidently's page. Fresh daily. Read by the drift sensor, which asks for training.",
)
def drift_report(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    day = day_of(context)
    report = drift_of(lake, day, get_settings(), DriftPolicy(), context.run_id, datetime.now(UTC))
    metadata: dict[str, object] = {
        "verdict": report.decision.verdict,
        "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in report.decision.reasons)),
        "evidently": dg.MetadataValue.json(report.evidently),
    }
    if report.html_path:
        metadata["columns"] = dg.MetadataValue.md(drift_table(report.result, report.decision))
        metadata["plot"] = png(drift_plot(report.result, report.policy), "effect size per column")
        metadata["report"] = dg.MetadataValue.path(str(report.html_path))
    return dg.MaterializeResult(metadata=metadata)


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
    description="One verdict (ok, degraded, unknown) on what became of the batch recommendations whose week is over, against the champion's figure at "
    "promotion. Unknown until enough weeks are complete. Fresh daily. Read by people and the alerts.",
)
def quality_report(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    history, decision = quality_of(lake, day_of(context), get_settings(), QualityPolicy(), context.run_id)
    return dg.MaterializeResult(
        metadata={
            "verdict": decision.verdict,
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in decision.reasons)),
            "days": dg.MetadataValue.md(quality_table(history, decision)),
        }
    )
