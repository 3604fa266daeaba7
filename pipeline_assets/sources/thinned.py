"""A source of some of the shop's customers, for replays and trials that need not cost what everybody costs.

The same customers on every day and in every feed, chosen by a hash of their id; rows without a customer stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import md5

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.sources.base import Source
from pipeline_assets.sources.batch import LandedBatch, ReopeningSource, differing

CUSTOMER = "customer_id"
_PARTS = 10_000


def is_chosen(customer_id: str, share: float) -> bool:
    """Whether a customer is one of the `share` (0 to 1) that is kept."""
    return int.from_bytes(md5(customer_id.encode(), usedforsecurity=False).digest()[:4]) % _PARTS < share * _PARTS


class ThinnedSource:
    """`source` with the rows of a share of its customers.

    Args:
        share: of the customers, above 0, up to 1.
    """

    def __init__(self, source: Source, share: float) -> None:
        self._source, self._share = source, share

    def arrived_days(self) -> list[date]:
        return self._source.arrived_days()

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        rows = self._source.read(feed, days)
        if CUSTOMER not in rows.column_names:
            return rows
        found = pc.unique(rows[CUSTOMER])
        kept = [value for value in found.to_pylist() if value is not None and is_chosen(value, self._share)]
        is_kept = pc.is_in(rows[CUSTOMER], pyarrow.array(kept, found.type))
        return rows.filter(pc.or_(is_kept, pc.is_null(rows[CUSTOMER])))

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        """Landed days on which the rows of the chosen customers are others now."""
        if not isinstance(self._source, ReopeningSource):
            return []
        return differing(self, feed, self._source.changed_days(feed, landed), landed)
