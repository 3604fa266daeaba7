"""Candidate recall of an as-of day: every source's candidates from the marts, beside what was bought."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import pandas as pd

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.candidate_recall import candidate_recall
from pipeline_assets.recommender.candidates import SOURCES, similar_products, sources_of
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.snapshots import marts_as_of


def named_by_source(lake: Lake, day: date, customers: Collection[str]) -> pd.DataFrame:
    """customer_id, product_id, source: what each source names as of `day`; features keep only the first source of a candidate."""
    with marts_as_of(lake, day, threads=1) as con:
        snapshot = Snapshot(con, day)
        similar = similar_products(snapshot)
        parts = [sources_of(snapshot, similar) for _ in snapshot.buckets()]
    named = pd.concat(parts, ignore_index=True)
    return named[named["customer_id"].isin(set(customers))].reset_index(drop=True)


def recall_by_source(lake: Lake, day: date, targets: pd.DataFrame) -> pd.DataFrame:
    """`candidate_recall` of the as-of day.

    Args:
        targets: customer_id, product_id bought in the window of `day`, of customers who were known (they went through a door).
    """
    named = named_by_source(lake, day, set(targets["customer_id"]))
    return candidate_recall(named, targets, SOURCES)
