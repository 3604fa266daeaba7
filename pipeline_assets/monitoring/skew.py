"""Skew: the same question answered twice. Feature values offline against online, and slates against earlier slates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline_assets.monitoring.stability import finite_or_missing, population_stability_index, quantile_codes
from pipeline_assets.recommender.columns import CUSTOMER_ID, PRODUCT_ID, RANK, SCORE
from pipeline_assets.recommender.errors import FeatureMismatch, NotEnoughData, SchemaError

MAX_MISMATCH_SHARE = 0.001  # the service level: at most 0.1 % of values differ
SCORE_BINS = 20  # as DriftPolicy.bins, so that both PSI figures have one scale


@dataclass(frozen=True)
class FeatureSkew:
    """One feature: how many of its values differ, and by how much at most (NaN: only missing against present)."""

    name: str
    mismatches: int
    mismatch_share: float
    max_absolute_difference: float


@dataclass(frozen=True)
class SkewResult:
    """Offline against online values; `features` in the order of the names."""

    rows: int
    mismatches: int
    mismatch_share: float
    features: tuple[FeatureSkew, ...]

    @property
    def is_within_objective(self) -> bool:
        """Whether the share of differing values keeps the service level."""
        return self.mismatch_share <= MAX_MISMATCH_SHARE


@dataclass(frozen=True)
class ScoreSkew:
    """Two sets of slates compared.

    Attributes:
        psi: of the score distributions, by 20 quantile bins of the reference; missing scores are a bin.
        top_n_overlap: mean over shared customers of common products / products in the longer of the two lists (0-1).
        shared_customers: customers with a slate on both sides.
        reference_top_item_share: share of reference slates that hold the most recommended product (0-1).
        current_top_item_share: the same of the current slates.
        item_share_distance: half the summed absolute difference of products' shares of all slots (0 same, 1 disjoint).
    """

    psi: float
    top_n_overlap: float
    shared_customers: int
    reference_top_item_share: float
    current_top_item_share: float
    item_share_distance: float


def compare_values(
    offline: npt.NDArray[np.float32], online: npt.NDArray[np.float32], names: Sequence[str]
) -> SkewResult:
    """Count values that differ in their float32 bits; NaN equals any NaN, 0.0 does not equal -0.0.

    Args:
        offline: (rows, features) as computed in batch.
        online: the same rows and features as the server saw them.
        names: feature names, one per column.

    Raises:
        FeatureMismatch: not float32 (a cast here could hide skew), or shapes or names that do not agree.
        NotEnoughData: no rows or no features: no skew was looked for, so none was ruled out.
    """
    for label, values in (("offline values", offline), ("online values", online)):
        if values.dtype != np.float32 or values.shape != (offline.shape[0], len(names)):
            raise FeatureMismatch(
                label,
                found=f"{values.dtype} {values.shape}",
                wanted=f"float32 {(offline.shape[0], len(names))}",
                fix="pass the model matrices as they were scored",
            )
    if offline.size == 0:
        raise NotEnoughData("skew", found=f"shape {offline.shape}", wanted="at least one value", fix="sample requests")
    bits = [np.ascontiguousarray(values).view(np.uint32) for values in (offline, online)]
    differs = (bits[0] != bits[1]) & ~(np.isnan(offline) & np.isnan(online))
    # float64: the difference of two float32 can overflow float32. Equal infinities never reach it.
    difference = np.where(differs, offline, 0).astype(np.float64) - np.where(differs, online, 0)
    features = tuple(
        FeatureSkew(
            name=name,
            mismatches=int(differs[:, column].sum()),
            mismatch_share=float(differs[:, column].mean()),
            max_absolute_difference=_largest(difference[:, column]),
        )
        for column, name in enumerate(names)
    )
    return SkewResult(len(offline), int(differs.sum()), float(differs.mean()), features)


def score_skew(reference_scores: pd.DataFrame, current_scores: pd.DataFrame, *, top_n: int = 10) -> ScoreSkew:
    """Compare two sets of slates of the same model version (scores of different models have no common scale).

    Args:
        reference_scores: long slates: customer_id, rank (1 is the best), product_id, score.
        current_scores: the same columns.
        top_n: ranks that are compared.

    Raises:
        SchemaError: a column is missing, or a score is infinite.
        NotEnoughData: no slates, or no customer with a slate on both sides.
    """
    tops = []
    for label, slates in (("reference slates", reference_scores), ("current slates", current_scores)):
        missing = [name for name in (CUSTOMER_ID, RANK, PRODUCT_ID, SCORE) if name not in slates.columns]
        if missing:
            raise SchemaError(label, found=f"no column {missing}", wanted="long slates", fix="pass them as published")
        tops.append(slates[slates[RANK] <= top_n])
        if tops[-1].empty:
            raise NotEnoughData(label, found="no rows", wanted=f"slates with ranks 1 to {top_n}", fix="check the batch")
    reference, current = tops
    sizes = pd.concat([top.groupby(CUSTOMER_ID).size() for top in tops], axis=1, join="inner").max(axis=1)
    if sizes.empty:
        raise NotEnoughData("score skew", found="no shared customer", wanted="at least one", fix="check customer ids")
    pair = [CUSTOMER_ID, PRODUCT_ID]
    common = reference[pair].merge(current[pair]).groupby(CUSTOMER_ID).size().reindex(sizes.index, fill_value=0)
    first, second, size = quantile_codes(
        finite_or_missing(reference[SCORE]), finite_or_missing(current[SCORE]), SCORE_BINS
    )
    shares = [top[PRODUCT_ID].value_counts(normalize=True) for top in tops]
    return ScoreSkew(
        psi=population_stability_index(
            np.bincount(first, minlength=size).astype(np.int64), np.bincount(second, minlength=size).astype(np.int64)
        ),
        top_n_overlap=float((common / sizes).mean()),
        shared_customers=len(sizes),
        reference_top_item_share=_top_item_share(reference),
        current_top_item_share=_top_item_share(current),
        item_share_distance=float(shares[1].sub(shares[0], fill_value=0.0).abs().sum() / 2),
    )


def _largest(difference: npt.NDArray[np.float64]) -> float:
    """Largest absolute value of those present; NaN when every difference is missing against present."""
    known = np.abs(difference[~np.isnan(difference)])
    return float(known.max()) if known.any() or known.size == difference.size else float("nan")


def _top_item_share(top: pd.DataFrame) -> float:
    return float(top[PRODUCT_ID].value_counts().iloc[0] / top[CUSTOMER_ID].nunique())
