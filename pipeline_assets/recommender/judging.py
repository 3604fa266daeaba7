"""Judging the slates of several methods on one week, and joining weeks: all numbers of an evaluation, no decision.

Methods are names -> slates. `CHALLENGER` must be one of them; `CHAMPION` and `DISCOVER` (the challenger's slates with a place
for something new) may be; the others are baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import CUSTOMER_ID, EVENT_DATE, PRODUCT_ID, RANK, SCORE
from pipeline_assets.recommender.exposure import (
    Shop,
    coverage,
    exposure,
    popularity_fifths,
    popularity_share,
    shown_measures,
)
from pipeline_assets.recommender.metrics import (
    MEAN_METRICS,
    REVENUE,
    SHOWN_METRICS,
    Estimate,
    bootstrap_interval,
    metric_value,
    per_customer_metrics,
)
from pipeline_assets.recommender.promotion import Evidence, GatePolicy
from pipeline_assets.recommender.sanity import changed_share, slate_faults
from pipeline_assets.recommender.slices import compare_slices, customer_slices, product_groups, recall_by_group

CHALLENGER, CHAMPION, DISCOVER = "challenger", "champion", "discover slate"
MEASURES = (*MEAN_METRICS, REVENUE, *SHOWN_METRICS)
DIMENSIONS = ("department", "brand")  # of products, that are slices
RECENT = timedelta(days=91)  # whose products can be covered
Slates = Mapping[str, pd.DataFrame]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Facts:
    """What one week is judged with. `day` is the as-of day; `targets` are of the judged customers only.

    targets: customer_id, product_id, amount bought in the window. purchases: sellable ones up to `day`. products:
    index product_id with department, type, brand, is_sellable.
    """

    day: date
    targets: pd.DataFrame
    purchases: pd.DataFrame
    products: pd.DataFrame

    @property
    def customers(self) -> list[str]:
        return sorted(self.targets[CUSTOMER_ID].unique())


@dataclass(frozen=True, eq=False)
class Judged:
    """One week, or several that were joined.

    per_customer: method -> `metrics.per_customer_metrics` and `SHOWN_METRICS`, index (window, customer_id). slices:
    dimension -> slice of each customer-week. by_group: dimension -> method -> recall. coverage: method -> estimate.
    hit_rate: method -> (k,) share of customers with a hit at each rank. exposure: dimension -> of the challenger.
    scores, labels: all candidates of the challenger, week after week, and where each week begins. faults, changes
    (method -> share of the slots that differ from the challenger's): of the newest week.
    """

    days: tuple[date, ...]
    per_customer: dict[str, pd.DataFrame]
    slices: pd.DataFrame
    by_group: dict[str, dict[str, pd.DataFrame]]
    coverage: dict[str, Estimate]
    hit_rate: dict[str, np.ndarray]
    exposure: dict[str, pd.DataFrame]
    scores: np.ndarray
    labels: np.ndarray
    starts: tuple[int, ...]
    faults: tuple[str, ...]
    changes: dict[str, float]

    @property
    def challenger(self) -> pd.DataFrame:
        return self.per_customer[CHALLENGER]

    @property
    def champion(self) -> pd.DataFrame | None:
        return self.per_customer.get(CHAMPION)

    @property
    def change(self) -> float | None:
        """Share of the slots that differ from the champion's; None without one."""
        return self.changes.get(CHAMPION)

    @property
    def baselines(self) -> dict[str, pd.DataFrame]:
        return {
            name: frame for name, frame in self.per_customer.items() if name not in (CHALLENGER, CHAMPION, DISCOVER)
        }

    def summaries(self) -> dict[str, dict[str, float]]:
        """Method -> measure -> value, coverage included."""
        return {
            name: {**{m: metric_value(frame, m) for m in MEASURES}, "coverage": self.coverage[name].value}
            for name, frame in self.per_customer.items()
        }

    def estimates(self, seed: int) -> dict[str, dict[str, Estimate]]:
        """Method -> measure -> value with bounds; a measure that nobody has is left out."""
        return {
            name: {
                **{m: bootstrap_interval(frame, m, seed=seed) for m in MEASURES if frame_has(frame, m)},
                "coverage": self.coverage[name],
            }
            for name, frame in self.per_customer.items()
        }

    def evidence(self, policy: GatePolicy, seed: int) -> Evidence:
        """What the gate asks for beside the measures."""
        judged = {CHALLENGER: self.challenger, **self.baselines}
        compared = compare_slices(
            judged,
            self.slices,
            {dimension: {name: methods[name] for name in judged} for dimension, methods in self.by_group.items()},
            challenger=CHALLENGER,
            metric=policy.primary_metric,
            confidence=policy.confidence,
            seed=seed,
            min_customers=policy.min_slice_customers,
        )
        brands = self.exposure["brand"]
        return Evidence(self.coverage[CHALLENGER].value, compared, self.faults, self.change, brands)


def frame_has(frame: pd.DataFrame, measure: str) -> bool:
    """Whether any customer has the measure: no target was new to anybody, or nothing was sold."""
    if measure == REVENUE:
        return bool(frame["revenue_target"].any())
    return bool(frame[measure].notna().any())


def judge_week(facts: Facts, slates: Slates, k: int) -> Judged:
    """Measure the first k of every method's slates on one week.

    Args:
        slates: the challenger's with the scores of all its candidates; only the first k of the others are used.

    Raises:
        SchemaError, NotEnoughData: as of the measures.
    """
    pair = [CUSTOMER_ID, PRODUCT_ID]
    repeated = (
        facts.targets[pair].merge(facts.purchases[pair]).drop_duplicates()
    )  # all of the history that measures ask for
    recent = facts.purchases[pd.to_datetime(facts.purchases[EVENT_DATE]) > pd.Timestamp(facts.day - RECENT)]
    shop = Shop(popularity_share(recent), facts.products)
    top = {name: slate.loc[slate[RANK] <= k] for name, slate in slates.items()}
    groups = {name: product_groups(facts.products[name], facts.targets) for name in DIMENSIONS}
    sellable = facts.products.index[facts.products["is_sellable"]]
    n_targets = facts.targets[CUSTOMER_ID].nunique()
    own = slates[CHALLENGER].merge(facts.targets[pair].assign(label=1), "left", pair)
    fifths = popularity_fifths(shop.popularity)

    def per_customer(slate: pd.DataFrame) -> pd.DataFrame:
        measured = per_customer_metrics(slate, facts.targets, repeated, k).join(shown_measures(slate, shop, k))
        return _windowed(facts.day, measured)

    return Judged(
        days=(facts.day,),
        per_customer={name: per_customer(slate) for name, slate in top.items()},
        slices=_windowed(facts.day, customer_slices(facts.purchases, facts.day).reindex(facts.customers)),
        by_group={
            dimension: {name: _grouped(facts, slate, group, k) for name, slate in top.items()}
            for dimension, group in groups.items()
        },
        coverage={name: coverage(slate, recent[PRODUCT_ID].nunique(), k) for name, slate in top.items()},
        hit_rate={name: _hit_rate(slate, facts.targets, n_targets, k) for name, slate in top.items()},
        exposure={
            **{name: exposure(top[CHALLENGER], facts.targets, group, k) for name, group in groups.items()},
            "popularity": exposure(top[CHALLENGER], facts.targets, fifths, k),
        },
        scores=own[SCORE].to_numpy(),
        labels=own["label"].fillna(0).to_numpy(np.int8),
        starts=(0,),
        faults=slate_faults(top[CHALLENGER], facts.customers, sellable, min(k, len(sellable))),
        changes={name: changed_share(top[CHALLENGER], slate, k) for name, slate in top.items() if name != CHALLENGER},
    )


def _windowed(day: date, frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat({day: frame}, names=["window"])


def _grouped(facts: Facts, slate: pd.DataFrame, group: pd.Series, k: int) -> pd.DataFrame:
    recall = _windowed(facts.day, recall_by_group(slate, facts.targets, group, k))
    return recall.reorder_levels(["group", "window", CUSTOMER_ID])


def _hit_rate(slate: pd.DataFrame, targets: pd.DataFrame, n_customers: int, k: int) -> np.ndarray:
    hits = slate.merge(targets[[CUSTOMER_ID, PRODUCT_ID]], on=[CUSTOMER_ID, PRODUCT_ID])[RANK].to_numpy(np.int64)
    return np.bincount(hits - 1, minlength=k) / n_customers


def join_weeks(weeks: Sequence[Judged]) -> Judged:
    """Several weeks as one. Rates, exposures and coverages are means over weeks; faults and changes are of the newest.

    Bounds of coverage are averaged too, as if the weeks moved together: the same customers are in all of them.
    """
    newest = weeks[-1]
    lengths = np.cumsum([0, *(len(week.scores) for week in weeks)])

    def methods(of: Callable[[Judged], Mapping[str, T]], merge: Callable[[list[T]], T]) -> dict[str, T]:
        return {name: merge([of(week)[name] for week in weeks]) for name in of(newest)}

    return Judged(
        days=tuple(day for week in weeks for day in week.days),
        per_customer=methods(lambda week: week.per_customer, pd.concat),
        slices=pd.concat([week.slices for week in weeks]),
        by_group={
            dimension: methods(lambda week, d=dimension: week.by_group[d], lambda parts: pd.concat(parts).sort_index())  # type: ignore[misc]
            for dimension in newest.by_group
        },
        coverage=methods(lambda week: week.coverage, _mean_estimate),
        hit_rate=methods(lambda week: week.hit_rate, lambda parts: np.mean(parts, axis=0)),
        exposure=methods(lambda week: week.exposure, _mean_exposure),
        scores=np.concatenate([week.scores for week in weeks]),
        labels=np.concatenate([week.labels for week in weeks]),
        starts=tuple(int(start) for start in lengths[:-1]),
        faults=newest.faults,
        changes=newest.changes,
    )


def _mean_estimate(parts: list[Estimate]) -> Estimate:
    return Estimate(*(float(np.mean([getattr(part, name) for part in parts])) for name in ("value", "low", "high")))


def _mean_exposure(parts: list[pd.DataFrame]) -> pd.DataFrame:
    both = pd.concat([part[["slots", "purchases"]] for part in parts]).groupby(level=0).sum() / len(parts)
    both["ratio"] = (both["slots"] / both["purchases"]).where(both["purchases"] > 0)
    return both.sort_values("purchases", ascending=False, kind="stable")
