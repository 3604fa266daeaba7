"""Slates that can be shown: what is wrong with them whatever their measures are, and how much they change."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import pandas as pd

from pipeline_assets.recommender.columns import CUSTOMER_ID, PRODUCT_ID, RANK
from pipeline_assets.recommender.errors import NotEnoughData

MAX_SAME_SHARE = 0.5  # of customers with one and the same list; of the sample's personal lists 0.2 % at most are equal


def slate_faults(slates: pd.DataFrame, customers: Sequence[str], sellable: Collection[str], k: int) -> tuple[str, ...]:
    """What makes the first k of these slates unfit to be shown; a sentence each, with an example. Empty: nothing.

    Args:
        customers: who must have a slate. sellable: products that may be recommended.
    """
    top = slates.loc[slates[RANK] <= k, [CUSTOMER_ID, RANK, PRODUCT_ID]]
    lengths = top.groupby(CUSTOMER_ID).size().reindex(list(customers), fill_value=0)
    short = lengths[lengths < k]
    unsellable = top.loc[~top[PRODUCT_ID].isin(sellable)]
    repeated = top.loc[top.duplicated([CUSTOMER_ID, PRODUCT_ID])]
    lists: dict[str, list[str]] = defaultdict(list)
    for customer, product in top.sort_values(RANK, kind="stable")[[CUSTOMER_ID, PRODUCT_ID]].itertuples(index=False):
        lists[customer].append(product)
    same = max(Counter(map(tuple, lists.values())).values()) / len(lists) if len(lists) > 1 else 0.0
    found = []
    if len(short):
        found.append(
            f"{len(short)} customers have fewer than {k} products, such as {short.index[0]} with {short.iloc[0]}"
        )
    if len(unsellable):
        customer, product = unsellable[[CUSTOMER_ID, PRODUCT_ID]].iloc[0]
        found.append(f"{len(unsellable)} slots have a product that is not sellable, such as {product} for {customer}")
    if len(repeated):
        customer, product = repeated[[CUSTOMER_ID, PRODUCT_ID]].iloc[0]
        found.append(f"{len(repeated)} slots repeat a product of the slate, such as {product} for {customer}")
    if same > MAX_SAME_SHARE:
        found.append(f"{same:.0%} of the customers have one and the same slate ({MAX_SAME_SHARE:.0%} are allowed)")
    return tuple(found)


def changed_share(slates: pd.DataFrame, before: pd.DataFrame, k: int) -> float:
    """Share of the slots in the first k whose product is not in the same customer's first k of `before`, whatever its rank.

    Raises:
        NotEnoughData: no customer is in both.
    """
    new = slates.loc[slates[RANK] <= k, [CUSTOMER_ID, PRODUCT_ID]]
    old = before.loc[before[RANK] <= k, [CUSTOMER_ID, PRODUCT_ID]]
    new = new[new[CUSTOMER_ID].isin(old[CUSTOMER_ID])]
    if new.empty:
        raise NotEnoughData("slates", found="no common customer", wanted="one or more", fix="rank the same customers")
    kept = new.merge(old, on=[CUSTOMER_ID, PRODUCT_ID])
    return float(1 - len(kept) / len(new))
