"""Group `deployment`: the bundle and which one is live. Belongs here: publishing for serving. Does not: serving (pipeline_assets/serving)."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from pipeline_assets.assets.common import ML_TEAM, each_day
from pipeline_assets.partitions import daily
from pipeline_assets.recommender.manifest import verify
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.release import build_bundle, refresh_stable
from pipeline_assets.resources.release import release as make_live
from pipeline_assets.resources.signing import trusted
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.settings import get_settings

GROUP = "deployment"


@dg.asset(
    key=[GROUP, "bundle"],
    deps=[
        ["evaluation", "promotion"],
        ["features", "product"],
        ["features", "customer"],
        ["features", "customer_product"],
    ],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"lightgbm", "parquet"},
    tags={"layer": GROUP},
    code_version="2",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One immutable directory with all that serving needs for the day: the champion, the product matrix, the popularity fallback, "
    "evaluation, model card, warm-up requests with recorded answers, and a signed manifest of digests. Fresh daily. Read by recommendations and the API.",
)
def bundle(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource, tracking: Tracking
) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        path = build_bundle(lake, feature_store, tracking, day, get_settings(), context.run.run_id, datetime.now(UTC))
        manifest = verify(path, trusted(get_settings()))
        size = sum(file.size for file in manifest.files)
        return {
            "bundle": dg.MetadataValue.path(str(path)),
            "digest": manifest.bundle_id,
            "model_version": manifest.model_version,
            "bytes": size,
        }

    return each_day(context, one_day)


@dg.asset(
    key=[GROUP, "release"],
    deps=[[GROUP, "bundle"], ["recommendations", "daily"], ["features", "online_store"]],
    group_name=GROUP,
    owners=ML_TEAM,
    kinds={"sqlalchemy"},
    tags={"layer": GROUP},
    code_version="2",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    description="One row of the release table: the bundle of the day, asked in a child process. A newer day of the live model is live with its batch "
    "recommendations as fallback; a new model is on trial, and the live one gets the day, too. A damaged bundle is refused with its reason and the live "
    "one stays. Read by the API every few seconds.",
)
def release(
    context: dg.AssetExecutionContext, lake: Lake, feature_store: FeatureStoreResource, tracking: Tracking
) -> dg.MaterializeResult:
    def one_day(day: date) -> dict[str, Any]:
        row = make_live(lake, day, get_settings(), datetime.now(UTC))
        refresh_stable(lake, feature_store, tracking, day, get_settings(), context.run.run_id, datetime.now(UTC))
        return {
            "state": row.state,
            "model_version": row.model_version,
            "reason": row.reason,
            "bundle": dg.MetadataValue.path(row.bundle_path),
        }

    return each_day(context, one_day)
