"""The HTTP API.

Belongs here: putting the routes (routes_*), the middleware and the errors together. Does not: ranking (answers,
recommender), what is live (live). Never imports dagster, mlflow or dbt.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import import_module

from fastapi import FastAPI

from pipeline_assets.serving import (
    http_errors,
    routes_events,
    routes_operations,
    routes_passport,
    routes_products,
    routes_recommendations,
)
from pipeline_assets.serving.access import Access, BodyLimit, check_scopes, describe_scopes
from pipeline_assets.serving.admission import Admission
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.metrics import Telemetry
from pipeline_assets.serving.online import FeastOnlineFeatures, OnlineFeatures
from pipeline_assets.serving.service import Connect, Service


def create_app(
    config: ServingConfig,
    *,
    connect: Connect | None = None,
    wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    monotonic: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The API over the release table, bundles and online store that `config` names.

    `app.state.service` is the process behind it. The other arguments replace the online store and the clocks in tests.

    Raises:
        ConfigurationError: the keys cannot be read, or a route does not say who may use it.
    """

    def feast(names: Sequence[str]) -> OnlineFeatures:
        return FeastOnlineFeatures(config.feast, names)

    service = Service(config, connect or feast, wall, monotonic)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if connect is None:  # 0.5 s CPU, beside the probe of the first bundle, which runs in a process of its own
            threading.Thread(target=import_module, args=("feast",), daemon=True).start()
        service.start()
        try:
            await asyncio.to_thread(service.wait_until_warm)
            yield
        finally:
            service.stop()

    app = FastAPI(
        title="Product recommendations",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # OpenTelemetry; /metrics says it
    )
    app.state.service = service
    app.state.access = Access(config.keys, config.keys_file, wall, monotonic)
    app.add_middleware(BodyLimit, most=config.max_body_bytes)
    app.add_middleware(Admission, most=config.max_in_flight, metrics=service.metrics)
    app.add_middleware(Telemetry, metrics=service.metrics)  # outermost: what is refused is counted too
    http_errors.install(app)
    for routes in (routes_recommendations, routes_passport, routes_products, routes_events, routes_operations):
        app.router.routes.extend(
            routes.router(service).routes
        )  # `include_router` wraps them: dearer, and not to be listed
    check_scopes(app)
    describe_scopes(app)
    return app
