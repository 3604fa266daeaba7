"""The fallback ladder: ranker, then batch recommendations, then popularity. Pure logic, no HTTP, threads or clock.

Belongs here: what is answered and how that is flagged. Does not: reading Parquet, calling with a deadline, JSON.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from types import MappingProxyType
from typing import Literal

import numpy as np

from pipeline_assets.recommender.bundle import Bundle
from pipeline_assets.recommender.errors import PipelineError
from pipeline_assets.recommender.packing import F32, unpack
from pipeline_assets.serving.behaviour import Event, days_since_events, of_interest, shifts
from pipeline_assets.serving.online import CustomerFeatures
from pipeline_assets.serving.rules import Applied, RuleContext, Slate, apply_rules
from pipeline_assets.settings_rules import RulesSettings

CustomerKind = Literal["known", "new", "anonymous"]
FallbackLevel = Literal["none", "batch", "popularity"]
Stage = Literal[
    "features", "rank", "rules"
]  # of an answer: reading what is known of the customer, scoring, what the shop's rules leave
Arm = Literal["stable", "canary"]  # of a rollout: what is live, or the model on trial
Reasons = Sequence[Sequence[tuple[str, float, float]]]  # per product: (feature, value, contribution)
NO_RULES = RulesSettings()
SALES = "product_orders_28d"  # the feature that popularity within a filter goes by
LAST_BOUGHT = {
    "product": "pair_days_since_last",
    "type": "pair_type_days_since_last",
    "category": "pair_category_days_since_last",
}


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

    @functools.cached_property
    def model_digest(self) -> str:
        """SHA-256 of the model's file."""
        return next(file.sha256 for file in self.bundle.manifest.files if file.path == "model.txt")

    @functools.cached_property
    def best_sellers(self) -> tuple[str, ...]:
        """Products of the catalogue that were sold in four weeks, most orders first; the fallback's where the model has no such feature.

        Computed once, at the first filter on popularity: 40 ms for 68,000 products.
        """
        names = self.bundle.features.product
        if SALES not in names:
            return tuple(product for product, _ in self.bundle.fallback)
        sales = np.nan_to_num(self.bundle.product_matrix[:, names.index(SALES)])
        products = list(self.bundle.rows)
        return tuple(products[row] for row in np.argsort(-sales, kind="stable") if sales[row] > 0)


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
class Moment:
    """What an answer depends on besides what is live and what was asked for.

    Args:
        now: UTC; today: the shop's day, by which dated rules count.
        rules: of the shop.
        recent: what the customer did lately, oldest first.
    """

    now: datetime
    today: date
    rules: RulesSettings = NO_RULES
    recent: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One slate and where it comes from.

    Args:
        reason: why it is not the ranker's; empty if it is.
        explanations: per product of the slate, the strongest contribution first; empty for a product that was not ranked.
        features: what the ranker was given.
        arm: whose turn it was; failed: why the canary's model could not answer, so that another answered for it.
        latency_ms: from the request to the slate.
        moment: what it depends on besides, with the recent events that were looked at.
        ranked: what the rules were applied to, best first; applied: what they did.
        stages: seconds that parts of it took, in their order; not those of an answer that was given up.
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
    moment: Moment | None = None
    ranked: Slate = ()
    applied: tuple[Applied, ...] = ()
    stages: tuple[tuple[Stage, float], ...] = ()


def no_lap(stage: Stage) -> None:
    """Nobody measures."""


def known_at(as_of: str) -> datetime:
    """When features as of a business day are known: the next day, 00:00 UTC."""
    return datetime.combine(date.fromisoformat(as_of) + timedelta(days=1), datetime.min.time(), tzinfo=UTC)


def personal_answer(
    live: Live,
    asked: AskedFor,
    features: CustomerFeatures,
    max_lag: timedelta,
    moment: Moment,
    lap: Callable[[Stage], None] = no_lap,
) -> Answer:
    """The ranker's answer for a customer whose features were read; `lap` is told of each stage that is over.

    Raises:
        NoPersonalAnswer: the features are stale, no candidate is left in the catalogue, or none that the rules allow.
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
    products, scores = bundle.rank(ids, pair, features.customer_features, max(len(ids), 1))
    lap("rank")
    recent = tuple(event for event in moment.recent if event.at >= features.feature_ts)
    days_since = days_since_bought(moment.rules, bundle, ids, pair)
    ranked = list(zip(products, scores.tolist(), strict=True))
    slate, applied = ruled(live, asked, moment, ranked, recent, days_since=days_since)
    lap("rules")
    if not slate:
        raise NoPersonalAnswer(
            "filtered" if products else "no_candidates",
            "candidates",
            found="none that the rules allow" if products else "none in the catalogue",
            wanted="at least one",
            fix="none: shown as fallback",
        )
    return Answer(
        asked.customer_id,
        "known",
        "none",
        slate,
        feature_ts=features.feature_ts,
        features=features,
        explanations=_explained(bundle, slate, ranked, ids, pair, features) if asked.explain else (),
        moment=replace(moment, recent=recent),
        ranked=ranked,
        applied=applied,
    )


def fallback_answer(live: Live, asked: AskedFor, reason: str, moment: Moment) -> Answer:
    """The released batch slate of a customer, or popularity for one it does not hold and for a visitor who is not known.

    Batch recommendations cover every known customer, so one who is not in them is new. Rules hold here, too.
    """
    customer_id, rows = asked.customer_id, live.bundle.rows
    since = known_at(live.as_of)
    recent = tuple(event for event in moment.recent if event.at >= since)
    ranked: Slate
    if customer_id is not None:
        ranked = [item for item in live.batch.get(customer_id, ()) if item[0] in rows]
        slate, applied = ruled(live, asked, moment, ranked, recent)
        if slate:
            return Answer(
                customer_id,
                "known",
                "batch",
                slate,
                reason,
                moment=replace(moment, recent=recent),
                ranked=ranked,
                applied=applied,
            )
    kind: CustomerKind = "anonymous" if customer_id is None else "known" if customer_id in live.batch else "new"
    ranked = popular(live, asked, recent)
    slate, applied = ruled(live, asked, moment, ranked, recent, is_popular=True)
    return Answer(
        customer_id,
        kind,
        "popularity",
        slate,
        reason,
        moment=replace(moment, recent=recent),
        ranked=ranked,
        applied=applied,
    )


def popular(live: Live, asked: AskedFor, recent: Sequence[Event]) -> Slate:
    """The most popular products of the catalogue, those of the filters if there are any, and after them what the customer had to do with."""
    bundle = live.bundle
    found: Slate = bundle.fallback
    if asked.filters:
        wanted = [(bundle.attributes[name], frozenset(values)) for name, values in asked.filters.items()]
        of_filter = (p for p in live.best_sellers if all(v[bundle.rows[p]] in values for v, values in wanted))
        found = [(product, -float(place)) for place, product in enumerate(islice(of_filter, len(bundle.fallback)), 1)]
    if recent:
        more = of_interest(recent, bundle, dict(found))
        found = [*found, *((product, -float(place)) for place, product in enumerate(more, len(found) + 1))]
    return found


def ruled(
    live: Live,
    asked: AskedFor,
    moment: Moment,
    ranked: Slate,
    recent: Sequence[Event],
    *,
    days_since: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    is_popular: bool = False,
) -> tuple[Slate, tuple[Applied, ...]]:
    """The slate that the rules and recent behaviour leave of ranked products, and what they did."""
    bundle, products = live.bundle, [product for product, _ in ranked]
    since = dict(days_since)
    for level in {rule.level for rule in moment.rules.recently_bought} if recent else ():
        lately = days_since_events(recent, products, level, moment.today, bundle)
        since[level] = {**since.get(level, {}), **lately}
    context = RuleContext(
        asked.k,
        moment.today,
        exclude=asked.exclude,
        basket=asked.basket,
        filters=asked.filters,
        context=asked.context,
        days_since=since,
        shifts=shifts(products, bundle, asked.basket, recent, moment.now, is_new=is_popular),
        is_by_place=is_popular,
    )
    return apply_rules(ranked, moment.rules, context, bundle)


def days_since_bought(
    rules: RulesSettings, bundle: Bundle, ids: Sequence[str], pair: F32
) -> dict[str, dict[str, float]]:
    """Level -> product -> days since its purchase by the features, for the levels that a rule asks for; never bought is absent."""
    found: dict[str, dict[str, float]] = {}
    for level in {rule.level for rule in rules.recently_bought}:
        name = LAST_BOUGHT[level]
        if name in bundle.features.pair:
            days = pair[:, bundle.features.pair.index(name)].tolist()
            found[level] = {product: age for product, age in zip(ids, days, strict=True) if age == age}
    return found


def _explained(
    bundle: Bundle, slate: Slate, ranked: Slate, ids: Sequence[str], pair: F32, features: CustomerFeatures
) -> Reasons:
    """All contributions per product of the slate; none for a pinned product that is no candidate."""
    candidates = {product for product, _ in ranked}
    chosen = [product for product, _ in slate if product in candidates]
    parts = bundle.explain(chosen, ids, pair, features.customer_features, len(bundle.features.all))
    by_product = dict(zip(chosen, parts, strict=True))
    return [by_product.get(product, ()) for product, _ in slate]
