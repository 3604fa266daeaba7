"""Group `training`: labelled examples and the model. Belongs here: what is trained on which days. Does not: how."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from pipeline_assets.assets.common import ML_TEAM, bullets, each_day, png
from pipeline_assets.partitions import daily
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.training_data import (
    ROW_GROUP,
    TRAINING_INPUTS,
    TRAINING_SET,
    training_weeks,
    write_training_set,
)
from pipeline_assets.resources.training_run import train_and_log
from pipeline_assets.schemas.tables import TRAINING_EXAMPLES
from pipeline_assets.settings import get_settings

GROUP = "training"


def lookback(days: int) -> dg.TimeWindowPartitionMapping:
    """A training day reads this many days of features, not only its own."""
    return dg.TimeWindowPartitionMapping(start_offset=-days, end_offset=0)


def feature_days() -> int:
    """How far back the oldest label week can be."""
    training = get_settings().training
    return training.horizon_days * (training.label_weeks + training.evaluation_weeks + 1)


@dg.asset(
    key=[GROUP, "training_set"],
    deps=[
        *(
            dg.AssetDep(dg.AssetKey(["features", name]), partition_mapping=lookback(feature_days()))
            for name in ("customer", "product", "customer_product")
        ),
        dg.AssetDep(dg.AssetKey(["warehouse", "fct_purchases"]), partition_mapping=lookback(feature_days())),
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"feast", "deltalake"},
    tags={"layer": GROUP},
    code_version="3",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One row: one candidate of one customer in one label week, with its features as of the week's first morning and whether it was "
    "bought. From weekly partitions of features/*, point-in-time through Feast, on days with passed verdicts only. Fresh weekly. Read by training/model.",
)
def training_set(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource
) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        weeks = training_weeks(lake, day, get_settings())
        inputs = lake.versions(TRAINING_INPUTS)
        door = Door(lake, "training", context.run.run_id, datetime.now(UTC), get_settings().calendar.holdout_start)
        with lake.day_file(TRAINING_SET, TRAINING_EXAMPLES, day, ROW_GROUP) as file:
            n = write_training_set(file, lake, feature_store, weeks, get_settings().training, context.log.info, door)
            content = lake.replace_day(TRAINING_SET, file, context.run.run_id, inputs)
        return {
            "dagster/row_count": content.rows,
            "digest": content.digest,
            "label_weeks": [str(d) for d in (*weeks.training, *weeks.early_stopping)],
            "positives": n,
            "table": lake.uri(TRAINING_SET),
        }

    return each_day(context, one_day)


@dg.asset(
    key=[GROUP, "model"],
    deps=[[GROUP, "training_set"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"lightgbm", "mlflow"},
    tags={"layer": GROUP},
    code_version="3",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    # dagster-mlflow's resource is of the older kind, which cannot be an argument
    required_resource_keys={"mlflow", "lake", "feature_store"},
    description="One ranker: LightGBM, first the chance of a purchase and then the order of a list, trained on training/training_set of the day. "
    "One MLflow run with parameters, data digests, environment and plots. Fresh weekly, or when drift asks for it. Read by evaluation/evaluation_report.",
)
def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    lake, mlflow = context.resources.lake, context.resources.mlflow

    def one_day(day: date) -> dict[str, Any]:
        now, log, features = datetime.now(UTC), context.log.info, context.resources.feature_store
        outcome = train_and_log(lake, features, day, get_settings(), mlflow, context.run.run_id, now, log)
        return {
            "mlflow_run_id": outcome.run_id,
            "digest": outcome.tree_digest,
            "trained_through": outcome.trained_through.isoformat(),
            "trees": outcome.trees,
            "stopping_ndcg": outcome.stopping_ndcg,
            "importance": png(outcome.importance_plot, "feature importance"),
            "parameters": dg.MetadataValue.json(outcome.params),
            "tuned_against_default": bullets(
                [f"{g.metric}: {g.gain:+.4f} ({g.low:+.4f} to {g.high:+.4f}), {g.verdict}" for g in outcome.tuned_gains]
                or ["no trials: the default parameters were trained"]
            ),
        }

    return each_day(context, one_day)
