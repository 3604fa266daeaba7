"""A real Feast store (SQLite registry and online store), read through the SDK and by a real server process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pipeline_assets.recommender.errors import FeatureMismatch
from pipeline_assets.recommender.packing import unpack
from pipeline_assets.serving.__main__ import config_from
from pipeline_assets.serving.online import FeastOnlineFeatures
from pipeline_assets.serving.release_state import open_state, record_live
from pipeline_assets.settings import load_settings
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests import tiny_store
from pipeline_assets_tests.tiny_store import FEATURE_TS


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose Feast store knows c1, with the views of the feature repository and tiny features."""
    root = tmp_path_factory.mktemp("data")
    tiny_store.fill(root, options(root))
    return root


def environment(root: Path) -> dict[str, str]:
    return {"PIPELINE_DATA_DIR": str(root), "PIPELINE_SERVING__POLL_SECONDS": "0.2"}


def options(root: Path) -> dict[str, Any]:
    return dict(config_from(load_settings(environment(root))).feast)


def test_feast_gives_back_what_was_written(data_dir: Path) -> None:
    """Ids, packed bytes, features in the order that was asked for, NaN for a missing one, and their time in UTC."""
    online = FeastOnlineFeatures(options(data_dir), tiny.FEATURES.customer)
    features = online.read("c1")
    assert features is not None
    assert tuple(features.candidate_ids) == tiny.CANDIDATES
    np.testing.assert_array_equal(unpack(features.pair_features, 4, 2), tiny.PAIR)
    np.testing.assert_array_equal(features.customer_features, [4.0, np.nan])
    assert features.feature_ts == FEATURE_TS
    swapped = FeastOnlineFeatures(online.store, tiny.FEATURES.customer[::-1]).read("c1")
    assert swapped is not None
    np.testing.assert_array_equal(swapped.customer_features, [np.nan, 4.0])


def test_feast_does_not_know_a_stranger(data_dir: Path) -> None:
    """No row in either view is None, not a row of missing values."""
    assert FeastOnlineFeatures(options(data_dir), tiny.FEATURES.customer).read("nobody") is None


def test_feature_that_the_service_lacks_is_named(data_dir: Path) -> None:
    """A bundle newer than the feature repository."""
    with pytest.raises(FeatureMismatch, match="customer_new"):
        FeastOnlineFeatures(options(data_dir), ("customer_orders", "customer_new")).read("c1")


def test_server_process_answers_over_http(data_dir: Path) -> None:
    """Released, started as users start it, asked on loopback, swapped to the next day, stopped: nothing is lost."""

    def release(as_of: str, text: str) -> None:
        tiny.trust(data_dir)
        directory, _ = tiny.write(data_dir / "bundles", as_of=as_of, text=text)
        record_live(
            open_state(load_settings(environment(data_dir)).release_url),
            bundle_path=str(directory),
            model_version="m1",
            as_of=as_of,
            recommendations_path=None,
            recorded_at=FEATURE_TS,
        )

    release("2017-11-05", tiny.model_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-O", "-m", "pipeline_assets.serving", "--port", str(port)]
    with (data_dir / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **environment(data_dir)}, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}"
        until_200(f"{base}/readyz", server)
        url = f"{base}/v1/customers/c1/recommendations"
        answers: list[dict[str, Any]] = []

        def ask_until_ranked(as_of: str) -> list[str]:
            """Products of the first ranked answer of that day; a busy machine may cause fallbacks before it."""
            while not answers or (answers[-1]["as_of"], answers[-1]["fallback_level"]) != (as_of, "none"):
                assert server.poll() is None
                answers.append(httpx.get(url).raise_for_status().json())
            return [item["product_id"] for item in answers[-1]["items"]]

        assert ask_until_ranked("2017-11-05") == tiny.RANKED
        assert httpx.get(f"{base}/v1/customers/nobody/recommendations").json()["customer_kind"] == "new"
        assert httpx.get(f"{base}/v1/customers/%00/recommendations").status_code == 422
        release("2017-11-06", tiny.model_text(sign=-1))
        assert ask_until_ranked("2017-11-06") == tiny.RANKED[::-1]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    assert "Traceback" not in (data_dir / "server.log").read_text()
    logged = [json.loads(line) for path in (data_dir / "prediction_log").iterdir() for line in path.open()]
    assert {answer["answer_id"] for answer in answers} <= {line["answer_id"] for line in logged}
    assert len(logged) == len(answers) + 1


def until_200(url: str, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    """Wait for a 200; the limit only keeps a broken server from hanging the test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the server stopped"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} did not answer 200 within {seconds:g} s")
