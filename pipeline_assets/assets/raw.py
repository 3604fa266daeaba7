"""Group `raw`: the four feeds as received. Belongs here: landing. Does not: judging or changing rows."""

from datetime import UTC, datetime

import dagster as dg

from pipeline_assets.assets.common import DATA_TEAM, column_schema, per_day, totals
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.resources.content import combined
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.settings import get_settings
from pipeline_assets.sources.landing import land_days

GROUP = "raw"


def _raw_asset(feed: Feed) -> dg.AssetsDefinition:
    @dg.asset(
        key=[GROUP, feed.name],
        group_name=GROUP,
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
        owners=DATA_TEAM,
        kinds={"deltalake", "python"},
        tags={"layer": GROUP, "feed": feed.name},
        code_version="1",
        description=f"{feed.schema.description} As received from the source, one immutable batch per business day, with "
        f"batch id and digest. Fresh when the day is over. Read by validated/{feed.name} only.",
        metadata={"dagster/column_schema": column_schema(feed.schema)},
    )
    def land(context: dg.AssetExecutionContext, source: SourceResource, lake: Lake) -> dg.MaterializeResult:
        refuse_extra = get_settings().validation.additive_columns == "block"
        batches = land_days(
            source, lake, feed, days_of(context), context.run.run_id, datetime.now(UTC), refuse_extra=refuse_extra
        )
        per_day(
            context,
            {b.event_date: b.rows for b in batches},
            {b.event_date: b.digest for b in batches},
            batch_id={b.event_date: b.batch_id for b in batches},
            extra_columns={b.event_date: list(b.extra_columns) for b in batches},
            erased_rows={b.event_date: b.erased_rows for b in batches},
        )
        return dg.MaterializeResult(
            metadata=totals([b.rows for b in batches], table=lake.uri(f"raw/{feed.name}")),
            data_version=dg.DataVersion(combined([b.digest for b in batches])),
        )

    return land


purchases = _raw_asset(FEEDS["purchases"])
exposures = _raw_asset(FEEDS["exposures"])
products = _raw_asset(FEEDS["products"])
customers = _raw_asset(FEEDS["customers"])
