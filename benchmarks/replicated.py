"""The sample with more customers: a source that replicates on read, so that 100 times the data needs no copy on disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.sources.base import Source

# What belongs to a customer gets a new id in every copy; products, stores, campaigns and promotion plans stay the shop's.
_OWN_IDS = {
    "purchases": ("event_id", "order_id", "customer_id"),
    "exposures": ("event_id", "customer_id"),
    "customers": ("customer_id",),
}


class ReplicatedSource:
    """`copies` times the customers of `inner`: copy 0 keeps its ids, copy k has `~k` behind each of them.

    Purchases, customers and the campaigns' mailings grow with `copies`; products, displays, mailers and coupons do not, as in
    a shop that has more customers. Copies are exact: habits repeat, so columns compress better than 100 times other people would.
    """

    def __init__(self, inner: Source, copies: int) -> None:
        self._inner, self._copies = inner, copies

    def arrived_days(self) -> list[date]:
        return self._inner.arrived_days()

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        rows = self._inner.read(feed, days)
        if feed.name not in _OWN_IDS or self._copies == 1:
            return rows
        owned = rows.filter(pc.is_valid(rows["customer_id"]))
        return pyarrow.concat_tables([rows, *(self._copy(owned, feed, k) for k in range(1, self._copies))])

    @staticmethod
    def _copy(rows: pyarrow.Table, feed: Feed, number: int) -> pyarrow.Table:
        for name in _OWN_IDS[feed.name]:
            renamed = pc.binary_join_element_wise(rows[name], f"~{number}", "")
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), renamed)
        return rows
