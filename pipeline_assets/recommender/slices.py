"""Slices: how a model does for some customers or some products, against the strongest baseline there.

A mean over all customers hides a group that is served worse than by a counter. Customers are sliced by activity and by
how long they are known, products by department and brand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

import numpy as np
import pandas as pd

from pipeline_assets.recommender import metrics
from pipeline_assets.recommender.columns import CUSTOMER_ID, EVENT_DATE, ORDER_ID, PRODUCT_ID, RANK
from pipeline_assets.recommender.errors import NotEnoughData

RECENT_DAYS = 91  # a quarter: activity is what a customer does now, and a customer of the last quarter is new
MAX_GROUPS = 12  # departments or brands that are judged on their own, the most bought; the rest is `other`
DRAWS = 1000  # bounds of a slice move by 3 % of the interval's width from seed to seed
COLUMNS = (
    "slice", "metric", "customers", "challenger", "baseline", "baseline_value", "difference", "relative",
    "low", "high", "relative_low", "relative_high", "is_below",
)  # fmt: skip


def customer_slices(purchases: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Which slices each customer is in, from what was bought up to `as_of`; index customer_id.

    activity: light, medium or heavy, thirds of the customers by orders in the last 91 days. tenure: new, when the first
    order is in those days, or known.
    """
    dates, start = pd.to_datetime(purchases[EVENT_DATE]), pd.Timestamp(as_of - timedelta(days=RECENT_DAYS))
    recent = dates > start
    known = dates.groupby(purchases[CUSTOMER_ID]).min()
    orders = purchases.loc[recent].groupby(CUSTOMER_ID)[ORDER_ID].nunique().reindex(known.index, fill_value=0)
    third = (np.argsort(np.lexsort((known.index.to_numpy(), orders.to_numpy()))) * 3) // max(len(known), 1)
    return pd.DataFrame(
        {
            "activity": np.array(["light", "medium", "heavy"])[third],
            "tenure": np.where(known > start, "new", "known"),
        },
        index=known.index,
    )


def product_groups(products: pd.Series, targets: pd.DataFrame, most: int = MAX_GROUPS) -> pd.Series:
    """product_id -> its department or brand; all but the `most` bought ones are `other`, and missing ones too."""
    named = products.fillna("other")
    bought = targets[PRODUCT_ID].map(named).value_counts()
    kept = bought.rename_axis("group").rename("n").reset_index().sort_values(["n", "group"], ascending=[False, True])
    return named.where(named.isin(kept["group"].head(most)), "other")


def recall_by_group(slates: pd.DataFrame, targets: pd.DataFrame, groups: pd.Series, k: int = 10) -> pd.DataFrame:
    """Recall of the targets of each group in the first k of the whole slate; index (group, customer_id), column recall.

    A customer without a target in a group has no row there.
    """
    rows = targets[[CUSTOMER_ID, PRODUCT_ID]].assign(group=targets[PRODUCT_ID].map(groups).fillna("other"))
    top = slates.loc[slates[RANK] <= k, [CUSTOMER_ID, PRODUCT_ID]].assign(hit=1.0)
    hits = rows.merge(top, how="left", on=[CUSTOMER_ID, PRODUCT_ID])
    return hits.assign(recall=hits["hit"].fillna(0.0)).groupby(["group", CUSTOMER_ID])[["recall"]].mean()


def compare(
    challenger: pd.DataFrame,
    baselines: Mapping[str, pd.DataFrame],
    metric: str,
    name: str,
    *,
    confidence: float,
    seed: int,
) -> dict[str, object]:
    """One row of the table of slices: the challenger against the strongest baseline of this slice, paired.

    `is_below`: the whole interval is below 0.
    """
    values = {other: metrics.metric_value(frame, metric) for other, frame in baselines.items()}
    strongest = max(values, key=lambda other: (values[other], other))
    interval = metrics.paired_bootstrap(
        challenger, baselines[strongest], metric, DRAWS, seed=seed, confidence=confidence
    )
    return {
        "slice": name, "metric": metric, "customers": customers_in(challenger),
        "challenger": values[strongest] + interval.mean_difference, "baseline": strongest,
        "baseline_value": values[strongest], "difference": interval.mean_difference, "relative": interval.relative,
        "low": interval.low, "high": interval.high, "relative_low": interval.relative_low,
        "relative_high": interval.relative_high, "is_below": interval.high < 0,
    }  # fmt: skip


def customers_in(frame: pd.DataFrame) -> int:
    """Distinct customers of a per-customer frame."""
    return int(frame.index.get_level_values(CUSTOMER_ID).nunique())


def _sliced(
    frames: Mapping[str, pd.DataFrame], by: pd.Series, dimension: str
) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    for value in sorted(by.dropna().unique()):
        rows = by.index[by == value]
        yield f"{dimension}: {value}", {name: frame.loc[frame.index.isin(rows)] for name, frame in frames.items()}


def compare_slices(
    per_customer: Mapping[str, pd.DataFrame],
    of_customers: pd.DataFrame,
    by_group: Mapping[str, Mapping[str, pd.DataFrame]],
    *,
    challenger: str,
    metric: str,
    confidence: float,
    seed: int,
    min_customers: int,
) -> pd.DataFrame:
    """The challenger against the strongest baseline of each slice.

    Bounds are wide enough for all slices together (Bonferroni): with twenty slices at 95 % each, one would fall below
    its baseline by chance in two evaluations of five.

    Args:
        per_customer: method -> measures, index (window, customer_id): the challenger and the baselines.
        of_customers: dimension -> slice of each customer-week (columns of `customer_slices`), same index.
        by_group: dimension -> method -> recall, index (group, window, customer_id); compared by recall.
        min_customers: slices with fewer customers are left out.

    Returns:
        `COLUMNS`, customers' slices first; empty when every slice is too small.

    Raises:
        NotEnoughData: there is no baseline.
    """
    if set(per_customer) <= {challenger}:
        raise NotEnoughData("slices", found="no baseline", wanted="one or more", fix="pass the baselines")
    parts: list[tuple[str, str, dict[str, pd.DataFrame]]] = []
    for dimension in of_customers.columns:
        parts += [(name, metric, part) for name, part in _sliced(per_customer, of_customers[dimension], dimension)]
    for dimension, methods in by_group.items():
        for group in sorted(methods[challenger].index.get_level_values(0).unique()):
            part = {name: frame.loc[group] for name, frame in methods.items()}
            parts.append((f"{dimension}: {group}", "recall", part))
    judged = [part for part in parts if customers_in(part[2][challenger]) >= min_customers]
    each = 1 - (1 - confidence) / max(len(judged), 1)
    rows = []
    for name, measured, part in judged:
        own = part.pop(challenger)
        rows.append(compare(own, part, measured, name, confidence=each, seed=seed))
    return pd.DataFrame(rows, columns=list(COLUMNS))
