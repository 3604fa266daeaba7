"""Group `features`: what is known about customers, products and their pairs at the end of a day, and its way online."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg

from pipeline_assets.assets.common import ML_TEAM, arrow_column_schema, each_day
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.resources.content import combined
from pipeline_assets.resources.feature_build import build_features
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.snapshots import require_marts
from pipeline_assets.resources.training_data import require_features
from pipeline_assets.resources.warehouse import MARTS
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets.settings import get_settings

GROUP = "features"
_DESCRIPTION = {
    "customer": "One row: one customer as of the end of the business day: orders, baskets, rhythm, share of promotions.",
    "product": "One row: one product that was ever sold or is promoted, as of the end of the day: popularity, trend, price, next week's promotion.",
    "customer_product": "One row: one customer's candidate products with their pair features, packed (recommender/packing.py).",
}


@dg.multi_asset(
    name="feature_tables",
    specs=[
        dg.AssetSpec(
            [GROUP, name],
            deps=[dg.AssetKey(["warehouse", mart]) for mart in MARTS],
            group_name=GROUP,
            owners=ML_TEAM,
            kinds={"duckdb", "deltalake"},
            tags={"layer": GROUP},
            code_version="3",
            partitions_def=daily,
            description=f"{text} From the marts up to that day, nothing later. Fresh within the hour of its marts. "
            "Read through Feast by training, batch scoring and the API.",
            metadata={"dagster/column_schema": arrow_column_schema(FEATURE_TABLES[name])},
        )
        for name, text in _DESCRIPTION.items()
    ],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def features(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[dg.MaterializeResult]:
    """The features of each day of the run, from one snapshot of the marts. Only days whose feeds all passed are computed."""
    lake.require_passed(list(FEEDS), days_of(context))
    require_marts(lake, get_settings().calendar.first_day, max(days_of(context)))
    names = sorted(key.path[-1] for key in context.selected_asset_keys)
    digests: dict[str, list[str]] = {name: [] for name in names}
    for day, name, metadata in build_features(lake, days_of(context), context.run.run_id, names):
        context.add_asset_metadata(metadata, asset_key=[GROUP, name], partition_key=day.isoformat())
        digests[name].append(metadata["digest"])
    for name in names:
        yield dg.MaterializeResult(asset_key=[GROUP, name], data_version=dg.DataVersion(combined(digests[name])))


@dg.asset(
    key=[GROUP, "online_store"],
    deps=[[GROUP, "customer"], [GROUP, "customer_product"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"feast", "sqlite"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="online_store",
    description="One row: one customer's newest features in Feast's online store. From features/customer and features/customer_product of the "
    "day; a customer whose online row is newer keeps it, so a backfill never moves values back in time. Read by the API.",
)
def online_store(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource
) -> dg.MaterializeResult:
    store = feature_store.apply()

    def one_day(day: date) -> dict[str, Any]:
        require_features(lake, [day])  # an empty day would be a success that publishes nobody
        customer = lake.read("features/customer", day, day).to_pandas()
        candidates = lake.read("features/customer_product", day, day).to_pandas()
        counts = feature_store.publish_online(store, customer, candidates, day)
        return {"dagster/row_count": counts["written"], "kept_newer": counts["kept_newer"]}

    return each_day(context, one_day)
