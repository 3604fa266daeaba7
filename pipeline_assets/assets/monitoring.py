"""Group `monitoring`: what was served, the four reports, and the decision they lead to. Each report decides on its own."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from pipeline_assets.assets.common import ML_TEAM, bullets, each_day, png
from pipeline_assets.assets.training import lookback
from pipeline_assets.monitoring.drift import DriftPolicy
from pipeline_assets.monitoring.prediction_skew import SkewPolicy
from pipeline_assets.monitoring.quality import QualityPolicy
from pipeline_assets.monitoring.summary import drift_plot, drift_table, quality_table
from pipeline_assets.partitions import daily
from pipeline_assets.resources.decision_run import decide_for
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.monitoring_run import drift_of
from pipeline_assets.resources.prediction_log_run import land_answers, land_impressions
from pipeline_assets.resources.quality_run import quality_of
from pipeline_assets.resources.skew_run import skew_of
from pipeline_assets.resources.slo_run import slo_of
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
    code_version="3",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One row: one answer that the API gave from a bundle of the business day, with its arm, model and whole log line. From the API's log "
    "files, from where the last landing ended, and with it the answers that came since then from the bundles of the days before. "
    "Read by impressions, the skew report and `replay-answer`.",
)
def prediction_log(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        landed = land_answers(lake, day, get_settings().data_dir / "prediction_log", context.run.run_id)
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
    code_version="2",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One verdict (ok, watch, drift, unknown) on the day's purchase lines against the same weekdays of the weeks before, by our own policy, "
    "what it points at (shop or upstream), and Evidently's page. Fresh daily. Read by monitoring/retraining_decision.",
)
def drift_report(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        report = drift_of(lake, day, get_settings(), drift_policy(), context.run.run_id, datetime.now(UTC))
        metadata: dict[str, Any] = {
            "verdict": report.decision.verdict,
            "reasons": bullets(report.decision.reasons),
            "signs_of_a_fault": bullets(report.signs.found or ("none",)),
            "report": dg.MetadataValue.path(str(report.html_path)),
        }
        if report.evidently_path:
            metadata["columns"] = dg.MetadataValue.md(drift_table(report.result, report.decision))
            metadata["plot"] = png(drift_plot(report.result, report.policy), "effect size per column")
            metadata["evidently"] = dg.MetadataValue.json(report.evidently)
            metadata["evidently_page"] = dg.MetadataValue.path(str(report.evidently_path))
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
        dg.AssetKey(["warehouse", "dim_products"]),
        dg.AssetKey([GROUP, "prediction_log"]),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"pandas"},
    tags={"layer": GROUP},
    code_version="3",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One verdict (ok, degraded, unknown) on what became of the batch recommendations whose week is over, against the champion's level on the "
    "same days. Unknown until enough weeks are complete. Fresh daily. Read by monitoring/retraining_decision and the alerts.",
)
def quality_report(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        now, run = datetime.now(UTC), context.run.run_id
        door = Door(lake, "monitoring", run, now, get_settings().calendar.holdout_start)
        report = quality_of(lake, day, get_settings(), QualityPolicy(), run, door, now)
        return {
            "verdict": report.decision.verdict,
            "reasons": bullets(report.decision.reasons),
            "days": dg.MetadataValue.md(quality_table(report.history, report.decision)),
            "report": dg.MetadataValue.path(str(report.html_path)),
        }

    return each_day(context, one_day)


@dg.asset(
    key=[GROUP, "skew_report"],
    deps=[
        ["features", "online_store"],
        dg.AssetDep(dg.AssetKey(["recommendations", "daily"]), partition_mapping=lookback(1)),
        dg.AssetKey([GROUP, "prediction_log"]),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"feast"},
    tags={"layer": GROUP},
    code_version="2",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One verdict (ok, skew, unknown) on predictions: the online store read back bit for bit, answers of the API computed again from the lake, "
    "slates beside those of the day before. Fresh daily. Read by monitoring/retraining_decision, the service levels and the alerts.",
)
def skew_report(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource
) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        now, run = datetime.now(UTC), context.run.run_id
        report = skew_of(lake, feature_store, day, get_settings(), SkewPolicy(), run, now)
        return {
            "verdict": report.decision.verdict,
            "reasons": bullets(report.decision.reasons),
            "report": dg.MetadataValue.path(str(report.html_path)),
        }

    return each_day(context, one_day)


@dg.asset(
    key=[GROUP, "slo_report"],
    deps=[
        [GROUP, "skew_report"],
        [GROUP, "quality_report"],
        [GROUP, "prediction_log"],
        ["validated", "purchases"],
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"prometheus"},
    tags={"layer": GROUP},
    code_version="3",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One verdict (ok, exhausted, unknown) on the service levels of slo.toml: what is left of each error budget, and the days that used it. "
    "Fresh daily. Read by evaluation/promotion, which an exhausted budget freezes, and the alerts.",
)
def slo_report(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        report = slo_of(lake, day, get_settings(), context.run.run_id, datetime.now(UTC))
        return {
            "verdict": report.verdict,
            "reasons": bullets(report.reasons),
            "frozen_by": bullets(report.frozen_by or ("nothing",)),
            "report": dg.MetadataValue.path(str(report.html_path)),
        }

    return each_day(context, one_day)


@dg.asset(
    key=[GROUP, "retraining_decision"],
    deps=[
        [GROUP, "drift_report"],
        [GROUP, "quality_report"],
        [GROUP, "skew_report"],
        dg.AssetDep(dg.AssetKey(["validated", "purchases"]), partition_mapping=lookback(6)),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"deltalake"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One row: what was decided about retraining at the end of the day (retrain, refuse, nothing), what asked for it, why, and from which inputs. "
    "Read by the sensor retrain_on_decision, which starts the run.",
)
def retraining_decision(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        situation, decision = decide_for(lake, day, get_settings(), context.run.run_id, datetime.now(UTC))
        inputs = {name: str(value) for name, value in vars(situation).items()}
        return {
            "decision": decision.kind,
            "trigger": decision.trigger,
            "reason": decision.reason,
            "inputs": dg.MetadataValue.json(inputs),
        }

    return each_day(context, one_day)
