"""An answer that was given, computed again: from its line, its bundle and its customer's features. Names the first difference.

Belongs here: finding a line, computing, comparing, in the order of cause and effect. Does not: finding bundles and features
(routes_passport has those of the process, resources/passport_run those of the lake).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline_assets.recommender.errors import NotEnoughData, PipelineError
from pipeline_assets.recommender.packing import unpack
from pipeline_assets.serving.answers import Answer, Live, NoPersonalAnswer, fallback_answer, personal_answer
from pipeline_assets.serving.online import CustomerFeatures
from pipeline_assets.serving.prediction_line import (
    applied_fields,
    asked_from,
    day_of,
    feature_digests,
    moment_from,
    ranked_digest,
    rules_digest,
)
from pipeline_assets.serving.rules import Slate
from pipeline_assets.settings_rules import RulesSettings

FOREVER = timedelta(days=36_500)  # staleness was decided when the answer was given; it is not decided again


@dataclass(frozen=True)
class Part:
    """One thing that an answer follows from: as the line has it, and as it is now."""

    name: str
    recorded: object
    here: object

    @property
    def is_equal(self) -> bool:
        return self.recorded == self.here


@dataclass(frozen=True)
class Passport:
    """A line, the parts in the order of cause and effect, and what was ranked: (product, score before, score after or None).

    `features`: product of the slate -> name -> value that its score was computed from, None where it is missing. They are those that were
    served when the parts that are named after them are equal.
    """

    line: Mapping[str, Any]
    parts: tuple[Part, ...]
    candidates: tuple[tuple[str, float, float | None], ...]
    features: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def first_difference(self) -> Part | None:
        return next((part for part in self.parts if not part.is_equal), None)


def find_line(folder: Path, answer_id: str) -> dict[str, Any]:
    """The line of an answer, from the file of its day: a scan of a gigabyte a second.

    Raises:
        NotEnoughData: there is no such answer, or not here.
    """
    try:
        path = folder / f"{day_of(answer_id)}.jsonl"
    except ValueError as error:
        raise _unknown(answer_id, str(error)) from None
    wanted = f'"answer_id": "{answer_id}"'.encode()
    if path.exists():
        with path.open("rb") as stream:
            for text in stream:
                if wanted in text and text.endswith(b"\n"):
                    return dict(json.loads(text))
    raise _unknown(answer_id, f"no line in {path.name}")


def recompute(line: Mapping[str, Any], live: Live, features: CustomerFeatures | None, rules: RulesSettings) -> Passport:
    """Compute the answer of `line` again.

    Args:
        live: the bundle of the line's release, as it is now.
        features: the customer's, as they are now; None where none were used, or where there are none any more.
        rules: of the shop, as they are now.
    """
    manifest = live.bundle.manifest
    recorded = line["features"] or {}
    here = feature_digests(features) if features else {}
    parts = [
        Part("model", line["model_digest"], live.model_digest),
        Part("bundle", line["bundle_id"], manifest.bundle_id),
        *(Part(f"features: {name}", digest, here.get(name, "none")) for name, digest in recorded.items()),
        Part("rules", line["rules"], rules_digest(rules)),
    ]
    if recorded and features is None:
        return Passport(line, tuple(parts), ())  # nothing to compute from: the features are the first difference
    try:
        answer = _again(line, live, features, rules)
    except PipelineError as error:
        return Passport(line, (*parts, Part("ranking", "an answer", str(error))), ())
    if recorded:
        parts.append(Part("scores of the model", line["ranked"], ranked_digest(answer.ranked)))
    parts += [
        Part("what the rules did", line["applied"], applied_fields(answer.applied)),
        Part("products", line["product_ids"], [product for product, _ in answer.slate]),
        Part("scores", line["scores"], [score for _, score in answer.slate]),
    ]
    values = feature_values(live, features, line["product_ids"]) if features and recorded else {}
    return Passport(line, tuple(parts), _candidates(answer.ranked, answer.slate), values)


def feature_values(
    live: Live, features: CustomerFeatures, products: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """The row of the model matrix of each of `products` that is a candidate: name -> value, None where it is missing."""
    bundle, ids = live.bundle, features.candidate_ids
    pair = unpack(features.pair_features, len(ids), len(bundle.features.pair))
    kept, matrix = bundle.matrix(ids, pair, features.customer_features)
    rows, names = {product: row for row, product in enumerate(kept)}, bundle.features.all
    return {
        product: {
            name: None if value != value else value
            for name, value in zip(names, matrix[rows[product]].tolist(), strict=True)
        }
        for product in products
        if product in rows
    }


def _again(line: Mapping[str, Any], live: Live, features: CustomerFeatures | None, rules: RulesSettings) -> Answer:
    asked, moment = asked_from(line), moment_from(line, rules)
    if features is None or not line["features"]:
        return fallback_answer(live, asked, line["fallback_reason"], moment)
    try:
        return personal_answer(live, asked, features, FOREVER, moment)
    except NoPersonalAnswer as error:
        return fallback_answer(live, asked, error.reason, moment)


def _candidates(ranked: Slate, slate: Slate) -> tuple[tuple[str, float, float | None], ...]:
    after = dict(slate)
    return tuple((product, score, after.get(product)) for product, score in ranked)


def _unknown(answer_id: str, found: str) -> NotEnoughData:
    return NotEnoughData(
        f"answer {answer_id[:40]}",
        found=found,
        wanted="the id of an answer that was given",
        fix="take answer_id of an answer",
    )
