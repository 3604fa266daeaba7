"""Checks on raw and validated feeds and on features, derived from the declarations where they can be."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.compute as pc

from pipeline_assets.checks.common import each_day
from pipeline_assets.monitoring.skew import compare_values
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.recommender.features import CUSTOMER_FEATURES
from pipeline_assets.resources.feature_store import FeatureStoreResource, known_at
from pipeline_assets.resources.lake import BATCHES, Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets.schemas.validation import Verdict

PARITY_SAMPLE = 50  # customers whose online row is read back and compared bit for bit


USUAL_DAYS = 28  # that a rule's share of rows is compared with
JUMP_SHARE, JUMP_TIMES = 0.01, 5.0


def rule_jumps(day: date, verdicts: Mapping[date, Verdict]) -> dict[str, str]:
    """Rules that concern many more rows of a day than usual: above 1 % of the rows and five times the median share before.

    2017's largest share is that of quantities of 0, 0.3 % to 1.7 % of a day: it never jumps.
    """
    verdict = verdicts.get(day)
    if verdict is None or verdict.rows_read == 0:
        return {}
    before = [v for d, v in verdicts.items() if d < day and (day - d).days <= USUAL_DAYS and v.rows_read]
    found = {}
    for rule, rows in {**verdict.rules, **verdict.flagged}.items():
        shares = [(v.rules.get(rule, 0) + v.flagged.get(rule, 0)) / v.rows_read for v in before]
        usual, share = float(np.median(shares)) if shares else 0.0, rows / verdict.rows_read
        if share > max(JUMP_SHARE, JUMP_TIMES * usual):
            found[rule] = f"{rows} of {verdict.rows_read} rows ({share:.1%}), usually {usual:.2%}"
    return found


def _counts(lake: Lake, table: str, days: list[date]) -> dict[date, int]:
    rows = lake.read(table, min(days), max(days), ["event_date"])
    counted = {row["values"]: row["counts"] for row in pc.value_counts(rows["event_date"]).to_pylist()}
    return {day: counted.get(day, 0) for day in days}


def _feed_checks(feed: Feed) -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(
        asset=["raw", feed.name],
        name="batch_is_whole",
        blocking=True,
        partitions_def=daily,
        description="The rows in the lake are those of the newest landed batch.",
    )
    def batch_is_whole(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
        days = days_of(context)
        ledger = lake.read(BATCHES, min(days), max(days)).sort_by("recorded_at").to_pylist()
        landed = {row["event_date"]: row["rows"] for row in ledger if row["feed"] == feed.name}
        stored = _counts(lake, f"raw/{feed.name}", days)
        wrong = {
            str(day): {"landed": landed.get(day), "stored": stored[day]}
            for day in days
            if landed.get(day) != stored[day]
        }
        return dg.AssetCheckResult(
            passed=not wrong, metadata={"days": len(days), "different": dg.MetadataValue.json(wrong)}
        )

    @dg.asset_check(
        asset=["validated", feed.name],
        name="every_row_is_accounted_for",
        blocking=True,
        partitions_def=daily,
        description="read = valid + quarantined, counted in the tables.",
    )
    def every_row_is_accounted_for(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
        days = days_of(context)
        raw, valid, aside = (
            _counts(lake, f"{layer}/{feed.name}", days) for layer in ("raw", "validated", "quarantine")
        )
        verdicts = lake.verdicts(feed.name, min(days), max(days))
        passed = {day for day in days if day in verdicts and verdicts[day].status == "passed"}
        # of a blocked day the broken rows are in quarantine for people, and the others in raw only
        lost = {
            str(day): {"read": raw[day], "valid": valid[day], "quarantined": aside[day]}
            for day in days
            if day in verdicts
            and (raw[day] != valid[day] + aside[day] if day in passed else aside[day] != verdicts[day].rows_quarantined)
        }
        numbers = {"read": sum(raw.values()), "valid": sum(valid.values()), "quarantined": sum(aside.values())}
        return dg.AssetCheckResult(passed=not lost, metadata={**numbers, "different": dg.MetadataValue.json(lost)})

    @dg.asset_check(
        asset=["validated", feed.name],
        name="day_is_passed",
        blocking=True,
        partitions_def=daily,
        description="The verdict on the day; a blocked day stops what depends on it.",
    )
    def day_is_passed(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
        days = days_of(context)
        verdicts = lake.verdicts(feed.name, min(days), max(days))
        bad = {
            str(day): list(verdicts[day].reasons) if day in verdicts else ["no verdict"]
            for day in days
            if day not in verdicts or verdicts[day].status != "passed"
        }
        return dg.AssetCheckResult(passed=not bad, metadata={"days": len(days), "blocked": dg.MetadataValue.json(bad)})

    @dg.asset_check(
        asset=["validated", feed.name],
        name="quarantine_is_usual",
        blocking=False,
        partitions_def=daily,
        description="No rule quarantines or flags many more rows than on the four weeks before: a new fault that is too small to block.",
    )
    def quarantine_is_usual(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
        days = days_of(context)
        verdicts = lake.verdicts(feed.name, min(days) - timedelta(days=USUAL_DAYS), max(days))
        jumps = {str(day): found for day in days if (found := rule_jumps(day, verdicts))}
        return dg.AssetCheckResult(
            passed=not jumps,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"days": len(days), "jumps": dg.MetadataValue.json(jumps)},
        )

    @dg.asset_check(
        asset=["validated", feed.name],
        name="batch_is_usual",
        blocking=False,
        partitions_def=daily,
        description="Nothing about the day that is worth telling: volume, null budgets, columns that the contract does not have.",
    )
    def batch_is_usual(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
        days = days_of(context)
        verdicts = lake.verdicts(feed.name, min(days), max(days))
        told = {str(day): list(verdict.warnings) for day, verdict in sorted(verdicts.items()) if verdict.warnings}
        told = {day: texts for day, texts in told.items() if date.fromisoformat(day) in days}
        return dg.AssetCheckResult(
            passed=not told,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"days": len(days), "warnings": dg.MetadataValue.json(told)},
        )

    return [batch_is_whole, every_row_is_accounted_for, day_is_passed, quarantine_is_usual, batch_is_usual]


feed_checks = [check for feed in FEEDS.values() for check in _feed_checks(feed)]


def _feature_checks(name: str) -> list[dg.AssetChecksDefinition]:
    key = FEATURE_TABLES[name].names[0]

    @dg.asset_check(
        asset=["features", name],
        name="schema_and_key",
        blocking=True,
        partitions_def=daily,
        description="Declared columns and types, one row per key, known at the end of the day.",
    )
    def schema_and_key(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
        def one_day(day: date) -> tuple[bool, dict[str, Any]]:
            table = lake.read(f"features/{name}", day, day, [key, "feature_ts"])  # not the packs: 0.1 CPU s a day
            # Delta calls a list's values `element`, Arrow `item`
            schema = lake.schema(f"features/{name}")
            found = {field.name: str(field.type).replace("<element:", "<item:") for field in schema}
            wanted = {field.name: str(field.type) for field in FEATURE_TABLES[name]}
            differing = {c: [wanted.get(c), found.get(c)] for c in {*wanted, *found} if wanted.get(c) != found.get(c)}
            repeated = len(table) - pc.count_distinct(table[key]).as_py()
            stamped_wrong = pc.sum(pc.not_equal(table["feature_ts"], known_at(day))).as_py() or 0
            metadata = {
                "rows": len(table),
                "repeated_keys": repeated,
                "wrong_timestamps": stamped_wrong,
                "columns": dg.MetadataValue.json(differing),
            }
            return not differing and repeated == 0 and stamped_wrong == 0 and len(table) > 0, metadata

        return each_day(context, one_day)

    return [schema_and_key]


feature_checks = [check for name in FEATURE_TABLES for check in _feature_checks(name)]


@dg.asset_check(
    asset=["features", "online_store"],
    name="online_equals_offline",
    blocking=True,
    partitions_def=daily,
    description="A sample of customers read back from the online store equals the day's rows bit for bit, unless newer values are there.",
)
def online_equals_offline(
    context: dg.AssetCheckExecutionContext, lake: Lake, feature_store: FeatureStoreResource
) -> dg.AssetCheckResult:
    store = feature_store.open()

    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        customers = lake.read("features/customer", day, day).to_pandas().sort_values("customer_id")
        sample = customers.iloc[np.linspace(0, len(customers) - 1, min(PARITY_SAMPLE, len(customers))).astype(int)]
        ids = sample["customer_id"].tolist()
        ages = feature_store.online_timestamps(store, ids)
        missing = [c for c, age in ages.items() if age is None]
        newer = [c for c, age in ages.items() if age is not None and age > known_at(day)]
        rows = [i for i, c in enumerate(ids) if c not in newer and c not in missing]
        metadata: dict[str, Any] = {"compared": len(rows), "kept_newer": len(newer), "missing": len(missing)}
        mismatches = 0
        if rows:
            online = feature_store.read_online(store, ids)
            served = np.array([[online[name][i] for name in CUSTOMER_FEATURES] for i in rows], dtype=np.float32)
            skew = compare_values(sample[list(CUSTOMER_FEATURES)].to_numpy(np.float32)[rows], served, CUSTOMER_FEATURES)
            packs = (
                lake.read("features/customer_product", day, day).to_pandas().set_index("customer_id")["pair_features"]
            )
            differing = sum(packs[ids[i]] != online["pair_features"][i] for i in rows)
            mismatches = skew.mismatches + differing
            metadata |= {"different_values": skew.mismatches, "different_packs": differing}
        return mismatches == 0 and not missing, metadata

    return each_day(context, one_day)
