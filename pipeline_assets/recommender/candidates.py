"""Which products are scored for a customer: history, collaborative filtering, favourite types, promotions, popularity.

Sources are ranked on their own and merged; a product keeps its first source's place. Sizes follow the measured value of each
source: repeats are nearly all of the hits (docs/design/evaluation.md), so history has the most places.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.retriever import item_neighbour_scores

N_HISTORY, N_NEIGHBOURS, N_TYPE, N_PROMOTED, N_POPULAR = 180, 30, 40, 30, 20
SOURCES = ("history", "neighbours", "type", "promoted", "popular")


def candidates(snapshot: Snapshot) -> pd.DataFrame:
    """Candidates of every customer.

    Returns:
        One row per customer and product: customer, product (dense keys), source (index into `SOURCES`, the first that
        named it), place (rank within that source, 1 is best), knn_score (float32, 0 when not similar to anything bought),
        sorted by customer, source and place. Also left in the connection as temporary table `candidate`.
    """
    con = snapshot.con
    items, scores, neighbours = _neighbours(snapshot)
    con.register("neighbour", neighbours)
    con.execute("drop table if exists temp.candidate")
    con.execute(
        f"""
        create temp table candidate as
        with history as (
            select customer, product, 0 as source, row_number() over (partition by customer order by decayed_slow desc, product) as place
            from pair
        ), type_popularity as (
            select product, type, row_number() over (partition by type order by orders_28d desc, orders_91d desc, product) as type_place
            from item where orders_28d > 0
        ), favourite as (
            select customer, type, type_decayed,
                row_number() over (partition by customer order by type_decayed desc, type) as favourite_place
            from affinity
        ), by_type as (
            select customer, product, 2 as source,
                row_number() over (partition by customer order by type_decayed / (1 + type_place) desc, product) as place
            from favourite join type_popularity using (type) where favourite_place <= 40 and type_place <= 5
        ), promoted as (
            select customer, product, 3 as source,
                row_number() over (partition by customer order by type_decayed * ln(1 + orders_28d) desc, product) as place
            from favourite join item using (type)
            where favourite_place <= 60 and orders_28d > 0 and (mailer_share > 0 or display_share > 0.2)
        ), popular as (
            select product, row_number() over (order by orders_28d desc, product) as place from item where orders_28d > 0
        ), everything as (
            select * from history where place <= {N_HISTORY}
            union all select customer, product, 1, place from neighbour where place <= {N_NEIGHBOURS}
            union all select * from by_type where place <= {N_TYPE}
            union all select * from promoted where place <= {N_PROMOTED}
            union all select customer, product, 4, place from customer cross join popular where place <= {N_POPULAR}
        )
        select customer, product, min(source)::tinyint as source, arg_min(place, source)::smallint as place
        from everything group by customer, product order by customer, source, place, product
        """
    )
    con.unregister("neighbour")
    frame = con.sql("select * from candidate order by customer, source, place, product").df()
    product = frame["product"].to_numpy()
    position, inside = _positions(items, product)
    frame["knn_score"] = np.where(inside, scores[frame["customer"].to_numpy(), position], np.float32(0))
    return frame


def _positions(items: NDArray[np.int32], product: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each product is in the ascending `items`, and whether it is there at all."""
    position = np.minimum(np.searchsorted(items, product), len(items) - 1)
    return position, items[position] == product


def _neighbours(snapshot: Snapshot) -> tuple[NDArray[np.int32], NDArray[np.float32], pd.DataFrame]:
    """Collaborative filtering scores (retriever.py), and the best products not bought yet: customer, product, place."""
    bought = snapshot.con.sql("select customer, product, decayed_slow from pair order by customer, product").df()
    n_customers = snapshot.con.sql("select count(*) from customer").fetchall()[0][0]
    customer, product = bought["customer"].to_numpy(np.int32), bought["product"].to_numpy(np.int32)
    items, scores = item_neighbour_scores(customer, product, bought["decayed_slow"].to_numpy(), n_customers)
    new = scores.copy()
    position, inside = _positions(items, product)
    new[customer[inside], position[inside]] = 0.0
    rows = np.arange(n_customers)[:, None]
    top = min(N_NEIGHBOURS, len(items))
    best = np.sort(np.argpartition(-new, top - 1, axis=1)[:, :top], axis=1)
    best = np.take_along_axis(best, np.argsort(-new[rows, best], axis=1, kind="stable"), axis=1)
    found = new[rows, best] > 0
    place = np.broadcast_to(np.arange(1, top + 1, dtype=np.int16), best.shape)
    who = np.broadcast_to(rows.astype(np.int32), best.shape)
    return items, scores, pd.DataFrame({"customer": who[found], "product": items[best[found]], "place": place[found]})
