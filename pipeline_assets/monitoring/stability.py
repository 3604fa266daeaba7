"""Two samples of rows compared: binning, population stability index, and p-values that know about clusters of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from pipeline_assets.recommender.errors import SchemaError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
MISSING = "(missing)"


def population_stability_index(reference_counts: IntArray, current_counts: IntArray) -> float:
    """PSI = sum of (c - r) ln(c / r) over the shares of two equally long, non-empty count vectors.

    Shares are floored at half a row of the smaller sample: an empty bin is finite and two empty bins add nothing.
    """
    totals = reference_counts.sum(), current_counts.sum()
    floor = 0.5 / min(totals)
    reference = np.maximum(reference_counts / totals[0], floor)
    current = np.maximum(current_counts / totals[1], floor)
    return float(np.sum((current - reference) * np.log(current / reference)))


def quantile_codes(reference: FloatArray, current: FloatArray, bins: int) -> tuple[IntArray, IntArray, int]:
    """Bin codes of both samples by quantiles of the reference, and the number of bins.

    Bin 0 lies below the reference's minimum and the last one is for missing values (NaN); without the first, a value
    below a lump such as quantity 1 would share its bin.
    """
    known = reference[~np.isnan(reference)]
    inner = np.quantile(known, np.arange(1, bins) / bins) if known.size else np.array([])
    low = [np.nextafter(known.min(), -np.inf)] if known.size else []
    edges = np.unique(np.concatenate([low, inner]))
    missing = len(edges) + 1
    codes = [np.where(np.isnan(x), missing, np.searchsorted(edges, x)).astype(np.int64) for x in (reference, current)]
    return codes[0], codes[1], missing + 1


def category_codes(reference: pd.Series, current: pd.Series, min_share: float) -> tuple[IntArray, IntArray, int]:
    """Codes of both columns, and their number: 0 pools categories below `min_share` in both; missing is a category."""
    texts = [column.astype("object").where(column.notna(), MISSING).astype(str) for column in (reference, current)]
    shares = [text.value_counts(normalize=True) for text in texts]
    kept = sorted({str(name) for share in shares for name in share.index[share >= min_share]})
    codes = [pd.Categorical(text, categories=kept).codes.astype(np.int64) + 1 for text in texts]
    return codes[0], codes[1], len(kept) + 1


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg adjusted p-values, same order (Benjamini and Hochberg 1995)."""
    return [float(value) for value in stats.false_discovery_control(p_values)] if p_values else []


def kolmogorov_p_value(
    reference: FloatArray, current: FloatArray, reference_design_effect: float, current_design_effect: float
) -> float:
    """p-value of equal distributions (asymptotic Kolmogorov-Smirnov, effective sample sizes); 1 without values."""
    known = [values[~np.isnan(values)] for values in (reference, current)]
    if not (known[0].size and known[1].size):
        return 1.0
    n, m = known[0].size / reference_design_effect, known[1].size / current_design_effect
    distance = float(stats.ks_2samp(known[0], known[1], method="asymp").statistic)
    return float(stats.kstwobign.sf(distance * np.sqrt(n * m / (n + m))))


def chi_square_p_value(counts: Sequence[FloatArray]) -> float:
    """p-value of equal shares in two (effective) count vectors; bins empty in both are dropped."""
    table = np.stack(counts)
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0


def design_effect(codes: IntArray, size: int, clusters: IntArray | None) -> float:
    """Variance of the bin shares under cluster sampling over that of independent rows, averaged (Rao-Scott), >= 1."""
    if clusters is None:
        return 1.0
    n_clusters = int(clusters.max()) + 1
    table = np.bincount(clusters * size + codes, minlength=n_clusters * size).reshape(n_clusters, size)
    shares = table.sum(axis=0) / len(codes)
    residuals = table - table.sum(axis=1, keepdims=True) * shares
    used = (shares > 0) & (shares < 1)
    if not used.any():
        return 1.0
    inflation = (residuals[:, used] ** 2).sum(axis=0) / (len(codes) * shares[used])  # (1 - share) x design effect
    return max(1.0, float(inflation.sum() / (used.sum() - 1)))


def finite_or_missing(column: pd.Series) -> FloatArray:
    """The column as float64, missing as NaN. Raises SchemaError on an infinite value."""
    values: FloatArray = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise SchemaError(
            f"column {column.name}", found="an infinite value", wanted="finite or missing", fix="repair its computation"
        )
    return values
