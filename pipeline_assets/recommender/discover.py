"""The discover slate: the best products as usual, with the last place kept for one that the customer never bought.

Nearly all that a ranker hits are repeats, so a list by score alone shows hardly anything new. One place of ten costs what its product
would have hit, and the last one costs least (docs/adr/0021-discover-slate.md).
"""

from __future__ import annotations

import pandas as pd

from pipeline_assets.recommender.errors import SchemaError


def discover(ranked: pd.DataFrame, k: int = 10) -> pd.DataFrame:
    """The first `k - 1` of each customer, and in place `k` the best new product after them.

    Who has a new product among the first `k - 1` already, or has none at all among the candidates, gets the first `k` as they are.

    Args:
        ranked: customer_id, rank (1 is the best, without holes), product_id, is_new (never bought by the customer), and columns that are
            kept. The more candidates it holds, the better the new product.

    Returns:
        Rows of `ranked` in the order of customers and ranks, with ranks 1 .. k.

    Raises:
        SchemaError: a column is missing, or `k` is below 2.
    """
    missing = [name for name in ("customer_id", "rank", "product_id", "is_new") if name not in ranked.columns]
    if missing or k < 2:
        raise SchemaError(
            "discover slate",
            found=f"k = {k}, without {missing}" if missing else f"k = {k}",
            wanted="ranked candidates that say what is new, and two places or more",
            fix="pass what rank_customers returns",
        )
    is_new = ranked["is_new"].to_numpy(dtype=bool)
    has_new = ranked["customer_id"].isin(ranked.loc[is_new & (ranked["rank"] < k), "customer_id"]).to_numpy()
    late = ranked[is_new & ~has_new & (ranked["rank"] >= k)].sort_values("rank", kind="stable")
    found = late.drop_duplicates("customer_id")
    is_moved = ranked["customer_id"].isin(found["customer_id"])
    kept = ranked[ranked["rank"] <= k - is_moved.astype(int)]
    slates = pd.concat([kept, found.assign(rank=k)])
    order = {customer: at for at, customer in enumerate(ranked["customer_id"].unique())}
    places = slates["customer_id"].map(order).to_numpy() * (k + 1) + slates["rank"].to_numpy()
    return slates.iloc[places.argsort(kind="stable")].reset_index(drop=True)
