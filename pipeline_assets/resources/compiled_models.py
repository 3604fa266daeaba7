"""Compiled models of this data folder: one file for each model and kind of machine, so that a model is compiled once, not every day."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from pipeline_assets.recommender.compiled import compile_model, file_name
from pipeline_assets.resources.durable import write_whole

_DIGEST_BYTES = hashlib.sha256().digest_size


def compiled(folder: Path, model_text: str) -> bytes:
    """The machine code of a model, compiled now if `folder` has none that is whole.

    The file begins with the SHA-256 of the rest: damaged code can abort the process that runs it.
    """
    makers = f"lleaves {version('lleaves')}, llvmlite {version('llvmlite')}\n"
    path = folder / f"{hashlib.sha256((makers + model_text).encode()).hexdigest()}-{file_name()}"
    if path.exists():
        stored = path.read_bytes()
        if hashlib.sha256(stored[_DIGEST_BYTES:]).digest() == stored[:_DIGEST_BYTES]:
            return stored[_DIGEST_BYTES:]
    code = compile_model(model_text)
    write_whole(path, hashlib.sha256(code).digest() + code)
    return code
