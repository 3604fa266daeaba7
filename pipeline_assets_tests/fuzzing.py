"""schemathesis against the OpenAPI document of an application, in process: requests that fit it and requests that do not.

Checked of each answer: no 5xx, a status and a content type that the document names, a body of the shape that it promises, 405 for
methods that it does not have. The seed is fixed; how many examples an operation gets is the caller's budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks as openapi_checks
from starlette.types import ASGIApp, Receive, Scope, Send

CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


def without_lifespan(app: ASGIApp) -> ASGIApp:
    """The same application for a client that would start it again."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})

    return asked


def fuzz(app: Any, headers: Mapping[str, str], examples: int) -> dict[str, int]:
    """Ask every operation `examples` times or more, and raise what the first wrong answer shows; returns requests by operation.

    Args:
        app: its lifespan has begun; nothing here starts or stops it.
        headers: of every request, such as a key.
    """
    load_all_checks()
    schema = schemathesis.openapi.from_asgi("/openapi.json", without_lifespan(app))
    budget = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],  # a failure is shown as it is met
    )
    asked: dict[str, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        assert operation is not None, result
        modes = [schemathesis.GenerationMode.POSITIVE]
        if any((operation.path_parameters, operation.query, operation.body)):
            modes.append(schemathesis.GenerationMode.NEGATIVE)
        for mode in modes:
            cases = operation.as_strategy(generation_mode=mode)
            asked[operation.label] = asked.get(operation.label, 0) + _ask(cases, budget, headers)
    return asked


def _ask(cases: Any, budget: hypothesis.settings, headers: Mapping[str, str]) -> int:
    count = 0

    @budget
    @hypothesis.given(case=cases)
    def ask(case: Any) -> None:
        nonlocal count
        count += 1
        case.call_and_validate(headers=dict(headers), checks=CHECKS)

    ask()
    return count
