"""Realised quality: what became of the batch recommendations once their labels are complete. No label, no verdict."""

from __future__ import annotations

import datetime as dt
import math
from calendar import day_name
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import AMOUNT, AS_OF, CUSTOMER_ID, PRODUCT_ID
from pipeline_assets.recommender.columns import EVENT_DATE as DAY
from pipeline_assets.recommender.errors import ConfigurationError, SchemaError
from pipeline_assets.recommender.metrics import per_customer_metrics, summarise

QualityVerdict = Literal["ok", "degraded", "unknown"]
METRICS = ("ndcg", "recall", "revenue")
LABELS_AS_OF = "labels_as_of"
PAIRED_ERROR = "paired_standard_error"
COLUMNS = (
    AS_OF,
    LABELS_AS_OF,
    "horizon_days",
    "maturity",
    "reason",
    "k",
    "labelled_days",
    "customers",
    *METRICS,
    "ndcg_standard_error",
)


@dataclass(frozen=True)
class QualityPolicy:
    """When realised quality counts as degraded, and when it is not known."""

    # The service level (docs/design/reliability.md): NDCG@10 at least the champion's baseline less 3 %.
    max_relative_loss: float = 0.03
    # Of lists of any weekday. The baseline is measured on lists as of one weekday, the evening before a week, when its promotions are known; those
    # of the other days are up to 3.6 % further below it with nobody's fault (benchmarks/results/alarms.md). Lists that are bad fall far lower.
    extreme_relative_loss: float = 0.10
    # A week of daily slates, so that every weekday is judged once.
    judged_days: int = 7
    # One lost label day makes the slates of 7 days unknown for ever; looking back 14 steps over it. Two lost days, or a
    # stopped stream, leave fewer than `judged_days` complete, and the verdict is unknown on the second day. Older days
    # than that say nothing of the lists served now, also when it was the recommendations that stopped.
    lookback_days: int = 14
    # NDCG differs by 0.25 between customers (13 days of September 2017): 200 give a standard error of 0.018, 6 %.
    min_customers: int = 200
    # One-sided 95 %: the interval's upper end must be below the limit.
    z: float = 1.645
    # One scalar baseline follows the calendar: one method had NDCG .249 to .281 on three windows (docs/design/evaluation.md), a
    # range of 12 %, so a standard deviation of .12 / 1.69 = 7 %. Measured: lists 8 weeks old (-14 %) then pass as
    # ok, and are degraded against a baseline of the same days, which needs no such allowance. Prefer that one.
    calendar_sd_share: float = 0.07
    # The gain over such a baseline has a calendar, too: one champion's gain in evaluations of four weeks moves by 0.6 to 2.4 % (standard deviation) as
    # the weeks go by (benchmarks/results/alarms.md), and who is promoted had good weeks.
    paired_sd_share: float = 0.015


@dataclass(frozen=True)
class QualityDecision:
    """The verdict and why; `value` and `limit` are NDCG@k (NaN when unknown)."""

    verdict: QualityVerdict
    reasons: tuple[str, ...]
    value: float
    limit: float


def realised_quality(
    slates_by_day: Mapping[dt.date, pd.DataFrame],
    purchases: pd.DataFrame,
    horizon_days: int,
    as_of: dt.date,
    k: int,
    *,
    label_days: Collection[dt.date] | None = None,
) -> pd.DataFrame:
    """Quality of the slates of every day D against purchases of business days D+1 to D+horizon_days.

    Args:
        slates_by_day: D -> long slates (customer_id, rank, product_id).
        purchases: customer_id, product_id, event_date, amount (currency); rows after `as_of` are not looked at.
        horizon_days: length of the label window, days.
        as_of: last business day whose purchases should be there.
        k: length of the list that is judged.
        label_days: business days whose purchases are there and valid. Default: the days that have a purchase, so that a
            day on which the shop was shut is unknown unless it is named here.

    Returns:
        One row per D, ascending: as_of (D), labels_as_of (the argument), horizon_days, maturity, reason, k,
        labelled_days, customers (with a target), ndcg, recall, revenue (shares, 0-1), ndcg_standard_error (over
        customers). maturity is 'complete'; 'partial' while the window is open and no day is missing; 'unknown' when a
        label day that is due is missing (or there are no slates, or no target). Figures are NaN unless 'complete': a
        stopped label stream is not a quality of zero.

    Raises:
        SchemaError: a column is missing, or horizon_days or k is below 1.
    """
    missing = [name for name in (CUSTOMER_ID, PRODUCT_ID, DAY, AMOUNT) if name not in purchases.columns]
    if missing or horizon_days < 1 or k < 1:
        raise SchemaError(
            "realised quality",
            found=f"missing {missing}, horizon_days {horizon_days}, k {k}",
            wanted=f"purchases with {CUSTOMER_ID}, {PRODUCT_ID}, {DAY}, {AMOUNT}; horizon_days and k of 1 or more",
            fix="pass the validated purchases and the settings",
        )
    purchases = purchases.assign(**{DAY: pd.to_datetime(purchases[DAY]).dt.normalize()})
    purchases = purchases[purchases[DAY] <= pd.Timestamp(as_of)]
    days = purchases[DAY]
    known = set(label_days) if label_days is not None else set(days.dt.date.unique())
    rows = []
    for day in sorted(slates_by_day):
        window = [day + dt.timedelta(days=offset) for offset in range(1, horizon_days + 1)]
        due = [label_day for label_day in window if label_day <= as_of]
        absent = [label_day for label_day in due if label_day not in known]
        row: dict[str, object] = dict.fromkeys(COLUMNS, math.nan)
        row |= {
            AS_OF: day,
            LABELS_AS_OF: as_of,
            "horizon_days": horizon_days,
            "k": k,
            "labelled_days": len(due) - len(absent),
            "customers": 0,
        }
        in_window = (days > pd.Timestamp(day)) & (days <= pd.Timestamp(window[-1]))
        if absent:
            reason = f"no labels of {absent[0]} ({len(absent)} of {len(due)} due days missing)"
            row |= {"maturity": "unknown", "reason": reason}
        elif len(due) < horizon_days:
            row |= {"maturity": "partial", "reason": f"window open until {window[-1]}"}
        elif slates_by_day[day].empty:
            row |= {"maturity": "unknown", "reason": "no slates"}
        elif not in_window.any():
            row |= {"maturity": "unknown", "reason": "no purchase in the window"}
        else:
            row |= _measure(slates_by_day[day], purchases[in_window], k)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _measure(slates: pd.DataFrame, bought: pd.DataFrame, k: int) -> dict[str, object]:
    targets = bought.groupby([CUSTOMER_ID, PRODUCT_ID], as_index=False)[AMOUNT].sum()
    per_customer = per_customer_metrics(
        slates, targets, bought.iloc[:0], k
    )  # METRICS do not ask what was bought before
    summary = summarise(per_customer)
    customers = len(per_customer)
    error = float(per_customer["ndcg"].std(ddof=1) / math.sqrt(customers)) if customers > 1 else math.nan
    figures = {name: summary[name] for name in METRICS}
    return {"maturity": "complete", "reason": "", "customers": customers, "ndcg_standard_error": error, **figures}


def paired_errors(
    slates_by_day: Mapping[dt.date, pd.DataFrame],
    yardstick_by_day: Mapping[dt.date, pd.DataFrame],
    purchases: pd.DataFrame,
    horizon_days: int,
    k: int,
    scale: float,
) -> dict[dt.date, float]:
    """D -> standard error over customers of NDCG@k less `scale` times the yardstick's (NaN with one customer).

    What both share, a customer who is hard to please or a weak week, is no part of it. Days are those of both, with complete windows; arguments
    as of `realised_quality`.
    """
    days = pd.to_datetime(purchases[DAY]).dt.normalize()
    found = {}
    for day in sorted(set(slates_by_day) & set(yardstick_by_day)):
        start, end = pd.Timestamp(day), pd.Timestamp(day + dt.timedelta(days=horizon_days))
        targets = (
            purchases[(days > start) & (days <= end)].groupby([CUSTOMER_ID, PRODUCT_ID], as_index=False)[AMOUNT].sum()
        )
        ours, theirs = (
            per_customer_metrics(slates[day], targets, purchases.iloc[:0], k)["ndcg"]
            for slates in (slates_by_day, yardstick_by_day)
        )
        difference = ours - scale * theirs.reindex(ours.index)
        found[day] = float(difference.std(ddof=1) / math.sqrt(len(difference))) if len(difference) > 1 else math.nan
    return found


def quality_decision(
    history: pd.DataFrame,
    baseline: float | Mapping[dt.date, float],
    policy: QualityPolicy,
    baseline_error: float = 0.0,
    alike: int | None = None,
) -> QualityDecision:
    """Judge the latest complete days of `realised_quality` against the champion's baseline.

    Args:
        history: rows of `realised_quality`, one per D; with a column `paired_standard_error` (`paired_errors`) a baseline of the same days
            is judged by it.
        baseline: NDCG@k the champion was promoted with; better, D -> NDCG@k of a fixed comparison method on the same
            window, scaled to the champion's level at promotion: then a weak week of the calendar alarms nobody.
        policy: the limits.
        baseline_error: standard error of the champion's level at promotion, relative to it: it was measured on a few weeks of customers, too.
        alike: weekday (Monday 0) of the lists that the baseline was measured on. Days of that weekday are judged by `max_relative_loss`, and the last
            `judged_days` of any weekday by `extreme_relative_loss`. None: those of any weekday by `max_relative_loss`.

    Returns:
        'degraded' when even the upper end of an interval is below baseline x (1 - the loss that is allowed); 'ok' otherwise;
        'unknown' with fewer than `judged_days` complete days, enough customers each, among the last `lookback_days` of
        closed or broken windows and not older than that many days before the newest window that could be closed; or with no day alike.

    Raises:
        ConfigurationError: a baseline is not a positive number.
    """
    is_paired = isinstance(baseline, Mapping)
    by_day = dict(baseline) if isinstance(baseline, Mapping) else dict.fromkeys(history[AS_OF], float(baseline))
    bad = [value for value in by_day.values() if not (math.isfinite(value) and value > 0)]
    if bad:
        raise ConfigurationError(
            "quality baseline", found=bad[0], wanted="numbers above 0", fix="evaluate the champion"
        )
    closed = history[history["maturity"] != "partial"].sort_values(AS_OF).tail(policy.lookback_days)
    if len(closed):
        newest = history[LABELS_AS_OF].max() - dt.timedelta(days=int(history["horizon_days"].max()))
        closed = closed[closed[AS_OF] > newest - dt.timedelta(days=policy.lookback_days)]
    usable = closed[(closed["maturity"] == "complete") & (closed["customers"] >= policy.min_customers)]
    usable = usable[usable[AS_OF].isin(list(by_day))]
    weekday = pd.to_datetime(usable[AS_OF]).dt.dayofweek
    lately, same = usable.tail(policy.judged_days), usable[weekday == alike]
    if len(lately) < policy.judged_days or (alike is not None and same.empty):
        found = f"{len(lately)} of the last {len(closed)} closed days can be judged, {policy.judged_days} needed"
        if len(lately) == policy.judged_days:
            found = f"none of the last {len(closed)} closed days that can be judged is a {day_name[alike or 0]}, as the baseline's are"
        gaps = closed.loc[closed["maturity"] == "unknown", "reason"].tail(1)
        return QualityDecision("unknown", (found, *(f"latest gap: {reason}" for reason in gaps)), math.nan, math.nan)
    errors = PAIRED_ERROR if is_paired and PAIRED_ERROR in usable else "ndcg_standard_error"

    def against(days: pd.DataFrame, error: float, loss: float, which: str) -> QualityDecision:
        value = float(days["ndcg"].mean())
        level = float(np.mean([by_day[day] for day in days[AS_OF]]))
        calendar = (policy.paired_sd_share if is_paired else policy.calendar_sd_share) * level
        upper = value + policy.z * math.hypot(error, calendar, baseline_error * level)
        limit = level * (1.0 - loss)
        reason = (
            f"NDCG {value:.4f} over {len(days)} {which} to {days[AS_OF].iloc[-1]} (upper end {upper:.4f}), "
            f"limit {limit:.4f} = baseline {level:.4f} less {loss:.0%}"
        )
        return QualityDecision("degraded" if upper < limit else "ok", (reason,), value, limit)

    # Windows of neighbouring days overlap, so their errors are taken as one: the mean has the mean standard error. Those of one weekday do not.
    mean_error = float(lately[errors].mean())
    if alike is None:
        return against(lately, mean_error, policy.max_relative_loss, "days")
    own = against(
        same, float(np.sqrt((same[errors] ** 2).sum())) / len(same), policy.max_relative_loss, f"{day_name[alike]}s"
    )
    week = against(lately, mean_error, policy.extreme_relative_loss, "days")
    first = week if (own.verdict, week.verdict) == ("ok", "degraded") else own
    return QualityDecision(first.verdict, (*own.reasons, *week.reasons), first.value, first.limit)
