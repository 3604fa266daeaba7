"""What is shown, whatever is bought: coverage, novelty, tail, departments, and who gets the slots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import CUSTOMER_ID, PRODUCT_ID, RANK
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.metrics import SHOWN_METRICS, Estimate

HEAD_SHARE = 0.2  # Pareto's fifth: the 20 % most bought products are the head, the others the tail
Z95 = 1.959964  # two-sided 95 % of a normal distribution


@dataclass(frozen=True, eq=False)
class Shop:
    """What a week's slates are compared with, as known on its as-of day.

    `popularity`: share of customers that bought a product in the 91 days before, index product_id (`popularity_share`).
    `products`: index product_id, with the columns department and brand.
    """

    popularity: pd.Series
    products: pd.DataFrame

    @cached_property
    def head(self) -> pd.Index:
        """`head_products`: every method's slates are compared with them."""
        return head_products(self.popularity)


def popularity_share(purchases: pd.DataFrame) -> pd.Series:
    """Share of the customers in `purchases` that bought each product; index product_id, in (0, 1]."""
    pairs = purchases[[CUSTOMER_ID, PRODUCT_ID]].drop_duplicates()
    return pairs.groupby(PRODUCT_ID).size() / pairs[CUSTOMER_ID].nunique()


def head_products(popularity: pd.Series, head: float = HEAD_SHARE) -> pd.Index:
    """The most popular `head` share of products; of equal ones the smaller product_id."""
    ordered = popularity.rename_axis(PRODUCT_ID).rename("share").reset_index()
    ordered = ordered.sort_values(["share", PRODUCT_ID], ascending=[False, True])
    return pd.Index(ordered[PRODUCT_ID].head(int(np.ceil(head * len(ordered)))))


def shown_measures(slates: pd.DataFrame, shop: Shop, k: int = 10) -> pd.DataFrame:
    """Measures of each customer's first k, index customer_id; `metrics.SHOWN_METRICS` names them.

    novelty: mean surprise -log2(popularity) in bits; a product that nobody bought counts as the rarest one: a lower
    bound. tail_share: part of the slots outside the most popular fifth of products. departments: how many are in it.
    """
    top = slates.loc[slates[RANK] <= k, [CUSTOMER_ID, PRODUCT_ID]]
    shares = top[PRODUCT_ID].map(shop.popularity).fillna(shop.popularity.min()).to_numpy(dtype=float)
    measured = top.assign(
        novelty=-np.log2(shares),
        tail_share=~top[PRODUCT_ID].isin(shop.head),
        departments=top[PRODUCT_ID].map(shop.products["department"]),
    )
    found = measured.groupby(CUSTOMER_ID).agg(
        novelty=("novelty", "mean"), tail_share=("tail_share", "mean"), departments=("departments", "nunique")
    )
    return found[list(SHOWN_METRICS)].astype(float)


def coverage(slates: pd.DataFrame, n_products_sold_91d: int, k: int = 10) -> Estimate:
    """Distinct products in the first k of one window's slates / distinct products sold in the 91 days before it.

    The bounds are from the jackknife over customers: leaving one out loses the products that only she was shown. A
    bootstrap would be biased, because a resample holds two thirds of the customers.

    Raises:
        NotEnoughData: nothing was sold.
    """
    if n_products_sold_91d < 1:
        raise NotEnoughData("products sold", found=n_products_sold_91d, wanted="1 or more", fix="check the lake")
    top = slates.loc[slates[RANK] <= k, [CUSTOMER_ID, PRODUCT_ID]]
    shown_to = top.groupby(PRODUCT_ID)[CUSTOMER_ID].transform("nunique")
    alone = (shown_to == 1).groupby(top[CUSTOMER_ID]).sum().to_numpy(dtype=float)
    n, value = len(alone), top[PRODUCT_ID].nunique() / n_products_sold_91d
    spread = np.sqrt((n - 1) / n * ((alone - alone.mean()) ** 2).sum()) / n_products_sold_91d if n else 0.0
    return Estimate(value, max(value - Z95 * spread, 0.0), value + Z95 * spread)


def exposure(slates: pd.DataFrame, targets: pd.DataFrame, group: pd.Series, k: int = 10) -> pd.DataFrame:
    """Who gets the slots: share of the slots and of the purchases of each group, and their ratio.

    Args:
        targets: distinct customer_id, product_id bought in the window. group: product_id -> brand, department, ...;
            products without one are `unknown`.

    Returns:
        Index group, the largest share of purchases first: slots, purchases (shares, each sums to 1), ratio.
    """
    top = slates.loc[slates[RANK] <= k, PRODUCT_ID]
    slots = top.map(group).fillna("unknown").value_counts(normalize=True)
    bought = targets[PRODUCT_ID].map(group).fillna("unknown").value_counts(normalize=True)
    both = pd.DataFrame({"slots": slots, "purchases": bought}).fillna(0.0)
    both["ratio"] = (both["slots"] / both["purchases"]).where(both["purchases"] > 0)
    both.index.name = "group"
    return both.sort_index().sort_values("purchases", ascending=False, kind="stable")


def popularity_fifths(popularity: pd.Series) -> pd.Series:
    """product_id -> the fifth of products by popularity that it is in: `1 (most bought)` .. `5`."""
    ordered = popularity.rename_axis(PRODUCT_ID).rename("share").reset_index()
    ordered = ordered.sort_values(["share", PRODUCT_ID], ascending=[False, True])
    fifth = np.arange(len(ordered)) * 5 // max(len(ordered), 1) + 1
    names = np.where(fifth == 1, "1 (most bought)", fifth.astype(str))
    return pd.Series(names, index=pd.Index(ordered[PRODUCT_ID]), name="fifth")
