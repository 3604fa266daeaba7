"""Group `evaluation`: is the new model better, and is it promoted. Belongs here: the report and the alias. Does not: the rules (promotion.py)."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from pipeline_assets.assets.common import ML_TEAM, bullets, each_day, png, records
from pipeline_assets.assets.training import feature_days, lookback
from pipeline_assets.partitions import daily
from pipeline_assets.recommender.evaluation_page import MODEL
from pipeline_assets.recommender.promotion import GatePolicy
from pipeline_assets.recommender.report import metric_table
from pipeline_assets.resources.evaluation_record import METRICS
from pipeline_assets.resources.evaluation_run import evaluate
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.release import promote
from pipeline_assets.resources.rollout_run import record_approval
from pipeline_assets.resources.slo_run import frozen_by
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.settings import get_settings

GROUP = "evaluation"


@dg.asset(
    key=[GROUP, "evaluation_report"],
    deps=[
        dg.AssetKey(["training", "model"]),
        *(
            dg.AssetDep(dg.AssetKey(["features", name]), partition_mapping=lookback(feature_days()))
            for name in ("customer", "product", "customer_product")
        ),
        dg.AssetDep(dg.AssetKey(["warehouse", "fct_purchases"]), partition_mapping=lookback(feature_days())),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"lightgbm", "mlflow"},
    tags={"layer": GROUP},
    code_version="3",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One evaluation of training/model of the day against the champion, popularity, decayed personal frequency and TIFU-KNN (all baselines with "
    "training.baselines = all), on the same customers of the newest complete weeks, none of which was trained on: measures with intervals, slices, exposure, "
    "calibration, and the gate's decision. HTML, model card, tables and plots are kept in MLflow. Read by evaluation/promotion.",
)
def evaluation_report(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource, tracking: Tracking
) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        now, log = datetime.now(UTC), context.log.info
        result = evaluate(
            lake, feature_store, tracking, day, get_settings(), gate_policy(), context.run.run_id, now, log
        )
        return {
            "mlflow_run_id": result.run_id,
            "outcome": result.decision.outcome,
            "reasons": bullets(result.decision.reasons),
            "would_have_to_change": bullets(result.decision.changes or ("nothing",)),
            "metrics": dg.MetadataValue.md(metric_table(result.summaries, METRICS)),
            **{name: records(frame) for name, frame in result.report.tables.items() if len(frame)},
            "model_card": dg.MetadataValue.md(result.card),
            "ndcg_at_10": result.summaries[MODEL]["ndcg"],
            "coverage_at_10": result.coverage,
            "customer_weeks": result.customer_weeks,
            "report": dg.MetadataValue.path(str(result.html_path)),
            **{name: png(image, name) for name, image in result.plots.items()},
        }

    return each_day(context, one_day)


def gate_policy() -> GatePolicy:
    """The gate's policy with what the settings say of it."""
    chosen = get_settings().training
    return GatePolicy(
        min_customers=chosen.gate_min_customers,
        min_primary=chosen.gate_min_ndcg,
        min_slice_customers=chosen.gate_min_slice_customers,
        max_change=chosen.gate_max_change,
    )


@dg.asset(
    key=[GROUP, "promotion"],
    deps=[[GROUP, "evaluation_report"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"mlflow"},
    tags={"layer": GROUP},
    code_version="3",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One decision: the model of the day is registered in MLflow as a version with its reasons; alias champion moves only when the gate "
    "says promote and no freezing error budget is used up. From evaluation/evaluation_report and the newest service-level report. Read by deployment/bundle.",
)
def promotion(context: dg.AssetExecutionContext, lake: Lake, tracking: Tracking) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        frozen = frozen_by(lake, day)
        result = promote(lake, tracking, day, context.run.run_id, frozen, get_settings().monitoring.override_freeze)
        record_approval(get_settings(), result.version, result.outcome, result.reasons, day, datetime.now(UTC))
        return {
            "outcome": result.outcome,
            "model_version": result.version,
            "champion_version": result.champion_version,
            "reasons": bullets(result.reasons),
            "mlflow_run_id": result.run_id,
        }

    return each_day(context, one_day)
