"""The naive way to serve the ranker: FastAPI, one Feast row a candidate, a DataFrame, `Booster.predict`. Same features, same model.

The lists of candidates are in memory, which is kind to it. Start: `uvicorn benchmarks.serving_naive:app`, with NAIVE_FOLDER.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from fastapi import FastAPI
from feast import FeatureStore

from benchmarks.serving_world import naive_config

FOLDER = Path(os.environ["NAIVE_FOLDER"])
app = FastAPI()
store = FeatureStore(config=naive_config(FOLDER))
service = store.get_feature_service("ranker")
booster = lightgbm.Booster(model_file=str(FOLDER / "model.txt"))
names = booster.feature_name()
candidates: dict[str, list[str]] = json.loads((FOLDER / "candidates.json").read_text())


@app.get("/customers/{customer_id}/recommendations")
def recommend(customer_id: str, k: int = 10) -> dict[str, Any]:
    """The best `k` of the customer's candidates."""
    rows = [{"customer_id": customer_id, "product_id": product} for product in candidates[customer_id]]
    frame = store.get_online_features(features=service, entity_rows=rows).to_df()
    scores = booster.predict(frame[names].astype("float32"), num_threads=1)  # a column of nothing but None has no type
    order = np.lexsort((frame["product_id"].to_numpy(str), -scores))[:k]
    items = [{"product_id": str(frame["product_id"].iloc[i]), "score": float(scores[i])} for i in order]
    return {"customer_id": customer_id, "items": items}
