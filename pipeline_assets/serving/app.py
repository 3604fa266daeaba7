"""The HTTP API.

Belongs here: routes, limits on what a caller may send, status codes. Does not: ranking (answers, recommender), what is
live (live). Never imports dagster, mlflow or dbt.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST

from pipeline_assets.serving import http_errors
from pipeline_assets.serving.answers import Answer, Live, anonymous_answer
from pipeline_assets.serving.api_models import ErrorBody, Recommendations, render
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.http_errors import RequestError, shown
from pipeline_assets.serving.metrics import Telemetry
from pipeline_assets.serving.online import FeastOnlineFeatures, OnlineFeatures
from pipeline_assets.serving.service import Connect, Service

MAX_ID_LENGTH = 128
HowMany = Annotated[int | None, Query(description="How many products, at least 1; 10 unless configured otherwise")]
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Recommendations},
    404: {"model": ErrorBody},
    422: {"model": ErrorBody},
    429: {"model": ErrorBody},
    503: {"model": ErrorBody, "description": "Before the first bundle is loaded"},
}


def create_app(
    config: ServingConfig,
    *,
    connect: Connect | None = None,
    wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    monotonic: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The API over the release table, bundles and online store that `config` names.

    `app.state.service` is the process behind it. The other arguments replace the online store and the clocks in tests.
    """

    def feast(names: Sequence[str]) -> OnlineFeatures:
        return FeastOnlineFeatures(config.feast, names)

    service = Service(config, connect or feast, wall, monotonic)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    app = FastAPI(title="Product recommendations", version="1", lifespan=lifespan)
    app.state.service = service
    app.add_middleware(Telemetry, metrics=service.metrics)
    http_errors.install(app)

    @app.get("/v1/customers/{customer_id}/recommendations", response_class=Response, responses=RESPONSES)
    async def recommend(customer_id: str, k: HowMany = None, explain: bool = False) -> Response:
        """What a customer most likely buys in the next seven days. A customer who is not known gets what is popular."""
        check_id(customer_id)
        wanted, live = checked_k(k, config), loaded(service)
        if service.in_flight >= config.max_in_flight:
            service.metrics.shed.inc()
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "server load",
                found=f"{service.in_flight} requests in flight",
                wanted=f"fewer than {config.max_in_flight}",
                fix="retry after a second",
            )
        service.in_flight += 1
        service.metrics.in_flight.inc()
        try:
            answer = await service.answer(live, customer_id, wanted, explain)
        finally:
            service.in_flight -= 1
            service.metrics.in_flight.dec()
        return respond(service, live, answer, explain)

    @app.get("/v1/recommendations", response_class=Response, responses=RESPONSES)
    async def recommend_to_anyone(k: HowMany = None) -> Response:
        """The most popular products, for a visitor who is not known."""
        wanted, live = checked_k(k, config), loaded(service)
        return respond(service, live, anonymous_answer(live, wanted), explain=False)

    @app.get("/healthz")
    async def healthy() -> dict[str, str]:
        """The process is up."""
        return {"status": "up"}

    @app.get("/readyz", responses={503: {"description": "Not ready for traffic, with the reasons"}})
    async def ready(response: Response) -> dict[str, object]:
        """503 until a bundle passed its probe, answered its warm-up requests and the online store answers."""
        reasons = await service.not_ready()
        if reasons:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return {
            "ready": not reasons,
            "reasons": reasons,
            "online_store": "failing" if service.breaker.is_open else "ok",
        }

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics of this process."""
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return app


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


def loaded(service: Service) -> Live:
    """What is live now.

    Raises:
        RequestError: 503, nothing is loaded yet.
    """
    live = service.releases.live
    if live is None:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "bundle",
            found="none loaded",
            wanted="a live release that passed its probe",
            fix="wait for /readyz; release a bundle if there is none",
        )
    return live


def respond(service: Service, live: Live, answer: Answer, explain: bool) -> Response:
    """Log, count and render an answer."""
    answer_id = service.record(live, answer)
    return Response(json.dumps(render(live, answer, answer_id, explain)), media_type="application/json")
