"""Input drift: is today's data still the kind the model learned from? Our own policy decides, not a library default.

Measured (docs/design/reliability.md, E8): Evidently's default preset flags 1-2 of 20 columns on undrifted data below 1,000 rows.
A column therefore drifts only when its change is both *big* (population stability index, PSI) and *significant* (false
discoveries controlled over all columns, lines of one order not counted as independent rows), and a day alarms only when
enough columns drift for long enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pipeline_assets.monitoring.stability import (
    FloatArray,
    IntArray,
    adjust_p_values,
    category_codes,
    chi_square_p_value,
    design_effect,
    finite_or_missing,
    kolmogorov_p_value,
    population_stability_index,
    quantile_codes,
)
from pipeline_assets.recommender.columns import AMOUNT, DISCOUNT, EVENT_TS, ORDER_ID, QUANTITY
from pipeline_assets.recommender.errors import ConfigurationError, SchemaError

Verdict = Literal["ok", "watch", "drift", "unknown"]

PROFILE_NUMERICAL = ("quantity_log1p", "amount_log1p", "unit_price_log1p", "discount_share", "hour_of_day")
PROFILE_CATEGORICAL = ("department", "category", "brand")
# 2.97 / 3 is 0.9900000000000001: unrounded, one price is two values on either side of a bin edge, and drifts by itself.
DECIMALS = 4


@dataclass(frozen=True)
class DriftPolicy:
    """When a column, and when a day, counts as drifted.

    Figures below: completejourney, 123 days of May to August 2017, each against its eight previous same weekdays;
    "fault" = prices x1.3 on a random half of the products.
    """

    # Sampling noise of PSI is about bins x design effect x (1/reference + 1/current rows): 20 x 2 x 1/1,000 = 0.04,
    # half of psi_threshold. The smallest real day before the holdout has 2,659 rows.
    min_rows: int = 1_000
    # Prices sit on lumps (0.99, 1.00, 1.29), so finer bins see them move: with 20 bins unit price PSI was <= 0.10 clean
    # and >= 0.11 under the fault; with 10 they overlap (0.08 and 0.035).
    # The price of it: moving the same half to other lumps (endings in 9) at the old level drifted on 3 of 61 days.
    bins: int = 20
    # Rarer categories are pooled: 1 % of a day is about 40 rows, which a design effect of 3 makes 13.
    min_category_share: float = 0.01
    # Below the textbook 0.1: amount PSI was <= 0.063 clean, 0.090 at the fault's 5th percentile. The others stayed
    # under it on 95 % of clean days, except hour of day (0.19), which significance with clustering holds back.
    psi_threshold: float = 0.08
    # Significance only removes noise, effect size judges: `category` alone is significant on 47 % of the clean days.
    false_discovery_rate: float = 0.01
    # 3 of the 8 profile columns: a change of unimportant columns must be broad before a person is told.
    min_drifted_share: float = 0.3
    # Money and mix are what the ranker's strongest features are made of; hour, discount and category swing by season.
    important_columns: tuple[str, ...] = ("amount_log1p", "unit_price_log1p", "department", "brand")
    # One important column (unit price) drifted on 1 of these 123 clean days and 4 of the next 61; two
    # never did. The fault moves two.
    min_drifted_important: int = 2
    # A holiday is one odd day; a changed upstream is still changed tomorrow. Every further day delays true alarms.
    persistence_days: int = 2
    # No clean column exceeded 0.34 (hour of day, 4 July); with hours off by four it was 0.46 to 1.5, with prices
    # x1.3 on everything amount 0.49 to 1.3, without discounts 3. Waiting a day on those only serves bad lists.
    extreme_psi: float = 0.5
    # Lines of one order share its hour and taste: on 1 May the design effect was 31 for the hour (a day's 3,900 lines
    # are worth 126 independent ones), 1.6 for amounts. Without this column in both frames rows count as independent.
    cluster_column: str | None = ORDER_ID

    def __post_init__(self) -> None:
        """Refuse a policy that can never or always alarm.

        Raises:
            ConfigurationError: a count below 1, or a share or threshold out of range.
        """
        counts = ("min_rows", "min_drifted_important", "persistence_days")
        bad = [name for name in counts if getattr(self, name) < 1]
        shares = ("min_category_share", "false_discovery_rate", "min_drifted_share")
        bad += [name for name in shares if not 0.0 < getattr(self, name) <= 1.0]
        bad += [] if self.bins >= 2 else ["bins"]
        bad += [] if 0.0 < self.psi_threshold <= self.extreme_psi else ["psi_threshold"]
        if bad:
            raise ConfigurationError(
                f"drift policy {bad[0]}",
                found=getattr(self, bad[0]),
                wanted="counts >= 1 (bins >= 2), shares in (0, 1], 0 < psi_threshold <= extreme_psi",
                fix=f"correct {', '.join(bad)} where the DriftPolicy is made",
            )


@dataclass(frozen=True)
class ColumnDrift:
    """One column compared: `effect_size` is PSI; `design_effect` is rows per independent row (1 = independent)."""

    column: str
    kind: Literal["numerical", "categorical"]
    effect_size: float
    p_value: float
    adjusted_p_value: float
    design_effect: float
    is_drifted: bool
    is_extreme: bool


@dataclass(frozen=True)
class DriftResult:
    """One day compared with its reference; `columns` is empty when either frame had fewer than `min_rows` rows."""

    reference_rows: int
    current_rows: int
    columns: tuple[ColumnDrift, ...]

    @property
    def drifted_columns(self) -> tuple[str, ...]:
        """Names of the drifted columns, in the order in which they were compared."""
        return tuple(column.column for column in self.columns if column.is_drifted)


@dataclass(frozen=True)
class DriftDecision:
    """The day's verdict and, in words a person can act on, why."""

    verdict: Verdict
    reasons: tuple[str, ...]


def input_profile(purchases_with_products: pd.DataFrame, *, time_zone: str) -> pd.DataFrame:
    """Columns that describe one business day's purchase lines, for `compare`.

    Args:
        purchases_with_products: validated lines (order_id, quantity in units, amount and discount in currency, event_ts
            in UTC) joined with department, category and brand. One row per product and order.
        time_zone: the shop's zone, e.g. "America/New_York". Hours in UTC would jump with every clock change.

    Returns:
        One row per line, same index: order_id, PROFILE_NUMERICAL and PROFILE_CATEGORICAL. Money and units are
        heavy-tailed and given as log(1 + x). `discount_share` is discount / (amount + discount), missing if both are 0.

    Raises:
        SchemaError: a column is missing, or a line has quantity <= 0, amount < 0 or discount < 0.
    """
    lines = purchases_with_products
    _require(lines, (ORDER_ID, QUANTITY, AMOUNT, DISCOUNT, EVENT_TS, *PROFILE_CATEGORICAL), "purchase lines")
    quantity, amount, discount = (lines[name].astype("float64") for name in (QUANTITY, AMOUNT, DISCOUNT))
    invalid = int(((quantity <= 0) | (amount < 0) | (discount < 0)).sum())
    if invalid:
        raise SchemaError(
            "purchase lines",
            found=f"{invalid} lines with quantity <= 0, amount < 0 or discount < 0",
            wanted="validated lines",
            fix="build the profile from the validated layer",
        )
    amount, discount = amount.round(DECIMALS), discount.round(DECIMALS)
    gross = amount + discount
    local_time = pd.to_datetime(lines[EVENT_TS], utc=True).dt.tz_convert(time_zone)
    profile = {
        ORDER_ID: lines[ORDER_ID],
        "quantity_log1p": np.log1p(quantity),
        "amount_log1p": np.log1p(amount),
        "unit_price_log1p": np.log1p((amount / quantity).round(DECIMALS)),
        "discount_share": (discount / gross.where(gross > 0)).round(DECIMALS),
        "hour_of_day": local_time.dt.hour.astype("float64"),
    }
    return pd.DataFrame(profile | {name: lines[name] for name in PROFILE_CATEGORICAL}, index=lines.index)


def compare(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    numerical: Sequence[str],
    categorical: Sequence[str],
    policy: DriftPolicy,
) -> DriftResult:
    """Compare every column of two frames of rows (any number of rows each).

    Rows of one `policy.cluster_column` value are treated as one cluster when both frames have that column (Rao-Scott
    correction, https://doi.org/10.1214/aos/1176346391); rows are independent otherwise. Missing values are a bin.

    Raises:
        SchemaError: a named column is missing, or a numerical one holds an infinite value.
    """
    for frame, name in ((reference, "reference frame"), (current, "current frame")):
        _require(frame, (*numerical, *categorical), name)
    if min(len(reference), len(current)) < policy.min_rows:
        return DriftResult(len(reference), len(current), ())
    key = policy.cluster_column
    clustered = key is not None and key in reference.columns and key in current.columns
    clusters = tuple(
        pd.factorize(frame[key], use_na_sentinel=False)[0].astype(np.int64) if clustered else None
        for frame in (reference, current)
    )
    measured = [_measure(reference[name], current[name], True, clusters, policy) for name in numerical]
    measured += [_measure(reference[name], current[name], False, clusters, policy) for name in categorical]
    adjusted = adjust_p_values([p_value for _, p_value, _ in measured])
    columns: list[ColumnDrift] = []
    for name, (effect, p_value, inflation), q_value in zip((*numerical, *categorical), measured, adjusted, strict=True):
        is_significant = q_value <= policy.false_discovery_rate
        columns.append(
            ColumnDrift(
                column=name,
                kind="numerical" if len(columns) < len(numerical) else "categorical",
                effect_size=effect,
                p_value=p_value,
                adjusted_p_value=q_value,
                design_effect=inflation,
                is_drifted=is_significant and effect >= policy.psi_threshold,
                is_extreme=is_significant and effect >= policy.extreme_psi,
            )
        )
    return DriftResult(len(reference), len(current), tuple(columns))


def decide(today: DriftResult, previous_verdicts: Sequence[str], policy: DriftPolicy) -> DriftDecision:
    """The day's verdict.

    Args:
        today: the comparison of today.
        previous_verdicts: verdicts of the days before, oldest first. An 'unknown' day is stepped over: it neither ends
            nor lengthens a run of changed days.
        policy: the limits.

    Returns:
        'unknown' with too few rows (or nothing compared); 'ok' when too few columns drifted; otherwise 'watch' until
        the change has lasted `persistence_days` known days, then 'drift'. An extreme column is 'drift' at once.
    """
    if not today.columns:
        rows = f"reference has {today.reference_rows} rows, current {today.current_rows}, {policy.min_rows} needed"
        return DriftDecision("unknown", (rows,))
    drifted = [column for column in today.columns if column.is_drifted]
    extreme = [column for column in drifted if column.is_extreme]
    important = [column for column in drifted if column.column in policy.important_columns]
    count = f"{len(drifted)} of {len(today.columns)} columns drifted, {len(important)} of them important"
    sizes = ", ".join(f"{column.column} PSI {column.effect_size:.3f}" for column in drifted)
    reasons: tuple[str, ...] = (f"{count}: {sizes}" if drifted else count,)
    if extreme:
        names = ", ".join(column.column for column in extreme)
        return DriftDecision("drift", (*reasons, f"extreme change (PSI >= {policy.extreme_psi:g}) of {names}"))
    share = len(drifted) / len(today.columns)
    if share < policy.min_drifted_share and len(important) < policy.min_drifted_important:
        return DriftDecision("ok", reasons)
    days = 1
    for verdict in (verdict for verdict in reversed(previous_verdicts) if verdict != "unknown"):
        if verdict not in ("watch", "drift"):
            break
        days += 1
    reasons = (*reasons, f"known days in a row: {days}, {policy.persistence_days} make a drift")
    return DriftDecision("drift" if days >= policy.persistence_days else "watch", reasons)


def _measure(
    reference: pd.Series,
    current: pd.Series,
    is_numerical: bool,
    clusters: tuple[IntArray | None, ...],
    policy: DriftPolicy,
) -> tuple[float, float, float]:
    """PSI, p-value and the larger design effect of one column."""
    values: tuple[FloatArray, ...] = ()
    if is_numerical:
        values = finite_or_missing(reference), finite_or_missing(current)
        first, second, size = quantile_codes(values[0], values[1], policy.bins)
    else:
        first, second, size = category_codes(reference, current, policy.min_category_share)
    codes = first, second
    counts = [np.bincount(code, minlength=size).astype(np.int64) for code in codes]
    design = [design_effect(code, size, cluster) for code, cluster in zip(codes, clusters, strict=True)]
    effective = [count / inflation for count, inflation in zip(counts, design, strict=True)]
    if is_numerical:
        p_shape = kolmogorov_p_value(values[0], values[1], design[0], design[1])
        p_missing = chi_square_p_value([np.array([count[:-1].sum(), count[-1]]) for count in effective])
        p_value = min(1.0, 2.0 * min(p_shape, p_missing))  # two tests on one column: Bonferroni
    else:
        p_value = chi_square_p_value(effective)
    return population_stability_index(counts[0], counts[1]), p_value, max(design)


def _require(frame: pd.DataFrame, names: Sequence[str], culprit: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise SchemaError(culprit, found=f"no column {missing}", wanted=list(names), fix="add it, or do not name it")
