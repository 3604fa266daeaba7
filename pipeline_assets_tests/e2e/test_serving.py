"""The API over a real bundle, release table, batch file and prediction log; the online store is a table in the test."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipeline_assets.serving.api_models import ErrorBody, Recommendations
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.api_world import KNOWN_AT, NOW, URL, Store, World, metric, products, service_of


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, TestClient]]:
    """One process with a live bundle, shared by tests that only ask."""
    world = World(tmp_path_factory.mktemp("served"))
    world.release()
    with world.client() as client:
        service_of(client).releases.refresh()  # waits for the first look of the background thread
        assert client.get("/readyz").status_code == 200
        yield world, client


@pytest.fixture
def world(served: tuple[World, TestClient]) -> Iterator[World]:
    """The shared world; the store is whole and the breaker closed again after each test."""
    world = served[0]
    yield world
    world.store.__init__()  # type: ignore[misc]
    world.seconds += 3600.0
    served[1].get(URL.format("c1"))  # a read that succeeds ends the breaker's count


@pytest.fixture
def client(served: tuple[World, TestClient], world: World) -> TestClient:
    return served[1]


def test_known_customer_gets_the_rankers_order(client: TestClient) -> None:
    """c1 ordered p2 3 times, p4 twice, p3 once, p1 never."""
    response = client.get(URL.format("c1"))
    answer = response.json()
    Recommendations.model_validate(answer)
    assert response.status_code == 200
    assert products(answer) == tiny.RANKED
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]
    assert answer["items"][0] | {"score": 0} == {
        "rank": 1, "product_id": "p2", "score": 0, "department": "GROCERY", "category": "BREAD", "type": "WHITE",
    }  # fmt: skip
    assert (answer["customer_id"], answer["customer_kind"], answer["fallback_level"]) == ("c1", "known", "none")
    assert (answer["model_version"], answer["as_of"]) == ("m1", "2017-11-05")
    assert datetime.fromisoformat(answer["feature_ts"]) == KNOWN_AT


def test_k_limits_the_slate(client: TestClient) -> None:
    """The best two of four."""
    assert products(client.get(URL.format("c1"), params={"k": 2}).json()) == tiny.RANKED[:2]


def test_explain_names_the_features_behind_each_item(client: TestClient) -> None:
    """Three features an item, the deciding one first; a missing value is null."""
    answer = client.get(URL.format("c1"), params={"explain": "true", "k": 1}).json()
    Recommendations.model_validate(answer)
    (item,) = answer["items"]
    assert len(item["explanation"]) == 3
    assert item["explanation"][0]["feature"] == "pair_orders"
    assert item["explanation"][0]["value"] == 3.0
    assert answer["fallback_reason"] is None


def test_new_customer_gets_what_is_popular(client: TestClient) -> None:
    """Popularity p1, p5; the third left the catalogue."""
    answer = client.get(URL.format("nobody")).json()
    assert (answer["customer_kind"], answer["fallback_level"], products(answer)) == ("new", "popularity", ["p1", "p5"])
    assert answer["feature_ts"] is None


def test_anonymous_visitor_gets_what_is_popular(client: TestClient) -> None:
    """Without an id, k applies too."""
    answer = client.get("/v1/recommendations", params={"k": 1}).json()
    Recommendations.model_validate(answer)
    assert (answer["customer_id"], answer["customer_kind"], products(answer)) == (None, "anonymous", ["p1"])


def test_broken_store_falls_back_to_the_batch_slate(client: TestClient, world: World) -> None:
    """c1's batch slate without the product that left the catalogue; an unknown customer still gets popularity."""
    world.store.error = OSError("connection refused")
    answer = client.get(URL.format("c1"), params={"explain": "true"}).json()
    assert (answer["fallback_level"], answer["customer_kind"], products(answer)) == ("batch", "known", ["p5", "p4"])
    assert answer["fallback_reason"] == "online_store"
    assert client.get(URL.format("nobody")).json()["fallback_level"] == "popularity"


def test_breaker_leaves_a_failing_store_alone_and_tries_again(client: TestClient, world: World) -> None:
    """Five failures in a row, then no reads for 5 s, then reads again."""
    world.store.error, world.store.reads = OSError("connection refused"), 0
    for _ in range(8):
        assert client.get(URL.format("c1")).json()["fallback_level"] == "batch"
    assert world.store.reads == 5
    assert client.get("/readyz").json() == {"ready": True, "reasons": [], "online_store": "failing"}
    world.store.error = None
    assert client.get(URL.format("c1")).json()["fallback_level"] == "batch"
    world.seconds += 5.0
    assert client.get(URL.format("c1")).json()["fallback_level"] == "none"


def test_stale_features_are_not_ranked(client: TestClient, world: World) -> None:
    """A day before the bundle's features is the limit: one second more is stale."""
    world.store.feature_ts = KNOWN_AT - timedelta(days=1)
    assert client.get(URL.format("c1")).json()["fallback_level"] == "none"
    world.store.feature_ts -= timedelta(seconds=1)
    answer = client.get(URL.format("c1"), params={"explain": "true"}).json()
    assert (answer["fallback_level"], answer["fallback_reason"]) == ("batch", "stale_features")


def test_features_of_another_width_fall_back(client: TestClient, world: World) -> None:
    """One byte short: the ranker refuses, the customer gets the batch slate, the breaker does not count it."""
    world.store.blob = world.store.blob[:-1]
    answer = client.get(URL.format("c1"), params={"explain": "true"}).json()
    assert (answer["fallback_level"], answer["fallback_reason"]) == ("batch", "ranker")
    assert not service_of(client).breaker.is_open


def test_customer_whose_candidates_are_gone_falls_back(client: TestClient) -> None:
    """c2 is known to the store but not to the batch file: popularity."""
    answer = client.get(URL.format("c2"), params={"explain": "true"}).json()
    assert (answer["fallback_level"], answer["fallback_reason"]) == ("popularity", "no_candidates")


@pytest.mark.parametrize("k", ["0", "101", "-1", "ten", "1.5", "9" * 5000])
def test_k_out_of_range_is_a_clear_422(client: TestClient, k: str) -> None:
    """The caller's own value comes back, cut to a safe length."""
    for url in (URL.format("c1"), "/v1/recommendations"):
        response = client.get(url, params={"k": k})
        error = ErrorBody.model_validate(response.json()).error
        assert response.status_code == 422
        assert error.culprit == "query.k"
        assert len(error.found) < 130


@pytest.mark.parametrize("raw", ["%00", "a%0Ab", "x" * 129, "%FF%FE", "%E2%80%8B", "%1B[31m", "%ED%A0%80"])
def test_malformed_id_is_a_clear_422(client: TestClient, raw: str) -> None:
    """Control, zero-width and undecodable characters, and one character too many."""
    response = client.get(URL.format(raw))
    assert response.status_code == 422
    assert ErrorBody.model_validate(response.json()).error.culprit == "path.customer_id"


@pytest.mark.parametrize(
    "raw", ["x" * 128, "%C3%BC%E2%82%AC", "%F0%9F%98%80", "a%20b", "a%2Bb", "'%20OR%201=1--", "%3Cb%3E"]
)
def test_unusual_but_printable_id_is_just_unknown(client: TestClient, raw: str) -> None:
    """128 characters, umlauts, an emoji, blanks, quotes: somebody's ids look like this."""
    response = client.get(URL.format(raw))
    assert (response.status_code, response.json()["customer_kind"]) == (200, "new")


@pytest.mark.parametrize("path", ["/", "/v1/customers//recommendations", "/v1/customers/a/b/recommendations", "/v2"])
def test_unknown_path_is_a_clear_404(client: TestClient, path: str) -> None:
    """No id, a slash in an id, another version."""
    response = client.get(path)
    assert response.status_code == 404
    assert ErrorBody.model_validate(response.json()).error.culprit == "request"


def test_wrong_method_is_a_405(client: TestClient) -> None:
    """There is nothing to delete here."""
    assert client.delete("/v1/recommendations").status_code == 405


def test_latency_is_told_by_version_and_stage(client: TestClient) -> None:
    """One ranked answer more: one more in each stage of the version that gave it; an anonymous one only in the whole."""

    def counted() -> list[float]:
        labels = [f'{{model_version="m1",stage="{stage}"}}' for stage in ("features", "rank", "rules", "whole")]
        return [metric(client, f"serving_stage_latency_seconds_count{each}") for each in labels]

    before = counted()
    client.get(URL.format("c1"))
    ranked = counted()
    client.get("/v1/recommendations")
    assert [b - a for a, b in zip(before, ranked, strict=True)] == [1, 1, 1, 1]
    assert [b - a for a, b in zip(ranked, counted(), strict=True)] == [0, 0, 0, 1]


def test_metrics_count_without_naming_anyone(client: TestClient) -> None:
    """One more answer of level none; bundle and age are shown; no customer or product id is anywhere."""
    name = 'serving_answers_total{customer_kind="known",fallback_level="none",model_version="m1"}'
    before = metric(client, name)
    client.get(URL.format("c1"))
    client.get("/somewhere/c1")
    text = client.get("/metrics").text
    assert metric(client, name) == before + 1
    assert 'endpoint="/v1/customers/{customer_id}/recommendations",status="200"' in text
    assert 'endpoint="unmatched",status="404"' in text
    assert metric(client, 'serving_model_info{as_of="2017-11-05"') == 1.0
    assert metric(client, "serving_bundle_age_seconds") == 3600.0  # created at 01:00, now 02:00
    assert not [word for word in ("c1", "nobody", "p2") if f'"{word}"' in text]


def test_openapi_describes_answers_and_errors(client: TestClient) -> None:
    """A client generator sees both shapes."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"Recommendations", "Item", "ErrorBody"} <= schemas.keys()


def test_not_ready_and_no_answer_before_a_bundle(tmp_path: Path) -> None:
    """The process is up, says why it is not ready, and asks callers to retry."""
    with World(tmp_path).client() as client:
        assert service_of(client).releases.refresh() == "none"
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json()["reasons"] == ["no bundle is loaded"]
        response = client.get(URL.format("c1"))
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert ErrorBody.model_validate(response.json()).error.culprit == "bundle"


def test_ready_waits_for_the_store_and_then_stays(tmp_path: Path) -> None:
    """Down at start: answers fall back, but no traffic is invited. Down later: still ready."""
    world = World(tmp_path, Store(error=OSError("connection refused")))
    world.release()
    with world.client() as client:
        service_of(client).releases.refresh()
        assert client.get("/readyz").status_code == 503
        assert "connection refused" in client.get("/readyz").json()["reasons"][0]
        assert client.get(URL.format("c1")).json()["fallback_level"] == "batch"
        world.store.error = None
        world.seconds += 5.0
        assert client.get("/readyz").status_code == 200
        world.store.error = OSError("connection refused")
        assert client.get("/readyz").status_code == 200


def test_hot_swap_and_refusals_under_one_process(tmp_path: Path) -> None:
    """m1 serves; m2 is damaged after its release and refused, m1 goes on; m3 turns the order round and takes over."""
    world = World(tmp_path)
    world.release("m1")
    with world.client() as client:
        releases = service_of(client).releases
        releases.refresh()
        assert releases.refresh() == "same"
        directory = world.release("m2", "2017-11-06")
        (directory / "products.parquet").unlink()
        assert releases.refresh() == "refused"
        assert client.get(URL.format("c1")).json()["model_version"] == "m1"
        assert metric(client, "serving_bundle_refusals_total") == 1.0
        assert releases.refresh() == "refused"  # not probed again before retry_refused_seconds
        assert metric(client, "serving_bundle_refusals_total") == 1.0
        world.store.feature_ts = KNOWN_AT + timedelta(days=2)
        world.release("m3", "2017-11-07", text=tiny.model_text(sign=-1))
        assert releases.refresh() == "swapped"
        answer = client.get(URL.format("c1")).json()
        assert (answer["model_version"], products(answer)) == ("m3", tiny.RANKED[::-1])
        assert metric(client, 'serving_model_info{as_of="2017-11-07"') == 1.0
        assert metric(client, 'serving_model_info{as_of="2017-11-05"') == 0.0


def test_release_without_its_batch_file_is_refused(tmp_path: Path) -> None:
    """The release promises a first fallback: half a release is none."""
    world = World(tmp_path)
    world.release()
    (tmp_path / f"{tiny.AS_OF}.parquet").write_bytes(b"PAR1")
    with world.client() as client:
        assert service_of(client).releases.refresh() == "refused"


def test_unreachable_release_table_leaves_the_bundle_in_service(tmp_path: Path) -> None:
    """The database file is overwritten with garbage while m1 is served."""
    world = World(tmp_path)
    world.release(batch=False)
    with world.client() as client:
        releases = service_of(client).releases
        releases.refresh()
        for path in tmp_path.glob("release.db*"):
            path.write_bytes(b"garbage " * 1024)
        world.seconds = 9.0
        assert releases.refresh() == "unreachable"
        assert metric(client, "serving_release_poll_age_seconds") == 9.0
        assert client.get(URL.format("c1")).json()["fallback_level"] == "none"


def test_slow_store_costs_no_more_than_the_deadline(tmp_path: Path) -> None:
    """A store that never answers: the batch slate is given, flagged with the reason."""
    world = World(tmp_path, Store())
    world.release()
    with world.client(answer_seconds=0.05) as client:
        service_of(client).releases.refresh()
        world.store.hang = threading.Event()
        answer = client.get(URL.format("c1"), params={"explain": "true"}).json()
        world.store.hang.set()
        assert (answer["fallback_level"], answer["fallback_reason"]) == ("batch", "timeout")


def test_too_many_in_flight_are_shed(tmp_path: Path) -> None:
    """A limit of 0 lets nobody in: 429 with Retry-After, and the metric counts it."""
    world = World(tmp_path)
    world.release()
    with world.client(max_in_flight=0) as client:
        service_of(client).releases.refresh()
        response = client.get(URL.format("c1"))
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        assert metric(client, "serving_shed_total") == 1.0


def test_prediction_log_has_one_line_per_answer(tmp_path: Path) -> None:
    """Three answers, three lines after shutdown, equal to what the callers got."""
    world = World(tmp_path)
    world.release()
    with world.client() as client:
        service_of(client).releases.refresh()
        answers = [client.get(url).json() for url in (URL.format("c1"), URL.format("nobody"), "/v1/recommendations")]
        client.get(URL.format("c1"), params={"k": 0})  # refused: no answer, no line
    lines = world.lines()
    assert [line["answer_id"] for line in lines] == [answer["answer_id"] for answer in answers]
    assert lines[0].keys() == {
        "answer_id", "ts", "customer_id", "customer_kind", "arm", "rollout_id", "release_id", "model_version", "model_digest",
        "bundle_id", "as_of", "fallback_level", "fallback_reason", "failed", "latency_ms", "product_ids", "scores", "price",
        "asked", "feature_ts", "features", "scores_before", "ranked", "rules", "applied", "now", "today", "recent",
    }  # fmt: skip
    assert lines[0]["product_ids"] == tiny.RANKED
    assert lines[0]["scores"] == [item["score"] for item in answers[0]["items"]]
    assert [line["customer_id"] for line in lines] == ["c1", "nobody", None]
    assert lines[0]["ts"] == NOW.isoformat()


def test_lost_log_lines_are_counted_and_answers_go_on(tmp_path: Path) -> None:
    """The log folder is a file: nothing can be written, every answer is still given."""
    world = World(tmp_path)
    world.release()
    (tmp_path / "log").write_text("not a folder")
    with world.client() as client:
        service = service_of(client)
        service.releases.refresh()
        assert client.get(URL.format("c1")).status_code == 200
    assert service.metrics.log_dropped._value.get() == 1.0


def test_serving_imports_no_pipeline() -> None:
    """The server's modules, with Feast and LightGBM, load neither dagster, mlflow, dbt nor scikit-learn."""
    code = (
        "import sys; from pipeline_assets.serving.__main__ import app, main, config_from\n"
        "from pipeline_assets.serving.startup import import_lightgbm_alone; import_lightgbm_alone()\n"
        "import feast, feature_repo.config, pipeline_assets.serving.app, pipeline_assets.settings\n"
        "print([m for m in ('dagster', 'mlflow', 'dbt', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
