"""Group `recommendations`: the nightly top N. Belongs here: one table. Does not: ranking (recommender/ranker.py)."""

from datetime import date
from typing import Any

import dagster as dg
import pyarrow

from pipeline_assets.assets.common import ML_TEAM, arrow_column_schema, each_day, preview
from pipeline_assets.partitions import daily
from pipeline_assets.resources.content import digest
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.release import recommend
from pipeline_assets.schemas.tables import RECOMMENDATIONS
from pipeline_assets.settings import get_settings

GROUP = "recommendations"


@dg.asset(
    key=[GROUP, "daily"],
    deps=[["deployment", "bundle"], ["features", "customer"], ["features", "customer_product"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"lightgbm", "deltalake"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One row: one of the top products of one customer for the week after the business day. From the bundle and features of the day. "
    "Published atomically, fresh daily. Read by the API as its first fallback and by monitoring/quality_report.",
    metadata={"dagster/column_schema": arrow_column_schema(RECOMMENDATIONS)},
)
def daily_recommendations(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource
) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        slates, path = recommend(lake, feature_store, day, get_settings(), context.run.run_id)
        return {
            "dagster/row_count": len(slates),
            "digest": digest(pyarrow.Table.from_pandas(slates, RECOMMENDATIONS, preserve_index=False)),
            "customers": slates["customer_id"].nunique(),
            "distinct_products": slates["product_id"].nunique(),
            "model_version": str(slates["model_version"].iloc[0]),
            "file": dg.MetadataValue.path(path),
            "preview": preview(slates),
        }

    return each_day(context, one_day)
