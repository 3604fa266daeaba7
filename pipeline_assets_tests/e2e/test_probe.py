"""The probe runs in a real child process and turns every way of being bad into a refusal; what is live goes on."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from pipeline_assets.recommender.bundle import WarmupRequest
from pipeline_assets.recommender.compiled import compile_model
from pipeline_assets.recommender.manifest import FILES, SIGNATURE, make_manifest, publish
from pipeline_assets.serving.app import create_app
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.probe import probe
from pipeline_assets.serving.release_state import open_state, record_live
from pipeline_assets_tests import tiny_bundle as tiny

NOON = datetime(2017, 11, 6, 12, tzinfo=UTC)


def forged(root: Path, name: str, content: Callable[[bytes], bytes]) -> Path:
    """A bundle with another file, published and signed like a good one: digests and signature cannot show it."""
    good, _ = tiny.write(root / "good")
    blobs = {file: (good / file).read_bytes() for file in FILES}
    blobs[name] = content(blobs[name])
    publish(root / "forged", make_manifest("m1", tiny.AS_OF, tiny.CREATED_AT, blobs), blobs, tiny.KEY)
    return root / "forged"


def unsigned(root: Path) -> Path:
    directory, _ = tiny.write(root)
    (directory / SIGNATURE).unlink()
    return directory


def signed_by_a_stranger(root: Path) -> Path:
    good, _ = tiny.write(root / "good")
    blobs = {file: (good / file).read_bytes() for file in FILES}
    publish(root / "own", make_manifest("m1", tiny.AS_OF, tiny.CREATED_AT, blobs), blobs, tiny.STRANGER)
    return root / "own"


def signature_of_another_bundle(root: Path) -> Path:
    directory, _ = tiny.write(root, as_of="2017-11-04")
    other, _ = tiny.write(root)
    (directory / SIGNATURE).write_bytes((other / SIGNATURE).read_bytes())
    return directory


def truncated(root: Path) -> Path:
    directory, _ = tiny.write(root)
    raw = (directory / "model.txt").read_bytes()
    (directory / "model.txt").write_bytes(raw[: len(raw) // 2])
    return directory


def truncated_before_it_was_signed(root: Path) -> Path:
    """Inside the first tree: parsing it aborts the process (E5)."""
    return forged(root, "model.txt", lambda raw: raw[: raw.index(b"leaf_value")])


def edited(root: Path) -> Path:
    """One digit of a leaf: equal length, loads silently, changes scores (E5)."""
    directory, _ = tiny.write(root)
    path = directory / "model.txt"
    text = path.read_text()
    place = text.index("leaf_value=") + len("leaf_value=")
    digit = next(i for i in range(place, len(text)) if text[i].isdigit())
    path.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    return directory


def wrong_schema(root: Path) -> Path:
    """A feature list in another order than the model's."""
    swapped = {"pair": tiny.FEATURES.pair[::-1], "customer": tiny.FEATURES.customer, "product": tiny.FEATURES.product}
    return forged(root, "features.json", lambda _: json.dumps(swapped).encode())


def turned_round(root: Path) -> Path:
    """p1 before p3 before p4 before p2, where p2 was recorded first."""
    return forged(root, "model.txt", lambda _: tiny.model_text(sign=-1).encode())


def scoring_nan(root: Path) -> Path:
    """Leaves that are no numbers, forged because writing refuses them."""

    def without_numbers(raw: bytes) -> bytes:
        head, leaves, tail = raw.rpartition(b"leaf_value=")
        return head + leaves + b"nan nan nan nan\n" + tail.split(b"\n", 1)[1]

    return forged(root, "model.txt", without_numbers)


def constant(root: Path) -> Path:
    """No positive and no negative: the label is always 0, so every score is."""
    return tiny.write(root, text=tiny.model_text(sign=0.0))[0]


def slow(root: Path) -> Path:
    """5,000 candidates by 4,000 trees: a hundred times the work of a real answer."""
    return with_candidates(root, 5_000, text=tiny.repeated(tiny.model_text(), 4_000))


def slow_for_a_compiled_one(root: Path) -> Path:
    """300,000 candidates by 2 trees: some 120 ms, with a compiled model; a real answer takes 0.5 ms."""
    return with_candidates(root, 300_000, compiled=compile_model(tiny.model_text()))


def with_candidates(root: Path, n: int, **changes: object) -> Path:
    ids = [f"p{number:05}" for number in range(n)]
    products = pd.DataFrame({"product_id": ids, "product_price": 1.0, "product_orders": 1.0})
    products[["department", "category", "type", "brand"]] = "X"
    pair = np.tile(tiny.PAIR, (n // 4, 1))
    request = WarmupRequest("c1", tuple(ids), pair, tiny.CUSTOMER)
    return tiny.write(root, products=products, warmup=(request,), **changes)[0]


BAD = {
    unsigned: "manifest.sig: found no signature",
    signed_by_a_stranger: "manifest.sig: found a signature by key",
    signature_of_another_bundle: "manifest.sig: found a signature of other content",
    truncated: "bytes; wanted",
    truncated_before_it_was_signed: "killed by SIG",
    edited: "model.txt: found sha256",
    wrong_schema: "wanted 6 features pair_days, pair_orders",
    turned_round: "answer for warm-up customer c1: found [('p1'",
    scoring_nan: "wanted finite scores",
    constant: "one constant score in every answer",
    slow: "ms CPU; wanted at most 60 ms",
    slow_for_a_compiled_one: "ms CPU; wanted at most 10 ms",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TestClient]]:
    """The URL of a release table and an API that serves its first release, version m0."""
    root = tmp_path_factory.mktemp("served")
    url = f"sqlite:///{root / 'release.db'}"
    release(url, tiny.write(root, "m0")[0], "m0")
    app = create_app(ServingConfig(url, root / "log", public_keys=[tiny.trust(root)], poll_seconds=3600.0))
    with TestClient(app) as client:
        app.state.service.releases.refresh()  # waits for the first look of the background thread
        yield url, client


def release(url: str, bundle: Path, version: str) -> None:
    facts = {"bundle_path": str(bundle), "model_version": version, "as_of": tiny.AS_OF}
    record_live(open_state(url), **facts, recommendations_path=None, recorded_at=NOON)


@pytest.mark.parametrize("bad", BAD, ids=lambda make: make.__name__)
@pytest.mark.ml_test("Mo6", control=True)
def test_bad_bundle_is_refused_and_the_old_one_serves(
    server: tuple[str, TestClient], tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: Callable[[Path], Path]
) -> None:
    """Released by mistake: refused in a child with its own reason; the server is up and answers from version m0."""
    url, client = server
    release(url, bad(tmp_path), "m1")
    with caplog.at_level(logging.ERROR, "pipeline_assets.serving.live"):
        assert client.app.state.service.releases.refresh() == "refused"  # type: ignore[attr-defined]
    others = [reason for make, reason in BAD.items() if make is not bad]
    assert BAD[bad] in caplog.text
    assert not [reason for reason in others if reason in caplog.text]
    answer = client.get("/v1/recommendations")
    assert (answer.status_code, answer.json()["model_version"]) == (200, "m0")


@pytest.mark.ml_test("Mo6")
def test_good_bundle_is_accepted(tmp_path: Path) -> None:
    """One warm-up request, answered as recorded."""
    directory, manifest = tiny.write(tmp_path)
    report = probe(directory, tiny.TRUSTED)
    assert report.accepted, report.reason
    assert (report.bundle_id, report.answered, report.reason) == (manifest.bundle_id, 1, "")


def test_hanging_child_is_a_refusal(tmp_path: Path) -> None:
    """Python cannot even start in a millisecond."""
    directory = tiny.write(tmp_path)[0]
    assert probe(directory, tiny.TRUSTED, timeout_seconds=0.001).reason == "no answer within 0.001 s"


def test_missing_bundle_is_a_refusal(tmp_path: Path) -> None:
    """The release table may name a directory that was deleted."""
    assert "manifest.json: found No such file" in probe(tmp_path / "none", tiny.TRUSTED).reason


def test_probe_by_hand_prints_json_and_exits_by_verdict(tmp_path: Path) -> None:
    """What a person runs before a release. It trusts the keys of the settings: none here at first, then that of tiny bundles."""
    directory, environ = tiny.write(tmp_path)[0], {"PIPELINE_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pipeline_assets.serving.probe", str(directory)]
    bad = subprocess.run(command, env=environ, capture_output=True, check=False)
    tiny.trust(tmp_path)
    good = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert (good.returncode, json.loads(good.stdout)["accepted"]) == (0, True)
    assert (bad.returncode, json.loads(bad.stdout)["accepted"]) == (1, False)
    assert "public key" in json.loads(bad.stdout)["reason"]
