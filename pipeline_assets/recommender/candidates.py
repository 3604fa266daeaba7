"""Which products are scored for a customer: history, collaborative filtering, favourite types, promotions, popularity.

Sources are ranked on their own and merged; a product keeps its first source's place. Sizes follow the measured value of each
source: repeats are nearly all of the hits (docs/design/evaluation.md), so history has the most places.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.retriever import Neighbours, most_bought, neighbours

N_HISTORY, N_NEIGHBOURS, N_TYPE, N_PROMOTED, N_POPULAR = 180, 30, 40, 30, 20
SOURCES = ("history", "neighbours", "type", "promoted", "popular")
_PLACES = 1024  # more than any source has
_ROWS_AT_ONCE = (
    256  # customers whose 2000 scores are ranked together: 6 MB; all of a bucket at once are 70 MB at the sample's size
)


def similar_products(snapshot: Snapshot) -> Neighbours:
    """Item-to-item similarity from the pairs of all customers: once a snapshot, whatever the number of buckets."""
    con = snapshot.con
    counts = con.sql("select product, n_buyers from item where n_buyers is not null").fetchnumpy()
    items = most_bought(counts["product"], counts["n_buyers"])

    def pairs(bucket: int) -> tuple[NDArray[np.signedinteger], NDArray[np.int32]]:
        (first,) = con.execute("select min(customer) from known_customer where bucket = ?", [bucket]).fetchall()[0]
        found = con.sql(f"select customer, product from {snapshot.stage.kept(bucket, 'pair')}").fetchnumpy()
        return found["customer"] - first, found["product"]

    return neighbours(items, (pairs(bucket) for bucket in range(snapshot.stage.n_buckets)))


def candidates(snapshot: Snapshot, similar: Neighbours | None = None) -> pd.DataFrame:
    """Candidates of every customer of the loaded bucket.

    Args:
        similar: `similar_products` of the snapshot, where it is known already.

    Returns:
        One row per customer and product: customer, product (keys of the snapshot), source (index into `SOURCES`, the first that
        named it), place (rank within that source, 1 is best), knn_score (float32, 0 when not similar to anything bought),
        sorted by customer, source and place.
    """
    similar = similar or similar_products(snapshot)
    customer = snapshot.con.sql("select customer from customer order by customer").fetchnumpy()["customer"]
    scores, found = _neighbours(snapshot, similar, customer)
    frame = _named(snapshot, found)
    order = (frame["customer"].to_numpy(np.int64) * len(SOURCES) + frame["source"].to_numpy()) * _PLACES
    frame = frame.take(np.argsort(order + frame["place"].to_numpy()))
    position, inside = similar.positions(frame["product"].to_numpy())
    rows = np.searchsorted(customer, frame["customer"].to_numpy())
    frame["knn_score"] = np.where(inside, scores[rows, position], np.float32(0))
    return frame.reset_index(drop=True)


def _named(snapshot: Snapshot, neighbour: pd.DataFrame) -> pd.DataFrame:
    """The first source that names each product for each customer, and the place there: customer, product, source, place."""
    con = snapshot.con
    con.register("neighbour", neighbour)
    frame = con.sql(
        f"""
        with history as (
            select customer, product, 0 as source, row_number() over (partition by customer order by decayed_slow desc, product) as place
            from pair
        ), type_popularity as (
            select product, type_key, row_number() over (partition by type_key order by orders_28d desc, orders_91d desc, product) as type_place
            from item where orders_28d > 0
        ), favourite as (
            select customer, type_key, type_decayed,
                row_number() over (partition by customer order by type_decayed desc, type_key) as favourite_place
            from affinity
        ), by_type as (
            select customer, product, 2 as source,
                row_number() over (partition by customer order by type_decayed / (1 + type_place) desc, product) as place
            from favourite join type_popularity using (type_key) where favourite_place <= 40 and type_place <= 5
        ), promoted as (
            select customer, product, 3 as source,
                row_number() over (partition by customer order by type_decayed * ln(1 + orders_28d) desc, product) as place
            from favourite join item using (type_key)
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
        select customer, product, (first // {_PLACES})::tinyint as source, (first % {_PLACES})::smallint as place
        from (select customer, product, min(source * {_PLACES} + place) as first from everything group by customer, product)
        """
    ).df()
    con.unregister("neighbour")
    return frame


def _neighbours(
    snapshot: Snapshot, similar: Neighbours, customer: NDArray[np.int32]
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Collaborative filtering scores of `customer`, and the best products not bought yet: customer, product, place."""
    bought = snapshot.con.sql("select customer, product, decayed_slow from pair").fetchnumpy()
    row, product = np.searchsorted(customer, bought["customer"]), bought["product"]
    scores = similar.scores(row, product, bought["decayed_slow"], len(customer))
    new = scores.copy()
    position, inside = similar.positions(product)
    new[row[inside], position[inside]] = 0.0
    best, score = _best(new, min(N_NEIGHBOURS, len(similar.items)))
    found = score > 0
    place = np.broadcast_to(np.arange(1, best.shape[1] + 1, dtype=np.int16), best.shape)
    who = np.broadcast_to(customer[:, None], best.shape)
    return scores, pd.DataFrame({"customer": who[found], "product": similar.items[best[found]], "place": place[found]})


def _best(scores: NDArray[np.float32], top: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Columns and scores of the `top` highest of each row, highest first; of equal ones the first column."""
    columns = np.empty((len(scores), top), dtype=np.intp)
    for start in range(0, len(scores), _ROWS_AT_ONCE):
        low = -scores[start : start + _ROWS_AT_ONCE]
        part = np.sort(np.argpartition(low, top - 1, axis=1)[:, :top], axis=1)
        order = np.argsort(np.take_along_axis(low, part, axis=1), axis=1, kind="stable")
        columns[start : start + _ROWS_AT_ONCE] = np.take_along_axis(part, order, axis=1)
    return columns, np.take_along_axis(scores, columns, axis=1)
