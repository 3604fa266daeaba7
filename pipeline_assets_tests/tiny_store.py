"""A real Feast store that knows one customer of the tiny bundle, with the views of the feature repository and tiny features."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender.packing import pack
from pipeline_assets.serving.online import open_feature_store
from pipeline_assets_tests import tiny_bundle as tiny

FEATURE_TS = datetime(2017, 11, 6, tzinfo=UTC)


def fill(root: Path, options: Mapping[str, Any]) -> None:
    """Register the views and write c1 online, into the stores that `options` (feature_store.yaml) name."""
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Array, Bytes, Float32, String

    store = open_feature_store(
        {**options, "offline_store": {"type": "file"}}
    )  # serving has none; registering views asks one
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    columns = {
        "customer": dict.fromkeys(tiny.FEATURES.customer, Float32),
        "customer_candidates": {"candidate_ids": Array(String), "pair_features": Bytes},
    }
    views = [
        FeatureView(
            name=view,
            entities=[customer],
            ttl=timedelta(days=2),
            schema=[Field(name=name, dtype=kind) for name, kind in fields.items()],
            source=FileSource(name=view, path=str(root / f"{view}.parquet"), timestamp_field="feature_ts"),
        )
        for view, fields in columns.items()
    ]
    key = {"customer_id": ["c1"], "feature_ts": [FEATURE_TS]}
    customers = pd.DataFrame({**key, "customer_orders": [4.0], "customer_days": [np.nan]})
    packed = pd.DataFrame({**key, "candidate_ids": [list(tiny.CANDIDATES)], "pair_features": [pack(tiny.PAIR)]})
    customers.to_parquet(root / "customer.parquet")
    packed.to_parquet(root / "customer_candidates.parquet")
    store.apply([customer, *views, FeatureService(name="ranker_online", features=views)])
    store.write_to_online_store("customer", customers)
    store.write_to_online_store("customer_candidates", packed)
