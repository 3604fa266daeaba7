"""Feature matrices as bytes, and the one layout of the model matrix.

A customer's candidates travel as one packed row (ids and a little-endian float32 matrix): reading 200 candidates one by
one costs 105 ms CPU, one packed row 0.3 ms (measured with Feast on SQLite). `assemble` is used by training, batch and
serving alike, so the three cannot put a column in different places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline_assets.recommender.errors import FeatureMismatch

if TYPE_CHECKING:
    import pyarrow

F32 = npt.NDArray[np.float32]
PACKED = np.dtype("<f4")  # the stored form, whatever the machine's byte order
REPACK = "write the features again with the feature list of this model, or use the model of these features"


def pack(matrix: F32) -> bytes:
    """Row-major little-endian float32 bytes of `matrix` [n candidates, p features]; NaN means missing.

    Raises:
        FeatureMismatch: `matrix` is not two-dimensional, or not float32 (a silent cast would hide a precision loss).
    """
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        raise FeatureMismatch(
            "matrix to pack",
            found=f"{matrix.dtype} with shape {matrix.shape}",
            wanted="float32 with two dimensions",
            fix="cast once, where the features are computed",
        )
    return matrix.astype(PACKED, order="C", copy=False).tobytes()


def pack_groups(matrix: F32, edges: npt.NDArray[np.int64]) -> pyarrow.Array:
    """`pack` of rows edges[i] .. edges[i + 1] of `matrix`, for every i, without copying: the column of a table.

    Raises:
        FeatureMismatch: as `pack`; or 2 GB and more, which one Arrow column cannot hold.
    """
    import pyarrow

    if matrix.nbytes >= 1 << 31:
        raise FeatureMismatch(
            "packed matrix",
            found=f"{matrix.nbytes} bytes",
            wanted="less than 2 GB in one piece",
            fix="make the buckets of customers smaller (recommender/stage.py)",
        )
    pack(matrix[:0])
    rows = np.ascontiguousarray(matrix.astype(PACKED, copy=False))
    offsets = (edges * matrix.shape[1] * PACKED.itemsize).astype(np.int32)
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(rows)]
    return pyarrow.Array.from_buffers(pyarrow.binary(), len(edges) - 1, buffers)


def unpack(blob: bytes, n: int, p: int) -> F32:
    """The matrix [n, p] that `pack` stored, as a read-only view of `blob` (no copy).

    Raises:
        FeatureMismatch: `blob` does not hold n rows of p values; names the width that was found.
    """
    if len(blob) != n * p * PACKED.itemsize:
        values, odd_bytes = divmod(len(blob), PACKED.itemsize)
        whole = n > 0 and values % n == 0 and odd_bytes == 0
        width = f"width {values // n}" if whole else "no whole width"
        raise FeatureMismatch(
            "packed pair_features", found=f"{len(blob)} bytes for {n} rows ({width})", wanted=f"width {p}", fix=REPACK
        )
    return np.frombuffer(blob, dtype=PACKED).reshape(n, p)


def assemble(pair: F32, customer: F32, product: F32) -> F32:
    """The model matrix [n, P + C + Q] in the order pair, customer, product.

    Args:
        pair: [n, P], one row per candidate.
        customer: [C] of one customer, or [n, C] where the rows belong to several customers (training).
        product: [n, Q], the row of each candidate's product.

    Raises:
        FeatureMismatch: the parts do not have the same number of rows.
    """
    n = pair.shape[0]
    rows = {"pair": n, "product": product.shape[0], "customer": customer.shape[0] if customer.ndim == 2 else n}
    if len(set(rows.values())) != 1 or pair.ndim != 2 or product.ndim != 2 or customer.ndim not in (1, 2):
        raise FeatureMismatch(
            "parts of the model matrix",
            found=f"pair {pair.shape}, customer {customer.shape}, product {product.shape}",
            wanted="pair [n, P], customer [C] or [n, C], product [n, Q] with one n",
            fix="look up the parts with the same candidate list",
        )
    p, c = pair.shape[1], customer.shape[-1]
    matrix = np.empty((n, p + c + product.shape[1]), dtype=np.float32)
    matrix[:, :p] = pair
    matrix[:, p : p + c] = customer
    matrix[:, p + c :] = product
    return matrix
