"""The promotion gate: is the challenger better than the champion and every simple baseline, beyond noise, and is it safe?

A new model is not promoted because it is new. All comparisons are paired on the same customer-weeks, because windows
differ more than methods do. Beside them: absolute floors, no slice of customers or products below its baseline, slates
that can be shown (`sanity`), and a change that is not larger than a person would want to see first. The gate only
decides; moving the alias belongs to `assets/evaluation.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from pipeline_assets.recommender import metrics
from pipeline_assets.recommender.columns import CUSTOMER_ID
from pipeline_assets.recommender.errors import ConfigurationError, NotEnoughData, SchemaError

Outcome = Literal["promote", "reject", "inconclusive"]
BRAND_PURCHASES = 0.1  # share of the purchases below which a brand's exposure is a matter of a few products
COMPARISON_COLUMNS = (
    "reference", "role", "metric", "challenger", "reference_value", "difference", "relative",
    "low", "high", "relative_low", "relative_high", "is_passed",
)  # fmt: skip


@dataclass(frozen=True)
class GatePolicy:
    """When a challenger is promoted. The measurements: development windows of 2017-10-23, 10-30 and 11-06.

    Raises:
        ConfigurationError: a value is out of range or a metric is unknown.
    """

    primary_metric: str = "ndcg"
    """Rewards both finding purchases and ranking them; recall and precision moved with it in every comparison made."""

    revenue_metric: str = "revenue"
    """Pooled, so that it is the shop's money and not the mean customer's."""

    min_customers: int = 200
    """Distinct customers. With 200 in one window the 95 % interval of a paired NDCG difference is about +-4.4 % of the
    baseline (TIFU-KNN against personal frequency; +-1 % with 3,948 customer-weeks). Gains over a baseline are about
    +6 %, so fewer customers than this cannot tell a good model from a bad one."""

    min_relative_gain_over_baselines: float = 0.01
    """Observed NDCG gain over each baseline, beside a lower bound above 0. A ranker costs more to run than a counter:
    +1 % is the least that pays for it (the two counters themselves differ by 4.5 %)."""

    min_relative_gain_over_champion: float = 0.0
    """No margin beside the lower bound above 0: replacing one ranker by another costs nothing more to run."""

    confidence: float = 0.95
    """Two-sided, so a challenger that is no better passes by luck in 1 of 40 comparisons, and it must pass them all."""

    draws: int = 2000
    """Resamples of customers; from seed to seed a bound moves by 2 % of the interval's width (standard deviation)."""

    max_revenue_loss: float = 0.03
    """Relative. A significant fall of revenue is always rejected; an observed fall above this one also within noise
    (the 95 % interval of revenue is about +-2 % with 3,948 customer-weeks, +-3 % with one window of 1,300)."""

    min_coverage: float = 0.02
    """Share of the products sold in 91 days that is recommended to anybody in the top 10. Popularity reaches 0.0003,
    personal lists 0.17 to 0.21: this stops a ranker that collapsed onto a few products, and nothing else."""

    min_brand_exposure: float = 0.5
    """Of a brand's share of the purchases, the least share of the slots, for brands with `BRAND_PURCHASES` of them. Two brands of the sample have
    0.89 and 1.29 (as of 2017-11-12): half stops a ranker that shows one brand where customers buy another, and no taste."""

    min_primary: float = 0.01
    """Absolute floor of the primary metric. Popularity has NDCG@10 0.10 here and a list of random products 0.000: below
    it the evaluation or the labels are broken, whoever wins. A tighter floor would follow the season (windows differ by
    12 %); a shop that knows its own level sets it."""

    min_slice_customers: int = 50
    """Distinct customers of a slice that is judged on its own: the interval of fewer is wider than any gain."""

    max_change: float = 0.5
    """Share of the slots whose product is not in the champion's slate. Above it the challenger may be better, and it is
    another product: the outcome is inconclusive until a person looked. Models that are 1 to 8 weeks apart differ in 11 to
    15 % of the slots, the ranker and TIFU-KNN in 28 %, the ranker and popularity in 79 % (docs/adr/0023-gate.md)."""

    def __post_init__(self) -> None:
        rules: list[tuple[str, bool, str]] = [
            ("primary_metric", self.primary_metric in metrics.COMPARABLE, f"one of {', '.join(metrics.COMPARABLE)}"),
            ("revenue_metric", self.revenue_metric in metrics.COMPARABLE, f"one of {', '.join(metrics.COMPARABLE)}"),
            ("min_customers", self.min_customers >= 2, "2 or more: one customer has no spread"),
            ("min_slice_customers", self.min_slice_customers >= 2, "2 or more: one customer has no spread"),
            ("confidence", 0 < self.confidence < 1, "between 0 and 1"),
            ("draws", self.draws >= 100, "100 or more"),
            ("max_revenue_loss", self.max_revenue_loss >= 0, "0 or more"),
            ("min_coverage", 0 <= self.min_coverage <= 1, "between 0 and 1"),
            ("min_brand_exposure", 0 <= self.min_brand_exposure <= 1, "between 0 and 1"),
            ("min_primary", 0 <= self.min_primary <= 1, "between 0 and 1"),
            ("max_change", 0 <= self.max_change <= 1, "between 0 and 1"),
            ("min_relative_gain_over_baselines", self.min_relative_gain_over_baselines >= 0, "0 or more"),
            ("min_relative_gain_over_champion", self.min_relative_gain_over_champion >= 0, "0 or more"),
        ]
        for name, is_right, wanted in rules:
            if not is_right:
                raise ConfigurationError(f"GatePolicy.{name}", found=getattr(self, name), wanted=wanted, fix="set it")


@dataclass(frozen=True)
class Decision:
    """What the gate decided. `reasons` are sentences for people; `comparisons` is one row per reference and metric.

    `changes`: the smallest changes, all of them together, after which it would have been promoted; none when it was.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    comparisons: pd.DataFrame
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A broken rule: what was found, and the smallest change that would mend it. Both are clauses without a full stop."""

    fact: str
    change: str

    def __str__(self) -> str:
        return f"{self.fact}: {self.change}."


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gate knows beside measures per customer-week.

    coverage: the challenger's (`exposure.coverage`), in [0, 1]. slices: `slices.compare_slices`. faults: what makes
    slates unfit to be shown (`sanity.slate_faults`). change: share of slots that differ from the champion's
    (`sanity.changed_share`); None without one. brands: who gets the slots (`exposure.exposure` of brands).
    """

    coverage: float
    slices: pd.DataFrame | None = None
    faults: Sequence[str] = ()
    change: float | None = None
    brands: pd.DataFrame | None = None


def _customers(index: pd.Index) -> int:
    return int(index.get_level_values(CUSTOMER_ID if CUSTOMER_ID in index.names else -1).nunique())


def _require_same_rows(challenger: pd.DataFrame, references: Mapping[str, pd.DataFrame]) -> None:
    for name, frame in references.items():
        if len(frame) != len(challenger) or not challenger.index.isin(frame.index).all():
            raise SchemaError(
                name, found=f"{len(frame)} customer-weeks", wanted=f"the challenger's {len(challenger)}",
                fix="evaluate all methods against the same targets",
            )  # fmt: skip


def _compare(
    challenger: pd.DataFrame, name: str, role: str, reference: pd.DataFrame, metric: str, policy: GatePolicy, seed: int
) -> dict[str, object]:
    interval = metrics.paired_bootstrap(
        challenger, reference, metric, policy.draws, seed=seed, confidence=policy.confidence
    )
    value = metrics.metric_value(reference, metric)
    return {
        "reference": name, "role": role, "metric": metric,
        "challenger": value + interval.mean_difference, "reference_value": value,
        "difference": interval.mean_difference, "relative": interval.relative,
        "low": interval.low, "high": interval.high,
        "relative_low": interval.relative_low, "relative_high": interval.relative_high,
    }  # fmt: skip


def _versus(row: pd.Series) -> str:
    reference = row["role"] if row["role"] == row["reference"] else f"{row['role']} {row['reference']}"
    return f"{row['metric']} {row['challenger']:.4f} against {reference} {row['reference_value']:.4f}"


def _primary_failure(row: pd.Series, policy: GatePolicy, n: int) -> Failure | None:
    """Why the primary gain is not enough and the smallest thing that would have to change; None: it is enough."""
    is_champion = row["role"] == "champion"
    least = policy.min_relative_gain_over_champion if is_champion else policy.min_relative_gain_over_baselines
    facts = (
        f"{_versus(row)}: {row['difference']:+.4f} ({row['relative']:+.1%}), "
        f"{policy.confidence:.0%} interval {row['low']:+.4f} to {row['high']:+.4f}"
    )
    if row["low"] > 0 and row["difference"] >= least * row["reference_value"]:
        return None
    if row["low"] > 0:
        wanted = (1 + least) * row["reference_value"]
        return Failure(
            f"{facts}. Better, but by less than the {least:+.1%} asked for",
            f"{row['metric']} would have to reach {wanted:.4f}",
        )
    kind = "Worse" if row["high"] < 0 else "Equal within noise"
    change = (
        f"the difference in {row['metric']} to {row['reference']} would have to grow by more than "
        f"{max(0.0, -row['low']):.4f} to lift the lower bound above 0"
    )
    if row["difference"] > 0:
        # A bound's distance from the mean shrinks with the root of the sample, so this n would move it to 0.
        needed = math.ceil(n * ((row["difference"] - row["low"]) / row["difference"]) ** 2) + 1
        change += f", or the same difference would have to hold on about {needed:,} customer-weeks instead of {n:,}"
    return Failure(f"{facts}. {kind}", change)


def _revenue_failure(row: pd.Series, policy: GatePolicy) -> Failure | None:
    """Why revenue fell too much against this reference; None: it did not."""
    loss = -row["difference"]
    allowed = policy.max_revenue_loss * row["reference_value"]
    interval = f"{policy.confidence:.0%} interval {row['low']:+.4f} to {row['high']:+.4f}"
    facts = f"{_versus(row)}: {row['relative']:+.1%}, {interval}"
    if row["high"] < 0:
        change = f"{row['metric']} would have to rise by {-row['high']:.4f} to be within noise"
        return Failure(f"{facts}. A significant fall", change)
    if loss > allowed:
        change = f"{row['metric']} would have to rise by {loss - allowed:.4f}"
        return Failure(f"{facts}. Falls by more than {policy.max_revenue_loss:.0%}", change)
    return None


def _floor_failures(value: float, evidence: Evidence, policy: GatePolicy) -> list[Failure]:
    """Absolute floors, slices and sanity: what does not depend on a comparison of means."""
    found = []
    if not value >= policy.min_primary:  # NaN fails too
        fact = f"{policy.primary_metric} {value:.4f} is below the floor {policy.min_primary:.4f}"
        found.append(Failure(fact, f"it would have to reach {policy.min_primary:.4f}"))
    if not evidence.coverage >= policy.min_coverage:
        more = f"{policy.min_coverage / evidence.coverage:.1f} times as many" if evidence.coverage > 0 else "any"
        fact = f"coverage {evidence.coverage:.4f} is below {policy.min_coverage:.4f}"
        found.append(Failure(fact, f"the slates would have to hold {more} distinct products sold in the last 91 days"))
    found += _exposure_failures(evidence.brands, policy)
    slices = evidence.slices
    for _, row in (slices[slices["is_below"]] if slices is not None and len(slices) else pd.DataFrame()).iterrows():
        fact = (
            f"slice {row['slice']}: {row['metric']} {row['challenger']:.4f} against {row['baseline']} "
            f"{row['baseline_value']:.4f}, interval of all slices together {row['low']:+.4f} to {row['high']:+.4f}"
        )
        change = f"{row['metric']} of {row['slice']} would have to rise by {-row['high']:.4f} to be within noise"
        found.append(Failure(fact, change))
    return [*found, *(Failure(fault, "no slate may have this fault") for fault in evidence.faults)]


def _exposure_failures(brands: pd.DataFrame | None, policy: GatePolicy) -> list[Failure]:
    """Brands that are bought and hardly shown."""
    if brands is None:
        return []
    is_hidden = (brands["purchases"] >= BRAND_PURCHASES) & ~(brands["ratio"] >= policy.min_brand_exposure)
    return [
        Failure(
            f"brand {brand} has {row['purchases']:.0%} of the purchases and {row['slots']:.1%} of the slots",
            f"it would have to get {policy.min_brand_exposure * row['purchases']:.1%} of the slots",
        )
        for brand, row in brands[is_hidden].iterrows()
    ]


def _too_large_a_change(evidence: Evidence, policy: GatePolicy) -> Failure | None:
    if evidence.change is None or evidence.change <= policy.max_change:
        return None
    return Failure(
        f"better, but {evidence.change:.0%} of the slots would show another product than the champion's "
        f"({policy.max_change:.0%} are allowed without a person)",
        f"look at the slates, then evaluate again with training.gate_max_change of {evidence.change:.2f} or more",
    )


def decide(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    baselines: Mapping[str, pd.DataFrame],
    policy: GatePolicy,
    seed: int,
    evidence: Evidence,
) -> Decision:
    """Judge a challenger on customer-weeks that neither it nor the champion was trained on.

    Every baseline must be beaten, and the champion where there is one: observed gain of at least the policy's, and the
    lower bound of the paired difference above 0. Revenue is judged against the champion, or, for a first model, against
    every baseline. Floors, slices and slates are judged on their own. All rules must hold, so more baselines make
    promotion harder, never luckier.

    Args:
        challenger, champion, baselines: results of `metrics.per_customer_metrics` on the same customer-weeks, index
            customer_id or (window, customer_id). `champion` None: this is the first model.

    Returns:
        'inconclusive' with too few customers, or when all rules hold and the change is too large to go unseen;
        'reject' with one reason per broken rule; or 'promote'.

    Raises:
        NotEnoughData: no baseline is given: a model is never judged without one.
        SchemaError: the frames are not about the same customer-weeks.
    """
    if not baselines:
        raise NotEnoughData("baselines", found="none", wanted="one or more", fix="pass at least personal frequency")
    _require_same_rows(challenger, {**baselines, **({} if champion is None else {"champion": champion})})
    n, customers = len(challenger), _customers(challenger.index)
    if customers < policy.min_customers:
        reason = Failure(
            f"{customers} customers with purchases in {n} customer-weeks are too few to judge",
            f"{policy.min_customers - customers} more are needed ({policy.min_customers})",
        )
        return _refused("inconclusive", [reason], pd.DataFrame(columns=list(COMPARISON_COLUMNS)))

    comparisons, failures = _comparisons(challenger, champion, baselines, policy, seed)
    failures += _floor_failures(metrics.metric_value(challenger, policy.primary_metric), evidence, policy)
    if failures:
        return _refused("reject", failures, comparisons)
    if change := _too_large_a_change(evidence, policy):
        return _refused("inconclusive", [change], comparisons)
    primary = comparisons[comparisons["metric"] == policy.primary_metric]
    reasons = tuple(
        f"{_versus(row)}: {row['relative']:+.1%}, the lower bound {row['low']:+.4f} is above 0."
        for _, row in primary.iterrows()
    )
    return Decision("promote", reasons, comparisons)


def _refused(outcome: Outcome, failures: Sequence[Failure], comparisons: pd.DataFrame) -> Decision:
    return Decision(outcome, tuple(map(str, failures)), comparisons, tuple(failure.change for failure in failures))


def _comparisons(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    baselines: Mapping[str, pd.DataFrame],
    policy: GatePolicy,
    seed: int,
) -> tuple[pd.DataFrame, list[Failure]]:
    """One row per reference and metric, and what fails in them."""
    references = [(name, "baseline", frame) for name, frame in baselines.items()]
    if champion is not None:
        references.append(("champion", "champion", champion))
    guarded = "baseline" if champion is None else "champion"
    rows: list[dict[str, object]] = []
    failures: list[Failure] = []
    for name, role, frame in references:
        for metric in dict.fromkeys((policy.primary_metric, policy.revenue_metric)):
            row = _compare(challenger, name, role, frame, metric, policy, seed)
            found: list[Failure | None] = []
            if metric == policy.primary_metric:
                found.append(_primary_failure(pd.Series(row), policy, len(challenger)))
            if metric == policy.revenue_metric and role == guarded:
                found.append(_revenue_failure(pd.Series(row), policy))
            broken = [failure for failure in found if failure]
            rows.append({**row, "is_passed": not broken if found else None})
            failures += broken
    return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS)), failures
