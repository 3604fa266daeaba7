"""The summary a person reads after a run: data, model beside baselines, champion, five recommendations, where to look next."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_assets.loop import feed_totals
from pipeline_assets.recommender.explain import reason
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PAIR_FEATURES
from pipeline_assets.recommender.packing import unpack
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.resources.release import bundle_of
from pipeline_assets.settings import Settings

SHOWN = ("ndcg", "recall", "revenue")


def collect(settings: Settings, day: date) -> dict[str, Any]:
    """What the summary says about `day`, as plain values."""
    lake = local_lake(settings.data_dir)
    promotions = lake.read("evaluation/promotion").to_pandas().sort_values("event_date")
    judged = promotions["event_date"].iloc[-1]
    evaluation = lake.read("evaluation/evaluation_report", judged, judged).to_pylist()[0]
    drift = lake.read("monitoring/drift_report", day, day).to_pylist()
    bundle = bundle_of(lake, day, settings)
    return {
        "as_of": day,
        "feeds": feed_totals(lake, settings.calendar.first_day, day),
        "methods": {
            name: {m: values[m] for m in SHOWN} for name, values in json.loads(evaluation["summaries"]).items()
        },
        "customer_weeks": evaluation["customer_weeks"],
        "outcome": evaluation["outcome"],
        "reasons": list(evaluation["reasons"]),
        "champion": bundle.manifest.model_version,
        "drift": drift[0]["verdict"] if drift else "unknown",
        "example": _example(lake, day, settings),
        "reports": {"evaluation": evaluation["html_path"], "drift": drift[0]["html_path"] if drift else ""},
    }


def _example(lake: Lake, day: date, settings: Settings) -> dict[str, Any]:
    """Five recommendations of the customer with the median number of orders, with reasons from the model's contributions."""
    bundle = bundle_of(lake, day, settings)
    customers = lake.read("features/customer", day, day).to_pandas().dropna(subset=["customer_n_orders"])
    row = customers.sort_values(["customer_n_orders", "customer_id"]).iloc[len(customers) // 2]
    packs = (
        lake.read("features/customer_product", day, day).to_pandas().set_index("customer_id").loc[row["customer_id"]]
    )
    ids = list(packs["candidate_ids"])
    pair = unpack(packs["pair_features"], len(ids), len(PAIR_FEATURES))
    own = row[list(CUSTOMER_FEATURES)].to_numpy(np.float32)
    chosen, scores = bundle.rank(ids, pair, own, 5)
    explained = bundle.explain(chosen, ids, pair, own, len(PAIR_FEATURES))
    items = []
    for product, score, contributions in zip(chosen, scores, explained, strict=True):
        attributes = {name: values[bundle.rows[product]] for name, values in bundle.attributes.items()}
        items.append(
            {"product_id": product, "score": round(float(score), 3), **attributes, "reason": reason(contributions)}
        )
    return {
        "customer_id": row["customer_id"],
        "items": items,
        "window": f"{day + timedelta(days=1)} to {day + timedelta(days=7)}",
    }


def render(content: dict[str, Any]) -> str:
    """The summary as text for a terminal."""
    lines = ["", f"Daily recommendation, as of {content['as_of']}", ""]
    lines.append(f"{'feed':<12}{'days':>6}{'blocked':>9}{'read':>13}{'valid':>13}{'quarantined':>13}")
    for feed in content["feeds"]:
        lines.append(
            f"{feed['feed']:<12}{feed['days']:>6}{feed['blocked']:>9}{feed['read']:>13,}{feed['valid']:>13,}{feed['quarantined']:>13,}"
        )
    lines += [
        "",
        f"{'method':<22}{'NDCG@10':>9}{'recall@10':>11}{'revenue@10':>12}   ({content['customer_weeks']} customer-weeks, none trained on)",
    ]
    for name, values in sorted(content["methods"].items(), key=lambda item: -item[1]["ndcg"]):
        lines.append(f"{name:<22}{values['ndcg']:>9.4f}{values['recall']:>11.4f}{values['revenue']:>12.4f}")
    lines += ["", f"gate: {content['outcome']}"] + [f"  - {text}" for text in content["reasons"]]
    lines += [f"champion: version {content['champion']}    input drift: {content['drift']}", ""]
    example = content["example"]
    lines.append(f"five recommendations for customer {example['customer_id']}, {example['window']}:")
    for number, item in enumerate(example["items"], 1):
        lines.append(f"  {number}. {item['type']} ({item['brand']}, {item['product_id']}): {item['reason']}")
    reports = [f"  {name} report: {Path(path)}" for name, path in content["reports"].items() if path]
    lines += [
        "",
        "where to look next:",
        "  make dev    the Dagster UI: lineage, runs, checks, plots",
        "  make serve  the API",
        *reports,
    ]
    return "\n".join(lines)
