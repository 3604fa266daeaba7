"""Online features of one customer, in one read.

Belongs here: what serving asks of an online store, and how Feast answers. Does not: entities and views (feature_repo),
writing values (the publish step), what to do when the store is down (answers.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline_assets.recommender.columns import CANDIDATE_IDS, CUSTOMER_ID, PAIR_FEATURES_BLOB
from pipeline_assets.recommender.errors import FeatureMismatch
from pipeline_assets.recommender.packing import F32

if TYPE_CHECKING:
    from feast import FeatureStore

FEATURE_SERVICE = "ranker_online"


@dataclass(frozen=True, eq=False)
class CustomerFeatures:
    """What the store knows of a customer: n candidates, n x P packed float32, C customer features, their time."""

    candidate_ids: Sequence[str]
    pair_features: bytes
    customer_features: F32
    feature_ts: datetime  # UTC, when the older of the two views was known


class OnlineFeatures(Protocol):
    """The seam between serving and an online store."""

    def read(self, customer_id: str) -> CustomerFeatures | None:
        """Features of a customer, None for one that the store does not know; raises whatever its driver raises."""


def open_feature_store(options: Mapping[str, Any]) -> FeatureStore:
    """A Feast store of this configuration (what feature_store.yaml holds). Imports Feast: 2 s CPU under `python -O`."""
    from feast import FeatureStore, RepoConfig

    return FeatureStore(config=RepoConfig(**options))


class FeastOnlineFeatures:
    """Reads the feature service `ranker_online` through the Feast SDK.

    0.64 ms CPU a read on SQLite with 18 customer features and 200 candidates, of which 0.50 is Feast. Pre-computed
    vectors (`precompute_online=True`) were tried: Feast raises for an unknown customer instead of saying so.
    The service is resolved once; Feast's `to_dict` (0.1 ms) is skipped by reading the response message.

    Args:
        source: a ready store, or the content of its feature_store.yaml.
        customer_features: names in the order of the model, `CUSTOMER_FEATURES`.
    """

    def __init__(self, source: FeatureStore | Mapping[str, Any], customer_features: Sequence[str]) -> None:
        self.store = open_feature_store(source) if isinstance(source, Mapping) else source
        self._names = tuple(customer_features)
        self._service = self.store.get_feature_service(FEATURE_SERVICE)

    def read(self, customer_id: str) -> CustomerFeatures | None:
        """One customer; None if neither view has a row.

        Raises:
            FeatureMismatch: the service lacks a wanted feature.
            Exception: whatever the online store's driver raises.
        """
        response = self.store.get_online_features(
            features=self._service, entity_rows=[{CUSTOMER_ID: customer_id}]
        ).proto
        found = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
        if missing := {*self._names, CANDIDATE_IDS, PAIR_FEATURES_BLOB} - found.keys():
            raise FeatureMismatch(
                f"feature service {FEATURE_SERVICE}",
                found=f"no {sorted(missing)}",
                wanted="every customer feature of the model, candidate_ids and pair_features",
                fix="apply the feature repository of this version",
            )
        seconds = [found[name].event_timestamps[0].seconds for name in (self._names[0], CANDIDATE_IDS)]
        known = [second for second in seconds if second > 0]  # Feast gives the epoch for an absent row
        if not known:
            return None
        values = (found[name].values[0] for name in self._names)
        return CustomerFeatures(
            candidate_ids=list(found[CANDIDATE_IDS].values[0].string_list_val.val),
            pair_features=found[PAIR_FEATURES_BLOB].values[0].bytes_val,
            customer_features=np.array([_number(value) for value in values], dtype=np.float32),
            feature_ts=datetime.fromtimestamp(min(known), tz=UTC),
        )


def _number(value: Any) -> float:
    """A number of any Feast type; absent is NaN, the model's mark of a missing value."""
    kind = value.WhichOneof("val")
    return float(getattr(value, kind)) if kind else float("nan")
