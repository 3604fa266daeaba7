"""Packing and the layout of the model matrix."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_assets.recommender.errors import FeatureMismatch
from pipeline_assets.recommender.packing import assemble, pack, unpack

MATRIX = np.array([[1.0, np.nan], [0.5, -2.0], [3.0, 4.0]], dtype=np.float32)


def test_round_trip_keeps_values_and_missing() -> None:
    """3 rows x 2 columns x 4 bytes = 24 bytes, and NaN comes back as NaN."""
    blob = pack(MATRIX)
    assert len(blob) == 24
    np.testing.assert_array_equal(unpack(blob, 3, 2), MATRIX)


def test_bytes_are_little_endian_row_major() -> None:
    """1.0 is 0x3F800000: stored lowest byte first, and row one comes before row two."""
    blob = pack(np.asfortranarray(np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)))
    assert blob[:4] == bytes([0, 0, 0x80, 0x3F])
    assert np.frombuffer(blob, "<f4").tolist() == [1.0, 2.0, 3.0, 4.0]


def test_unpacked_view_is_read_only() -> None:
    """The view shares the store's bytes, so nobody may write through it."""
    with pytest.raises(ValueError, match="read-only"):
        unpack(pack(MATRIX), 3, 2)[0, 0] = 9.0


def test_no_candidates_is_an_empty_matrix() -> None:
    """0 rows x 2 columns = 0 bytes."""
    assert unpack(pack(MATRIX[:0]), 0, 2).shape == (0, 2)


def test_another_width_is_refused_by_name() -> None:
    """24 bytes / 4 / 3 rows = width 2; the model wants 5."""
    with pytest.raises(FeatureMismatch, match=r"width 2\); wanted width 5"):
        unpack(pack(MATRIX), 3, 5)


@pytest.mark.parametrize("blob", [pack(MATRIX)[:-1], pack(MATRIX)[:-4]])
def test_cut_bytes_have_no_width(blob: bytes) -> None:
    """23 bytes are not whole floats; 20 bytes are 5 floats, which 3 rows cannot share."""
    with pytest.raises(FeatureMismatch, match="no whole width"):
        unpack(blob, 3, 2)


@pytest.mark.parametrize("matrix", [MATRIX.astype(np.float64), MATRIX[0]])
def test_only_float32_matrices_are_packed(matrix: np.ndarray) -> None:
    """float64 would be rounded silently; one dimension has no rows."""
    with pytest.raises(FeatureMismatch, match="float32 with two dimensions"):
        pack(matrix)


def test_assemble_puts_pair_customer_product_in_this_order() -> None:
    """The customer's one row is repeated for each candidate."""
    matrix = assemble(MATRIX, np.array([7.0], dtype=np.float32), np.array([[10], [20], [30]], dtype=np.float32))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, [[1, np.nan, 7, 10], [0.5, -2, 7, 20], [3, 4, 7, 30]])


def test_assemble_many_customers_equals_one_by_one() -> None:
    """Training passes one customer row per candidate: the same layout."""
    product = np.array([[10], [20], [30]], dtype=np.float32)
    customers = np.array([[7], [7], [8]], dtype=np.float32)
    together = assemble(MATRIX, customers, product)
    np.testing.assert_array_equal(together[:2], assemble(MATRIX[:2], customers[0], product[:2]))
    np.testing.assert_array_equal(together[2:], assemble(MATRIX[2:], customers[2], product[2:]))


def test_assemble_refuses_parts_of_different_length() -> None:
    """3 candidates, 2 product rows: the lookup was done with another list."""
    with pytest.raises(FeatureMismatch, match=r"product \(2, 1\)"):
        assemble(MATRIX, np.zeros(1, dtype=np.float32), np.zeros((2, 1), dtype=np.float32))
