"""The routes that recommend.

Belongs here: what a caller may ask, limits on it, what comes back. Does not: ranking (answers), what is live (live).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from pipeline_assets.serving.access import requires
from pipeline_assets.serving.answers import Answer, AskedFor, Live
from pipeline_assets.serving.api_models import ErrorBody, Recommendations, render
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.http_errors import RequestError, shown
from pipeline_assets.serving.service import Service

MAX_ID_LENGTH = 128
READ = [Depends(requires("read"))]
HowMany = Annotated[int | None, Query(description="How many products, at least 1; 10 unless configured otherwise")]
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Recommendations},
    401: {"model": ErrorBody},
    403: {"model": ErrorBody},
    404: {"model": ErrorBody},
    422: {"model": ErrorBody},
    429: {"model": ErrorBody},
    503: {"model": ErrorBody, "description": "Before the first bundle is loaded"},
}


def router(service: Service) -> APIRouter:
    """Recommendations from this process."""
    routes = APIRouter()

    @routes.get(
        "/v1/customers/{customer_id}/recommendations", response_class=Response, responses=RESPONSES, dependencies=READ
    )
    async def recommend(customer_id: str, k: HowMany = None, explain: bool = False) -> Response:
        """What a customer most likely buys in the next seven days. A customer who is not known gets what is popular."""
        check_id(customer_id)
        return await answered(service, AskedFor(customer_id, checked_k(k, service.config), explain=explain))

    @routes.get("/v1/recommendations", response_class=Response, responses=RESPONSES, dependencies=READ)
    async def recommend_to_anyone(k: HowMany = None) -> Response:
        """The most popular products, for a visitor who is not known."""
        return await answered(service, AskedFor(None, checked_k(k, service.config)))

    return routes


async def answered(service: Service, asked: AskedFor) -> Response:
    """The answer to one request, logged and counted.

    Raises:
        RequestError: 503, nothing is loaded yet; 429, too many are in flight.
    """
    live = loaded(service, asked.customer_id)
    if service.in_flight >= service.config.max_in_flight:
        service.metrics.shed.inc()
        raise RequestError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "server load",
            found=f"{service.in_flight} requests in flight",
            wanted=f"fewer than {service.config.max_in_flight}",
            fix="retry after a second",
        )
    service.in_flight += 1
    service.metrics.in_flight.inc()
    try:
        live, answer = await service.answer(live, asked)
    finally:
        service.in_flight -= 1
        service.metrics.in_flight.dec()
    return respond(service, live, asked, answer)


def check_id(customer_id: str) -> None:
    """Refuse an id that no shop would issue.

    Raises:
        RequestError: 422, too long or not printable.
    """
    if not 0 < len(customer_id) <= MAX_ID_LENGTH or not customer_id.isprintable() or "\ufffd" in customer_id:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "path.customer_id",
            found=shown(customer_id),
            wanted=f"1 to {MAX_ID_LENGTH} printable characters in UTF-8",
            fix="send the customer_id of the purchases feed",
        )


def checked_k(k: int | None, config: ServingConfig) -> int:
    """`k`, or the default for None.

    Raises:
        RequestError: 422, out of range.
    """
    if k is None:
        return config.default_k
    if not 1 <= k <= config.max_k:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "query.k",
            found=shown(k),
            wanted=f"1 to {config.max_k}",
            fix="ask for fewer",
        )
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


def respond(service: Service, live: Live, asked: AskedFor, answer: Answer) -> Response:
    """Log, count and render an answer."""
    answer_id = service.record(live, asked, answer)
    return Response(json.dumps(render(live, answer, answer_id, asked.explain)), media_type="application/json")
