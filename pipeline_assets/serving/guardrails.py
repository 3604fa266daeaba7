"""Is the candidate worse than the stable model? One finding per guardrail, from what both arms answered. Pure.

Belongs here: the comparison and its limits. Does not: reading the prediction log (evidence.py), what follows (rollout.py).
Too little data is *inconclusive*, never *ok*. Both arms answer customers of the same hours, drawn by a hash, so that what
happens to the shop happens to both.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pipeline_assets.recommender.errors import ConfigurationError

Verdict = Literal["ok", "breach", "inconclusive"]


@dataclass(frozen=True)
class Finding:
    """What one guardrail says, with its figures in words."""

    guardrail: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Arm:
    """What one model answered to known customers since the stage began.

    Args:
        answers: all of them; errors: the model failed; fallbacks: not its own slate; empty: no product at all.
        latency_ms: of each answer.
        slates: the newest slate of the model itself per customer, product ids, best first.
        prices: mean price of each slate whose products have one.
        changes: per request that both models ranked, the share of the slots with another product than the other model's.
        hits: per answer whose week is over, the share of the slate that its customer bought.
    """

    answers: int = 0
    errors: int = 0
    fallbacks: int = 0
    empty: int = 0
    latency_ms: Sequence[float] = ()
    slates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prices: Sequence[float] = ()
    changes: Sequence[float] = ()
    hits: Sequence[float] = ()


@dataclass(frozen=True)
class Limits:
    """How much worse the candidate may be. A difference counts when it is beyond `sigmas` standard errors.

    The sensor looks every 30 s, so that a 5 % test would end every second good rollout by chance: 3 standard errors are
    one look in 740, on differences that the margins have been taken from.
    """

    min_answers: int = 200  # per arm: a doubled error share of 1 % is not seen with fewer, a failing model is
    min_customers: int = 50  # per arm, with a slate of the model: coverage and shares of fewer are noise
    min_judged: int = 500  # per arm, answers whose week is over: hits are rare (0.1 to 0.3 a slot)
    sigmas: float = 3.0
    errors: float = 0.01  # share above the stable arm's
    fallback: float = 0.02  # the service level allows 2 % in all
    empty: float = 0.01
    latency_ratio: float = 2.0  # of the 95th percentile, and at least
    latency_ms: float = 20.0  # as many milliseconds: a tenth of a busy machine's own variation is not the model
    coverage: float = 0.5  # least ratio of distinct products, with as many slates of each
    top_item: float = 0.25  # share of the slates that hold the most frequent product, above the stable arm's
    price: float = 0.25  # greatest relative change of the mean price of a slate
    change: float = 0.7  # greatest share of changed slots; the gate stops at 0.5 and a person may have looked
    quality: float = 0.05  # greatest relative loss of hits


def compare(stable: Arm, candidate: Arm, limits: Limits, armed: Sequence[str]) -> tuple[Finding, ...]:
    """One finding per armed guardrail, in their order.

    Raises:
        ConfigurationError: a name that is no guardrail.
    """
    if unknown := [name for name in armed if name not in GUARDRAILS]:
        raise ConfigurationError(
            "guardrails",
            found=", ".join(unknown),
            wanted=f"some of {', '.join(GUARDRAILS)}",
            fix="correct rollout.guardrails",
        )
    return tuple(Finding(name, *GUARDRAILS[name](stable, candidate, limits)) for name in armed)


Judged = tuple[Verdict, str]


def _share(count: Callable[[Arm], int], margin: Callable[[Limits], float]) -> Callable[[Arm, Arm, Limits], Judged]:
    """A guardrail on a share of the answers, which may be `margin` above the stable arm's."""

    def judge(stable: Arm, candidate: Arm, limits: Limits) -> Judged:
        if short := _too_few(stable.answers, candidate.answers, limits.min_answers, "answers"):
            return short
        before, now = count(stable) / stable.answers, count(candidate) / candidate.answers
        error = math.sqrt(before * (1 - before) / stable.answers + now * (1 - now) / candidate.answers)
        text = f"{now:.2%} of {candidate.answers} answers, stable {before:.2%} of {stable.answers}"
        return _above(now - before, margin(limits), error, limits.sigmas), text

    return judge


def _latency(stable: Arm, candidate: Arm, limits: Limits) -> Judged:
    if short := _too_few(len(stable.latency_ms), len(candidate.latency_ms), limits.min_answers, "answers"):
        return short
    before, now = (float(np.percentile(arm.latency_ms, 95)) for arm in (stable, candidate))
    allowed = max(before * limits.latency_ratio, before + limits.latency_ms)
    text = f"95th percentile {now:.1f} ms, stable {before:.1f} ms"
    return ("breach" if now > allowed else "ok"), text


def _coverage(stable: Arm, candidate: Arm, limits: Limits) -> Judged:
    if short := _too_few(len(stable.slates), len(candidate.slates), limits.min_customers, "customers"):
        return short
    n = min(len(stable.slates), len(candidate.slates))  # as many slates of each: more slates hold more products
    before, now = (
        len({item for slate in list(arm.slates.values())[:n] for item in slate}) for arm in (stable, candidate)
    )
    text = f"{now} distinct products in {n} slates, stable {before}"
    return ("breach" if now < before * limits.coverage else "ok"), text


def _top_item(stable: Arm, candidate: Arm, limits: Limits) -> Judged:
    if short := _too_few(len(stable.slates), len(candidate.slates), limits.min_customers, "customers"):
        return short
    before, now = (_most_frequent(arm.slates) for arm in (stable, candidate))
    error = math.sqrt(before * (1 - before) / len(stable.slates) + now * (1 - now) / len(candidate.slates))
    text = f"one product is in {now:.1%} of {len(candidate.slates)} slates, stable {before:.1%}"
    return _above(now - before, limits.top_item, error, limits.sigmas), text


def _most_frequent(slates: Mapping[str, tuple[str, ...]]) -> float:
    """Share of the slates that hold the most frequent product."""
    held = Counter(item for slate in slates.values() for item in set(slate))
    return max(held.values(), default=0) / len(slates)


def _price(stable: Arm, candidate: Arm, limits: Limits) -> Judged:
    if short := _too_few(len(stable.prices), len(candidate.prices), limits.min_customers, "priced slates"):
        return short
    (before, before_error), (now, now_error) = _mean(stable.prices), _mean(candidate.prices)
    if before <= 0:
        return "inconclusive", f"mean price {now:.2f}, stable {before:.2f}"
    shift, error = abs(now - before) / before, math.hypot(before_error, now_error) / before
    return _above(shift, limits.price, error, limits.sigmas), f"mean price {now:.2f}, stable {before:.2f}"


def _change(stable: Arm, candidate: Arm, limits: Limits) -> Judged:
    n = len(candidate.changes)
    if n < limits.min_customers:
        return "inconclusive", f"{n} requests ranked by both models; wanted {limits.min_customers}"
    mean, error = _mean(candidate.changes)
    text = f"{mean:.1%} of the slots of {n} requests have another product than the stable model's"
    return _above(mean, limits.change, error, limits.sigmas), text


def _quality(stable: Arm, candidate: Arm, limits: Limits) -> Judged:
    if short := _too_few(len(stable.hits), len(candidate.hits), limits.min_judged, "answers whose week is over"):
        return short
    (before, before_error), (now, now_error) = _mean(stable.hits), _mean(candidate.hits)
    text = f"{now:.4f} of the shown products were bought, stable {before:.4f}"
    return _above(before - now, before * limits.quality, math.hypot(before_error, now_error), limits.sigmas), text


GUARDRAILS: Mapping[str, Callable[[Arm, Arm, Limits], Judged]] = {
    "errors": _share(lambda arm: arm.errors, lambda limits: limits.errors),
    "latency": _latency,
    "fallback": _share(lambda arm: arm.fallbacks, lambda limits: limits.fallback),
    "empty": _share(lambda arm: arm.empty, lambda limits: limits.empty),
    "coverage": _coverage,
    "top_item": _top_item,
    "price": _price,
    "change": _change,
    "quality": _quality,
}


def _too_few(stable: int, candidate: int, wanted: int, of: str) -> Judged | None:
    if min(stable, candidate) >= wanted:
        return None
    return "inconclusive", f"{candidate} {of}, stable {stable}; wanted {wanted} of each"


def _above(difference: float, margin: float, error: float, sigmas: float) -> Verdict:
    return "breach" if difference - sigmas * error > margin else "ok"


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
