"""The fallback ladder: ranker, then batch recommendations, then popularity. Pure logic, no HTTP, threads or clock.

Belongs here: what is answered and how that is flagged. Does not: reading Parquet, calling with a deadline, JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Literal

from pipeline_assets.recommender.bundle import Bundle
from pipeline_assets.recommender.errors import PipelineError
from pipeline_assets.recommender.packing import unpack
from pipeline_assets.serving.online import CustomerFeatures

CustomerKind = Literal["known", "new", "anonymous"]
FallbackLevel = Literal["none", "batch", "popularity"]
Arm = Literal["stable", "canary"]  # of a rollout: what is live, or the model on trial
Slate = Sequence[tuple[str, float]]  # (product_id, score), best first
Reasons = Sequence[Sequence[tuple[str, float, float]]]  # per product: (feature, value, contribution)
EXPLAINED_FEATURES = 3


class NoPersonalAnswer(PipelineError):
    """The store and the model work, but cannot answer for this customer now; `reason` is a short metric label."""

    def __init__(self, reason: str, culprit: str, *, found: object, wanted: object, fix: str) -> None:
        super().__init__(culprit, found=found, wanted=wanted, fix=fix)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Live:
    """What is served: a verified bundle and the batch recommendations released with it, and its part in a rollout, if there is one."""

    release_id: int
    bundle: Bundle
    batch: Mapping[str, Slate]  # customer -> slate
    arm: Arm = "stable"
    rollout_id: int | None = None

    @property
    def as_of(self) -> str:
        return self.bundle.manifest.as_of

    @cached_property
    def model_digest(self) -> str:
        """SHA-256 of the model's file."""
        return next(file.sha256 for file in self.bundle.manifest.files if file.path == "model.txt")


@dataclass(frozen=True)
class AskedFor:
    """What a caller wants, checked. Everything that is logged of a request, and all that its answer depends on besides what is live.

    Args:
        customer_id: None for a visitor who is not known.
        k: how many products, >= 1.
        basket: products that lie in the basket now, in the order they were put there.
        exclude: products that must not be in the answer.
        filters: attribute (department, category, type, brand) -> the values that are wanted; an attribute that is absent is free.
        context: where the answer is shown, as short texts such as {"placement": "home"}.
        explain: with the reasons.
    """

    customer_id: str | None
    k: int
    basket: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    explain: bool = False


@dataclass(frozen=True)
class Answer:
    """One slate and where it comes from.

    Args:
        reason: why it is not the ranker's; empty if it is.
        features: what the ranker was given.
        arm: whose turn it was; failed: why the canary's model could not answer, so that another answered for it.
        latency_ms: from the request to the slate.
    """

    customer_id: str | None
    customer_kind: CustomerKind
    fallback_level: FallbackLevel
    slate: Slate
    reason: str = ""
    feature_ts: datetime | None = None
    explanations: Reasons = field(default_factory=tuple)
    features: CustomerFeatures | None = None
    arm: Arm = "stable"
    failed: str = ""
    latency_ms: float = 0.0


def known_at(as_of: str) -> datetime:
    """When features as of a business day are known: the next day, 00:00 UTC."""
    return datetime.combine(date.fromisoformat(as_of) + timedelta(days=1), datetime.min.time(), tzinfo=UTC)


def personal_answer(live: Live, asked: AskedFor, features: CustomerFeatures, max_lag: timedelta) -> Answer:
    """The ranker's answer for a customer whose features were read.

    Raises:
        NoPersonalAnswer: the features are stale, or no candidate is left in the catalogue.
        PipelineError: the features do not fit the model, or a score is not finite.
    """
    oldest = known_at(live.as_of) - max_lag
    if features.feature_ts < oldest:
        raise NoPersonalAnswer(
            "stale_features",
            "online features",
            found=f"features of {features.feature_ts.isoformat()}",
            wanted=f"{oldest.isoformat()} or later",
            fix="publish the online features of the bundle's day",
        )
    ids, bundle = features.candidate_ids, live.bundle
    pair = unpack(features.pair_features, len(ids), len(bundle.features.pair))
    products, scores = bundle.rank(ids, pair, features.customer_features, asked.k)
    if not products:
        raise NoPersonalAnswer(
            "no_candidates",
            "candidates",
            found="none in the catalogue",
            wanted="at least one",
            fix="none: shown as fallback",
        )
    return Answer(
        asked.customer_id,
        "known",
        "none",
        list(zip(products, scores.tolist(), strict=True)),
        feature_ts=features.feature_ts,
        features=features,
        explanations=bundle.explain(products, ids, pair, features.customer_features, EXPLAINED_FEATURES)
        if asked.explain
        else (),
    )


def fallback_answer(live: Live, asked: AskedFor, reason: str) -> Answer:
    """The released batch slate of a customer, or popularity for one it does not hold and for a visitor who is not known.

    Batch recommendations cover every known customer, so one who is not in them is new.
    """
    customer_id, rows = asked.customer_id, live.bundle.rows
    if customer_id is None:
        return Answer(None, "anonymous", "popularity", popular(live, asked.k), reason)
    slate = [item for item in live.batch.get(customer_id, ()) if item[0] in rows][: asked.k]
    if slate:
        return Answer(customer_id, "known", "batch", slate, reason)
    kind: CustomerKind = "known" if customer_id in live.batch else "new"
    return Answer(customer_id, kind, "popularity", popular(live, asked.k), reason)


def popular(live: Live, k: int) -> Slate:
    """The `k` most popular products that are in the catalogue."""
    return live.bundle.fallback[:k]
