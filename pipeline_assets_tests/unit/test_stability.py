"""The arithmetic under the drift policy: bins, PSI, adjusted p-values and design effects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.monitoring.stability import (
    adjust_p_values,
    category_codes,
    chi_square_p_value,
    design_effect,
    kolmogorov_p_value,
    population_stability_index,
    quantile_codes,
)


def test_psi_of_equal_shares_is_zero() -> None:
    """100 of 200 and 10 of 20 are the same share."""
    assert population_stability_index(np.array([100, 100]), np.array([10, 10])) == 0.0


def test_psi_by_hand() -> None:
    """.5/.5 to .9/.1: .4 ln(.9/.5) - .4 ln(.1/.5) = .4 ln 9."""
    assert population_stability_index(np.array([50, 50]), np.array([90, 10])) == pytest.approx(0.4 * np.log(9))


def test_psi_of_an_emptied_bin_is_finite() -> None:
    """An empty bin counts as half a row of the smaller sample (.5/10): .5 ln(1/.5) + (.05 - .5) ln(.05/.5)."""
    expected = 0.5 * np.log(2) + 0.45 * np.log(10)
    assert population_stability_index(np.array([50, 50]), np.array([10, 0])) == pytest.approx(expected)


def test_psi_ignores_bins_empty_on_both_sides() -> None:
    """Two zeros are floored alike and add nothing."""
    assert population_stability_index(np.array([50, 50, 0]), np.array([5, 5, 0])) == 0.0


def test_quantile_bins_hold_equal_parts_of_the_reference() -> None:
    """1..8 in 4 bins is two each; nothing lies below the reference (bin 0) and nothing is missing (bin 5)."""
    reference = np.arange(1.0, 9.0)
    codes, _, size = quantile_codes(reference, reference, 4)
    assert np.bincount(codes, minlength=size).tolist() == [0, 2, 2, 2, 2, 0]


def test_quantile_bins_keep_values_below_a_lump_apart() -> None:
    """A reference of ones: 0.5 is below it (bin 0), 1 in it (bin 1), missing last."""
    _, codes, size = quantile_codes(np.ones(10), np.array([0.5, 1.0, np.nan]), 4)
    assert codes.tolist() == [0, 1, size - 1]


def test_rare_categories_are_pooled_and_missing_is_a_category() -> None:
    """c has 1 of 100 here and none there: pooled (0). A category that is new and common keeps its own code."""
    reference = pd.Series(["a"] * 89 + ["b"] * 10 + ["c"])
    current = pd.Series(["a"] * 50 + [None] * 30 + ["new"] * 20)
    first, second, size = category_codes(reference, current, 0.05)
    assert np.bincount(first, minlength=size).tolist() == [1, 0, 89, 10, 0]  # pooled, (missing), a, b, new
    assert np.bincount(second, minlength=size).tolist() == [0, 30, 50, 0, 20]


def test_benjamini_hochberg_by_hand() -> None:
    """p x n / rank, made monotone from the largest: .01 x 3/1, .02 x 3/2, .9 x 3/3, in the order given."""
    assert adjust_p_values([0.9, 0.01, 0.02]) == pytest.approx([0.9, 0.03, 0.03])


def test_benjamini_hochberg_of_nothing_is_nothing() -> None:
    """No columns, no p-values."""
    assert adjust_p_values([]) == []


def test_chi_square_by_hand() -> None:
    """60/40 against 40/60: chi-square = 4 x 10^2 / 50 = 8, whose p with one degree of freedom is .004678."""
    assert chi_square_p_value([np.array([60.0, 40.0]), np.array([40.0, 60.0])]) == pytest.approx(0.004678, abs=1e-6)


def test_kolmogorov_sees_a_shift_and_not_a_copy() -> None:
    """The same values have p 1; shifted by half of their range, p is tiny; counted as 1/100 as many, it is not."""
    values = np.linspace(0, 1, 500)
    assert kolmogorov_p_value(values, values, 1.0, 1.0) == pytest.approx(1.0)
    assert kolmogorov_p_value(values, values + 0.5, 1.0, 1.0) < 1e-9
    assert kolmogorov_p_value(values, values + 0.5, 100.0, 100.0) > 0.05


def test_design_effect_of_identical_rows_is_the_cluster_size() -> None:
    """Clusters of five equal rows carry the information of one row each: 5. Every row its own cluster: 1."""
    codes = np.repeat(np.tile([0, 1], 50), 5)
    assert design_effect(codes, 2, np.repeat(np.arange(100), 5)) == pytest.approx(5.0)
    assert design_effect(codes, 2, np.arange(500)) == 1.0
    assert design_effect(codes, 2, None) == 1.0
