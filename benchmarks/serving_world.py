"""What all servers of the comparison are given: the live bundle, and 100 customers with 200 candidates each, packed and one by one.

A customer of the sample has 112 candidates; so that all do the work of the goal, the list is filled up with real candidate rows of other customers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender.bundle import Bundle, load_bundle
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PAIR_FEATURES, PRODUCT_FEATURES
from pipeline_assets.recommender.packing import F32, pack, unpack
from pipeline_assets.resources.feature_store import FeatureStoreResource, known_at
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.signing import trusted
from pipeline_assets.serving.release_state import current_live, open_state, record_live
from pipeline_assets.settings import load_settings, with_data_dir

CUSTOMERS, NAIVE_CUSTOMERS, CANDIDATES = 100, 20, 200  # 20: one by one, the naive store is written at 300 rows/s


@dataclass(frozen=True, eq=False)
class Customer:
    """One customer's request: n candidates, pair features [n, P], customer features [C]."""

    customer_id: str
    ids: list[str]
    pair: F32
    own: F32


def build(data_dir: Path, folder: Path) -> tuple[list[Customer], Bundle]:
    """A data folder for the servers, from one of a finished `make run`. Nothing is written to `data_dir`."""
    source = load_settings({"PIPELINE_DATA_DIR": str(data_dir)})
    live = current_live(open_state(source.release_url))
    assert live is not None, f"{data_dir} has no live release: make run UNTIL=2017-11-12"
    bundle, day = load_bundle(Path(live.bundle_path), trusted(source)), date.fromisoformat(live.as_of)
    folder.mkdir(parents=True)
    (folder / "lake").symlink_to(source.data_dir / "lake")
    shutil.copytree(source.local_pair, folder / "keys", ignore=lambda _, names: [n for n in names if n.endswith("pem")])
    settings = with_data_dir(folder)
    record_live(
        open_state(settings.release_url),
        bundle_path=live.bundle_path,
        model_version=live.model_version,
        as_of=live.as_of,
        recommendations_path=live.recommendations_path,
        recorded_at=live.recorded_at,
    )
    customers = _customers(source.data_dir, day, bundle)
    features = FeatureStoreResource()
    own = pd.DataFrame([c.own for c in customers], columns=list(CUSTOMER_FEATURES))
    own.insert(0, "customer_id", [c.customer_id for c in customers])
    rows = [{"customer_id": c.customer_id, "candidate_ids": c.ids, "pair_features": pack(c.pair)} for c in customers]
    packed = pd.DataFrame(rows)
    own["feature_ts"] = packed["feature_ts"] = pd.Timestamp(known_at(day))
    features.publish_online(features.apply(), own, packed, day)
    _naive(folder / "naive", customers[:NAIVE_CUSTOMERS], bundle, day)
    (folder / "naive" / "model.txt").write_bytes((Path(live.bundle_path) / "model.txt").read_bytes())
    return customers, bundle


def _customers(data_dir: Path, day: date, bundle: Bundle) -> list[Customer]:
    lake = local_lake(data_dir)
    packs = lake.read("features/customer_product", day, day).to_pandas()
    own = lake.read("features/customer", day, day).to_pandas().set_index("customer_id")
    packs = packs[packs["candidate_ids"].str.len() > 0]
    packs = packs.assign(n=packs["candidate_ids"].str.len()).sort_values(["n", "customer_id"], ascending=[False, True])
    chosen = packs.head(CUSTOMERS + 40).to_dict("records")
    return [_filled(chosen, at, own, bundle) for at in range(CUSTOMERS)]


def _filled(rows: Sequence[dict[str, Any]], at: int, own: pd.DataFrame, bundle: Bundle) -> Customer:
    """The customer's own candidates, then those of the ones that follow, distinct products of the catalogue."""
    ids: list[str] = []
    parts: list[F32] = []
    for row in (*rows[at:], *rows[:at]):
        matrix = unpack(row["pair_features"], len(row["candidate_ids"]), len(PAIR_FEATURES))
        taken = set(ids)
        new = [i for i, p in enumerate(row["candidate_ids"]) if p not in taken and p in bundle.rows]
        new = new[: CANDIDATES - len(ids)]
        ids += [row["candidate_ids"][i] for i in new]
        parts.append(matrix[new])
        if len(ids) == CANDIDATES:
            break
    customer = str(rows[at]["customer_id"])
    return Customer(
        customer, ids, np.concatenate(parts), own.loc[customer, list(CUSTOMER_FEATURES)].to_numpy(np.float32)
    )


def _naive(folder: Path, customers: Sequence[Customer], bundle: Bundle, day: date) -> None:
    """The same values the way Feast's tutorials keep them: a row a pair, a customer and a product, in SQLite."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32

    folder.mkdir()
    ts = pd.Timestamp(known_at(day))
    products = sorted({product for c in customers for product in c.ids})
    pairs = pd.concat(
        [
            pd.DataFrame(c.pair, columns=list(PAIR_FEATURES)).assign(customer_id=c.customer_id, product_id=c.ids)
            for c in customers
        ]
    )
    own = pd.DataFrame([c.own for c in customers], columns=list(CUSTOMER_FEATURES))
    matrix = bundle.product_matrix[[bundle.rows[product] for product in products]]
    sold = pd.DataFrame(matrix, columns=list(PRODUCT_FEATURES)).assign(product_id=products)
    frames = {
        "pair": (pairs, ("customer_id", "product_id"), PAIR_FEATURES),
        "customer": (own.assign(customer_id=[c.customer_id for c in customers]), ("customer_id",), CUSTOMER_FEATURES),
        "product": (sold, ("product_id",), PRODUCT_FEATURES),
    }
    entities = {
        key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in ("customer_id", "product_id")
    }
    views = []
    for name, (frame, keys, names) in frames.items():
        path = folder / f"{name}.parquet"
        frame.assign(ts=ts).to_parquet(path)
        schema = [Field(name=feature, dtype=Float32) for feature in names]
        source = FileSource(name=name, path=str(path), timestamp_field="ts")
        views.append(FeatureView(name=name, entities=[entities[key] for key in keys], schema=schema, source=source))
    store = FeatureStore(config=naive_config(folder))
    store.apply([*entities.values(), *views, FeatureService(name="ranker", features=views)])
    for name, (frame, _, _) in frames.items():
        store.write_to_online_store(name, frame.assign(ts=ts))
    (folder / "candidates.json").write_text(json.dumps({c.customer_id: c.ids for c in customers}))


def naive_config(folder: Path) -> Any:
    """Feast's configuration of the naive store."""
    from feast import RepoConfig

    return RepoConfig(
        project="naive",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
    )
