"""The routes that recommend.

Belongs here: what a caller may ask, limits on it, what comes back. Does not: ranking (answers), what is live (live).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from pipeline_assets.serving.access import requires
from pipeline_assets.serving.answers import AskedFor, Live
from pipeline_assets.serving.api_models import (
    ERRORS,
    MAX_ID_LENGTH,
    Batch,
    BatchRequest,
    RecommendationRequest,
    Recommendations,
    Wanted,
    readable,
    render,
)
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.http_errors import RequestError, shown
from pipeline_assets.serving.service import Service

READ = [Depends(requires("read"))]
FILTERS = ("department", "category", "brand")
MAX_VALUES = 100


def _parameter(name: str, kind: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": kind, "description": text}


_LIST = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
    "maxItems": MAX_VALUES,
}
# Said to OpenAPI here and read by `asked_for`: through FastAPI the seven parameters cost 0.09 ms CPU a request (measured), so 0.01.
PARAMETERS = [
    _parameter("k", {"type": "integer", "minimum": 1}, "How many products; 10 unless configured otherwise"),
    _parameter("explain", {"type": "boolean", "default": False}, "With reasons and the effects of rules"),
    _parameter("exclude", _LIST, "Products that are not wanted; may be repeated"),
    *(_parameter(name, _LIST, f"Only products of this {name}; may be repeated") for name in FILTERS),
]


def router(service: Service) -> APIRouter:
    """Recommendations from this process."""
    routes = APIRouter(dependencies=READ, default_response_class=Response, responses=ERRORS)
    one: dict[int | str, dict[str, Any]] = {200: {"model": Recommendations}}

    @routes.get("/v1/customers/{customer_id}/recommendations", responses=one, openapi_extra={"parameters": PARAMETERS})
    async def recommend(request: Request, customer_id: str) -> Response:
        """What a customer most likely buys in the next seven days. A customer who is not known gets what is popular."""
        check_id("path.customer_id", customer_id)
        return _json(await answered(service, asked_for(request, service.config, customer_id)))

    @routes.get("/v1/recommendations", responses=one, openapi_extra={"parameters": PARAMETERS})
    async def recommend_to_anyone(request: Request) -> Response:
        """The most popular products, for a visitor who is not known."""
        return _json(await answered(service, asked_for(request, service.config, None)))

    @routes.post("/v1/recommendations", responses=one)
    async def recommend_for(body: RecommendationRequest) -> Response:
        """The same, with a basket, exclusions, filters and a context."""
        return _json(await answered(service, _from_body(service.config, body, body.customer_id, body.basket)))

    @routes.post("/v1/recommendations/batch", responses={200: {"model": Batch}})
    async def recommend_for_many(request: Request, body: BatchRequest) -> Response:
        """Answers for up to 100 customers. Each counts as a request in the key's rate."""
        request.app.state.access.charge(request.state.caller, len(body.customer_ids) - 1)
        return _json(
            {"answers": [await answered(service, _from_body(service.config, body, one)) for one in body.customer_ids]}
        )

    return routes


def asked_for(request: Request, config: ServingConfig, customer_id: str | None) -> AskedFor:
    """The request of a GET, from `PARAMETERS`.

    Raises:
        RequestError: 422, an unknown parameter, or a value that is not allowed.
    """
    if not request.scope["query_string"]:
        return AskedFor(customer_id, config.default_k)
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        given.setdefault(name, []).append(value)
    k, explain = given.pop("k", [""])[-1], given.pop("explain", ["false"])[-1].lower()
    if k and (not k.isascii() or not k.isdigit() or len(k) > 9):
        raise _refused("query.k", k, f"1 to {config.max_k}")
    if explain not in ("true", "false", "1", "0"):
        raise _refused("query.explain", explain, "true or false")
    for name, values in given.items():
        if name != "exclude" and name not in FILTERS:
            raise _refused(f"query.{shown(name)}", values[0], f"k, explain, exclude, {', '.join(FILTERS)}")
        if len(values) > MAX_VALUES:
            raise _refused(f"query.{name}", f"{len(values)} values", f"at most {MAX_VALUES}; POST takes more")
        for value in values:
            check_id(f"query.{name}", value)
    exclude = tuple(given.pop("exclude", ()))
    filters = {name: tuple(values) for name, values in given.items()}
    wanted = checked_k(int(k) if k else None, config)
    return AskedFor(customer_id, wanted, exclude=exclude, filters=filters, explain=explain in ("true", "1"))


def _refused(culprit: str, found: object, wanted: object) -> RequestError:
    fix = "see /docs for the parameters"
    return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, culprit, found=shown(found), wanted=wanted, fix=fix)


def _from_body(config: ServingConfig, body: Wanted, customer_id: str | None, basket: tuple[str, ...] = ()) -> AskedFor:
    k = checked_k(body.k, config, "body.k")
    return AskedFor(customer_id, k, basket, body.exclude, body.filters.given(), body.context, body.explain)


async def answered(service: Service, asked: AskedFor) -> dict[str, object]:
    """The answer to one request, logged, counted and rendered.

    Raises:
        RequestError: 503, nothing is loaded yet.
    """
    live = loaded(service, asked.customer_id)
    live, answer = await service.answer(live, asked)
    return render(live, answer, service.record(live, asked, answer), asked.explain)


def check_id(culprit: str, value: str) -> None:
    """Refuse an id that no shop would issue.

    Raises:
        RequestError: 422, too long or not printable.
    """
    try:
        readable(value)
    except ValueError as error:
        raise _refused(culprit, value, error) from None


def checked_k(k: int | None, config: ServingConfig, culprit: str = "query.k") -> int:
    """`k`, or the default for None.

    Raises:
        RequestError: 422, out of range.
    """
    if k is None:
        return config.default_k
    if not 1 <= k <= config.max_k:
        raise _refused(culprit, k, f"1 to {config.max_k}")
    return k


def loaded(service: Service, customer_id: str | None) -> Live:
    """What answers this customer now.

    Raises:
        RequestError: 503, nothing is loaded yet.
    """
    live = service.releases.live_for(customer_id)
    if live is None:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "bundle",
            found="none loaded",
            wanted="a live release that passed its probe",
            fix="wait for /readyz; release a bundle if there is none",
        )
    return live


def _json(body: dict[str, Any]) -> Response:
    return Response(json.dumps(body), media_type="application/json")
