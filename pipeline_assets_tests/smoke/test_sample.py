"""After `make run`: the API over HTTP on what the run released. Run by .ci/run, not by `make test` (it needs the sample's data)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from pipeline_assets.loop import feed_totals
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.serving.release_state import current_live, open_state
from pipeline_assets.settings import PROJECT_ROOT, get_settings

POLLS = 300  # of 0.2 s: a cold disk and a busy machine are slow, a broken server never gets ready


def get(url: str) -> tuple[int, Any]:
    """Status and decoded body; an error status is an answer, not an exception."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            body, status = response.read().decode(), response.status
    except urllib.error.HTTPError as error:
        body, status = error.read().decode(), error.code
    return status, json.loads(body) if body.startswith("{") else body


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """The server process that `make serve` starts, on a free loopback port, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-O", "-m", "pipeline_assets.serving", "--port", str(port)]
    server = subprocess.Popen(command, cwd=PROJECT_ROOT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(POLLS):
            assert server.poll() is None, "the server ended before it was ready"
            try:
                if get(f"{address}/readyz")[0] == 200:
                    break
            except urllib.error.URLError:
                pass  # not listening yet
            time.sleep(0.2)
        else:
            pytest.fail("the server did not get ready")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def known_customer() -> str:
    """A customer who has recommendations of the live day."""
    live = current_live(open_state(get_settings().release_url))
    assert live is not None
    day = date.fromisoformat(live.as_of)
    return str(local_lake(get_settings().data_dir).read("recommendations/daily", day, day)["customer_id"][0].as_py())


def test_a_known_customer_gets_ranked_products(api: str, known_customer: str) -> None:
    """Ten products by the ranker, no fallback, from the live bundle."""
    status, answer = get(f"{api}/v1/customers/{known_customer}/recommendations?k=10")
    assert status == 200
    assert (answer["customer_kind"], answer["fallback_level"]) == ("known", "none")
    assert [item["rank"] for item in answer["items"]] == list(range(1, 11))
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_the_api_and_the_batch_agree(api: str, known_customer: str) -> None:
    """The same features, model and code: the API's top ten are the first ten of the nightly list."""
    live = current_live(open_state(get_settings().release_url))
    assert live is not None
    day = date.fromisoformat(live.as_of)
    batch = local_lake(get_settings().data_dir).read("recommendations/daily", day, day).to_pandas()
    wanted = batch[batch["customer_id"] == known_customer].sort_values("rank")["product_id"].tolist()[:10]
    _, answer = get(f"{api}/v1/customers/{known_customer}/recommendations?k=10")
    assert [item["product_id"] for item in answer["items"]] == wanted


def test_new_and_anonymous_customers_get_what_is_popular(api: str) -> None:
    """Nobody gets an error or an empty list."""
    for path, kind in (
        ("/v1/customers/never-seen/recommendations?k=5", "new"),
        ("/v1/recommendations?k=5", "anonymous"),
    ):
        status, answer = get(api + path)
        assert (status, answer["customer_kind"], answer["fallback_level"], len(answer["items"])) == (
            200,
            kind,
            "popularity",
            5,
        )


def test_bad_requests_are_refused_with_a_reason(api: str) -> None:
    """k out of range is the caller's error, and the answer says what is allowed."""
    status, answer = get(f"{api}/v1/recommendations?k=100000")
    assert status == 422
    assert answer["error"]["wanted"] == "1 to 100"


def test_metrics_name_the_model_and_no_customer(api: str) -> None:
    """Prometheus text with requests and latency by model version; customers and products are not labels."""
    _, text = get(f"{api}/metrics")
    assert "serving_requests_total" in text
    assert 'model_version="' in text
    assert 'customer_id="' not in text
    assert 'product_id="' not in text


def test_every_row_of_the_year_is_accounted_for() -> None:
    """read = valid + quarantined in every feed, and no day is blocked."""
    calendar = get_settings().calendar
    assert calendar.last_day is not None
    for feed in feed_totals(local_lake(get_settings().data_dir), calendar.first_day, calendar.last_day):
        assert feed["blocked"] == 0
        assert feed["read"] == feed["valid"] + feed["quarantined"]  # type: ignore[operator]
