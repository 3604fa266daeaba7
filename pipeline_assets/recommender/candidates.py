"""Which products are scored for a customer: history, collaborative filtering, favourite types, promotions, popularity.

Sources are ranked on their own and merged; a product keeps its first source's place. Sizes follow the measured value of each
source: repeats are nearly all of the hits (docs/design/evaluation.md), so history has the most places. Of a slate's first ten, none
beyond these places made a difference: with 41 % of 230 candidates NDCG@10 was 0.07 % lower (a trial outside of the package:
benchmarks/results/model-experiments-by-hand.md). What each source names is in every evaluation report.

A rank is one sort of whole numbers that hold customer, score and product, which is cheaper than a window function; what features of a day
cost is measured by `python -m benchmarks.scale --stages features`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.retriever import RETRIEVER, Fitted, Retriever, most_bought

N_HISTORY, N_NEIGHBOURS, N_TYPE, N_PROMOTED, N_POPULAR = 80, 15, 10, 10, 10
N_PER_TYPE, N_TYPES, N_PROMOTED_TYPES = (
    5,
    40,
    60,
)  # best sellers of a type; favourite types that name their best sellers, and promotions
SOURCES = ("history", "neighbours", "type", "promoted", "popular")
_PLACE_BITS, _SOURCE_BITS = 10, 3  # 1024 places are more than any source has
_ROWS_AT_ONCE = 256  # customers whose 1500 scores are ranked together: 2 MB a copy; all of a bucket at once are 15 MB at the sample's size

Ints = NDArray[np.int64]


def similar_products(snapshot: Snapshot, retriever: Retriever = RETRIEVER) -> Fitted:
    """The retriever, fitted to the pairs of all customers: once a snapshot, whatever the number of buckets."""
    con = snapshot.con
    counts = con.sql("select product, n_buyers from item where n_buyers is not null").fetchnumpy()
    items = most_bought(counts["product"], counts["n_buyers"], retriever.n_items)

    def pairs(bucket: int) -> tuple[NDArray[np.signedinteger], NDArray[np.int32]]:
        (first,) = con.execute("select min(customer) from known_customer where bucket = ?", [bucket]).fetchall()[0]
        found = con.sql(f"select customer, product from {snapshot.stage.kept(bucket, 'pair')}").fetchnumpy()
        return found["customer"] - first, found["product"]

    return retriever.fit(items, (pairs(bucket) for bucket in range(snapshot.stage.n_buckets)))


def candidates(snapshot: Snapshot, similar: Fitted | None = None) -> pd.DataFrame:
    """Candidates of every customer of the loaded bucket.

    Args:
        similar: `similar_products` of the snapshot, where it is known already.

    Returns:
        One row per customer and product: customer, product (keys of the snapshot), source (index into `SOURCES`, the first that
        named it), place (rank within that source, 1 is best), knn_score (float32, 0 when not similar to anything bought),
        sorted by customer, source and place.
    """
    similar = similar or similar_products(snapshot)
    customer, bits, scores, named = _named(snapshot, similar)
    row, product, source, place = _merged(named, bits)
    position, inside = similar.positions(product.astype(np.int32))
    return pd.DataFrame(
        {
            "customer": customer[row],
            "product": product.astype(np.int32),
            "source": source.astype(np.int8),
            "place": place.astype(np.int16),
            "knn_score": np.where(inside, scores[row, position], np.float32(0)),
        }
    )


def sources_of(snapshot: Snapshot, similar: Fitted | None = None) -> pd.DataFrame:
    """Every source that names a product for a customer of the loaded bucket, also those that came second.

    Returns:
        customer_id, product_id, source (index into `SOURCES`): one row per customer, product and source.
    """
    _, _, _, named = _named(snapshot, similar or similar_products(snapshot))
    ids = snapshot.con.sql("select customer_id from customer order by customer").fetchnumpy()["customer_id"]
    products = snapshot.stage.product_ids.to_numpy(zero_copy_only=False)
    parts = [
        pd.DataFrame({"customer_id": ids[row], "product_id": products[product], "source": np.int8(source)})
        for source, (row, product, _) in enumerate(named)
    ]
    return pd.concat(parts, ignore_index=True)


def _named(snapshot: Snapshot, similar: Fitted) -> tuple[NDArray[np.int32], int, NDArray[np.float32], list[Named]]:
    """What each source names, in the order of `SOURCES`; with the customers, the bits of a product's key, and the retriever's scores."""
    customer = snapshot.con.sql("select customer from customer order by customer").fetchnumpy()["customer"]
    pair, bits = snapshot.arrays["pair"], max(len(snapshot.stage.product_ids) - 1, 1).bit_length()
    bought = np.searchsorted(customer, pair["customer"])
    scores, neighbour = _neighbours(similar, bought, pair["product"], pair["decayed_slow"], len(customer))
    named = [
        _ranked(bought, pair["decayed_slow"], pair["product"], bits, N_HISTORY)[:3],
        neighbour,
        *_of_types(snapshot, customer, bits),
        _popular(snapshot, len(customer)),
    ]
    return customer, bits, scores, named


Named = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # rows of customers, products, places


def _ranked(
    row: NDArray[Any], score: NDArray[Any], key: NDArray[Any], key_bits: int, top: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """The `top` highest scores of each row; of equal ones the smaller key first.

    Args:
        row: ascending.
        score: positive; compared as float32.
        key: below 2 ** key_bits.

    Returns:
        row, key, place (1 is best) and score.
    """
    parts = [_sorted_block(row[part], score[part], key[part], key_bits) for part in _blocks(row, 32 - key_bits)]
    if not parts:
        return row, key, np.empty(0, np.int64), np.empty(0, np.float32)
    rows, keys, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    place = _places(rows)
    kept = place <= top
    return rows[kept], keys[kept], place[kept], scores[kept]


def _blocks(row: NDArray[Any], bits: int) -> Iterator[slice]:
    """Stretches of rows that are numbered with so many bits."""
    start = 0
    while start < len(row):
        end = int(np.searchsorted(row, row[start] + (1 << bits)))
        yield slice(start, end)
        start = end


def _sorted_block(row: NDArray[Any], score: NDArray[Any], key: NDArray[Any], key_bits: int) -> tuple[Any, Any, Any]:
    first = int(row[0])
    # positive floats are ordered like the whole numbers that their bits are
    low = np.int64(0x7FFFFFFF) - score.astype(np.float32).view(np.int32)
    packed = ((row - first).astype(np.int64) << (31 + key_bits)) | (low << key_bits) | key
    packed.sort()
    low = (np.int64(0x7FFFFFFF) - ((packed >> key_bits) & 0x7FFFFFFF)).astype(np.int32)
    return (packed >> (31 + key_bits)) + first, packed & ((1 << key_bits) - 1), low.view(np.float32)


def _places(row: NDArray[Any]) -> Ints:
    """1, 2, 3 ... within each stretch of equal rows."""
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])[: len(row)]
    return np.arange(1, len(row) + 1) - np.repeat(starts, np.diff(np.r_[starts, len(row)]))


def _merged(named: list[Named], key_bits: int) -> tuple[Ints, Ints, Ints, Ints]:
    """The first source that names each product for each customer, and its place there; ordered by row, source and place."""
    bits = _SOURCE_BITS + _PLACE_BITS
    packed = np.concatenate(
        [
            (row.astype(np.int64) << (key_bits + bits))
            | (product.astype(np.int64) << bits)
            | (source << _PLACE_BITS | place)
            for source, (row, product, place) in enumerate(named)
        ]
    )
    packed.sort()
    pair = packed >> bits
    first = packed[np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])[: len(packed)]]
    row, product, code = first >> (key_bits + bits), (first >> bits) & ((1 << key_bits) - 1), first & ((1 << bits) - 1)
    packed = (row << (key_bits + bits)) | (code << key_bits) | product
    packed.sort()
    code = (packed >> key_bits) & ((1 << bits) - 1)
    return (
        packed >> (key_bits + bits),
        packed & ((1 << key_bits) - 1),
        code >> _PLACE_BITS,
        code & ((1 << _PLACE_BITS) - 1),
    )


def _of_types(snapshot: Snapshot, customer: NDArray[np.int32], bits: int) -> tuple[Named, Named]:
    """What favourite types bring: their best sellers, and what is promoted of them next week."""
    found = snapshot.arrays["affinity"]
    row = np.searchsorted(customer, found["customer"])
    type_bits = max(len(snapshot.stage.names) - 1, 1).bit_length()
    favourites = _ranked(row, found["type_decayed"], found["type_key"], type_bits, max(N_TYPES, N_PROMOTED_TYPES))
    items = snapshot.con.sql(
        """select product, type_key, orders_28d, orders_91d, mailer_share > 0 or display_share > 0.2 as is_promoted
        from item where orders_28d > 0 and type_key is not null"""
    ).fetchnumpy()
    order = np.lexsort((items["product"], -items["orders_91d"], -items["orders_28d"], items["type_key"]))
    items = {name: np.ma.filled(column[order], 0) for name, column in items.items()}
    type_place = _places(items["type_key"])

    def best(is_chosen: NDArray[np.bool_], n_types: int, weight: NDArray[np.float64], top: int) -> Named:
        of_type, product, value = items["type_key"][is_chosen], items["product"][is_chosen], weight[is_chosen]
        is_favourite = favourites[2] <= n_types
        row, type_key, decayed = favourites[0][is_favourite], favourites[1][is_favourite], favourites[3][is_favourite]
        start, end = np.searchsorted(of_type, type_key), np.searchsorted(of_type, type_key, side="right")
        many = end - start
        at = np.repeat(start - np.r_[0, np.cumsum(many)[:-1]], many) + np.arange(many.sum())
        return _ranked(np.repeat(row, many), np.repeat(decayed, many) * value[at], product[at], bits, top)[:3]

    return (
        best(type_place <= N_PER_TYPE, N_TYPES, 1 / (1 + type_place), N_TYPE),
        best(items["is_promoted"].astype(bool), N_PROMOTED_TYPES, np.log1p(items["orders_28d"]), N_PROMOTED),
    )


def _popular(snapshot: Snapshot, n_customers: int) -> Named:
    """The best sellers of four weeks, for everybody."""
    query = f"select product from item where orders_28d > 0 order by orders_28d desc, product limit {N_POPULAR}"
    product = snapshot.con.sql(query).fetchnumpy()["product"]
    row = np.repeat(np.arange(n_customers), len(product))
    return row, np.tile(product, n_customers), np.tile(np.arange(1, len(product) + 1), n_customers)


def _neighbours(
    similar: Fitted,
    row: NDArray[np.intp],
    product: NDArray[np.int32],
    weight: NDArray[np.float64],
    n_customers: int,
) -> tuple[NDArray[np.float32], Named]:
    """Collaborative filtering scores of all customers, and the best products that each has not bought yet."""
    scores = similar.scores(row, product, weight, n_customers)
    new = scores.copy()
    position, inside = similar.positions(product)
    new[row[inside], position[inside]] = 0.0
    best, score = _best(new, min(N_NEIGHBOURS, len(similar.items)))
    found = score > 0
    place = np.broadcast_to(np.arange(1, best.shape[1] + 1), best.shape)
    who = np.broadcast_to(np.arange(n_customers)[:, None], best.shape)
    return scores, (who[found], similar.items[best[found]], place[found])


def _best(scores: NDArray[np.float32], top: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Columns and scores of the `top` highest of each row, highest first; of equal ones the first column."""
    columns = np.empty((len(scores), top), dtype=np.intp)
    for start in range(0, len(scores), _ROWS_AT_ONCE):
        low = -scores[start : start + _ROWS_AT_ONCE]
        part = np.sort(np.argpartition(low, top - 1, axis=1)[:, :top], axis=1)
        order = np.argsort(np.take_along_axis(low, part, axis=1), axis=1, kind="stable")
        columns[start : start + _ROWS_AT_ONCE] = np.take_along_axis(part, order, axis=1)
    return columns, np.take_along_axis(scores, columns, axis=1)
