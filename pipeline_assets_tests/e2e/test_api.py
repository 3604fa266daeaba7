"""The released bundle of the first run, served over HTTP by the process that `make serve` starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pandas as pd
import pytest

from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.server import POLL_SECONDS, POLLS, served
from pipeline_assets_tests.shop import NEWEST, Shop
from pipeline_assets_tests.world import BAG

KNOWN = "c07"


@pytest.fixture(scope="module")
def shop(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return first_run.shop.copied(tmp_path_factory.mktemp("api") / "shop")


@pytest.fixture(scope="module")
def client(shop: Shop) -> Iterator[httpx.Client]:
    with served(shop.process_environment(), shop.root / "server.log") as client:
        yield client


@pytest.fixture(scope="module")
def slates(shop: Shop) -> pd.DataFrame:
    """What the pipeline recommended in the night."""
    with shop.opened() as pipeline:
        return pipeline.lake.read("recommendations/daily", NEWEST, NEWEST).to_pandas()


def ask(client: httpx.Client, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(path).raise_for_status().json()
    return answer


def test_a_known_customer_gets_what_the_night_recommended(client: httpx.Client, slates: pd.DataFrame) -> None:
    """Ranked now from online features, by the model and matrix of the bundle: the same products as the batch, in the same order."""
    answer = ask(client, f"/v1/customers/{KNOWN}/recommendations?k=20")
    batch = slates[slates["customer_id"] == KNOWN].sort_values("rank")
    assert (answer["customer_kind"], answer["fallback_level"]) == ("known", "none")
    assert [item["product_id"] for item in answer["items"]] == batch["product_id"].tolist()
    assert [item["score"] for item in answer["items"]] == pytest.approx(batch["score"].tolist())


def test_the_answer_says_from_what_it_was_made(client: httpx.Client) -> None:
    """Champion version 1, as of the newest day, with features that were known at the next midnight."""
    answer = ask(client, f"/v1/customers/{KNOWN}/recommendations?k=3")
    assert (answer["model_version"], answer["as_of"]) == ("1", str(NEWEST))
    assert answer["feature_ts"] == "2017-03-19T00:00:00+00:00"
    assert len(answer["items"]) == 3


def test_every_customer_is_personalised(client: httpx.Client, slates: pd.DataFrame) -> None:
    """No customer of the shop falls back."""
    levels = {
        ask(client, f"/v1/customers/{c}/recommendations?k=1")["fallback_level"]
        for c in sorted(set(slates["customer_id"]))
    }
    assert levels == {"none"}


def test_an_unknown_customer_gets_what_is_popular(client: httpx.Client) -> None:
    """Flagged as new and as a fallback, never an error, and without the bag that may not be recommended."""
    answer = ask(client, "/v1/customers/nobody/recommendations?k=10")
    assert (answer["customer_kind"], answer["fallback_level"]) == ("new", "popularity")
    assert len(answer["items"]) == 10
    assert BAG not in {item["product_id"] for item in answer["items"]}


def test_an_anonymous_visitor_gets_the_same_list(client: httpx.Client) -> None:
    """Nothing is known of either."""
    anonymous, new = ask(client, "/v1/recommendations?k=5"), ask(client, "/v1/customers/nobody/recommendations?k=5")
    assert (anonymous["customer_kind"], anonymous["customer_id"]) == ("anonymous", None)
    assert [item["product_id"] for item in anonymous["items"]] == [item["product_id"] for item in new["items"]]


@pytest.mark.parametrize(
    ("path", "culprit"),
    [("/v1/customers/%00/recommendations", "path.customer_id"), ("/v1/recommendations?k=0", "query.k")],
)
def test_a_bad_request_is_told_what_is_wrong(client: httpx.Client, path: str, culprit: str) -> None:
    """422 with culprit, found, wanted and fix."""
    response = client.get(path)
    error = response.json()["error"]
    assert (response.status_code, error["culprit"]) == (422, culprit)
    assert all(error[name] for name in ("found", "wanted", "fix"))


def test_health_and_readiness(client: httpx.Client) -> None:
    """Up, ready without reasons against it, and the online store answers."""
    assert ask(client, "/healthz") == {"status": "up"}
    assert ask(client, "/readyz") == {"ready": True, "reasons": [], "online_store": "ok"}


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    """Requests are counted."""
    ask(client, "/v1/recommendations")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "# TYPE" in response.text
    assert "serving_requests_total" in response.text


def test_answers_arrive_in_the_prediction_log_asset(client: httpx.Client, shop: Shop) -> None:
    """An answer is a row of monitoring/prediction_log, once, however often the asset is materialised."""
    answer = ask(client, f"/v1/customers/{KNOWN}/recommendations?k=4")
    for _ in range(POLLS):
        if any(answer["answer_id"] in file.read_text() for file in (shop.data_dir / "prediction_log").glob("*")):
            break
        time.sleep(POLL_SECONDS)  # the log is written behind the answer
    with shop.opened() as pipeline:
        for _ in range(2):
            assert pipeline.materialize(NEWEST, "monitoring/prediction_log").success
        log = pipeline.lake.read("monitoring/prediction_log", NEWEST, NEWEST).to_pandas()
    (row,) = log[log["answer_id"] == answer["answer_id"]].to_dict("records")
    assert row["customer_id"] == KNOWN
    assert list(row["product_ids"]) == [item["product_id"] for item in answer["items"]]
