"""Group `recommendations`: the nightly slates. Belongs here: the two tables. Does not: ranking (recommender/ranker.py, recommender/discover.py)."""

from collections.abc import Iterator

import dagster as dg
import pyarrow

from pipeline_assets.assets.common import ML_TEAM, arrow_column_schema, preview
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.resources.content import combined, digest
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.release import recommend
from pipeline_assets.schemas.tables import RECOMMENDATIONS
from pipeline_assets.settings import get_settings

GROUP = "recommendations"
_DESCRIPTION = {
    "daily": "One row: one of the top products of one customer for the week after the business day. Read by the API as its first fallback and by "
    "monitoring/quality_report.",
    "discover": "One row: one of ten products of one customer, some of them new to the customer where that costs little. For campaigns and "
    "shelves that want something new.",
}


@dg.multi_asset(
    name="recommendation_tables",
    specs=[
        dg.AssetSpec(
            [GROUP, name],
            deps=[["deployment", "bundle"], ["features", "customer"], ["features", "customer_product"]],
            group_name=GROUP,
            owners=ML_TEAM,
            kinds={"lightgbm", "deltalake"},
            tags={"layer": GROUP},
            code_version="4",
            partitions_def=daily,
            description=f"{text} From the bundle and features of the day. Published atomically, fresh daily.",
            metadata={"dagster/column_schema": arrow_column_schema(RECOMMENDATIONS)},
        )
        for name, text in _DESCRIPTION.items()
    ],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def recommendations(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource
) -> Iterator[dg.MaterializeResult]:
    """The kinds of slates that were asked for, of each day of the run, from one ranking of all candidates."""
    names = sorted(key.path[-1] for key in context.selected_asset_keys)
    digests: dict[str, list[str]] = {name: [] for name in names}
    for day in days_of(context):
        found = recommend(lake, feature_store, day, get_settings(), context.run.run_id, names)
        for name, slates in found.slates.items():
            metadata = {
                "dagster/row_count": len(slates),
                "digest": digest(pyarrow.Table.from_pandas(slates, RECOMMENDATIONS, preserve_index=False)),
                "customers": slates["customer_id"].nunique(),
                "distinct_products": slates["product_id"].nunique(),
                "new_share": float(slates["is_new"].mean()),
                "model_version": str(slates["model_version"].iloc[0]),
                "preview": preview(slates),
            }
            if name == "daily":
                metadata["file"] = dg.MetadataValue.path(str(found.path))
            context.add_asset_metadata(metadata, asset_key=[GROUP, name], partition_key=day.isoformat())
            digests[name].append(metadata["digest"])
    for name in names:
        yield dg.MaterializeResult(asset_key=[GROUP, name], data_version=dg.DataVersion(combined(digests[name])))
