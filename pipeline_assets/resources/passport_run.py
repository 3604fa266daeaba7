"""A served answer traced back: its line, bundle and features of its day, the same answer computed again, and the raw rows behind it.

Belongs here: finding what an answer was made from, in the release database and the lake. Does not: computing it (serving/passport).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline_assets.recommender.bundle import load_bundle
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import PREDICTION_LOG_TABLE
from pipeline_assets.resources.signing import trusted
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.serving.answers import Live
from pipeline_assets.serving.live import BatchSlates
from pipeline_assets.serving.online import CustomerFeatures
from pipeline_assets.serving.passport import Passport, find_line, recompute
from pipeline_assets.serving.release_state import open_state
from pipeline_assets.serving.rollout_state import release_by_id
from pipeline_assets.settings import Settings
from pipeline_assets.sources.landing import landed_batches

RAW_COLUMNS = ["event_id", "order_id", "product_id", "quantity", "amount", "event_date", "customer_id"]


@dataclass(frozen=True)
class Traced:
    """A passport, and per shown product the purchase lines of the customer that were known: event, order, day, raw batch."""

    passport: Passport
    raw: Mapping[str, list[dict[str, Any]]]


def trace(settings: Settings, lake: Lake, answer_id: str) -> Traced:
    """The passport of an answer of the log files, or of one that was landed.

    Raises:
        NotEnoughData: there is no such answer, or its release is not in the release database.
        BundleError: its bundle is damaged, unsigned or gone.
    """
    line = _line(settings, lake, answer_id)
    release = release_by_id(open_state(settings.release_url), line["release_id"])
    if release is None:
        raise NotEnoughData(
            f"release {line['release_id']} of answer {answer_id}",
            found="no such release",
            wanted="the release database that the API followed",
            fix="restore the release database",
        )
    bundle = load_bundle(Path(release.bundle_path), trusted(settings))
    recommendations = Path(release.recommendations_path) if release.recommendations_path else None
    live = Live(release.id, bundle, BatchSlates(recommendations))
    features = features_of(lake, line, bundle.features.customer) if line["features"] else None
    return Traced(recompute(line, live, features, settings.rules), raw_rows(lake, line))


def features_of(lake: Lake, line: Mapping[str, Any], names: tuple[str, ...]) -> CustomerFeatures | None:
    """The customer's features of the day that the answer read, as the lake has them now; None if it has none."""
    known = datetime.fromisoformat(line["feature_ts"])
    day, rows = known.date() - timedelta(days=1), {}
    for table in ("customer", "customer_product"):
        found = lake.read(f"features/{table}", day, day)
        found = found.filter(pc.equal(found["customer_id"], line["customer_id"])).to_pylist()
        if not found:
            return None
        rows |= found[0]
    values = [np.nan if rows.get(name) is None else rows[name] for name in names]
    return CustomerFeatures(rows["candidate_ids"], rows["pair_features"], np.array(values, dtype=np.float32), known)


def raw_rows(lake: Lake, line: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Per product of the slate, the customer's valid purchase lines up to the features' day, newest first, with their raw batch."""
    shown: dict[str, list[dict[str, Any]]] = {product: [] for product in line["product_ids"]}
    if not line["feature_ts"]:
        return shown
    last = datetime.fromisoformat(line["feature_ts"]).date() - timedelta(days=1)
    table = lake.read("validated/purchases", None, last, RAW_COLUMNS)
    table = table.filter(pc.equal(table["customer_id"], line["customer_id"])).sort_by([("event_date", "descending")])
    rows = [row for row in table.drop_columns(["customer_id"]).to_pylist() if row["product_id"] in shown]
    if rows:
        batches = landed_batches(lake, FEEDS["purchases"], rows[-1]["event_date"], last)
        for row in rows:
            shown[row["product_id"]].append({**row, "batch_id": batches[row["event_date"]].batch_id})
    return shown


def _line(settings: Settings, lake: Lake, answer_id: str) -> dict[str, Any]:
    """From the log file of its day; else from the lake, where the file has gone."""
    try:
        return find_line(settings.data_dir / "prediction_log", answer_id)
    except NotEnoughData:
        if lake.exists(PREDICTION_LOG_TABLE):
            table = lake.read(PREDICTION_LOG_TABLE, columns=["answer_id", "line"])
            for row in table.filter(pc.equal(table["answer_id"], answer_id)).to_pylist():
                return dict(json.loads(row["line"]))
        raise
