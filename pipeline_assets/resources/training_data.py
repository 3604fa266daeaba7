"""Reading what training and evaluation need: features through the feature store, labels from the warehouse."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache, partial
from itertools import groupby
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.errors import BlockedPartition, NotEnoughData
from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets.recommender.packing import F32
from pipeline_assets.recommender.split import Weeks, weeks_before
from pipeline_assets.recommender.training_set import (
    Catalogue,
    Examples,
    examples,
    label_week,
    matrix_of,
    require_model_features,
    targets_of,
)
from pipeline_assets.resources.content import DayContent, Digesting
from pipeline_assets.resources.day_file import DayFile
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import VERDICTS, Lake
from pipeline_assets.resources.snapshots import require_marts
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.tables import TRAINING_EXAMPLES
from pipeline_assets.settings import Settings
from pipeline_assets.settings_training import TrainingSettings

if TYPE_CHECKING:
    import pyarrow.parquet
    from feast import FeatureStore

FEATURE_TABLES = ("features/customer", "features/product", "features/customer_product")
TRAINING_SET = "training/training_set"
TRAINING_INPUTS = (
    *FEATURE_TABLES,
    "warehouse/fct_purchases",
    "warehouse/dim_products",
    VERDICTS,
)  # all that it is built from
CUSTOMERS_AT_ONCE = 2_500  # of one or more weeks, whose features are read together: 65 MB as stored; a label week of the sample has 1,300
ROW_GROUP = 65_536  # examples that are written and read together: 21 MB as a matrix
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
    return _read(features, store, {day: customers})[0]


def read_weeks(
    features: FeatureStoreResource, store: FeatureStore, wanted: Iterable[tuple[date, Sequence[str]]]
) -> Iterator[Week]:
    """`read_week` of each day and its customers, in this order; small weeks are read together."""
    together: dict[date, Sequence[str]] = {}
    for day, customers in wanted:
        if together and (day in together or sum(map(len, together.values())) + len(customers) > CUSTOMERS_AT_ONCE):
            yield from _read(features, store, together)
            together = {}
        together[day] = customers
    if together:
        yield from _read(features, store, together)


def _read(features: FeatureStoreResource, store: FeatureStore, wanted: Mapping[date, Sequence[str]]) -> list[Week]:
    rows = features.customers_as_of(store, wanted)
    products = {
        day: sorted({product for ids in frame["candidate_ids"] if ids is not None for product in ids})
        for day, frame in rows.items()
    }
    matrices = features.products_as_of(store, products)
    return [Week(day, rows[day], Catalogue(products[day], matrices[day])) for day in wanted]


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


def purchases_up_to(lake: Lake, start: date, days: Sequence[date]) -> Iterator[pd.DataFrame]:
    """`sellable_purchases` from `start` up to each of `days`, as known on that day: the days' files are read once, for all of them."""
    purchases = _purchases(lake, start, max(days))
    for day in days:
        yield _of_sellable(lake, purchases.filter(pc.less_equal(purchases["event_date"], pyarrow.scalar(day))), day)


def _sellable_purchases(lake: Lake, start: date, end: date, known_on: date) -> pd.DataFrame:
    return _of_sellable(lake, _purchases(lake, start, end), known_on)


def _purchases(lake: Lake, start: date, end: date) -> pyarrow.Table:
    purchases = lake.read("warehouse/fct_purchases", start, end, PURCHASE_COLUMNS)
    if blocked := lake.blocked_days("purchases", start, end):
        is_blocked = pc.is_in(purchases["event_date"], pyarrow.array(blocked, pyarrow.date32()))
        purchases = purchases.filter(pc.invert(is_blocked))
    return purchases


def _of_sellable(lake: Lake, purchases: pyarrow.Table, known_on: date) -> pd.DataFrame:
    # before rows become objects of Python: a tenth of the CPU time
    return purchases.filter(pc.is_in(purchases["product_id"], sellable_products(lake, known_on))).to_pandas()


def sellable_products(lake: Lake, known_on: date) -> pyarrow.StringArray:
    """Ids of what may be recommended, as known on a day."""
    return _sellable(lake, lake.version("warehouse/dim_products"), known_on)


@lru_cache(maxsize=2)
def _sellable(lake: Lake, version: int, known_on: date) -> pyarrow.StringArray:
    """A week is asked for before and after its cut-off."""
    products = _products(lake, version)
    newest = products[products["event_date"] <= known_on].drop_duplicates("product_id", keep="last")
    return pyarrow.array(newest.loc[newest["is_sellable"], "product_id"], pyarrow.string())


@lru_cache(maxsize=1)
def _products(lake: Lake, version: int) -> pd.DataFrame:
    """Every version of every product, oldest first: a training asks for those of 30 days, one after the other."""
    columns = ["product_id", "is_sellable", "event_date"]
    return lake.read("warehouse/dim_products", columns=columns, version=version).to_pandas().sort_values("event_date")


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


def week_targets(lake: Lake, day: date, horizon_days: int, door: Door) -> pd.DataFrame:
    """What the customers with features bought in a week: distinct customer_id, product_id, with the amount paid."""
    targets = targets_of(window_purchases(lake, day, horizon_days, door))
    return targets[targets["customer_id"].isin(customer_ids(lake, day))].reset_index(drop=True)


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


def write_training_set(
    file: DayFile,
    lake: Lake,
    features: FeatureStoreResource,
    weeks: Weeks,
    chosen: TrainingSettings,
    log: Callable[[str], object],
    door: Door,
) -> int:
    """Labelled examples of the training and early-stopping weeks into `file`, in blocks of customers; returns how many were bought.

    Memory is that of one block, whatever the number of weeks and customers.
    """
    days = [*weeks.training, *weeks.early_stopping]
    require_features(lake, days)
    targets: dict[date, pd.DataFrame] = {}  # of the weeks whose features are being read

    def wanted() -> Iterator[tuple[date, Sequence[str]]]:
        for week in days:
            targets[week] = targets_of(window_purchases(lake, week, chosen.horizon_days, door))
            customers = sorted(set(customer_ids(lake, week)) & set(targets[week]["customer_id"]))
            for start in range(0, len(customers), CUSTOMERS_AT_ONCE):
                yield week, customers[start : start + CUSTOMERS_AT_ONCE]

    positives = 0
    for week, parts in groupby(read_weeks(features, features.apply(), wanted()), key=lambda each: each.day):
        rows = 0
        for part in label_week(
            ((each.rows, each.catalogue) for each in parts),
            targets.pop(week),
            week,
            chosen.negative_share,
            chosen.seed,
        ):
            file.add(part.append_column("event_date", pyarrow.array([file.day] * len(part), pyarrow.date32())))
            rows += len(part)
            positives += int(part["label"].to_numpy().sum())
        log(f"week as of {week}: {rows} examples")
    if targets:
        raise NotEnoughData(
            f"examples as of {min(targets)}",
            found="no customer with features bought anything",
            wanted="at least one",
            fix="check the purchases of the window",
        )
    return positives


@contextmanager
def training_set_aside(
    lake: Lake,
    features: FeatureStoreResource,
    day: date,
    weeks: Weeks,
    chosen: TrainingSettings,
    log: Callable[[str], object],
    door: Door,
) -> Iterator[tuple[str, DayContent]]:
    """The training set of `day` in a file of its own that is removed at the end: its address and content. The lake stays as it is."""
    with (
        tempfile.TemporaryDirectory(prefix="training-set-") as folder,
        DayFile(folder, TRAINING_EXAMPLES, day, ROW_GROUP) as file,
    ):
        write_training_set(file, lake, features, weeks, chosen, log, door)
        yield file.address, file.finish()


def read_training_set(addresses: Sequence[str]) -> Examples:
    """Stored examples; their matrices are read when they are needed, a row group at a time.

    Args:
        addresses: of the files, as `Lake.files` gives them.

    Raises:
        FeatureMismatch: the stored feature columns are not this code's.
    """
    return examples(_row_groups(addresses))


def _row_groups(addresses: Sequence[str]) -> Iterator[tuple[pyarrow.Table, Callable[[], F32]]]:
    for address in addresses:
        file = _open(address)
        require_model_features(file.schema_arrow.names)
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, ["week", "customer_id", "label", "amount"])
            yield keys, partial(_matrix, file, group)


def _open(address: str) -> pyarrow.parquet.ParquetFile:
    import pyarrow.fs
    import pyarrow.parquet

    filesystem, path = pyarrow.fs.FileSystem.from_uri(address) if "://" in address else (None, address)
    return pyarrow.parquet.ParquetFile(path, filesystem=filesystem)


def _matrix(file: pyarrow.parquet.ParquetFile, group: int) -> F32:
    return matrix_of(file.read_row_group(group, list(MODEL_FEATURES)))


def training_set_digest(addresses: Sequence[str], day: date) -> str:
    """`content.digest` of the rows as they are stored now, a row group at a time."""
    digesting = Digesting(TRAINING_EXAMPLES)
    for address in addresses:
        file = _open(address)
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group)
            stamped = rows.append_column("event_date", pyarrow.array([day] * len(rows), pyarrow.date32()))
            digesting.add(stamped.select(TRAINING_EXAMPLES.names).cast(TRAINING_EXAMPLES))
    return digesting.hexdigest()
