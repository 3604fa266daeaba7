"""Prediction skew of a day: the online store read back, answers computed again, slates beside those of the day before; one row and one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow

from pipeline_assets.monitoring.prediction_skew import (
    Answered,
    AnswerSkew,
    SkewDecision,
    SkewPolicy,
    compare_answers,
    skew_decision,
    skew_page,
)
from pipeline_assets.monitoring.skew import ScoreSkew, SkewResult, compare_values, score_skew
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PAIR_FEATURES
from pipeline_assets.recommender.packing import unpack
from pipeline_assets.resources.feature_store import FeatureStoreResource, known_at
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import newest_answers
from pipeline_assets.resources.release import RECOMMENDATION_TABLE, bundle_of
from pipeline_assets.resources.report_page import write_page
from pipeline_assets.settings import Settings

if TYPE_CHECKING:
    from pipeline_assets.recommender.bundle import Bundle

SKEW_TABLE = "monitoring/skew_report"
FEATURE_SAMPLE = (
    50  # customers read back: 50 x (customer features + about 110 candidates x pair features) = 300,000 values
)
ANSWER_SAMPLE = 200  # answers computed again: 0.5 CPU s
PLAIN = {"k", "explain", "context"}  # what may have been asked for, for an answer to be the bundle's own ranking


@dataclass(frozen=True)
class SkewReport:
    """The three comparisons (None: nothing to compare), the decision, and the page."""

    features: SkewResult | None
    answers: AnswerSkew | None
    slates: ScoreSkew | None
    decision: SkewDecision
    html_path: Path


def skew_of(
    lake: Lake,
    store: FeatureStoreResource,
    day: date,
    settings: Settings,
    policy: SkewPolicy,
    run_id: str,
    recorded_at: datetime,
) -> SkewReport:
    """Compare, decide, and record."""
    features = online_skew(lake, store, day)
    answers = answer_skew(lake, day, settings, policy)
    slates = slate_skew(lake, day)
    decision = skew_decision(features, answers, slates, policy)
    page = write_page(settings, "skew", day, skew_page(f"Skew on {day}", decision, features, answers, slates))
    values = features.rows * len(features.features) if features else 0
    figures = {
        "values": values,
        "mismatches": features.mismatches if features else 0,
        "mismatch_share": features.mismatch_share if features else None,
        "answers": answers.compared if answers else 0,
        "answers_different": answers.different if answers else 0,
        "overlap": slates.top_n_overlap if slates else None,
        "score_psi": slates.psi if slates else None,
        "top_item_share": slates.current_top_item_share if slates else None,
    }
    row = {
        "event_date": day,
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "figures": json.dumps(figures, sort_keys=True),
        "html_path": str(page),
        "recorded_at": recorded_at,
    }
    lake.replace_days(SKEW_TABLE, pyarrow.Table.from_pylist([row]), [day], run_id, evolves=True)
    return SkewReport(features, answers, slates, decision, page)


def online_skew(lake: Lake, resource: FeatureStoreResource, day: date) -> SkewResult | None:
    """A sample of customers whose online row is of `day`, bit for bit: customer features, and every pair feature of every candidate.

    Pair features of different numbers of candidates are compared as far as both go; candidates that are others are all different.
    None: every online row is newer (an older day was published again), or there is none.
    """
    customers = lake.read("features/customer", day, day).to_pandas().sort_values("customer_id")
    sample = customers.iloc[np.linspace(0, len(customers) - 1, min(FEATURE_SAMPLE, len(customers))).astype(int)]
    ids = sample["customer_id"].tolist()
    opened = resource.open()
    ages = resource.online_timestamps(opened, ids) if ids else {}
    rows = [n for n, customer in enumerate(ids) if ages[customer] == known_at(day)]
    if not rows:
        return None
    online = resource.read_online(opened, ids)
    packs = lake.read("features/customer_product", day, day).to_pandas().set_index("customer_id")
    offline_rows, online_rows = [], []
    own = sample[list(CUSTOMER_FEATURES)].to_numpy(np.float32)
    for n in rows:
        served = np.array([online[name][n] for name in CUSTOMER_FEATURES], dtype=np.float32)
        right = _pairs(packs.loc[ids[n], "candidate_ids"], packs.loc[ids[n], "pair_features"])
        wrong = _pairs(online["candidate_ids"][n], online["pair_features"][n])
        is_same = list(packs.loc[ids[n], "candidate_ids"]) == list(online["candidate_ids"][n])
        if not is_same or right.shape != wrong.shape:
            wrong = np.full_like(right, np.inf)  # other candidates: nothing is where it should be
        for a, b in zip(right, wrong, strict=True):
            offline_rows.append(np.concatenate([own[n], a]))
            online_rows.append(np.concatenate([served, b]))
    return compare_values(np.array(offline_rows), np.array(online_rows), (*CUSTOMER_FEATURES, *PAIR_FEATURES))


def _pairs(ids: Sequence[str], packed: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(unpack(packed, len(ids), len(PAIR_FEATURES)), dtype=np.float32)


def answer_skew(lake: Lake, day: date, settings: Settings, policy: SkewPolicy) -> AnswerSkew | None:
    """Ranked answers from the bundle of `day`, or of the last day before it that answered, computed again from the lake's features. None: there are none.

    Between the online store's new day and the bundle's, answers have the features of the one and the model of the other: they are left out.
    """
    day, log = newest_answers(lake, day)
    plain = [row for row in log if row["fallback_level"] == "none" and is_plain(json.loads(row["line"]))]
    plain = [row for row in plain if datetime.fromisoformat(row["feature_ts"]).date() == day + timedelta(days=1)]
    if not plain:
        return None
    bundle = bundle_of(lake, day, settings)
    own = [row for row in plain if row["bundle_id"] == bundle.manifest.bundle_id]
    chosen = [own[n] for n in np.linspace(0, len(own) - 1, min(ANSWER_SAMPLE, len(own))).astype(int)]
    served = {row["answer_id"]: Answered(row["product_ids"], row["scores"]) for row in chosen}
    return compare_answers(served, _again(lake, day, bundle, chosen), policy)


def is_plain(line: Mapping[str, Any]) -> bool:
    """Whether an answer's line says that the list is as the model ranked it: filters, baskets, the shop's rules and recent events change
    it on purpose, which is no skew."""
    return set(line["asked"]) <= PLAIN and not line["applied"] and not line["recent"]


def _again(lake: Lake, day: date, bundle: Bundle, chosen: Sequence[dict[str, Any]]) -> dict[str, Answered]:
    wanted = {row["customer_id"] for row in chosen}
    customers = lake.read("features/customer", day, day).to_pandas().set_index("customer_id")
    packs = lake.read("features/customer_product", day, day).to_pandas().set_index("customer_id")
    customers, packs = customers[customers.index.isin(wanted)], packs[packs.index.isin(wanted)]
    found = {}
    for row in chosen:
        customer = row["customer_id"]
        if customer in customers.index and customer in packs.index:
            ids = list(packs.loc[customer, "candidate_ids"])
            pair = unpack(packs.loc[customer, "pair_features"], len(ids), len(PAIR_FEATURES))
            own = customers.loc[customer, list(CUSTOMER_FEATURES)].to_numpy(np.float32)
            products, scores = bundle.rank(ids, pair, own, len(row["product_ids"]))
            found[row["answer_id"]] = Answered(products, list(map(float, scores)))
    return found


def slate_skew(lake: Lake, day: date) -> ScoreSkew | None:
    """Today's batch against that of the day before, when both are of one model version."""
    before = day - timedelta(days=1)
    columns = ["event_date", "customer_id", "rank", "product_id", "score", "model_version"]
    slates = lake.read(RECOMMENDATION_TABLE, before, day, columns).to_pandas()
    today, earlier = slates[slates["event_date"] == day], slates[slates["event_date"] == before]
    if today.empty or earlier.empty or set(today["model_version"]) != set(earlier["model_version"]):
        return None
    return score_skew(earlier, today)
