"""The feature store: Feast over the lake (offline) and the online store. The only door that training, batch and serving use.

Feast is imported inside the methods: it costs 6 CPU s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow

from pipeline_assets.recommender.columns import PAIR_FEATURES_BLOB
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PRODUCT_FEATURES
from pipeline_assets.settings import get_settings

if TYPE_CHECKING:
    from feast import FeatureStore

_TIME = "event_timestamp"  # Feast's name for when features are asked for
_OF_VIEW = {"customer": CUSTOMER_FEATURES[0], "customer_candidates": PAIR_FEATURES_BLOB}  # one value, for its time


def known_at(day: date) -> datetime:
    """When features as of `day` are known: the next day, 00:00 UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def stamped(features: pyarrow.Table, day: date) -> pyarrow.Table:
    """Feature rows as stored: with `event_date` and `feature_ts`."""
    n = len(features)
    ts = pyarrow.array([known_at(day)] * n, pyarrow.timestamp("us", "UTC"))
    return features.append_column("feature_ts", ts).append_column(
        "event_date", pyarrow.array([day] * n, pyarrow.date32())
    )


def _as_of(
    store: FeatureStore, service: str, key: str, wanted: Mapping[date, Sequence[str]]
) -> dict[date, pd.DataFrame]:
    """Rows of a service for the ids of each day, indexed by them. Feast makes its SQL anew for each retrieval, which is most of what a small one costs."""
    keys = [
        pd.DataFrame({key: pd.Series(list(ids), dtype="object"), _TIME: known_at(day)}) for day, ids in wanted.items()
    ]
    rows = (
        store.get_historical_features(
            entity_df=pd.concat(keys, ignore_index=True), features=store.get_feature_service(service)
        )
        .to_arrow()
        .to_pandas()
    )
    return {
        day: rows[rows[_TIME] == known_at(day)].drop(columns=_TIME).set_index(key).loc[list(ids)]
        for day, ids in wanted.items()
    }


class FeatureStoreResource(dg.ConfigurableResource):
    """Feast, configured by the process's settings."""

    def open(self) -> FeatureStore:
        from feast import FeatureStore

        from feature_repo.config import repo_config

        return FeatureStore(config=repo_config(get_settings()))

    def apply(self) -> FeatureStore:
        """Register entities, views and services (idempotent) and return the store."""
        from feature_repo import entities, services

        store = self.open()
        store.apply([entities.customer, entities.product, *services.ALL])
        return store

    def customers_as_of(self, store: FeatureStore, wanted: Mapping[date, Sequence[str]]) -> dict[date, pd.DataFrame]:
        """Point-in-time rows of service `ranker_online` at T = day + 1, 00:00 UTC, of the customers of each day, all in one retrieval.

        Returns:
            Day -> customer_id, CUSTOMER_FEATURES, candidate_ids, pair_features; one row per given id, in its order, nulls
            where the store has nothing in reach.
        """
        found = _as_of(store, "ranker_online", "customer_id", wanted)
        return {day: rows.reset_index() for day, rows in found.items()}

    def products_as_of(self, store: FeatureStore, wanted: Mapping[date, Sequence[str]]) -> dict[date, np.ndarray]:
        """Product features at T = day + 1: a float32 matrix (n x PRODUCT_FEATURES) per day, in the given order, all in one retrieval."""
        found = _as_of(store, "product_matrix", "product_id", wanted)
        return {day: rows[list(PRODUCT_FEATURES)].to_numpy(np.float32) for day, rows in found.items()}

    def publish_online(
        self, store: FeatureStore, customer: pd.DataFrame, candidates: pd.DataFrame, day: date
    ) -> dict[str, int]:
        """Write a day's rows online, each view unless it already has newer ones (they never go back in time).

        Args:
            customer: customer_id, CUSTOMER_FEATURES, feature_ts.
            candidates: customer_id, candidate_ids, pair_features, feature_ts.

        Returns:
            Customers of whom a view was `written`, and of whom a view was `kept_newer`.
        """
        written: set[str] = set()
        newer: set[str] = set()
        # each view by its own timestamps: a kill between the two writes leaves views of different days, and both have to be mended
        for view, frame in (("customer", customer), ("customer_candidates", candidates)):
            known = self.online_timestamps(store, frame["customer_id"].tolist(), view)
            fresh = {c for c, ts in known.items() if ts is None or ts <= known_at(day)}
            rows = frame[frame["customer_id"].isin(fresh)]
            if len(rows):
                store.write_to_online_store(view, df=rows)
            written |= fresh
            newer |= known.keys() - fresh
        return {"written": len(written), "kept_newer": len(newer)}

    def online_timestamps(
        self, store: FeatureStore, customer_ids: Sequence[str], view: str = "customer"
    ) -> dict[str, datetime | None]:
        """When the online values of each customer in a view were known; None where there is nothing."""
        name = _OF_VIEW[view]
        result: dict[str, datetime | None] = {}
        for start in range(0, len(customer_ids), 500):
            chunk = list(customer_ids[start : start + 500])
            answer = store.get_online_features(
                features=[f"{view}:{name}"], entity_rows=[{"customer_id": c} for c in chunk]
            ).to_dict(include_event_timestamps=True)
            for customer_id, seconds in zip(chunk, answer[f"{name}__ts"], strict=True):
                result[customer_id] = datetime.fromtimestamp(seconds, UTC) if seconds else None
        return result

    def read_online(self, store: FeatureStore, customer_ids: Sequence[str]) -> dict[str, list[Any]]:
        """Online rows of service `ranker_online`, as Feast returns them (column -> values)."""
        service = store.get_feature_service("ranker_online")
        answer = store.get_online_features(features=service, entity_rows=[{"customer_id": c} for c in customer_ids])
        return dict(answer.to_dict())
