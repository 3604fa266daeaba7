"""Group `validated`: rows that keep the rules, and one verdict per day and feed. Belongs here: admitting. Does not: mending rows."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from pipeline_assets.assets.common import DATA_TEAM, bullets, column_schema, per_day, totals
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.content import combined
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.batches import BatchPolicy, NullBudget, unknown_budgets
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import ValidationPolicy, Verdict
from pipeline_assets.settings import get_settings
from pipeline_assets.sources.landing import admit_days
from pipeline_assets.sources.quarantine import examples_by_rule

GROUP = "validated"


def validation_policy() -> ValidationPolicy:
    """The policy of the settings.

    Raises:
        ConfigurationError: a null budget names a column that no feed has.
    """
    limits, calendar = get_settings().validation, get_settings().calendar
    budgets = {name: NullBudget(*shares) for name, shares in limits.null_budgets.items()}
    if wrong := unknown_budgets(budgets):
        raise ConfigurationError(
            "setting validation.null_budgets",
            found=f"budgets for {', '.join(wrong)}",
            wanted="feed.column of the contract, such as purchases.store_id",
            fix="correct PIPELINE_VALIDATION__NULL_BUDGETS or the key in the configuration file",
        )
    return ValidationPolicy(
        max_bad_share=limits.max_bad_share,
        max_unparsed_share=limits.max_unparsed_share,
        closed_days=frozenset(calendar.closed_days),
        accepted_days=frozenset(limits.accepted_days),
        time_zone=calendar.time_zone if limits.check_moments else None,
        day_tolerance=timedelta(hours=limits.day_tolerance_hours),
        max_actor_rows=limits.max_actor_rows,
        references=limits.references,
        first_day=calendar.first_day,
        batch=BatchPolicy(
            volume_low=limits.volume_low,
            volume_high=limits.volume_high,
            shift_factor=limits.shift_factor,
            null_budgets=budgets,
        ),
    )


def verdict_metadata(lake: Lake, feed: Feed, verdicts: Sequence[Verdict]) -> dict[str, dict[date, Any]]:
    """What a person wants to see of each day: the verdict, its reasons, a table of rules and rows as examples."""
    found: dict[str, dict[date, Any]] = {
        "rows_read": {v.event_date: v.rows_read for v in verdicts},
        "rows_quarantined": {v.event_date: v.rows_quarantined for v in verdicts},
        "verdict": {v.event_date: v.status for v in verdicts},
        "quarantined_by_rule": {v.event_date: dg.MetadataValue.json(dict(v.rules)) for v in verdicts},
        "why": {v.event_date: bullets([*v.reasons, *v.warnings] or ["nothing to say"]) for v in verdicts},
    }
    told = [v for v in verdicts if v.rules or v.flagged]
    examples = examples_by_rule(lake, feed, {v.event_date: v.rows_quarantined for v in told})
    records = {
        v.event_date: [
            dg.TableRecord({"rule": rule, "rows": n, "share": round(n / v.rows_read, 5), "becomes": becomes})
            for counts, becomes in ((v.rules, "quarantined"), (v.flagged, "flagged, kept"))
            for rule, n in counts.items()
        ]
        for v in told
    }
    quiet = dg.MetadataValue.text("every row keeps every rule")
    found["rules"] = {
        v.event_date: dg.MetadataValue.table(records[v.event_date]) if v in told else quiet for v in verdicts
    }
    found["examples"] = {
        v.event_date: dg.MetadataValue.md(examples[v.event_date]) if v.event_date in examples else quiet
        for v in verdicts
    }
    return found


def settled(feed: Feed, verdict: Verdict, digest: str) -> dg.AssetMaterialization:
    """A day of an earlier run that this delivery decided otherwise: its partition gets the new data version."""
    return dg.AssetMaterialization(
        dg.AssetKey([GROUP, feed.name]),
        partition=verdict.event_date.isoformat(),
        description="judged again, because an earlier day is known now",
        metadata={"verdict": verdict.status, "dagster/row_count": verdict.rows_valid, "digest": digest},
        tags={"dagster/data_version": digest},
    )


def _validated_asset(feed: Feed) -> dg.AssetsDefinition:
    @dg.asset(
        key=[GROUP, feed.name],
        deps=[dg.AssetKey(["raw", feed.name]), *(dg.AssetKey([GROUP, other]) for other in feed.references.values())],
        group_name=GROUP,
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.single_run(),
        owners=DATA_TEAM,
        kinds={"deltalake", "pandera"},
        tags={"layer": GROUP, "feed": feed.name},
        code_version="2",
        description=f"{feed.schema.description} Rows of raw/{feed.name} that keep every rule; the others are in quarantine/{feed.name} "
        "with rule, reason, source and run. A day is read downstream only with a passed verdict. Fresh within the hour of its raw day. "
        "Read by the warehouse.",
        metadata={"dagster/column_schema": column_schema(feed.schema)},
    )
    def admit(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
        days = days_of(context)
        verdicts, digests = admit_days(lake, feed, days, validation_policy(), context.run.run_id, datetime.now(UTC))
        again = list(zip(verdicts, digests, strict=True))[len(days) :]
        for verdict, digest in again:
            context.log_event(settled(feed, verdict, digest))
        verdicts, digests = verdicts[: len(days)], digests[: len(days)]
        per_day(
            context,
            {v.event_date: v.rows_valid for v in verdicts},
            dict(zip([v.event_date for v in verdicts], digests, strict=True)),
            **verdict_metadata(lake, feed, verdicts),
        )
        return dg.MaterializeResult(
            metadata=totals(
                [v.rows_valid for v in verdicts],
                table=lake.uri(f"validated/{feed.name}"),
                quarantine=lake.uri(f"quarantine/{feed.name}"),
                blocked_days=[str(v.event_date) for v in verdicts if v.status == "blocked"],
                judged_again=[f"{v.event_date} {v.status}" for v, _ in again],
            ),
            data_version=dg.DataVersion(combined(digests)),
        )

    return admit


purchases = _validated_asset(FEEDS["purchases"])
exposures = _validated_asset(FEEDS["exposures"])
products = _validated_asset(FEEDS["products"])
customers = _validated_asset(FEEDS["customers"])
