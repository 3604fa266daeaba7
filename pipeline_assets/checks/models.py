"""Checks on the model, its evaluation, what is released, and the monitors."""

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.compute as pc

from pipeline_assets.checks.common import each_day
from pipeline_assets.partitions import daily
from pipeline_assets.recommender.errors import BundleError
from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets.recommender.manifest import verify
from pipeline_assets.resources.evaluation_run import EVALUATION_TABLE
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.release import (
    BUNDLE_TABLE,
    DISCOVER_TABLE,
    PROMOTION_TABLE,
    RECOMMENDATION_TABLE,
    bundle_of,
)
from pipeline_assets.resources.signing import trusted
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.resources.training_data import training_weeks
from pipeline_assets.resources.training_run import MODEL_TABLE
from pipeline_assets.serving.release_state import current_live, open_state
from pipeline_assets.settings import get_settings


@dg.asset_check(
    asset=["training", "training_set"],
    blocking=True,
    partitions_def=daily,
    description="Examples are only from label weeks, never from a week that evaluates.",
)
def no_evaluation_week_is_trained_on(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        weeks = training_weeks(lake, day, get_settings())
        found = set(pc.unique(lake.read("training/training_set", day, day, ["week"])["week"]).to_pylist())
        allowed = {*weeks.training, *weeks.early_stopping}
        return found == allowed, {"weeks": len(found), "wrong": sorted(str(week) for week in found ^ allowed)}

    return each_day(context, one_day)


@dg.asset_check(
    asset=["training", "training_set"],
    partitions_def=daily,
    description="Between 2 % and 30 % of the examples are bought; outside it the sampling or the labels changed.",
)
def positives_are_plausible(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        share = float(np.mean(lake.read("training/training_set", day, day, ["label"])["label"].to_numpy()))
        return 0.02 <= share <= 0.30, {"positive_share": share}

    return each_day(context, one_day, dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["training", "model"],
    blocking=True,
    partitions_def=daily,
    description="The stored model loads, has this code's features in order and more than one tree.",
)
def model_has_this_codes_features(
    context: dg.AssetCheckExecutionContext, lake: Lake, tracking: Tracking
) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        import lightgbm

        row = lake.read(MODEL_TABLE, day, day).to_pylist()[0]
        booster = lightgbm.Booster(model_str=tracking.model_text(row["run_id"]))
        return booster.feature_name() == list(MODEL_FEATURES) and booster.num_trees() > 1, {
            "trees": booster.num_trees(),
            "features": booster.num_feature(),
        }

    return each_day(context, one_day)


@dg.asset_check(
    asset=["evaluation", "evaluation_report"],
    partitions_def=daily,
    description="The gate said promote. A refusal warns; it is recorded with its reasons, and the champion stays.",
)
def gate_is_passed(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        row = lake.read(EVALUATION_TABLE, day, day).to_pylist()[0]
        return row["outcome"] == "promote", {
            "outcome": row["outcome"],
            "reasons": dg.MetadataValue.json(row["reasons"]),
        }

    return each_day(context, one_day, dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["evaluation", "promotion"],
    blocking=True,
    partitions_def=daily,
    description="This model is champion if and only if the gate said promote (or it was promoted before).",
)
def champion_follows_the_gate(
    context: dg.AssetCheckExecutionContext, lake: Lake, tracking: Tracking
) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        row, champion = lake.read(PROMOTION_TABLE, day, day).to_pylist()[0], tracking.champion()
        is_champion = champion is not None and champion.version == row["version"]
        passed = (
            is_champion if row["outcome"] == "promote" else not is_champion or champion.tags.get("outcome") == "promote"
        )
        return passed, {
            "outcome": row["outcome"],
            "version": row["version"],
            "champion": champion.version if champion else "none",
        }

    return each_day(context, one_day)


@dg.asset_check(
    asset=["deployment", "bundle"],
    blocking=True,
    partitions_def=daily,
    description="The manifest is signed by a trusted key, and every file of the bundle has its size and SHA-256.",
)
def bundle_is_whole(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        path = Path(lake.read(BUNDLE_TABLE, day, day).to_pylist()[0]["path"])
        try:
            manifest = verify(path, trusted(get_settings()))
        except BundleError as error:
            return False, {"error": str(error)}
        return True, {"bundle_id": manifest.bundle_id, "files": len(manifest.files)}

    return each_day(context, one_day)


def _well_formed(lake: Lake, table: str, day: date) -> tuple[bool, dict[str, Any]]:
    slates, bundle = lake.read(table, day, day).to_pandas(), bundle_of(lake, day, get_settings())
    by_customer = slates.groupby("customer_id")["rank"]
    numbers = {
        "rows": len(slates),
        "gaps": int((by_customer.max() != by_customer.size()).sum()),
        "repeated": int(slates.duplicated(["customer_id", "product_id"]).sum()),
        "not_in_catalogue": int((~slates["product_id"].isin(list(bundle.rows))).sum()),
        "not_finite": int((~np.isfinite(slates["score"])).sum()),
    }
    return len(slates) > 0 and not any(value for name, value in numbers.items() if name != "rows"), numbers


@dg.asset_check(
    asset=["recommendations", "daily"],
    blocking=True,
    partitions_def=daily,
    description="Ranks are 1..n without gaps, no product twice, only products of the bundle, finite scores.",
)
def slates_are_well_formed(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    return each_day(context, lambda day: _well_formed(lake, RECOMMENDATION_TABLE, day))


@dg.asset_check(
    asset=["recommendations", "discover"],
    blocking=True,
    partitions_def=daily,
    description="Ranks are 1..n without gaps, no product twice, only products of the bundle, finite scores.",
)
def discover_slates_are_well_formed(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    return each_day(context, lambda day: _well_formed(lake, DISCOVER_TABLE, day))


@dg.asset_check(
    asset=["recommendations", "daily"],
    partitions_def=daily,
    description="The top 10 lists together hold at least 2 % of the catalogue; less is a collapsed ranker.",
)
def coverage_is_not_collapsed(context: dg.AssetCheckExecutionContext, lake: Lake) -> dg.AssetCheckResult:
    def one_day(day: date) -> tuple[bool, dict[str, Any]]:
        slates, catalogue = (
            lake.read(RECOMMENDATION_TABLE, day, day).to_pandas(),
            len(bundle_of(lake, day, get_settings()).rows),
        )
        share = slates.loc[slates["rank"] <= 10, "product_id"].nunique() / catalogue
        return share >= 0.02, {"coverage": share, "catalogue": catalogue}

    return each_day(context, one_day, dg.AssetCheckSeverity.WARN)


@dg.asset_check(
    asset=["deployment", "release"],
    blocking=True,
    partitions_def=daily,
    description="A release is live, and its bundle is whole and signed by a trusted key.",
)
def a_whole_bundle_is_live(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    live = current_live(open_state(get_settings().release_url))
    if live is None:
        return dg.AssetCheckResult(passed=False, metadata={"live": "none"})
    try:
        manifest = verify(Path(live.bundle_path), trusted(get_settings()))
    except BundleError as error:
        return dg.AssetCheckResult(passed=False, metadata={"live": live.bundle_path, "error": str(error)})
    return dg.AssetCheckResult(
        passed=True, metadata={"live": live.bundle_path, "as_of": live.as_of, "bundle_id": manifest.bundle_id}
    )
