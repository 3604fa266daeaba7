"""Why a customer gets a product, or does not: the model's contributions on the features of a day, and the facts where there is no candidate.

Belongs here: reading what is known. Does not: words (recommender/explain.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender import candidates as sources
from pipeline_assets.recommender.errors import BundleError, NotEnoughData
from pipeline_assets.recommender.explain import (
    Contribution,
    SourceSizes,
    Standing,
    merchant_sentence,
    shopper_sentence,
    why_not,
)
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, MODEL_FEATURES, PAIR_FEATURES
from pipeline_assets.recommender.packing import F32, assemble, unpack
from pipeline_assets.recommender.ranker import rank_customers
from pipeline_assets.recommender.retriever import N_ITEMS
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.resources.training_data import Week, customer_ids, read_week, require_features, sellable_purchases
from pipeline_assets.settings import Settings

SIZES = SourceSizes(
    sources.N_HISTORY,
    sources.N_NEIGHBOURS,
    N_ITEMS,
    sources.N_PER_TYPE,
    sources.N_PROMOTED,
    sources.N_POPULAR,
)
_TOLERANCE = 1e-6  # contributions add up to the score in double precision


@dataclass(frozen=True)
class Explained:
    """One candidate of a customer: where it stands, and what moved it there. Contributions and `base` add up to `score`."""

    customer_id: str
    product_id: str
    name: str  # type and brand, or the id
    as_of: date
    model: str
    rank: int
    n_candidates: int
    score: float
    base: float
    contributions: tuple[Contribution, ...]  # strongest first
    shopper: str
    merchant: str


@dataclass(frozen=True)
class NotCandidate:
    """A product that is no candidate of a customer on a day, and why."""

    customer_id: str
    product_id: str
    name: str
    as_of: date
    reasons: tuple[str, ...]


def explain(
    lake: Lake,
    features: FeatureStoreResource,
    tracking: Tracking,
    customer: str,
    product: str,
    day: date | None,
    model: str | None,
    settings: Settings,
) -> Explained | NotCandidate:
    """Explain one product for one customer from the features as of `day`.

    Args:
        day: business day D; the newest with features if not given.
        model: a registered version or a run id; the champion if not given.

    Raises:
        NotEnoughData: the customer, the day's features or the model is not known.
        BundleError: the contributions do not add up to the score.
    """
    import lightgbm

    day = day or max(lake.days("features/customer"), default=None)
    if day is None:
        raise NotEnoughData("features", found="none", wanted="a day's", fix="run `make run` first")
    require_features(lake, [day])
    if customer not in set(customer_ids(lake, day)):
        raise NotEnoughData(
            f"customer {customer}",
            found=f"nobody of that id as of {day}",
            wanted="a known customer",
            fix="check the id; customers who are not known get what is popular",
        )
    week = read_week(features, features.apply(), [customer], day)
    ids = list(week.rows["candidate_ids"].iloc[0])
    name = _name(lake, product, day)
    if product not in ids:
        reasons = why_not(_standing(lake, customer, product, day, settings), SIZES)
        return NotCandidate(customer, product, name, day, tuple(reasons))
    version = tracking.version(model) if model else tracking.require_champion()
    booster = lightgbm.Booster(model_str=tracking.model_text(version.run_id))
    slate = rank_customers(booster, week.rows, week.catalogue, len(ids), settings.training.usable_threads)
    (row,) = slate[slate["product_id"] == product].to_dict("records")
    values = _row(week, ids.index(product), product)
    shares = np.asarray(booster.predict(values, pred_contrib=True, num_threads=1))[0]
    raw = float(
        np.asarray(booster.predict(values, raw_score=True, num_threads=1))[0]
    )  # before a link function, if there is one
    if abs(shares.sum() - raw) > _TOLERANCE * max(1.0, abs(raw)):
        raise BundleError(
            f"explanation of {product} for {customer}",
            found=f"contributions of {shares.sum()}",
            wanted=f"the score {raw}",
            fix="the model was not scored on the features that are explained; report this",
        )
    contributions = _strongest(values[0], shares[:-1])
    return Explained(
        customer,
        product,
        name,
        day,
        version.version,
        int(row["rank"]),
        len(slate),
        raw,
        float(shares[-1]),
        contributions,
        shopper_sentence(name, contributions),
        merchant_sentence(name, customer, int(row["rank"]), len(slate), contributions),
    )


def _row(week: Week, place: int, product: str) -> F32:
    """The model's features of one candidate, shape (1, MODEL_FEATURES), put together as for ranking."""
    packed = week.rows.iloc[0]
    pair = unpack(packed["pair_features"], len(packed["candidate_ids"]), len(PAIR_FEATURES))[[place]]
    own = packed[list(CUSTOMER_FEATURES)].to_numpy(np.float32)
    return assemble(pair, own, week.catalogue.matrix[[week.catalogue.rows[product]]])


def _strongest(values: np.ndarray, shares: np.ndarray) -> tuple[Contribution, ...]:
    order: Sequence[int] = np.argsort(-np.abs(shares), kind="stable").tolist()
    return tuple((MODEL_FEATURES[j], float(values[j]), float(shares[j])) for j in order)


def _newest_product(lake: Lake, product: str, day: date) -> dict[str, Any] | None:
    columns = ["product_id", "type", "category", "brand", "is_sellable", "event_date"]
    rows = lake.read("warehouse/dim_products", None, day, columns).to_pandas()
    rows = rows[rows["product_id"] == product].sort_values("event_date")
    return None if rows.empty else dict(rows.iloc[-1])


def _name(lake: Lake, product: str, day: date) -> str:
    known = _newest_product(lake, product, day) or {}
    parts = [str(known[key]) for key in ("type", "brand") if isinstance(known.get(key), str) and known[key]]
    return f"{parts[0]} ({', '.join([*parts[1:], product])})" if parts else f"product {product}"


def _standing(lake: Lake, customer: str, product: str, day: date, settings: Settings) -> Standing:
    """What is known as of `day` about the product, and about the customer and the product."""
    known = _newest_product(lake, product, day)
    columns = ["product_id", "type", "product_orders_28d", "product_n_buyers", "product_mailer_share", "product_display_share"]  # fmt: skip
    items = lake.read("features/product", day, day, columns).to_pandas()
    own = items[items["product_id"] == product]
    if known is None or own.empty:
        is_sellable = bool(known["is_sellable"]) if known else False
        return Standing(known is not None, is_sellable, False, 0, None, 0, None, None, None, False)
    item = own.iloc[0]
    bought = sellable_purchases(lake, settings.calendar.first_day, day, day)
    bought = bought[bought["customer_id"] == customer]
    type_name = item["type"] if isinstance(item["type"], str) else None
    of_type = items[items["type"] == type_name]
    orders = bought.merge(of_type[["product_id"]], on="product_id")["order_id"]
    return Standing(
        True,
        True,
        True,
        int((bought["product_id"] == product).sum()),
        type_name,
        int(orders.nunique()),
        _place(of_type, item, "product_orders_28d"),
        _place(items, item, "product_orders_28d"),
        _place(items, item, "product_n_buyers"),
        bool(item["product_mailer_share"] > 0 or item["product_display_share"] > 0),
    )


def _place(items: pd.DataFrame, item: pd.Series, column: str) -> int | None:
    """1 for the highest of a column; None where the item has none."""
    return int((items[column] > item[column]).sum()) + 1 if item[column] > 0 else None
