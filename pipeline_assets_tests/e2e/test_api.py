"""What the API can be asked besides k: bodies, filters, exclusions, baskets, contexts, batches, and the shop's rules in its answers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipeline_assets.serving.api_models import Batch, ErrorBody, Recommendations
from pipeline_assets.serving.routes_products import Product, Products
from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets.settings_rules import RulesSettings
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.api_world import URL, Store, World, products, service_of
from pipeline_assets_tests.e2e.test_access import bearing, key_of

POST = "/v1/recommendations"
# Ranked for c1: p2 (BREAD), p4 (no attributes), p3 (SOAP), p1 (MILK); popular: p1, p5 (SOAP).


def served(root: Path, store: Store | None = None, **config: Any) -> Iterator[TestClient]:
    """A process with a live bundle and this configuration."""
    world = World(root, store or Store())
    world.release()
    with world.quick(**config) as client:
        service_of(client).releases.refresh()
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    yield from served(tmp_path_factory.mktemp("api"))


def asked(client: TestClient, **body: Any) -> dict[str, Any]:
    """The answer to a POST, which has the shape that OpenAPI promises."""
    response = client.post(POST, json=body)
    assert response.status_code == 200, response.text
    Recommendations.model_validate(response.json())
    return dict(response.json())


def effects(answer: dict[str, Any]) -> list[tuple[str, str, int | None, int | None]]:
    return [tuple(effect.values()) for effect in answer["rules"]]  # type: ignore[misc]


def test_post_and_get_give_one_answer(client: TestClient) -> None:
    """The same customer and k by both roads, but for the id of the answer."""
    one, other = asked(client, customer_id="c1", k=2), client.get(URL.format("c1"), params={"k": 2}).json()
    assert one | {"answer_id": ""} == other | {"answer_id": ""}


def test_post_without_a_customer_is_for_a_visitor(client: TestClient) -> None:
    """An empty body is a request, too."""
    answer = asked(client)
    assert (answer["customer_kind"], products(answer)) == ("anonymous", ["p1", "p5"])


def test_excluded_products_and_the_basket_are_not_shown(client: TestClient) -> None:
    """p2 lies in the basket, p4 is not wanted; what was left out is told, and where it stood."""
    answer = asked(client, customer_id="c1", basket=["p2"], exclude=["p4", "elsewhere"], explain=True)
    assert products(answer) == ["p3", "p1"]
    assert effects(answer)[:2] == [("basket", "p2", 1, None), ("exclude", "p4", 2, None)]


def test_basket_lifts_what_goes_with_it(client: TestClient) -> None:
    """The measured weight of a department (0.3) is on p1's score, p3's is as it was; the effect is named."""
    plain = {item["product_id"]: item["score"] for item in asked(client, customer_id="c1")["items"]}
    answer = asked(client, customer_id="c1", basket=["p2"], explain=True)
    moved = {item["product_id"]: item["score"] for item in answer["items"]}
    assert math.isclose(moved["p1"], plain["p1"] + 0.3)
    assert moved["p3"] == plain["p3"]
    assert ("recent: department of what was put into the basket", "p1", 4, 3) in effects(answer)


def test_filters_by_get_and_post(client: TestClient) -> None:
    """Only soap: p3 by the ranker; by popularity p5. Only a type that nobody sells: an empty answer, flagged, no error."""
    by_get = client.get(URL.format("c1"), params={"category": ["SOAP", "MILK"], "department": "DRUG"}).json()
    by_post = asked(client, customer_id="c1", filters={"category": ["SOAP", "MILK"], "department": ["DRUG"]})
    assert products(by_get) == products(by_post) == ["p3"]
    assert products(client.get("/v1/recommendations", params={"category": "SOAP"}).json()) == ["p5"]
    none = asked(client, customer_id="c1", filters={"type": ["CAVIAR"]}, explain=True)
    assert (none["items"], none["fallback_level"], none["fallback_reason"]) == ([], "popularity", "filtered")


def test_popular_within_a_filter_goes_by_sales(tmp_path: Path) -> None:
    """The fallback list is short, the catalogue is not: with sales of 28 days as a feature, soap is p3 (3 orders), then p5 (1)."""
    lists = {**vars(tiny.FEATURES), "product": ("product_price", "product_orders_28d")}
    features = type(tiny.FEATURES)(**lists)
    text = tiny.model_text().replace("product_orders", "product_orders_28d")
    frame = tiny.contents().products.rename(columns={"product_orders": "product_orders_28d"})
    world = World(tmp_path)
    world.release(features=features, text=text, products=frame)
    with world.quick() as client:
        service_of(client).releases.refresh()
        answer = client.get("/v1/recommendations", params={"category": "SOAP"}).json()
        assert products(answer) == ["p3", "p5"]


def test_explanation_has_a_sentence_for_the_shopper(client: TestClient) -> None:
    """With explain each ranked product has its reason; without, none has."""
    told = asked(client, customer_id="c1", explain=True)["items"][0]
    assert told["reason"] == "WHITE fits what you usually buy overall; no single fact stands out."
    assert "reason" not in asked(client, customer_id="c1")["items"][0]


def test_feature_age_is_told(client: TestClient) -> None:
    """Features of midnight, asked at two: 7,200 s; none for who has no features."""
    assert asked(client, customer_id="c1")["feature_age_seconds"] == 7200.0
    assert asked(client, customer_id="nobody")["feature_age_seconds"] is None


def test_batch_answers_in_order(client: TestClient) -> None:
    """A known, a new, and the known customer again: three answers with ids of their own."""
    response = client.post(f"{POST}/batch", json={"customer_ids": ["c1", "nobody", "c1"], "k": 1})
    answers = response.json()["answers"]
    Batch.model_validate(response.json())
    assert [(a["customer_id"], products(a)) for a in answers] == [("c1", ["p2"]), ("nobody", ["p1"]), ("c1", ["p2"])]
    assert len({a["answer_id"] for a in answers}) == 3


def test_batch_pays_for_each_customer(tmp_path: Path) -> None:
    """Four a second: three customers leave one token, so two more are too many."""
    key = key_of("k", "read", requests_per_second=4)
    for client in served(tmp_path, keys=(key,)):
        codes = [
            client.post(f"{POST}/batch", json={"customer_ids": ["c1"] * n}, headers=bearing("k")).status_code
            for n in (3, 2, 1)
        ]
        assert codes == [200, 429, 429]


@pytest.mark.parametrize(
    ("body", "culprit"),
    [
        ({"customer_id": ""}, "body.customer_id"),
        ({"customer_id": "x" * 129}, "body.customer_id"),
        ({"customer_id": "a\u0000b"}, "body.customer_id"),
        ({"customer_id": 7}, "body.customer_id"),
        ({"customer_id": "c1", "k": 0}, "body.k"),
        ({"customer_id": "c1", "k": 101}, "body.k"),
        ({"customer_id": "c1", "k": "ten"}, "body.k"),
        ({"basket": ["p"] * 201}, "body.basket"),
        ({"exclude": ["\u200b"]}, "body.exclude.0"),
        ({"filters": {"colour": ["red"]}}, "body.filters.colour"),
        ({"context": {"a": "x" * 129}}, "body.context.a"),
        ({"context": {str(n): "x" for n in range(11)}}, "body.context"),
        ({"customer": "c1"}, "body.customer"),
        ([], "body"),
    ],
)
def test_wrong_body_is_a_clear_422(client: TestClient, body: Any, culprit: str) -> None:
    """Each limit, each unknown key: the place is named."""
    response = client.post(POST, json=body)
    error = ErrorBody.model_validate(response.json()).error
    assert (response.status_code, error.culprit) == (422, culprit)
    assert len(error.found) < 130


@pytest.mark.parametrize(
    "raw", [b"{", b"\xff\xfe", b'{"customer_id": "\\ud800"}', b'{"k": 1e999}', b"[" * 100_000, b"NaN"]
)
def test_what_is_no_json_is_a_4xx(client: TestClient, raw: bytes) -> None:
    """Cut, not UTF-8, half a surrogate pair, infinite, nested without end, not a number."""
    response = client.post(POST, content=raw, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    ErrorBody.model_validate(response.json())


@pytest.mark.parametrize("query", ["kk=1", "k=1&brand=", "explain=perhaps", "exclude=%00", "department=" + "x" * 129])
def test_wrong_query_is_a_clear_422(client: TestClient, query: str) -> None:
    """A name that does not exist is an error, not ignored: a filter with a typing error would show what was not wanted."""
    assert client.get(f"{URL.format('c1')}?{query}").status_code == 422


RULES = {
    "blocked": [{"name": "recall 12", "products": ["p2"]}],
    "caps": {"category": 1},
    "boosts": [{"name": "week 45", "products": ["p1"], "factor": 1e-3}],
    "pins": [{"name": "new", "product": "p5", "place": 1, "context": {"placement": "home"}}],
}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Store]]:
    """A shop with rules of all kinds, and the store behind it."""
    store = Store()
    for client in served(tmp_path_factory.mktemp("ruled"), store, rules=RulesSettings.model_validate(RULES)):
        yield client, store


def test_rules_of_the_shop_hold_and_are_told(ruled: tuple[TestClient, Store]) -> None:
    """The recalled p2 is gone; at home p5 is pinned, and with it the soap of the slate: p3 gives way."""
    client, _ = ruled
    plain = asked(client, customer_id="c1", explain=True)
    assert products(plain) == ["p4", "p3", "p1"]
    assert effects(plain) == [("blocked: recall 12", "p2", 1, None), ("boost: week 45", "p1", 4, 3)]
    home = asked(client, customer_id="c1", context={"placement": "home"}, explain=True)
    assert products(home) == ["p5", "p4", "p1"]
    assert ("pin: new", "p5", None, 1) in effects(home)
    assert ("cap: 1 of category", "p3", 3, None) in effects(home)


def test_rules_hold_on_every_rung(ruled: tuple[TestClient, Store]) -> None:
    """Batch slate of c1: p5, p4 and no rule against them, but with p5 excluded p4 alone; popularity: p1, then p5."""
    client, store = ruled
    store.error = OSError("connection refused")
    batch = asked(client, customer_id="c1", exclude=["p5"])
    assert (batch["fallback_level"], products(batch)) == ("batch", ["p4"])
    popular = asked(client, customer_id="nobody")
    assert (popular["fallback_level"], products(popular)) == ("popularity", ["p5", "p1"])  # p1 is boosted by 1/1000
    store.error = None


def test_recently_bought_reads_the_features(tmp_path: Path) -> None:
    """`pair_days` is renamed to what the rule reads: p2 was bought 1 day ago, p4 3, p3 5, p1 9; three days leave p3 and p1."""
    features = type(tiny.FEATURES)(
        ("pair_orders", "pair_days_since_last"), tiny.FEATURES.customer, tiny.FEATURES.product
    )
    rules = RulesSettings.model_validate({"recently_bought": [{"level": "product", "days": 3}]})
    world = World(tmp_path)
    world.release(features=features, text=tiny.model_text().replace("pair_days", "pair_days_since_last"))
    with world.quick(rules=rules) as client:
        service_of(client).releases.refresh()
        answer = asked(client, customer_id="c1", explain=True)
    assert products(answer) == ["p3", "p1"]
    assert effects(answer)[0] == ("recently_bought: product, 3 days", "p2", 1, None)


def test_products_are_what_the_bundle_knows(client: TestClient) -> None:
    """p4 has no attributes and no price; an unknown one is listed as such, alone it is a 404; ids are checked like any."""
    known = client.get("/v1/products/p4").json()
    Product.model_validate(known)
    assert known == {
        "product_id": "p4", "department": None, "category": None, "type": None, "brand": "Private",
        "features": {"product_price": None, "product_orders": 2.0},
    }  # fmt: skip
    found = client.post("/v1/products", json={"product_ids": ["p2", "gone", "p4"]}).json()
    Products.model_validate(found)
    assert ([p["product_id"] for p in found["products"]], found["unknown"]) == (["p2", "p4"], ["gone"])
    assert client.get("/v1/products/gone").status_code == 404
    assert client.get("/v1/products/%00").status_code == 422
    assert client.post("/v1/products", json={"product_ids": []}).status_code == 422


def test_requests_of_the_documentation_are_answered(client: TestClient) -> None:
    """Each JSON block of docs/api.md, sent to the route that stands before it; its table names routes that exist."""
    page = (PROJECT_ROOT / "docs" / "api.md").read_text()
    found = re.findall(r"<!-- POST (\S+) -->\n```json\n(.*?)```", page, flags=re.DOTALL)
    assert len(found) == page.count("```json") == 2
    for path, text in found:
        assert client.post(path, content=text, headers={"Content-Type": "application/json"}).status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    named = re.findall(r"`(GET|POST) (/\S+?)`", page)
    assert {(method.lower(), path) for path, methods in paths.items() for method in methods} == {
        (m.lower(), p) for m, p in named
    }


def test_default_rules_change_no_answer(client: TestClient) -> None:
    """What was measured is what is served: without rules the slate is the ranker's and nothing is told."""
    answer = asked(client, customer_id="c1", explain=True)
    assert (products(answer), answer["rules"]) == (tiny.RANKED, [])
    assert RulesSettings().is_empty
