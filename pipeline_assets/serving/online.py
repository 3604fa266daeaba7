"""Online features of one customer, in one read.

Belongs here: what serving asks of an online store, and how Feast answers. Does not: entities and views (feature_repo),
writing values (the publish step), what to do when the store is down (answers.py).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
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
_EPOCH = datetime.fromtimestamp(0, UTC)


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
    """Reads the views of the feature service `ranker_online` through Feast's online store, whichever it is.

    `OnlineStore.online_read` a view: 0.16 ms CPU a customer on SQLite with 12 customer features and 200 candidates. What `get_online_features` does
    around it (resolving the service, answers by column, two protobuf messages a value) cost 0.5 ms more, and its precomputed vectors
    (`precompute_online=True`) raise for an unknown customer instead of saying so.

    Args:
        source: a ready store, or the content of its feature_store.yaml.
        customer_features: names in the order of the model, `CUSTOMER_FEATURES`.

    Raises:
        FeatureMismatch: the service lacks a wanted feature.
    """

    def __init__(self, source: FeatureStore | Mapping[str, Any], customer_features: Sequence[str]) -> None:
        from feast.infra.online_stores.helpers import get_online_store_from_config

        self.store = open_feature_store(source) if isinstance(source, Mapping) else source
        self._names = tuple(customer_features)
        self._config = self.store.config
        self._online = get_online_store_from_config(self._config.online_store)
        projections = self.store.get_feature_service(FEATURE_SERVICE).feature_view_projections
        wanted = {*self._names, CANDIDATE_IDS, PAIR_FEATURES_BLOB}
        offered = {p.name: [f.name for f in p.features if f.name in wanted] for p in projections}
        if missing := wanted - {name for names in offered.values() for name in names}:
            raise FeatureMismatch(
                f"feature service {FEATURE_SERVICE}",
                found=f"no {sorted(missing)}",
                wanted="every customer feature of the model, candidate_ids and pair_features",
                fix="apply the feature repository of this version",
            )
        self._views = [(self.store.get_feature_view(name), names) for name, names in offered.items()]

    def read(self, customer_id: str) -> CustomerFeatures | None:
        """One customer; None if no view has a row.

        Raises:
            Exception: whatever the online store's driver raises.
        """
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value

        key = EntityKey(join_keys=[CUSTOMER_ID], entity_values=[Value(string_val=customer_id)])
        found: dict[str, Any] = {}
        times = []
        for view, names in self._views:
            ((known, values),) = self._online.online_read(self._config, view, [key], names)
            if known is not None and values is not None and known > _EPOCH:  # Redis gives the epoch for an absent row
                times.append(known)
                found.update(values)
        if not times:
            return None
        empty = Value()
        blob, ids = found.get(PAIR_FEATURES_BLOB, empty), found.get(CANDIDATE_IDS, empty)
        return CustomerFeatures(
            candidate_ids=list(ids.string_list_val.val),
            pair_features=blob.bytes_val,
            customer_features=np.array([_number(found.get(name, empty)) for name in self._names], dtype=np.float32),
            feature_ts=min(times).astimezone(UTC),
        )


class Remembered:
    """An online store behind the rows that were read lately, so that a customer who looks at several pages is read once.

    Args:
        seconds: how long a row counts, 0 for not at all; a newer day of the store is seen after that.
        most: rows; the oldest leaves first. 20 KB each with 112 candidates.
        clock: monotonic seconds.
    """

    def __init__(self, store: OnlineFeatures, seconds: float, most: int, clock: Callable[[], float]) -> None:
        self._store, self._seconds, self._most, self._clock = store, seconds, most, clock
        self._rows: OrderedDict[str, tuple[float, CustomerFeatures]] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, customer_id: str) -> CustomerFeatures | None:
        """The features, if they were read less than `seconds` ago; never waits for the store."""
        entry = self._rows.get(customer_id)
        return entry[1] if entry is not None and self._clock() - entry[0] < self._seconds else None

    def read(self, customer_id: str) -> CustomerFeatures | None:
        """The features as the store has them now; raises whatever it raises."""
        features = self._store.read(customer_id)
        if features is not None and self._seconds > 0:
            with self._lock:
                self._rows[customer_id] = (self._clock(), features)
                self._rows.move_to_end(customer_id)
                if len(self._rows) > self._most:
                    self._rows.popitem(last=False)
        return features


def _number(value: Any) -> float:
    """A number of any Feast type; absent is NaN, the model's mark of a missing value."""
    kind = value.WhichOneof("val")
    return float(getattr(value, kind)) if kind else float("nan")
