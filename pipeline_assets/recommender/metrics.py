"""Measures of recommendation slates: per customer, then the mean, with paired bootstrap intervals.

R is a customer's target (the distinct products bought in the window); hits are targets among the first k of the slate.
recall = hits / |R|; precision = hits / k; hit_rate = any hit; ndcg = binary relevance over the ideal of min(k, |R|);
map = sum of precision at each hit / min(k, |R|); revenue = pooled sales of hits / pooled sales of targets.
A customer-week is one customer in one window. Per-customer frames of several windows are concatenated with
`pd.concat({window: frame}, names=["window"])`; everything that takes per-customer frames takes these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import AMOUNT, CUSTOMER_ID, PRODUCT_ID, RANK
from pipeline_assets.recommender.errors import NotEnoughData, SchemaError

MEAN_METRICS = ("recall", "precision", "hit_rate", "ndcg", "map", "repeat_recall", "new_item_recall")
REVENUE = "revenue"  # pooled: sum of revenue_hit / sum of revenue_target
COMPARABLE = (*MEAN_METRICS, REVENUE)
KEPT_DRAWS = 8_000_000  # customers times resamples that are kept, 32 MB; of more each is drawn when it is needed
SHOWN_METRICS = ("novelty", "tail_share", "departments")  # of what is shown, not of what is bought (exposure.py)


@dataclass(frozen=True)
class Interval:
    """Difference a - b of one metric, with percentile bootstrap bounds; `relative*` are divided by the value of b.

    The relative bounds are NaN where b is 0, over all customers or in one of the resamples.
    """

    mean_difference: float
    relative: float
    low: float
    high: float
    relative_low: float
    relative_high: float


@dataclass(frozen=True)
class Estimate:
    """One metric of one method, with percentile bootstrap bounds."""

    value: float
    low: float
    high: float


def _require(frame: pd.DataFrame, name: str, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise SchemaError(name, found=list(frame.columns), wanted=f"columns {missing} too", fix=f"add them to {name}")


def _require_distinct(frame: pd.DataFrame, name: str, keys: list[str]) -> None:
    repeated = int(frame.duplicated(keys).sum())
    if repeated:
        found = f"{repeated} repeated ({', '.join(keys)})"
        raise SchemaError(name, found=found, wanted="each at most once", fix=f"deduplicate {name}")


def _hits(slates: pd.DataFrame, targets: pd.DataFrame, k: int) -> pd.DataFrame:
    """The target rows that a slate holds in its first k, with their rank, ordered by customer and rank."""
    _require(slates, "slates", (CUSTOMER_ID, RANK, PRODUCT_ID))
    top = slates.loc[slates[RANK] <= k, [CUSTOMER_ID, RANK, PRODUCT_ID]]
    if len(top) and int(top[RANK].min()) < 1:
        raise SchemaError("slates.rank", found=int(top[RANK].min()), wanted="1 for the best", fix="number ranks from 1")
    _require_distinct(top, "slates", [CUSTOMER_ID, RANK])
    _require_distinct(top, "slates", [CUSTOMER_ID, PRODUCT_ID])
    return top.merge(targets, on=[CUSTOMER_ID, PRODUCT_ID]).sort_values([CUSTOMER_ID, RANK], kind="stable")


def per_customer_metrics(
    slates: pd.DataFrame, targets: pd.DataFrame, history: pd.DataFrame, k: int = 10
) -> pd.DataFrame:
    """Measures of one window for every customer with a target; no slate scores 0.

    Args:
        slates: customer_id, rank (1 is the best), product_id. Customers without a target are ignored.
        targets: distinct customer_id, product_id bought in the window, with amount (currency).
        history: distinct customer_id, product_id bought before the window.
        k: length of the list that is judged.

    Returns:
        Index customer_id, ascending. Shares in [0, 1]: recall, precision, hit_rate, ndcg, map, repeat_recall (targets
        bought before; NaN where there are none), new_item_recall (the others; NaN likewise). Currency: revenue_hit,
        revenue_target.

    Raises:
        SchemaError: a column is missing, an amount is null, a rank is below 1, or a key is repeated.
        NotEnoughData: there is no target.
    """
    if k < 1:
        raise SchemaError("k", found=k, wanted="at least 1", fix="ask for a list of one product or more")
    _require(targets, "targets", (CUSTOMER_ID, PRODUCT_ID, AMOUNT))
    _require(history, "history", (CUSTOMER_ID, PRODUCT_ID))
    if targets.empty:
        raise NotEnoughData("targets", found="no purchase", wanted="at least one", fix="choose another window")
    if targets[AMOUNT].isna().any():
        raise SchemaError("targets.amount", found="nulls", wanted="a number in each row", fix="validate purchases")
    _require_distinct(targets, "targets", [CUSTOMER_ID, PRODUCT_ID])

    rows = targets[[CUSTOMER_ID, PRODUCT_ID, AMOUNT]].reset_index(drop=True)
    codes, customers = pd.factorize(rows[CUSTOMER_ID], sort=True)
    known = history.loc[history[PRODUCT_ID].isin(rows[PRODUCT_ID].unique()), [CUSTOMER_ID, PRODUCT_ID]]
    matched = rows.merge(known.drop_duplicates(), how="left", on=[CUSTOMER_ID, PRODUCT_ID], indicator=True)
    rows = rows.assign(_code=codes, _repeat=(matched["_merge"] == "both").to_numpy())
    hits = _hits(slates, rows, k)
    n, at = len(customers), hits["_code"].to_numpy()
    rank = hits[RANK].to_numpy(dtype=np.int64)

    def per_target(weights: pd.Series | None = None) -> np.ndarray:
        return np.bincount(codes, weights=None if weights is None else weights.to_numpy(dtype=float), minlength=n)

    def per_hit(weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(at, weights=weights, minlength=n)

    size, found = per_target(), per_hit()
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    reachable = np.minimum(size, k)
    nth_hit = hits.groupby("_code", sort=False).cumcount().to_numpy() + 1  # hits up to and with this rank
    n_repeat, found_repeat = per_target(rows["_repeat"]), per_hit(hits["_repeat"].to_numpy(dtype=float))
    n_new, found_new = size - n_repeat, found - found_repeat
    nothing = np.full(n, np.nan)
    return pd.DataFrame(
        {
            "recall": found / size,
            "precision": found / k,
            "hit_rate": (found > 0).astype(float),
            "ndcg": per_hit(discounts[rank - 1]) / np.cumsum(discounts)[reachable - 1],
            "map": per_hit(nth_hit / rank) / reachable,
            "repeat_recall": np.divide(found_repeat, n_repeat, out=nothing.copy(), where=n_repeat > 0),
            "new_item_recall": np.divide(found_new, n_new, out=nothing.copy(), where=n_new > 0),
            "revenue_hit": per_hit(hits[AMOUNT].to_numpy(dtype=float)),
            "revenue_target": per_target(rows[AMOUNT]),
        },
        index=pd.Index(customers, name=CUSTOMER_ID),
    )


def _parts(frame: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator per row, whose ratio of sums is the metric (a mean counts the rows that have it)."""
    if metric == REVENUE:
        _require(frame, "per-customer metrics", ("revenue_hit", "revenue_target"))
        return frame["revenue_hit"].to_numpy(dtype=float), frame["revenue_target"].to_numpy(dtype=float)
    if metric not in (*MEAN_METRICS, *SHOWN_METRICS):
        wanted = f"one of {', '.join((*COMPARABLE, *SHOWN_METRICS))}"
        raise SchemaError("metric", found=metric, wanted=wanted, fix="correct the name")
    _require(frame, "per-customer metrics", (metric,))
    values = frame[metric].to_numpy(dtype=float)
    has = ~np.isnan(values)
    return np.where(has, values, 0.0), has.astype(float)


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")


def metric_value(per_customer: pd.DataFrame, metric: str) -> float:
    """Value of one metric, as `summarise` gives it. SchemaError: the metric or its column is unknown."""
    numerator, denominator = _parts(per_customer, metric)
    return _ratio(numerator.sum(), denominator.sum())


def summarise(per_customer: pd.DataFrame) -> dict[str, float]:
    """Mean of every metric over the customers that have it, and pooled `revenue`. NaN: nobody has it.

    Raises:
        NotEnoughData: the frame is empty.
    """
    if per_customer.empty:
        raise NotEnoughData("per-customer metrics", found="no rows", wanted="one or more", fix="evaluate a window")
    return {metric: metric_value(per_customer, metric) for metric in COMPARABLE}


def _customer_codes(index: pd.Index) -> np.ndarray:
    name = CUSTOMER_ID if CUSTOMER_ID in index.names else index.names[-1]
    values = index.get_level_values(name if name is not None else index.nlevels - 1)
    return np.asarray(pd.factorize(values, sort=True)[0])


def _resample(index: pd.Index, parts: list[np.ndarray], draws: int, seed: int) -> np.ndarray:
    """Sums of each part in `draws` resamples of customers, (draws, len(parts)).

    A customer is drawn with all her weeks: the weeks of one customer are not independent.
    """
    codes = _customer_codes(index)
    n = int(codes.max()) + 1
    sums = np.column_stack([np.bincount(codes, weights=part, minlength=n) for part in parts])
    drawn: Iterable[np.ndarray] = (_kept_draws if n * draws <= KEPT_DRAWS else _draws)(n, draws, seed)
    return np.stack([each @ sums for each in drawn])


def _draws(n: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `n` customers is in each resample: (n,), one a draw."""
    rng = np.random.default_rng(seed)
    return (np.bincount(rng.integers(0, n, n), minlength=n).astype(np.int32) for _ in range(draws))


@lru_cache(maxsize=2)
def _kept_draws(n: int, draws: int, seed: int) -> np.ndarray:
    """The same, (draws, n), kept: all metrics and methods of an evaluation have the same."""
    found = np.stack(list(_draws(n, draws, seed)))
    found.flags.writeable = False  # it is shared
    return found


def _bounds(values: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_interval(
    per_customer: pd.DataFrame, metric: str, draws: int = 2000, *, seed: int, confidence: float = 0.95
) -> Estimate:
    """Value of `metric` (a mean metric or `revenue`) with bounds from resampled customers.

    Raises:
        SchemaError: the metric or its column is unknown.
        NotEnoughData: no customer has the metric.
    """
    numerator, denominator = _parts(per_customer, metric)
    if not denominator.any():
        raise NotEnoughData(metric, found="no customer with it", wanted="one or more", fix="evaluate more customers")
    sums = _resample(per_customer.index, [numerator, denominator], draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = sums[:, 0] / sums[:, 1]
    return Estimate(_ratio(numerator.sum(), denominator.sum()), *_bounds(ratios[np.isfinite(ratios)], confidence))


def paired_bootstrap(
    a: pd.DataFrame, b: pd.DataFrame, metric: str, draws: int = 2000, *, seed: int, confidence: float = 0.95
) -> Interval:
    """Difference a - b of `metric` (a mean metric or `revenue`) on the same customer-weeks, by resampled customers.

    Args:
        a, b: results of `per_customer_metrics`, same index in any order.
        draws: resamples; the same `seed` draws the same customers for every metric and pair of methods.

    Raises:
        SchemaError: the indexes differ, are repeated, or only one side has a value; the metric is unknown.
        NotEnoughData: no customer has the metric.
    """
    if not a.index.is_unique or not b.index.is_unique:
        raise SchemaError("index", found="repeated rows", wanted="one per customer-week", fix="add the window level")
    if len(a) != len(b) or not a.index.isin(b.index).all():
        raise SchemaError(
            "index", found=f"{len(a)} and {len(b)} rows that differ", wanted="the same customer-weeks on both sides",
            fix="evaluate both methods against the same targets",
        )  # fmt: skip
    b = b if a.index.equals(b.index) else b.reindex(a.index)
    (num_a, den_a), (num_b, den_b) = _parts(a, metric), _parts(b, metric)
    if not np.allclose(den_a, den_b):
        raise SchemaError(
            metric, found="different targets on two sides", wanted="the same", fix="use one targets frame"
        )
    if not den_a.any():
        raise NotEnoughData(metric, found="no customer with it", wanted="one or more", fix="evaluate more customers")
    sums = _resample(a.index, [num_a, num_b, den_a], draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = (sums[:, 0] - sums[:, 1]) / sums[:, 2]
        relatives = (sums[:, 0] - sums[:, 1]) / sums[:, 1]
    value_b = _ratio(num_b.sum(), den_b.sum())
    difference = _ratio(num_a.sum(), den_a.sum()) - value_b
    bounds = _bounds(differences[np.isfinite(differences)], confidence)
    if value_b == 0 or not np.isfinite(relatives).all():
        return Interval(difference, _ratio(difference, value_b), *bounds, float("nan"), float("nan"))
    return Interval(difference, difference / value_b, *bounds, *_bounds(relatives, confidence))
