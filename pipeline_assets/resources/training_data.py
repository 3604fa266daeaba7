"""Reading what training and evaluation need: features through the feature store, labels from the warehouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow

from pipeline_assets.recommender.errors import BlockedPartition, NotEnoughData
from pipeline_assets.recommender.split import Weeks, weeks_before
from pipeline_assets.recommender.training_set import Catalogue, label_week, targets_of
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import VERDICTS, Lake
from pipeline_assets.resources.snapshots import require_marts
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.settings import Settings, TrainingSettings

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_TABLES = ("features/customer", "features/product", "features/customer_product")
TRAINING_SET = "training/training_set"
TRAINING_INPUTS = (
    *FEATURE_TABLES,
    "warehouse/fct_purchases",
    "warehouse/dim_products",
    VERDICTS,
)  # all that it is built from
PURCHASE_COLUMNS = ["customer_id", "product_id", "order_id", "event_date", "quantity", "amount", "discount"]


@dataclass(frozen=True, eq=False)
class Week:
    """One as-of day: rows of service `ranker_online` for `customers`, and the catalogue of their candidates."""

    day: date
    rows: pd.DataFrame
    catalogue: Catalogue


def require_features(lake: Lake, days: Sequence[date]) -> None:
    """Raises BlockedPartition naming the first day whose features were never built from passed data."""
    lake.require_passed(["purchases"], days)
    for table in FEATURE_TABLES:
        missing = sorted(set(days) - lake.days(table))
        if missing:
            raise BlockedPartition(
                f"{table} of {missing[0]}",
                found="no features",
                wanted="a materialised day",
                fix=f"materialise {table} for {', '.join(map(str, missing))}",
            )


def read_week(features: FeatureStoreResource, store: FeatureStore, customers: Sequence[str], day: date) -> Week:
    """Features of `customers` at the end of `day`, point-in-time through Feast."""
    rows = features.customers_as_of(store, customers, day)
    products = sorted({product for ids in rows["candidate_ids"] if ids is not None for product in ids})
    return Week(day, rows, Catalogue(*features.products_as_of(store, products, day)))


def sellable_purchases(lake: Lake, start: date, end: date, known_on: date) -> pd.DataFrame:
    """Purchases of `start`..`end` of products that are sellable as known on `known_on`: customer_id, product_id, order_id, ...

    Rows of a day that is blocked now are left out, whatever an earlier delivery left in the marts.

    Raises:
        NotEnoughData: `end` is after `known_on`: what is bought later is a label, and read through a door (`window_purchases`).
    """
    if end > known_on:
        raise NotEnoughData(
            f"purchases up to {end}",
            found=f"asked for as known on {known_on}",
            wanted=f"days up to {known_on}",
            fix="read labels with `window_purchases`",
        )
    return _sellable_purchases(lake, start, end, known_on)


def _sellable_purchases(lake: Lake, start: date, end: date, known_on: date) -> pd.DataFrame:
    purchases = lake.read("warehouse/fct_purchases", start, end, PURCHASE_COLUMNS).to_pandas()
    purchases = purchases[~purchases["event_date"].isin(lake.blocked_days("purchases", start, end))]
    products = lake.read(
        "warehouse/dim_products", None, known_on, ["product_id", "is_sellable", "event_date"]
    ).to_pandas()
    newest = products.sort_values("event_date").drop_duplicates("product_id", keep="last")
    sellable = set(newest.loc[newest["is_sellable"], "product_id"])
    return purchases[purchases["product_id"].isin(sellable)].reset_index(drop=True)


def window_purchases(lake: Lake, day: date, horizon_days: int, door: Door) -> pd.DataFrame:
    """Purchases of the target window of `day`; every day of it must have a passed verdict, or the labels are not complete.

    Args:
        door: says who reads; a window of the holdout is recorded before it is read.

    Raises:
        BlockedPartition: a day of the window is blocked, unknown, or not in the marts.
    """
    days = [day + timedelta(days=n) for n in range(1, horizon_days + 1)]
    lake.require_passed(["purchases"], days)
    require_marts(lake, days[0], days[-1])
    door.enter([day], horizon_days)
    return _sellable_purchases(lake, days[0], days[-1], day)


def customer_ids(lake: Lake, day: date) -> list[str]:
    """Every customer with features as of `day`."""
    table: pyarrow.Table = lake.read("features/customer", day, day, ["customer_id"])
    if not len(table):
        raise NotEnoughData(
            f"features/customer of {day}",
            found="no customers",
            wanted="at least one",
            fix=f"materialise features for {day}",
        )
    return sorted(table["customer_id"].to_pylist())


def training_weeks(lake: Lake, day: date, settings: Settings) -> Weeks:
    """The weeks of a training run as of `day`; weeks with a day that is not passed are left out (their labels are not complete)."""
    chosen, calendar = settings.training, settings.calendar
    return weeks_before(
        day,
        calendar.first_day,
        week_start=calendar.week_start,
        horizon_days=chosen.horizon_days,
        label_weeks=chosen.label_weeks,
        early_stopping_weeks=chosen.early_stopping_weeks,
        evaluation_weeks=chosen.evaluation_weeks,
        usable_days=set(lake.passed_days(["purchases"], calendar.first_day, day)),
    )


def training_cutoffs(lake: Lake, day: date, settings: Settings) -> list[date]:
    """As-of days whose features a training run as of `day`, or one of the next weeks, reads: the weekly cut-offs and `day` itself."""
    weeks, horizon = training_weeks(lake, day, settings), settings.training.horizon_days
    newest = weeks.evaluation[-1]
    # cut-offs whose week is not over yet: the next training needs them, and no later day's run goes back for them
    still_open = [d for d in lake.passed_days(FEEDS, newest, day) if (d - newest).days % horizon == 0]
    return sorted({*weeks.all, *still_open, day})


def build_training_set(
    lake: Lake,
    features: FeatureStoreResource,
    day: date,
    weeks: Weeks,
    chosen: TrainingSettings,
    log: Callable[[str], object],
    door: Door,
) -> pyarrow.Table:
    """Labelled examples of the training and early-stopping weeks, as stored for partition `day`."""
    require_features(lake, [*weeks.training, *weeks.early_stopping])
    store = features.apply()
    parts = []
    for week in (*weeks.training, *weeks.early_stopping):
        targets = targets_of(window_purchases(lake, week, chosen.horizon_days, door))
        known = set(customer_ids(lake, week))
        rows = read_week(features, store, sorted(known & set(targets["customer_id"])), week)
        parts.append(label_week(rows.rows, rows.catalogue, targets, week, chosen.negative_share, chosen.seed))
        log(f"week as of {week}: {len(parts[-1])} examples")
    table = pyarrow.concat_tables(parts).combine_chunks()
    return table.append_column("event_date", pyarrow.array([day] * len(table), pyarrow.date32()))
