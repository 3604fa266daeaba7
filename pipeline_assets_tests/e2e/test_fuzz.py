"""The API against its own OpenAPI document: a few requests of each kind here, many in servers/test_api_live.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter, Depends
from fastapi.testclient import TestClient

from pipeline_assets.serving.access import requires
from pipeline_assets_tests.api_world import World, service_of
from pipeline_assets_tests.fuzzing import fuzz


def test_no_request_of_the_document_or_beside_it_breaks_the_server(tmp_path: Path) -> None:
    """Every operation is asked, each answer is one that the document describes."""
    world = World(tmp_path)
    world.release()
    with world.quick() as client:
        service_of(client).releases.refresh()
        asked = fuzz(client.app, {}, examples=3)
        assert {
            "POST /v1/events",
            "POST /v1/recommendations",
            "GET /v1/customers/{customer_id}/recommendations",
        } <= asked.keys()
        assert (
            service_of(client).metrics.registry.get_sample_value(
                "serving_requests_total", {"endpoint": "unmatched", "status": "500"}
            )
            is None
        )


def test_a_route_that_breaks_is_found(tmp_path: Path) -> None:
    """Negative control: a route that divides by what the caller sends."""
    world = World(tmp_path)
    client = world.quick()
    broken = APIRouter(dependencies=[Depends(requires("public"))])
    broken.add_api_route("/v1/inverse", lambda n=1: {"inverse": 1 / int(n)})
    client.app.router.routes[:] = [*broken.routes, client.app.router.routes[0]]  # type: ignore[attr-defined]
    with TestClient(client.app, raise_server_exceptions=False), pytest.raises((ValueError, ZeroDivisionError)):
        fuzz(client.app, {}, examples=3)
