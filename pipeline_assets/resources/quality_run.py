"""Realised quality of a day: slates and labels from the lake, a yardstick judged on the same days, one row and one page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.compute as pc

from pipeline_assets.monitoring.pages import quality_page
from pipeline_assets.monitoring.quality import (
    PAIRED_ERROR,
    QualityDecision,
    QualityPolicy,
    paired_errors,
    quality_decision,
    realised_quality,
)
from pipeline_assets.recommender import baselines
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.evaluation_page import MODEL
from pipeline_assets.recommender.promotion import GatePolicy
from pipeline_assets.resources.evaluation_run import EVALUATION_TABLE
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import PREDICTION_LOG_TABLE
from pipeline_assets.resources.report_page import write_page
from pipeline_assets.resources.training_data import sellable_products
from pipeline_assets.settings import Settings

QUALITY_TABLE = "monitoring/quality_report"
# Judged on the same customers and days, so that a weak week of the calendar alarms nobody. A day's lists cost 1.2 CPU s (measured on
# the sample), TIFU-KNN's five times that.
YARDSTICK = "decayed frequency"
K = 10
# The gate's intervals are so many standard errors to each side.
GATE_Z = NormalDist().inv_cdf(0.5 + GatePolicy().confidence / 2)
CONTENT = "content"


@dataclass(frozen=True, eq=False)
class QualityReport:
    """Rows of `realised_quality` with the baseline of each day, what the API served, the decision, and the page."""

    history: pd.DataFrame
    served: pd.DataFrame
    decision: QualityDecision
    html_path: Path


def quality_of(
    lake: Lake,
    day: date,
    settings: Settings,
    policy: QualityPolicy,
    run_id: str,
    door: Door,
    recorded_at: datetime,
) -> QualityReport:
    """What became of the batch recommendations of the last weeks, judged against the champion's level on the same days.

    Raises:
        NotEnoughData: nothing was ever promoted or recommended.
    """
    horizon = settings.training.horizon_days
    first = day - timedelta(days=policy.lookback_days + horizon)
    slates = lake.read(
        "recommendations/daily", first, day, ["event_date", "customer_id", "rank", "product_id"]
    ).to_pandas()
    by_day = {d: frame.drop(columns="event_date") for d, frame in slates.groupby("event_date")}
    labels = lake.passed_days(["purchases"], first, day)
    door.enter([d for d in by_day if d + timedelta(days=horizon) <= day], horizon)  # windows that are over are judged
    columns = ["customer_id", "product_id", "order_id", "event_date", "amount"]
    bought = lake.read("warehouse/fct_purchases", settings.calendar.first_day, day, columns)
    # As the evaluation does: a yardstick that may list what is not sold (1.3 % of the sample's lines, fuel and coupons) has 8 % more NDCG than
    # a model that may not, and every good model looked degraded (benchmarks/results/alarms.md).
    bought = bought.filter(pc.is_in(bought["product_id"], sellable_products(lake, day)))
    dates = bought["event_date"].cast(
        pyarrow.timestamp("ns")
    )  # compared often: as objects of Python that takes twenty times as long
    purchases = bought.set_column(bought.schema.get_field_index("event_date"), "event_date", dates).to_pandas()
    promoted_on, scale, scale_error = champion_level(lake, day)
    answered = _served(lake, first, day)
    content, served_content = (
        {d: _content(frame, purchases, d, horizon, promoted_on) for d, frame in lists.items()}
        for lists in (by_day, answered)
    )
    before = _report_before(lake, day)
    known = _remembered(before.get("history"), content, set(labels), horizon)
    known_served = _remembered(before.get("served"), served_content, set(labels), horizon)
    fresh = {d: frame for d, frame in by_day.items() if d not in known}
    history = realised_quality(fresh, purchases, horizon, day, K, label_days=labels)
    complete = {d: fresh[d] for d in history.loc[history["maturity"] == "complete", "as_of"]}
    yardstick = _yardstick(complete, purchases)
    figures_of = {
        "baseline": _baseline(yardstick, purchases, horizon, day, labels, scale),
        PAIRED_ERROR: paired_errors(complete, yardstick, purchases, horizon, K, scale),
    }
    for name, by_date in figures_of.items():
        history[name] = [by_date.get(d, math.nan) for d in history["as_of"]]
    history = _with_known(history, content, known, day)
    baseline = {d: float(v) for d, v in zip(history["as_of"], history["baseline"], strict=True) if v > 0}
    fresh_served = {d: frame for d, frame in answered.items() if d not in known_served}
    served = realised_quality(fresh_served, purchases, horizon, day, K, label_days=labels)
    served = _with_known(served, served_content, known_served, day)
    evening = (settings.calendar.week_start - 2) % 7  # evaluations judge lists as of the day before a week
    decision = quality_decision(history, baseline, policy, scale_error / scale, alike=evening)
    page = write_page(settings, "quality", day, quality_page(day, history, decision, served, YARDSTICK))
    figures = {
        "ndcg": decision.value if math.isfinite(decision.value) else None,
        "ndcg_limit": decision.limit if math.isfinite(decision.limit) else None,
    }
    row = {
        "event_date": day,
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "figures": json.dumps(figures, sort_keys=True),
        "history": history.to_json(orient="records", date_format="iso", double_precision=15),
        "served": served.to_json(orient="records", date_format="iso", double_precision=15),
        "html_path": str(page),
        "recorded_at": recorded_at,
    }
    lake.replace_days(QUALITY_TABLE, pyarrow.Table.from_pylist([row]), [day], run_id, evolves=True)
    return QualityReport(history, served, decision, page)


def _content(frame: pd.DataFrame, purchases: pd.DataFrame, day: date, horizon: int, promoted_on: date) -> str:
    """What the figures of a day are computed from, in short: lines and amount of its window, its lists, the champion's evaluation."""
    dates, start = purchases["event_date"], pd.Timestamp(day)
    bought = purchases.loc[(dates > start) & (dates <= start + timedelta(days=horizon)), "amount"]
    return f"{len(bought)} lines of {bought.sum():.2f}, {len(frame)} places, {promoted_on}"


def _report_before(lake: Lake, day: date) -> dict[str, Any]:
    """The row of the newest report before `day`; empty without one."""
    before = [d for d in lake.days(QUALITY_TABLE) if d < day]
    return dict(lake.read(QUALITY_TABLE, max(before), max(before)).to_pylist()[0]) if before else {}


def _remembered(
    rows: str | None, content: Mapping[date, str], labels: set[date], horizon: int
) -> dict[date, dict[str, Any]]:
    """Day -> its row in an earlier report's `rows`, where it was complete then and is of the same content now.

    Judging a day anew costs 3 CPU s on the sample, and a fortnight of them is looked at every day.
    """
    found = {}
    for figures in json.loads(rows or "[]"):
        d = date.fromisoformat(figures["as_of"][:10])
        window = {d + timedelta(days=n) for n in range(1, horizon + 1)}
        if figures["maturity"] == "complete" and window <= labels and figures.get(CONTENT) == content.get(d):
            found[d] = {name: math.nan if value is None else value for name, value in figures.items()}
    return found


def _with_known(
    fresh: pd.DataFrame, content: Mapping[date, str], known: Mapping[date, Mapping[str, Any]], day: date
) -> pd.DataFrame:
    """Rows that were judged now and rows that are remembered, by day."""
    fresh = fresh.assign(**{CONTENT: [content[d] for d in fresh["as_of"]]})
    kept = pd.DataFrame([{**row, "as_of": d, "labels_as_of": day} for d, row in known.items()])
    parts = [part for part in (kept, fresh) if len(part)]
    return pd.concat(parts, ignore_index=True).sort_values("as_of", ignore_index=True) if parts else fresh


def _yardstick(slates: dict[date, pd.DataFrame], purchases: pd.DataFrame) -> dict[date, pd.DataFrame]:
    """Day -> the simple method's lists for the same customers, from what was known on the day."""
    lists = {}
    for d, frame in slates.items():
        top = min(K, purchases.loc[purchases["event_date"] <= pd.Timestamp(d), "product_id"].nunique())
        customers = sorted(frame["customer_id"].unique())
        lists |= {d: baselines.baseline_slates([YARDSTICK], purchases, customers, d, top)[YARDSTICK]}
    return lists


def _baseline(
    yardstick: dict[date, pd.DataFrame],
    purchases: pd.DataFrame,
    horizon: int,
    day: date,
    labels: list[date],
    scale: float,
) -> dict[date, float]:
    """Day -> what the champion should reach there: the yardstick's NDCG of that day, times champion over yardstick at promotion."""
    if not yardstick:
        return {}
    realised = realised_quality(yardstick, purchases, horizon, day, K, label_days=labels)
    found = {d: float(ndcg) * scale for d, ndcg in zip(realised["as_of"], realised["ndcg"], strict=True)}
    return {d: value for d, value in found.items() if value > 0}  # NaN and 0 are no yardstick


def _served(lake: Lake, first: date, day: date) -> dict[date, pd.DataFrame]:
    """Day -> the newest answer of each customer, as slates; days without answers are not there."""
    if not lake.exists(PREDICTION_LOG_TABLE):
        return {}
    columns = ["event_date", "ts", "customer_id", "product_ids"]
    log = lake.read(PREDICTION_LOG_TABLE, first, day, columns).to_pandas().dropna(subset=["customer_id"])
    newest = log.sort_values("ts").drop_duplicates(["event_date", "customer_id"], keep="last")
    rows = newest.explode("product_ids").dropna(subset=["product_ids"]).rename(columns={"product_ids": "product_id"})
    rows["rank"] = rows.groupby(["event_date", "customer_id"]).cumcount() + 1
    return {d: frame[["customer_id", "rank", "product_id"]] for d, frame in rows.groupby("event_date")}


def champion_level(lake: Lake, on: date) -> tuple[date, float, float]:
    """The day on which the champion of `on` was promoted, how many times the yardstick's NDCG it had there, and the standard error of that.

    Lists of days before the first promotion, which a range makes at once, are the first champion's.

    Raises:
        NotEnoughData: nothing was ever promoted.
    """
    promotions = lake.read("evaluation/promotion").to_pandas().sort_values("event_date")
    promoted = promotions[promotions["outcome"] == "promote"]
    if promoted.empty:
        raise NotEnoughData(
            "realised quality", found="no promoted model", wanted="a champion", fix="run the job `training` first"
        )
    before = promoted[promoted["event_date"] <= on]
    day = before["event_date"].iloc[-1] if len(before) else promoted["event_date"].iloc[0]
    (row,) = lake.read(EVALUATION_TABLE, day, day).to_pylist()
    summaries = json.loads(row["summaries"])
    scale = float(summaries[MODEL]["ndcg"] / summaries[YARDSTICK]["ndcg"])
    bounds = [
        each["relative_high"] - each["relative_low"]
        for each in json.loads(row.get("comparisons") or "[]")  # an evaluation before 2026-11-30 has none
        if (each["reference"], each["metric"]) == (YARDSTICK, "ndcg") and each["relative_high"] is not None
    ]
    return day, scale, (bounds[0] / 2 / GATE_Z if bounds else 0.0)
