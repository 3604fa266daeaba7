"""What one answer leaves behind: the line of the prediction log, from which it can be traced and computed again. Pure.

Belongs here: the fields and the digests. Does not: writing lines (prediction_log), computing an answer again (passport).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime
from typing import Any

import numpy as np

from pipeline_assets.serving.answers import Answer, AskedFor, Live, Moment
from pipeline_assets.serving.behaviour import Event
from pipeline_assets.serving.online import CustomerFeatures
from pipeline_assets.serving.rules import Applied, Slate
from pipeline_assets.settings_rules import RulesSettings

PRICE = "product_price"


def answer_id(now: datetime, random: str) -> str:
    """The UTC day and 24 hexadecimal digits of chance: the day says which file holds the answer.

    Args:
        random: at least 24 hexadecimal digits.
    """
    return f"{now:%Y%m%d}{random[:24]}"


def day_of(identifier: str) -> str:
    """The UTC day 'YYYY-MM-DD' of an answer id.

    Raises:
        ValueError: it is no answer id.
    """
    if len(identifier) != 32 or not identifier.isalnum():
        raise ValueError(f"{identifier[:40]!r} is no answer id")
    return datetime.strptime(identifier[:8], "%Y%m%d").date().isoformat()


def feature_digests(features: CustomerFeatures) -> dict[str, str]:
    """Digests of the three parts of a customer's features, as they were read: 40 us CPU for 200 candidates."""
    parts = {
        "candidates": "\n".join(features.candidate_ids).encode(),
        "pair": features.pair_features,
        "customer": features.customer_features.astype("<f4").tobytes(),
    }
    return {name: hashlib.sha256(part).hexdigest()[:16] for name, part in parts.items()}


def asked_fields(asked: AskedFor) -> dict[str, Any]:
    """What was asked for, without what was left at its default (the customer has a field of its own)."""
    empty = AskedFor(None, 0)
    found = {field.name: getattr(asked, field.name) for field in fields(asked) if field.name != "customer_id"}
    return {name: value for name, value in found.items() if value != getattr(empty, name)}


def asked_from(line: Mapping[str, Any]) -> AskedFor:
    """The request of a line."""
    kept = dict(line["asked"])
    kept["filters"] = {name: tuple(values) for name, values in kept.get("filters", {}).items()}
    for name in ("basket", "exclude"):
        kept[name] = tuple(kept.get(name, ()))
    return AskedFor(line["customer_id"], **kept)


def rules_digest(rules: RulesSettings) -> str:
    """Digest of the shop's rules, as they were applied."""
    return hashlib.sha256(rules.model_dump_json().encode()).hexdigest()[:16]


def ranked_digest(ranked: Slate) -> str:
    """Digest of what the model ranked, all of it: ids in their order, and their scores to the last bit."""
    digest = hashlib.sha256("\n".join(product for product, _ in ranked).encode())
    digest.update(np.array([score for _, score in ranked], dtype="<f8").tobytes())
    return digest.hexdigest()[:16]


def applied_fields(applied: Sequence[Applied]) -> list[list[Any]]:
    """What rules did, as a line keeps it."""
    return [[each.rule, each.product_id, each.before, each.after] for each in applied]


def moment_from(line: Mapping[str, Any], rules: RulesSettings) -> Moment:
    """The moment of a line, with the rules of today."""
    recent = tuple(
        Event(event_id, kind, line["customer_id"], product, datetime.fromisoformat(at))
        for event_id, kind, product, at in line["recent"]
    )
    return Moment(datetime.fromisoformat(line["now"]), date.fromisoformat(line["today"]), rules, recent)


def line_of(
    live: Live, asked: AskedFor, answer: Answer, identifier: str, now: datetime, digest_of_rules: str
) -> dict[str, Any]:
    """The fields of a line. Prices of slates only while a rollout compares them.

    `scores` are after the rules and recent behaviour, `scores_before` the model's own (null: the product was not ranked).
    """
    manifest, moment = live.bundle.manifest, answer.moment
    products = [product for product, _ in answer.slate]
    before = dict(answer.ranked)
    return {
        "answer_id": identifier,
        "ts": now.isoformat(),
        "customer_id": answer.customer_id,
        "customer_kind": answer.customer_kind,
        "arm": answer.arm,
        "rollout_id": live.rollout_id,
        "release_id": live.release_id,
        "model_version": manifest.model_version,
        "model_digest": live.model_digest,
        "bundle_id": manifest.bundle_id,
        "as_of": manifest.as_of,
        "fallback_level": answer.fallback_level,
        "fallback_reason": answer.reason,
        "failed": answer.failed,
        "latency_ms": round(answer.latency_ms, 3),
        "product_ids": products,
        "scores": [score for _, score in answer.slate],
        "scores_before": [before.get(product) for product in products],
        "ranked": ranked_digest(answer.ranked) if answer.features else None,
        "rules": digest_of_rules,
        "applied": applied_fields(answer.applied),
        "price": mean_price(live, products) if live.rollout_id is not None else None,
        "asked": asked_fields(asked),
        "feature_ts": answer.feature_ts.isoformat() if answer.feature_ts else None,
        "features": feature_digests(answer.features) if answer.features else None,
        "now": moment.now.isoformat() if moment else None,
        "today": moment.today.isoformat() if moment else None,
        "recent": [[e.event_id, e.kind, e.product_id, e.at.isoformat()] for e in moment.recent] if moment else [],
    }


def mean_price(live: Live, products: Sequence[str]) -> float | None:
    """Mean price of a slate's products that have one; None if none has, or the bundle knows no prices."""
    names = live.bundle.features.product
    if PRICE not in names:
        return None
    column, rows = names.index(PRICE), live.bundle.rows
    prices = [float(live.bundle.product_matrix[rows[product], column]) for product in products]
    known = [price for price in prices if price == price]
    return sum(known) / len(known) if known else None
