"""Reading what the monitors need and recording what they found: one row per day and report in the lake."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from pipeline_assets.monitoring.drift import (
    PROFILE_CATEGORICAL,
    PROFILE_NUMERICAL,
    DriftDecision,
    DriftPolicy,
    DriftResult,
    compare,
    decide,
    input_profile,
)
from pipeline_assets.monitoring.evidently_report import drift_report
from pipeline_assets.monitoring.quality import QualityDecision, QualityPolicy, quality_decision, realised_quality
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.settings import Settings

DRIFT_TABLE = "monitoring/drift_report"
QUALITY_TABLE = "monitoring/quality_report"
LINE_COLUMNS = ["order_id", "customer_id", "product_id", "quantity", "amount", "discount", "event_ts", "event_date"]


@dataclass(frozen=True)
class DriftReport:
    """Our decision, what it was made from, and Evidently's page."""

    result: DriftResult
    decision: DriftDecision
    policy: DriftPolicy
    evidently: dict[str, Any]
    html_path: Path | None


def _profile(lake: Lake, day: date, products: pd.DataFrame, time_zone: str) -> pd.DataFrame:
    lines = lake.read("validated/purchases", day, day, LINE_COLUMNS).to_pandas()
    return input_profile(
        lines.merge(products, "left", "product_id").fillna(
            {"department": "unknown", "category": "unknown", "brand": "unknown"}
        ),
        time_zone=time_zone,
    )


def _newest_products(lake: Lake, day: date) -> pd.DataFrame:
    columns = ["product_id", "department", "category", "brand", "event_date"]
    products = lake.read("warehouse/dim_products", None, day, columns).to_pandas()
    return products.sort_values("event_date").drop_duplicates("product_id", keep="last").drop(columns="event_date")


def drift_of(
    lake: Lake, day: date, settings: Settings, policy: DriftPolicy, run_id: str, recorded_at: datetime
) -> DriftReport:
    """Compare the purchase lines of `day` with the same weekdays of the weeks before, decide, and record.

    Raises:
        BlockedPartition: `day` has no passed verdict: a broken upstream is not drift.
    """
    lake.require_passed(["purchases"], [day])
    products = _newest_products(lake, day)
    wanted = [day - timedelta(days=7 * n) for n in range(1, settings.monitoring.reference_weeks + 1)]
    # drifted days stay out of the reference, or the alarm fades while the fault lasts
    passed = set(lake.passed_days(["purchases"], wanted[-1], wanted[0])) - _drifted_days(lake, wanted[-1], wanted[0])
    zone = settings.calendar.time_zone
    current = _profile(lake, day, products, zone)
    parts = [_profile(lake, other, products, zone) for other in wanted if other in passed]
    reference = pd.concat(parts, ignore_index=True) if parts else current.iloc[:0]
    result = compare(reference, current, PROFILE_NUMERICAL, PROFILE_CATEGORICAL, policy)
    previous = previous_verdicts(lake, day, policy.persistence_days * 7)
    decision = decide(result, previous, policy)
    evidently: dict[str, Any] = {}
    html_path = None
    if result.columns:
        html_path = settings.data_dir / "reports" / "drift" / f"{day}.html"
        evidently = drift_report(
            reference, current, PROFILE_NUMERICAL, PROFILE_CATEGORICAL, html_path, seed=settings.training.seed
        )
    row = {
        "event_date": day,
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "evidently": json.dumps(evidently, sort_keys=True),
        "html_path": str(html_path or ""),
        "recorded_at": recorded_at,
    }
    lake.replace_days(DRIFT_TABLE, pyarrow.Table.from_pylist([row]), [day], run_id)
    return DriftReport(result, decision, policy, evidently, html_path)


def _drifted_days(lake: Lake, start: date, end: date) -> set[date]:
    if not lake.exists(DRIFT_TABLE):
        return set()
    rows = lake.read(DRIFT_TABLE, start, end, ["event_date", "verdict"]).to_pylist()
    return {row["event_date"] for row in rows if row["verdict"] == "drift"}


def previous_verdicts(lake: Lake, day: date, days: int) -> list[str]:
    """Drift verdicts of the days before, oldest first; days without a report are not there."""
    if not lake.exists(DRIFT_TABLE):
        return []
    table = lake.read(DRIFT_TABLE, day - timedelta(days=days), day - timedelta(days=1), ["event_date", "verdict"])
    return [str(verdict) for verdict in table.sort_by("event_date")["verdict"].to_pylist()]


def quality_of(
    lake: Lake, day: date, settings: Settings, policy: QualityPolicy, run_id: str, door: Door
) -> tuple[pd.DataFrame, QualityDecision]:
    """What became of the batch recommendations of the last weeks, judged against the champion's promotion figure."""
    first = day - timedelta(days=policy.lookback_days + settings.training.horizon_days)
    slates = lake.read(
        "recommendations/daily", first, day, ["event_date", "customer_id", "rank", "product_id"]
    ).to_pandas()
    by_day = {d: frame.drop(columns="event_date") for d, frame in slates.groupby("event_date")}
    labels = lake.passed_days(["purchases"], first, day)
    horizon = settings.training.horizon_days
    door.enter([d for d in by_day if d + timedelta(days=horizon) <= day], horizon)  # windows that are over are judged
    purchases = lake.read(
        "warehouse/fct_purchases",
        settings.calendar.first_day,
        day,
        ["customer_id", "product_id", "event_date", "amount"],
    ).to_pandas()
    history = realised_quality(by_day, purchases, horizon, day, 10, label_days=labels)
    decision = quality_decision(history, _champion_ndcg(lake), policy)
    row = {
        "event_date": day,
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "history": history.to_json(orient="records", date_format="iso"),
    }
    lake.replace_days(QUALITY_TABLE, pyarrow.Table.from_pylist([row]), [day], run_id)
    return history, decision


def _champion_ndcg(lake: Lake) -> float:
    """NDCG@10 with which the champion was promoted."""
    promotions = lake.read("evaluation/promotion").to_pandas().sort_values("event_date")
    promoted = promotions[promotions["outcome"] == "promote"]
    if promoted.empty:
        raise NotEnoughData(
            "realised quality", found="no promoted model", wanted="a champion", fix="run the job `training` first"
        )
    day = promoted["event_date"].iloc[-1]
    summaries = json.loads(lake.read("evaluation/evaluation_report", day, day)["summaries"][0].as_py())
    return float(summaries["ranker"]["ndcg"])
