"""Group `features`: what is known about customers, products and their pairs at the end of a day, and its way online."""

from collections.abc import Iterator

import dagster as dg
import pyarrow

from pipeline_assets.assets.common import ML_TEAM
from pipeline_assets.partitions import daily, day_of
from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.features import customer_features, customer_product_features, product_features
from pipeline_assets.resources.feature_store import FeatureStoreResource, stamped
from pipeline_assets.resources.lake import Lake, digest
from pipeline_assets.resources.snapshots import marts_as_of
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets.settings import get_settings
from pipeline_assets.assets.common import arrow_column_schema

GROUP = "features"
_MARTS = ["fct_purchases", "fct_store_promotions", "fct_campaign_mailings", "fct_coupons", "dim_products", "dim_customers"]
_COMPUTE = {"customer": customer_features, "product": product_features, "customer_product": customer_product_features}
_DESCRIPTION = {
    "customer": "One row: one customer as of the end of the business day: orders, baskets, rhythm, share of promotions.",
    "product": "One row: one product that was ever sold or is promoted, as of the end of the day: popularity, trend, price, next week's promotion.",
    "customer_product": "One row: one customer's candidate products with their pair features, packed (recommender/packing.py).",
}


@dg.multi_asset(
    name="features",
    specs=[
        dg.AssetSpec(
            [GROUP, name],
            deps=[dg.AssetKey(["warehouse", mart]) for mart in _MARTS],
            group_name=GROUP,
            owners=ML_TEAM,
            kinds={"duckdb", "deltalake"},
            tags={"layer": GROUP},
            code_version="1",
            partitions_def=daily,
            description=f"{text} From the marts up to that day, nothing later. Fresh within the hour of its marts. "
            "Read through Feast by training, batch scoring and the API.",
            metadata={"dagster/column_schema": arrow_column_schema(FEATURE_TABLES[name])},
        )
        for name, text in _DESCRIPTION.items()
    ],
    can_subset=True,
    pool="features",
)
def features(context: dg.AssetExecutionContext, lake: Lake) -> Iterator[dg.MaterializeResult]:
    """The features of one day, from one snapshot of the marts. Only a day whose feeds all passed is computed."""
    day = day_of(context)
    lake.require_passed(list(FEEDS), [day])
    with marts_as_of(lake, day, get_settings().training.threads) as con:
        snapshot = Snapshot(con, day)
        for name in (key.path[-1] for key in sorted(context.selected_asset_keys)):
            rows: pyarrow.Table = stamped(_COMPUTE[name](snapshot), day)
            version = lake.replace_days(f"features/{name}", rows, [day], context.run_id)
            content = digest(rows)
            yield dg.MaterializeResult(
                asset_key=[GROUP, name],
                metadata={"dagster/row_count": len(rows), "digest": content, "table": lake.uri(f"features/{name}"), "delta_version": version},
                data_version=dg.DataVersion(content),
            )


@dg.asset(
    key=[GROUP, "online_store"],
    deps=[[GROUP, "customer"], [GROUP, "customer_product"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"feast", "sqlite"},
    tags={"layer": GROUP},
    code_version="1",
    partitions_def=daily,
    pool="online_store",
    description="One row: one customer's newest features in Feast's online store. From features/customer and features/customer_product of the "
    "day; a customer whose online row is newer keeps it, so a backfill never moves values back in time. Read by the API.",
)
def online_store(context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource) -> dg.MaterializeResult:
    day = day_of(context)
    customer = lake.read("features/customer", day, day).to_pandas()
    candidates = lake.read("features/customer_product", day, day).to_pandas()
    counts = feature_store.publish_online(feature_store.apply(), customer, candidates, day)
    return dg.MaterializeResult(metadata={"dagster/row_count": counts["written"], "kept_newer": counts["kept_newer"]})
