"""The discover slate: the best products as usual, and such that the customer never bought where they cost little.

Nearly all that a ranker hits are repeats, so a list by score alone shows hardly anything new. A new product costs what the product in its
place would have hit: little for a customer with few habits, much for one with many (docs/adr/0029-discover-where-it-is-cheap.md).
"""

from __future__ import annotations

import pandas as pd

from pipeline_assets.recommender.errors import SchemaError

# By how much more in log odds the product in its place may score: a new product is shown where its odds are 1 / 4.5 or more. What other values cost
# and bring is in benchmarks/results/evaluation.md (`python -m benchmarks.evaluation discover`, development weeks).
MARGIN = 1.5


def discover(ranked: pd.DataFrame, k: int = 10, margin: float = MARGIN) -> pd.DataFrame:
    """The best `k` of each customer, where a new product counts as if its score were higher by `margin`.

    Args:
        ranked: customer_id, rank (1 is the best, without holes), product_id, score (log odds), is_new (never bought by the customer), and
            columns that are kept. The more candidates it holds, the better the new products.

    Returns:
        Rows of `ranked` in the order of customers and of their own scores, with ranks 1 .. k.

    Raises:
        SchemaError: a column is missing.
    """
    missing = [name for name in ("customer_id", "rank", "product_id", "score", "is_new") if name not in ranked.columns]
    if missing:
        raise SchemaError(
            "discover slate",
            found=f"ranked candidates without {missing}",
            wanted="scores, and what is new",
            fix="pass what rank_customers returns",
        )
    order = {customer: at for at, customer in enumerate(ranked["customer_id"].unique())}
    rows = ranked.assign(place=ranked["customer_id"].map(order)).sort_values(["place", "rank"], kind="stable")
    rows["value"] = rows["score"] + margin * rows["is_new"]
    rows = rows.sort_values(["place", "value", "rank"], ascending=[True, False, True])
    rows = rows[rows.groupby("place").cumcount() < k].sort_values(["place", "rank"])
    rows["rank"] = rows.groupby("place").cumcount() + 1
    return rows.drop(columns=["place", "value"]).reset_index(drop=True)
