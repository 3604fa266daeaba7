"""Group `validated`: rows that keep the rules, and one verdict per day and feed. Belongs here: admitting. Does not: mending rows."""

from datetime import UTC, datetime

import dagster as dg

from pipeline_assets.assets.common import DATA_TEAM, column_schema, per_day, totals
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.resources.content import combined
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import ValidationPolicy
from pipeline_assets.settings import get_settings
from pipeline_assets.sources.landing import admit_days

GROUP = "validated"


def validation_policy() -> ValidationPolicy:
    """The policy of the settings."""
    limits, closed = get_settings().validation, get_settings().calendar.closed_days
    return ValidationPolicy(limits.max_bad_share, limits.max_unparsed_share, frozenset(closed))


def _validated_asset(feed: Feed) -> dg.AssetsDefinition:
    @dg.asset(
        key=[GROUP, feed.name],
        deps=[dg.AssetKey(["raw", feed.name])],
        group_name=GROUP,
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
        owners=DATA_TEAM,
        kinds={"deltalake", "pandera"},
        tags={"layer": GROUP, "feed": feed.name},
        code_version="1",
        description=f"{feed.schema.description} Rows of raw/{feed.name} that keep every rule; the others are in quarantine/{feed.name} "
        "with rule, reason, source and run. A day is read downstream only with a passed verdict. Fresh within the hour of its raw day. "
        "Read by the warehouse.",
        metadata={"dagster/column_schema": column_schema(feed.schema)},
    )
    def admit(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
        verdicts, digests = admit_days(
            lake, feed, days_of(context), validation_policy(), context.run.run_id, datetime.now(UTC)
        )
        per_day(
            context,
            {v.event_date: v.rows_valid for v in verdicts},
            dict(zip([v.event_date for v in verdicts], digests, strict=True)),
            rows_read={v.event_date: v.rows_read for v in verdicts},
            rows_quarantined={v.event_date: v.rows_quarantined for v in verdicts},
            verdict={v.event_date: v.status for v in verdicts},
            quarantined_by_rule={v.event_date: dg.MetadataValue.json(v.rules) for v in verdicts},
        )
        return dg.MaterializeResult(
            metadata=totals(
                [v.rows_valid for v in verdicts],
                table=lake.uri(f"validated/{feed.name}"),
                quarantine=lake.uri(f"quarantine/{feed.name}"),
                blocked_days=[str(v.event_date) for v in verdicts if v.status == "blocked"],
            ),
            data_version=dg.DataVersion(combined(digests)),
        )

    return admit


purchases = _validated_asset(FEEDS["purchases"])
exposures = _validated_asset(FEEDS["exposures"])
products = _validated_asset(FEEDS["products"])
customers = _validated_asset(FEEDS["customers"])
