"""Reading what the drift monitor needs and recording what it found, and landing the prediction log: rows per day in the lake."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from pipeline_assets.monitoring.causes import CausePolicy, Signs, cause_of, signs_of_a_fault
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
from pipeline_assets.monitoring.pages import drift_page
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.report_page import page_path, write_page
from pipeline_assets.settings import Settings

DRIFT_TABLE = "monitoring/drift_report"
LINE_COLUMNS = ["order_id", "customer_id", "product_id", "quantity", "amount", "discount", "event_ts", "event_date"]


@dataclass(frozen=True)
class DriftReport:
    """Our decision, what it was made from, and the two pages: ours, and Evidently's where there were enough rows."""

    result: DriftResult
    decision: DriftDecision
    policy: DriftPolicy
    signs: Signs
    evidently: dict[str, Any]
    html_path: Path
    evidently_path: Path | None


def purchase_lines(lake: Lake, days: Sequence[date], products: pd.DataFrame) -> pd.DataFrame:
    """The valid purchase lines of `days`, one day after the other, with their products' department, category and brand."""
    lines = pyarrow.concat_tables(
        [lake.read("validated/purchases", day, day, LINE_COLUMNS) for day in days]
    ).to_pandas()
    unknown = {"department": "unknown", "category": "unknown", "brand": "unknown"}
    return lines.merge(products, "left", "product_id").fillna(unknown)


def newest_products(lake: Lake, day: date) -> pd.DataFrame:
    """The catalogue as known on a day: product_id, department, category, brand."""
    columns = ["product_id", "department", "category", "brand", "event_date"]
    products = lake.read("warehouse/dim_products", None, day, columns).to_pandas()
    return products.sort_values("event_date").drop_duplicates("product_id", keep="last").drop(columns="event_date")


def drift_of(
    lake: Lake, day: date, settings: Settings, policy: DriftPolicy, run_id: str, recorded_at: datetime
) -> DriftReport:
    """Compare the purchase lines of `day` with the same weekdays of the weeks before, decide, say what it points at, and record.

    Raises:
        BlockedPartition: `day` has no passed verdict: a broken upstream is not drift.
    """
    lake.require_passed(["purchases"], [day])
    products = newest_products(lake, day)
    wanted = [day - timedelta(days=7 * n) for n in range(1, settings.monitoring.reference_weeks + 1)]
    # drifted days stay out of the reference, or the alarm fades while the fault lasts
    passed = set(lake.passed_days(["purchases"], wanted[-1], wanted[0])) - _drifted_days(lake, wanted[-1], wanted[0])
    zone, causes = settings.calendar.time_zone, CausePolicy()
    lines, others = purchase_lines(lake, [day], products), [other for other in wanted if other in passed]
    before = purchase_lines(lake, others, products) if others else lines.iloc[:0]
    current, reference = input_profile(lines, time_zone=zone), input_profile(before, time_zone=zone)
    result = compare(reference, current, PROFILE_NUMERICAL, PROFILE_CATEGORICAL, policy)
    previous = previous_verdicts(lake, day, policy.persistence_days * 7)
    decision = decide(result, [verdict for _, verdict in previous], policy)
    enough = bool(result.columns)
    signs = signs_of_a_fault(before if enough else before.iloc[:0], lines, causes, time_zone=zone)
    evidently: dict[str, Any] = {}
    evidently_path = page_path(settings, "evidently", day) if enough else None
    if evidently_path:
        seed = settings.training.seed
        evidently = drift_report(reference, current, PROFILE_NUMERICAL, PROFILE_CATEGORICAL, evidently_path, seed=seed)
    link = f"../evidently/{day}.html" if evidently_path else ""
    page = write_page(settings, "drift", day, drift_page(day, result, decision, policy, signs, causes, previous, link))
    figures = {
        "psi": {column.column: column.effect_size for column in result.columns},
        "cause": cause_of(decision.verdict, signs),
        "signs": list(signs.found),
        "measured": {
            name: value for name, value in asdict(signs).items() if isinstance(value, float) and math.isfinite(value)
        },
    }
    row = {
        "event_date": day,
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "figures": json.dumps(figures, sort_keys=True),
        "evidently": json.dumps(evidently, sort_keys=True),
        "html_path": str(page),
        "recorded_at": recorded_at,
    }
    lake.replace_days(DRIFT_TABLE, pyarrow.Table.from_pylist([row]), [day], run_id, evolves=True)
    return DriftReport(result, decision, policy, signs, evidently, page, evidently_path)


def _drifted_days(lake: Lake, start: date, end: date) -> set[date]:
    if not lake.exists(DRIFT_TABLE):
        return set()
    rows = lake.read(DRIFT_TABLE, start, end, ["event_date", "verdict"]).to_pylist()
    return {row["event_date"] for row in rows if row["verdict"] == "drift"}


def previous_verdicts(lake: Lake, day: date, days: int) -> list[tuple[date, str]]:
    """Day and drift verdict of the days before, oldest first; days without a report are not there."""
    if not lake.exists(DRIFT_TABLE):
        return []
    table = lake.read(DRIFT_TABLE, day - timedelta(days=days), day - timedelta(days=1), ["event_date", "verdict"])
    return [(row["event_date"], str(row["verdict"])) for row in table.sort_by("event_date").to_pylist()]
