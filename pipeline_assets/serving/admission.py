"""How many requests are let in at once: what is accepted stays quick, and the rest is told at once to come again.

Belongs here: counting and refusing, before anything else is spent on a request. Does not: rates of keys (access).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline_assets.serving.http_errors import RequestError, respond_with
from pipeline_assets.serving.metrics import Metrics

OPERATIONS = ("/healthz", "/readyz", "/metrics")  # a busy process is neither dead nor unready


class Admission:
    """ASGI middleware: at most `most` requests in progress, 429 with Retry-After for the others."""

    def __init__(self, app: ASGIApp, most: int, metrics: Metrics) -> None:
        self._app, self._most, self._metrics = app, most, metrics
        self._in_progress = 0
        error = RequestError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "server load",
            found=f"{most} requests in progress",
            wanted="fewer",
            fix="retry after the seconds in Retry-After",
        )
        self._refusal = respond_with(error)  # rendered once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPERATIONS:
            await self._app(scope, receive, send)
            return
        if self._in_progress >= self._most:
            self._metrics.shed.inc()
            await self._refusal(scope, receive, send)
            return
        self._in_progress += 1
        self._metrics.in_flight.inc()
        try:
            await asyncio.sleep(0)  # whoever came at the same time is counted before anybody is answered
            await self._app(scope, receive, send)
        finally:
            self._in_progress -= 1
            self._metrics.in_flight.dec()
