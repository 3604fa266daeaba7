"""Feeds that a shop does not have, made from its purchases.

A shop without a list of products sells what was bought; without a list of customers it knows who bought. A day's rows follow from
that day's purchases alone, so a late or corrected day changes its own day and no other; a product is therefore named again on
every day on which it is bought, which changes nothing for the readers: they take the newest row of a product.
"""

from __future__ import annotations

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.sources.base import empty

DERIVED = frozenset({"products", "customers"})  # a feed in which one row is one thing that purchases name


def derive(feed: Feed, purchases: pyarrow.Table) -> pyarrow.Table:
    """One row per key and day of `purchases`, in that order; every product is sellable, all else is unknown.

    Args:
        feed: one of `DERIVED`.
        purchases: what a source's `read` gives; rows without the key name nothing.
    """
    named = purchases.select([feed.key, "event_date"])
    named = named.filter(pc.and_(pc.is_valid(named[feed.key]), pc.is_valid(named["event_date"])))
    named = (
        named.group_by(["event_date", feed.key])
        .aggregate([])
        .sort_by([("event_date", "ascending"), (feed.key, "ascending")])
    )
    known = {feed.key: named[feed.key], "event_date": named["event_date"]}
    if feed.name == "products":
        known["is_sellable"] = pyarrow.array([True] * len(named), pyarrow.bool_())
    schema = empty(feed).schema
    columns = [known.get(field.name, pyarrow.nulls(len(named), field.type)) for field in schema]
    return pyarrow.table(columns, schema=schema)
