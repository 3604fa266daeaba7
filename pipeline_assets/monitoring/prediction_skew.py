"""One verdict on predictions: are features, answers and slates what they should be? Each part may be unknown, and is then no part of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pipeline_assets.monitoring.pages import banner, share
from pipeline_assets.monitoring.skew import MAX_MISMATCH_SHARE, ScoreSkew, SkewResult
from pipeline_assets.recommender.page import Section, html_page

SkewVerdict = Literal["ok", "skew", "unknown"]


@dataclass(frozen=True)
class SkewPolicy:
    """Limits of the three parts.

    Slates of one model on neighbouring days: those of decayed frequency, a counter of the same purchases, overlap by 0.976 to 0.988
    with a PSI of 0.0003 at most (21 to 27 October 2017). The ranker moves more, because the week's plan is part of it; a batch that
    was computed from the wrong features moves by half.
    """

    max_mismatch_share: float = MAX_MISMATCH_SHARE
    # Scores are float64 of the same trees on the same float32 values: equal but for the last bits of a sum.
    score_tolerance: float = 1e-9
    min_overlap: float = 0.5
    max_psi: float = 0.25  # the textbook's "major shift"
    # One answer that differs is 0.1 % of a thousand; with fewer, one in so many is already too much to be chance.
    min_answers: int = 20


@dataclass(frozen=True)
class Answered:
    """One answer as it was given, or as it is computed again."""

    product_ids: Sequence[str]
    scores: Sequence[float]


@dataclass(frozen=True)
class AnswerSkew:
    """Answers computed again: how many were compared, and how many differ in a product, its place or its score."""

    compared: int
    different: int
    overlap: float  # mean share of common products
    examples: tuple[str, ...]  # answer ids, never customers


@dataclass(frozen=True)
class SkewDecision:
    """The verdict and why."""

    verdict: SkewVerdict
    reasons: tuple[str, ...]


def compare_answers(served: Mapping[str, Answered], again: Mapping[str, Answered], policy: SkewPolicy) -> AnswerSkew:
    """Compare answers by their id; those that could not be computed again are left out.

    Returns:
        `different` counts an answer whose list of products is another, or one of whose scores is off by more than the tolerance.
    """
    different, overlaps = [], []
    shared = sorted(set(served) & set(again))
    for answer in shared:
        was, now = served[answer], again[answer]
        length = max(len(was.product_ids), len(now.product_ids), 1)
        overlaps.append(len(set(was.product_ids) & set(now.product_ids)) / length)
        is_same = list(was.product_ids) == list(now.product_ids) and np.allclose(
            was.scores, now.scores, rtol=0.0, atol=policy.score_tolerance
        )
        different += [] if is_same else [answer]
    overlap = float(np.mean(overlaps)) if overlaps else math.nan
    return AnswerSkew(len(shared), len(different), overlap, tuple(different[:5]))


def skew_decision(
    features: SkewResult | None, answers: AnswerSkew | None, slates: ScoreSkew | None, policy: SkewPolicy
) -> SkewDecision:
    """'skew' when one of the parts is out of bounds, 'unknown' when none is known, else 'ok'.

    Args:
        features: online against offline values; None: nothing could be compared.
        answers: None or fewer than `min_answers`: too little traffic to say.
        slates: today's batch against the day before, of the same model; None: another model, or no day before.
    """
    bad: list[str] = []
    good: list[str] = []
    unknown: list[str] = []
    if features is None:
        unknown.append("features: no online row of this day to compare")
    else:
        text = f"features: {features.mismatches} of {features.rows * len(features.features):,} online values differ from the lake"
        (bad if features.mismatch_share > policy.max_mismatch_share else good).append(text)
    if answers is None or answers.compared < policy.min_answers:
        unknown.append(f"answers: {answers.compared if answers else 0} to compare, {policy.min_answers} needed")
    else:
        text = (
            f"answers: {answers.different} of {answers.compared:,} are not what the bundle gives for the same features"
        )
        (bad if answers.different / answers.compared > policy.max_mismatch_share else good).append(text)
    if slates is None:
        unknown.append("slates: no slates of the same model on the day before")
    else:
        text = (
            f"slates: {slates.top_n_overlap:.1%} of the top lists as on the day before, PSI of scores {slates.psi:.4f}"
        )
        is_bad = slates.top_n_overlap < policy.min_overlap or slates.psi > policy.max_psi
        (bad if is_bad else good).append(text)
    if bad:
        return SkewDecision("skew", (*bad, *good, *unknown))
    return SkewDecision("ok" if good else "unknown", (*good, *unknown))


def skew_page(
    title: str,
    decision: SkewDecision,
    features: SkewResult | None,
    answers: AnswerSkew | None,
    slates: ScoreSkew | None,
) -> str:
    """Served against what should have been: three comparisons, one section each."""
    tiles = {
        "online values that differ": (share(features.mismatch_share, 3) if features else "–", "0.1 % are allowed"),
        "answers that differ": (
            f"{answers.different} of {answers.compared:,}" if answers and answers.compared else "–",
            "computed again from the lake",
        ),
        "top lists as the day before": (share(slates.top_n_overlap) if slates else "–", "of the same model"),
        "most recommended product": (
            share(slates.current_top_item_share) if slates else "–",
            f"of the lists; {share(slates.reference_top_item_share)} the day before" if slates else "of the lists",
        ),
    }
    wrong = [feature for feature in features.features if feature.mismatches] if features else []
    by_feature = pd.DataFrame(
        [
            (f.name, f"{f.mismatches:,}", share(f.mismatch_share), f"{f.max_absolute_difference:.4g}")
            for f in sorted(wrong, key=lambda f: (-f.mismatches, f.name))
        ],
        columns=["feature", "values that differ", "share", "largest difference"],
    )
    sections = [
        Section(
            "Features: the online store against the lake",
            f"{features.rows:,} rows, one for each candidate product of a sample of customers, read back bit for bit."
            if features
            else "Nothing could be compared: newer values are online.",
            tables={"": by_feature} if wrong else {},
            facts={} if wrong or not features else {"differences": "none"},
        ),
        Section(
            "Answers: what the API gave against the bundle on the lake's features",
            "Ranked answers of the day without rules, filters, basket or events, a sample of 200 at most.",
            facts={
                "compared": f"{answers.compared:,}",
                "different": f"{answers.different:,}",
                "products in common": share(answers.overlap),
                "examples (answer ids)": ", ".join(answers.examples) or "none",
            }
            if answers
            else {"compared": "0"},
        ),
        Section(
            "Slates: today's batch against the day before",
            "The same model on neighbouring days: lists move slowly." if slates else "Another model, or no day before.",
            facts={
                "score PSI": f"{slates.psi:.4f}",
                "top lists in common": f"{share(slates.top_n_overlap)} of {slates.shared_customers:,} customers",
                "distance of product shares": f"{slates.item_share_distance:.3f} (0 same, 1 disjoint)",
            }
            if slates
            else {},
        ),
    ]
    return html_page(
        title,
        "What customers get against what was computed for them",
        banner(decision.verdict, decision.reasons),
        tiles,
        sections,
    )
