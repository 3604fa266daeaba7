"""Checks of group `monitoring`. Distributions and verdicts warn: a red report is news, not a reason to hold the day back."""

from collections.abc import Collection
from datetime import date
from typing import Any

import dagster as dg

from pipeline_assets.checks.common import each_day
from pipeline_assets.partitions import daily
from pipeline_assets.resources.decision_run import DECISION_TABLE, blocked_days
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.monitoring_run import DRIFT_TABLE
from pipeline_assets.resources.prediction_log_run import IMPRESSIONS_TABLE, PREDICTION_LOG_TABLE
from pipeline_assets.resources.quality_run import QUALITY_TABLE
from pipeline_assets.resources.skew_run import SKEW_TABLE
from pipeline_assets.resources.slo_run import SLO_TABLE
from pipeline_assets.settings import get_settings


@dg.asset_check(
    asset=["monitoring", "prediction_log"],
    partitions_def=daily,
    description="No answer is there twice, and none is empty.",
)
def answers_are_distinct(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        log = lake.read(PREDICTION_LOG_TABLE, day, day).to_pandas()
        empty = int((log["product_ids"].str.len() == 0).sum()) if len(log) else 0
        repeated = int(log["answer_id"].duplicated().sum())
        return repeated == 0 and empty == 0, {"answers": len(log), "repeated": repeated, "empty": empty}

    return each_day(context, one_day, dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["monitoring", "impressions"],
    partitions_def=daily,
    description="Every product of every answer is there once, and labels are known for all of the day or for none.",
)
def impressions_are_whole(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        shown = lake.read(IMPRESSIONS_TABLE, day, day).to_pandas()
        repeated = int(shown.duplicated(["answer_id", "rank"]).sum())
        unknown = int(shown["purchased"].isna().sum())
        return repeated == 0 and unknown in (0, len(shown)), {
            "rows": len(shown),
            "repeated": repeated,
            "unknown": unknown,
        }

    return each_day(context, one_day, dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["monitoring", "drift_report"],
    partitions_def=daily,
    description="Inputs look like the same weekdays of the weeks before.",
)
def inputs_do_not_drift(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    return each_day(
        context, lambda day: _verdict_is(("ok", "watch"), lake, DRIFT_TABLE, day), dg.AssetCheckSeverity.WARN
    )


@dg.asset_check(
    asset=["monitoring", "quality_report"],
    partitions_def=daily,
    description="Realised quality is not degraded; unknown is said, not passed off as good.",
)
def quality_is_not_degraded(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    return each_day(context, lambda day: _verdict_is(("ok",), lake, QUALITY_TABLE, day), dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["monitoring", "skew_report"],
    partitions_def=daily,
    description="What is served is what was computed; unknown is said, not passed off as good.",
)
def predictions_are_not_skewed(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    return each_day(context, lambda day: _verdict_is(("ok",), lake, SKEW_TABLE, day), dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["monitoring", "slo_report"],
    partitions_def=daily,
    description="Every error budget that is known has something left.",
)
def budgets_are_not_exhausted(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    return each_day(context, lambda day: _verdict_is(("ok",), lake, SLO_TABLE, day), dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["monitoring", "retraining_decision"],
    blocking=True,
    partitions_def=daily,
    description="A training is decided on only with every day of the week passed: the guard held.",
)
def decision_respects_the_upstream(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        row = lake.read(DECISION_TABLE, day, day).to_pylist()[0]
        blocked = blocked_days(lake, day, get_settings())
        return row["decision"] != "retrain" or not blocked, {"decision": row["decision"], "blocked": len(blocked)}

    return each_day(context, one_day)


def _verdict_is(good: Collection[str], lake: Lake, table: str, day: date) -> tuple[bool, dict[str, Any]]:
    row = lake.read(table, day, day).to_pylist()[0]
    return row["verdict"] in good, {"verdict": row["verdict"], "reasons": dg.MetadataValue.json(row["reasons"])}
