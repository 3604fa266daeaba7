"""The compiled model gives LightGBM's scores, is made once, and is not used where it does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from pipeline_assets.recommender import bundle as bundles
from pipeline_assets.recommender import compiled, ranker
from pipeline_assets.recommender.bundle import load_bundle
from pipeline_assets.recommender.compiled import CompiledModel, compile_model, file_name, require_parity
from pipeline_assets.recommender.errors import BundleError, FeatureMismatch
from pipeline_assets.recommender.manifest import MANIFEST, verify
from pipeline_assets.recommender.packing import F32
from pipeline_assets.resources import compiled_models
from pipeline_assets_tests import tiny_bundle, tiny_examples

WIDTH = len(tiny_bundle.FEATURES.all)


@pytest.fixture(scope="module")
def two_phases() -> tuple[lightgbm.Booster, str, F32]:
    """A ranker as it is trained, binary trees before lambdarank trees, and rows with missing values."""
    training, stopping = tiny_examples.parts(1)
    data = ranker.dataset(training)
    model = ranker.train(data, ranker.dataset(stopping, data), tiny_examples.PARAMS, 16, 7, 1)
    text = ranker.model_text(model.booster, 16)
    matrix = np.array(training.matrix, dtype=np.float32)
    matrix[::3, ::2] = np.nan
    return lightgbm.Booster(model_str=text), text, matrix


@pytest.fixture(scope="module")
def tiny_code() -> bytes:
    return compile_model(tiny_bundle.model_text())


def test_both_kinds_of_trees_give_the_scores_of_lightgbm(two_phases: tuple[lightgbm.Booster, str, F32]) -> None:
    """16 trees fit one block of 20, so they are added up in LightGBM's order: equal to the bit, missing values included."""
    booster, text, matrix = two_phases
    assert booster.num_trees() == 16
    found = CompiledModel(compile_model(text), matrix.shape[1]).predict(matrix)
    assert len(set(found)) > 100  # an order, not one score
    assert found.tobytes() == np.asarray(booster.predict(matrix, num_threads=1)).tobytes()


def test_blocks_change_no_order(two_phases: tuple[lightgbm.Booster, str, F32], monkeypatch: pytest.MonkeyPatch) -> None:
    """Six blocks of 3 trees are added up in another order: parity holds, and the ranking is the same."""
    booster, text, matrix = two_phases
    monkeypatch.setattr(compiled, "BLOCK_TREES", 3)
    model = CompiledModel(compile_model(text), matrix.shape[1])
    require_parity(booster, model, matrix)
    native = np.asarray(booster.predict(matrix, num_threads=1))
    np.testing.assert_array_equal(np.argsort(-model.predict(matrix), kind="stable"), np.argsort(-native, kind="stable"))


def test_another_model_has_no_parity(tiny_code: bytes) -> None:
    """Negative control: the tiny model turned round differs, and the row that differs most is named."""
    other = lightgbm.Booster(model_str=tiny_bundle.model_text(sign=-1))
    rows = np.array([[0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]], dtype=np.float32)
    with pytest.raises(BundleError, match=r"compiled model: found score .* in row 1; wanted -30\.0"):
        require_parity(other, CompiledModel(tiny_code, WIDTH), rows)


@pytest.mark.parametrize("shape", [(2, WIDTH - 1), (2, WIDTH + 1), (WIDTH,)])
def test_rows_of_another_width_are_refused(tiny_code: bytes, shape: tuple[int, ...]) -> None:
    """Machine code would read past the end of each row."""
    with pytest.raises(FeatureMismatch, match="rows to score"):
        CompiledModel(tiny_code, WIDTH).predict(np.zeros(shape, dtype=np.float32))


def test_rows_in_another_order_of_memory_score_alike(tiny_code: bytes) -> None:
    """Columns first, or every other row: what is scored are the values."""
    model, rows = CompiledModel(tiny_code, WIDTH), np.random.default_rng(7).random((8, WIDTH), np.float32) * 4
    wanted = model.predict(rows).tolist()
    assert model.predict(np.asfortranarray(rows)).tolist() == wanted
    assert model.predict(np.repeat(rows, 2, axis=0)[::2]).tolist() == wanted


def test_bundle_with_code_is_scored_by_it(tmp_path: Path, tiny_code: bytes) -> None:
    """Its manifest lists the file; the answers are those of the same bundle without it."""
    directory, manifest = tiny_bundle.write(tmp_path, compiled=tiny_code)
    assert file_name() in {file.path for file in manifest.files}
    served = load_bundle(directory, tiny_bundle.TRUSTED)
    native = load_bundle(tiny_bundle.write(tmp_path / "native")[0], tiny_bundle.TRUSTED)
    assert (served.is_compiled, native.is_compiled) == (True, False)
    asked = (tiny_bundle.CANDIDATES, tiny_bundle.PAIR, tiny_bundle.CUSTOMER, 4)
    (ids, scores), (wanted_ids, wanted) = served.rank(*asked), native.rank(*asked)
    assert (ids, scores.tolist()) == (wanted_ids, wanted.tolist()) == (tiny_bundle.RANKED, wanted.tolist())


def test_machine_of_another_kind_scores_with_lightgbm(
    tmp_path: Path, tiny_code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of another machine is verified and not run."""
    directory, _ = tiny_bundle.write(tmp_path, compiled=tiny_code)
    monkeypatch.setattr(bundles, "file_name", lambda: "model.linux-sparc64.o")
    served = load_bundle(directory, tiny_bundle.TRUSTED)
    assert not served.is_compiled
    assert served.rank(tiny_bundle.CANDIDATES, tiny_bundle.PAIR, tiny_bundle.CUSTOMER, 4)[0] == tiny_bundle.RANKED


def test_code_is_digested_and_signed(tmp_path: Path, tiny_code: bytes) -> None:
    """One bit of it, and a second file that the manifest does not list."""
    directory, _ = tiny_bundle.write(tmp_path, compiled=tiny_code)
    path = directory / file_name()
    path.write_bytes(tiny_code[:-1] + bytes([tiny_code[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"model\.linux-.*\.o: found sha256"):
        verify(directory, tiny_bundle.TRUSTED)
    listing = json.loads((directory / MANIFEST).read_text())
    listing["files"] = [file for file in listing["files"] if file["path"] != file_name()]
    (directory / MANIFEST).write_text(json.dumps(listing))
    with pytest.raises(BundleError, match="of other content"):
        verify(directory, tiny_bundle.TRUSTED)


def test_code_of_another_model_makes_no_bundle(tmp_path: Path) -> None:
    """Writing compares the warm-up requests; nothing is published."""
    other = compile_model(tiny_bundle.model_text(sign=-1))
    with pytest.raises(BundleError, match="compiled model"):
        tiny_bundle.write(tmp_path, compiled=other)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model on the next day is read from the folder; another one, or a damaged file, is compiled."""
    asked: list[str] = []
    monkeypatch.setattr(compiled_models, "compile_model", lambda text: asked.append(text) or text.upper().encode())
    assert compiled_models.compiled(tmp_path, "a") == b"A"
    assert compiled_models.compiled(tmp_path, "a") == b"A"
    assert compiled_models.compiled(tmp_path, "b") == b"B"
    assert asked == ["a", "b"]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert compiled_models.compiled(tmp_path, "a") == b"A"
    assert asked == ["a", "b", "a"]
