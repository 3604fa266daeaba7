"""The API as it runs in production: two workers, keys, a killed worker, a stop under load, a stream, and thousands of strange requests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from pipeline_assets.serving.__main__ import config_from
from pipeline_assets.serving.release_state import open_state, record_live
from pipeline_assets.settings import PROJECT_ROOT, load_settings
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests import tiny_store
from pipeline_assets_tests.api_world import URL, World, service_of
from pipeline_assets_tests.broker import produce, running
from pipeline_assets_tests.e2e.test_access import bearing, key_of
from pipeline_assets_tests.fuzzing import fuzz
from pipeline_assets_tests.server import process_of

CANARY = "pa_canary-of-the-live-test"
BEARER = {"Authorization": f"Bearer {CANARY}"}
PATIENCE = 120.0  # s; a bound for a broken server, not an expectation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with features of c1, a live bundle, and a key that may read and send events."""
    root = tmp_path_factory.mktemp("live")
    settings = load_settings({"PIPELINE_DATA_DIR": str(root)})
    tiny_store.fill(root, dict(config_from(settings).feast))
    tiny.trust(root)
    directory, _ = tiny.write(root / "bundles")
    record_live(
        open_state(settings.release_url),
        bundle_path=str(directory),
        model_version="m1",
        as_of=tiny.AS_OF,
        recommendations_path=None,
        recorded_at=tiny_store.FEATURE_TS,
    )
    digest = hashlib.sha256(CANARY.encode()).hexdigest()
    (root / "keys.toml").write_text(
        f'[[keys]]\nname = "live"\nsha256 = "{digest}"\nscopes = ["read", "events:write"]\n'
    )
    return root


def environment(root: Path, **more: str) -> dict[str, str]:
    """Of a process over the folder."""
    ours = {"PIPELINE_DATA_DIR": str(root), "PIPELINE_ACCESS__KEYS_FILE": str(root / "keys.toml")}
    return {**os.environ, **ours, **more}


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of uvicorn that answer: children that hold this package's server."""
    return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]


def ask(base: httpx.URL) -> httpx.Response:
    """One request on a connection of its own."""
    with httpx.Client(base_url=base, headers=BEARER, trust_env=False, timeout=30) as client:
        return client.get(URL.format("c1"))


def test_killed_worker_others_serve_and_a_stop_loses_nothing(folder: Path) -> None:
    """SIGKILL of one of two: each of the next fifty requests is answered, and a new worker comes. Then SIGTERM under load: what was let in
    is answered, nothing is a 5xx, and all answers are in the prediction log. The key is nowhere in what was written."""
    log = folder / "server.log"
    given: list[str] = []
    with process_of(environment(folder), log, "--workers", "2") as (client, process):
        assert client.get(URL.format("c1")).status_code == 401
        first = workers(process)
        assert len(first) == 2
        first[0].send_signal(signal.SIGKILL)
        first[0].wait(30)
        for _ in range(50):
            response = ask(client.base_url)
            assert response.status_code == 200
            given.append(response.json()["answer_id"])
        end = time.monotonic() + PATIENCE
        while len(workers(process)) < 2:
            assert time.monotonic() < end, "no worker in its place"
            time.sleep(0.05)
        failures: list[str] = []
        stopping = threading.Event()

        def load() -> None:
            while True:
                try:
                    response = ask(client.base_url)
                except httpx.ConnectError:
                    if stopping.is_set():
                        return  # nobody listens any more
                    failures.append("refused")
                except httpx.TransportError as error:
                    failures.append(repr(error))
                else:
                    if response.status_code == 200:
                        given.append(response.json()["answer_id"])
                    elif response.status_code != 503:  # a new worker without its bundle says so
                        failures.append(str(response.status_code))

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        before = len(given)
        while len(given) < before + 20:
            time.sleep(0.01)
        stopping.set()
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(PATIENCE)
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
    lines = [line for path in (folder / "prediction_log").glob("*.jsonl") for line in path.read_text().splitlines()]
    logged = {json.loads(line)["answer_id"] for line in lines}
    assert [
        failure for failure in failures if "ReadError" not in failure and "RemoteProtocolError" not in failure
    ] == []
    print(f"{len(given)} answers, {len(failures)} connections closed unanswered by the stop: {failures[:3]}")
    assert set(given) <= logged
    written = [path for path in folder.rglob("*") if path.is_file() and path.name != "keys.toml"]
    assert len(written) > 10
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Addresses of a mock cluster."""
    with running() as (address, _):
        yield address


def test_an_event_of_the_stream_changes_the_next_answer(folder: Path, broker: str) -> None:
    """A view sent to the topic moves p1's score in an answer a moment later; the time is told. The consumer is killed, the next event waits
    for a new one; replaying everything changes nothing; an event over HTTP is as quick."""
    produce(broker, "events", [], partition=0)
    ours = environment(
        folder,
        PIPELINE_STREAM__BOOTSTRAP_SERVERS=broker,
        PIPELINE_STREAM__OPTIONS='{"fetch.wait.max.ms": "100"}',
        PIPELINE_EVENTS__TOPIC="live",
    )
    event = {"event_id": "live-1", "type": "view", "customer_id": "c1", "product_id": "p1"}
    produce(broker, "live", [{**event, "event_id": "live-0", "customer_id": "somebody"}])
    command = [sys.executable, "-m", "pipeline_assets.cli", "follow"]
    with process_of(ours, folder / "stream.log") as (client, _):
        client.headers.update(BEARER)

        def scores() -> dict[str, float]:
            answer = client.get(URL.format("c1")).raise_for_status().json()
            return (
                {item["product_id"]: item["score"] for item in answer["items"]}
                if answer["fallback_level"] == "none"
                else {}
            )

        def until_moved(product: str, before: float) -> float:
            start = time.monotonic()
            while scores().get(product, before) == before:
                assert time.monotonic() < start + PATIENCE, "the answer did not change"
                time.sleep(0.02)
            return time.monotonic() - start

        def until_known(consumer: subprocess.Popen[bytes], event_id: str) -> None:
            from pipeline_assets.serving.event_store import after, open_events

            engine, end = (
                open_events(load_settings({"PIPELINE_DATA_DIR": str(folder)}).events_url),
                time.monotonic() + PATIENCE,
            )
            while event_id not in {known.event_id for _, known in after(engine, 0, 1_000)}:
                assert consumer.poll() is None, "the consumer ended"
                assert time.monotonic() < end, "the event did not arrive"
                time.sleep(0.02)

        consumer = subprocess.Popen(command, cwd=PROJECT_ROOT, env=ours, stdout=subprocess.DEVNULL)
        until_known(consumer, "live-0")
        while not (plain := scores()):
            time.sleep(0.05)
        produce(broker, "live", [event])
        by_stream = until_moved("p1", plain["p1"])
        moved = scores()
        consumer.send_signal(signal.SIGKILL)
        consumer.wait()
        produce(broker, "live", [event, {**event, "event_id": "live-2", "product_id": "p3", "type": "click"}])
        consumer = subprocess.Popen(command, cwd=PROJECT_ROOT, env=ours, stdout=subprocess.DEVNULL)
        after_restart = until_moved("p3", moved["p3"])
        assert scores()["p1"] == moved["p1"]  # the replayed view counts once
        start = time.monotonic()
        over_http = {**event, "event_id": "live-3", "product_id": "p2"}
        taken = client.post("/v1/events", json={"events": [over_http, event]}).raise_for_status().json()
        assert taken == {"new": 1, "known": 1, "expired": 0}
        until_moved("p2", moved["p2"])
        by_http = time.monotonic() - start
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(60) == 0
    print(
        f"the answer changed after {by_stream:.2f} s by the stream, {by_http:.2f} s by HTTP, {after_restart:.2f} s with the consumer's start"
    )


def test_thousands_of_strange_requests(tmp_path: Path) -> None:
    """schemathesis with a key of all scopes, 20 times each way and operation: no 5xx, nothing that the document does not say."""
    world = World(tmp_path)
    world.release()
    with world.client(keys=(key_of("all", "read", "events:write", "admin"),)) as client:
        service_of(client).releases.refresh()
        asked = fuzz(client.app, bearing("all"), examples=20)
    print(f"{sum(asked.values())} requests: {asked}")
    assert min(asked.values()) >= 1
