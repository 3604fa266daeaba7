"""The routes of who operates the API: is it up, is it ready, its metrics."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from pipeline_assets.serving.access import requires
from pipeline_assets.serving.service import Service

OPEN = [
    Depends(requires("public"))
]  # what load balancers and supervisors ask; it tells nothing about shoppers or models


def router(service: Service) -> APIRouter:
    """Health, readiness and metrics of this process."""
    routes = APIRouter()

    @routes.get("/healthz", dependencies=OPEN)
    async def healthy() -> dict[str, str]:
        """The process is up."""
        return {"status": "up"}

    @routes.get(
        "/readyz", dependencies=OPEN, responses={503: {"description": "Not ready for traffic, with the reasons"}}
    )
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

    @routes.get("/metrics", response_class=Response, dependencies=[Depends(requires("read"))])
    async def metrics() -> Response:
        """Prometheus metrics of this process."""
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return routes
