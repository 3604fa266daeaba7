"""What the lists of a replay were worth: realised quality per business day, once the day's seven days are over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import pandas as pd

from pipeline_assets.recommender.columns import AMOUNT, CUSTOMER_ID, PRODUCT_ID
from pipeline_assets.recommender.metrics import per_customer_metrics
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.training_data import sellable_products

K = 10
COLUMNS = ("day", "shown", "customers", "ndcg", "recall", "revenue_hit", "revenue_target")


def realised(lake: Lake, days: Sequence[date], horizon_days: int, door: Door) -> pd.DataFrame:
    """Quality of the lists that were live after each of `days`: those of the day, or of the last day before it that was published.

    Args:
        days: business days D; lists are judged on purchases of D + 1 to D + horizon_days.
        door: counts the windows that are held out.

    Returns:
        One row per D whose window is over and whole: day, shown (the day whose lists were live), customers (with a purchase), ndcg and
        recall (means over them, at 10), revenue_hit and revenue_target (currency, sums).
    """
    door.enter(days, horizon_days)
    first, last = min(days), max(days)
    published = sorted(lake.days("recommendations/daily"))
    labelled = set(lake.passed_days(["purchases"], first, last + timedelta(days=horizon_days)))
    columns = [CUSTOMER_ID, PRODUCT_ID, "event_date", AMOUNT]
    bought = lake.read("warehouse/fct_purchases", first, last + timedelta(days=horizon_days), columns).to_pandas()
    rows = []
    for day in sorted(days):
        window = [day + timedelta(days=n) for n in range(1, horizon_days + 1)]
        shown = [other for other in published if other <= day]
        if not shown or not set(window) <= labelled:
            continue
        slates = lake.read("recommendations/daily", shown[-1], shown[-1], [CUSTOMER_ID, "rank", PRODUCT_ID]).to_pandas()
        sold = sellable_products(lake, day).to_pylist()  # as the evaluation does: what may not be listed is no target
        in_window = bought[bought["event_date"].isin(window) & bought[PRODUCT_ID].isin(sold)]
        targets = in_window.groupby([CUSTOMER_ID, PRODUCT_ID], as_index=False)[AMOUNT].sum()
        judged = per_customer_metrics(slates, targets, targets.iloc[:0][[CUSTOMER_ID, PRODUCT_ID]], K)
        means, sums = judged[["ndcg", "recall"]].mean(), judged[["revenue_hit", "revenue_target"]].sum()
        rows.append((day, shown[-1], len(judged), *means, *sums))
    return pd.DataFrame(rows, columns=list(COLUMNS))
