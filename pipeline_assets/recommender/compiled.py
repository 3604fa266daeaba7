"""The model as machine code: compiled once a model by lleaves, loaded from bytes by llvmlite alone.

Belongs here: compiling, loading, comparing with the native model. Does not: where the code is kept (manifest, resources).
Machine code is run as it is: load only what a trusted signature covers.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from ctypes import CFUNCTYPE, c_int32, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline_assets.recommender.errors import BundleError, FeatureMismatch
from pipeline_assets.recommender.packing import F32

if TYPE_CHECKING:
    import lightgbm

F64 = npt.NDArray[np.float64]
ENTRY = "forest_root"
# Trees that are walked together, row by row, so that their code stays in the instruction cache. Measured with 286 trees, 81 features, 113 rows: blocks of
# 10, 20, 34 and all 286 take 240, 206, 196 and 345 us, and 10, 10, 16 and 76 s CPU to compile (without inlining 4 s, and 380 us). LightGBM: 1,400 us.
BLOCK_TREES = 20
# Any processor of the kind, so that a bundle can be moved: the host's own instructions are 5 % faster (240 against 252 us).
PORTABLE_CPU = {"x86_64": "x86-64"}
TOLERANCE = 1e-12  # of the scores' spread: sums in another order differ by 1e-14 (measured)


def file_name() -> str:
    """The name of the file that this kind of machine can run, such as `model.linux-x86_64.o`."""
    return f"model.{sys.platform}-{platform.machine().lower()}.o"


def compile_model(model_text: str) -> bytes:
    """An object file for machines of this kind, of one function that scores rows. 10 s CPU for 300 trees of 31 leaves."""
    import lleaves

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.txt", Path(folder) / "model.o"
        source.write_text(model_text)
        lleaves.Model(str(source)).compile(
            cache=str(target),
            fblocksize=BLOCK_TREES,
            target_cpu=PORTABLE_CPU.get(platform.machine().lower(), "generic"),
            target_cpu_features="",
        )
        return target.read_bytes()


class CompiledModel:
    """A loaded object file. 15 ms CPU and 47 MB to load, LLVM included (measured).

    Args:
        code: what `compile_model` made on a machine of this kind. Other bytes may abort the process.
        width: features of the model.
    """

    def __init__(self, code: bytes, width: int) -> None:
        import llvmlite.binding as llvm

        self._width = width
        llvm.initialize()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            reloc="pic", codemodel="large"
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)  # keeps the code in memory
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        entry = CFUNCTYPE(None, c_void_p, c_void_p, c_int32, c_int32)  # releases the interpreter lock while it runs
        self._score = entry(self._engine.get_function_address(ENTRY))

    def predict(self, data: F32, *, num_threads: int = 1) -> F64:
        """One score a row of `data` [n, features], as `Booster.predict` gives; always one thread, whatever `num_threads`.

        Raises:
            FeatureMismatch: the rows have another width; the code would read beyond them.
        """
        if data.ndim != 2 or data.shape[1] != self._width:
            raise FeatureMismatch(
                "rows to score", found=data.shape, wanted=f"(n, {self._width})", fix="assemble them for this model"
            )
        rows, scores = np.ascontiguousarray(data, dtype=np.float64), np.zeros(len(data))
        self._score(rows.ctypes.data, scores.ctypes.data, 0, len(rows))
        return scores


def require_parity(native: lightgbm.Booster, compiled: CompiledModel, matrix: F32) -> None:
    """Return if both give every row of `matrix` the same score, but for the order in which trees are added up.

    Raises:
        BundleError: they differ by more than `TOLERANCE` of the spread of the scores.
    """
    wanted, found = np.asarray(native.predict(matrix, num_threads=1)), compiled.predict(matrix)
    worst = int(np.argmax(np.abs(found - wanted)))
    if not np.allclose(found, wanted, rtol=0.0, atol=TOLERANCE * max(1.0, float(np.ptp(wanted)))):
        raise BundleError(
            "compiled model",
            found=f"score {float(found[worst])!r} in row {worst}",
            wanted=f"{float(wanted[worst])!r}, as LightGBM gives",
            fix="report it; set serving.compiled to false to serve the native model, which is slower and right",
        )
