"""What is let in at once is bounded: the rest is refused before it costs anything, and operators always get in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from pipeline_assets.serving.admission import Admission
from pipeline_assets.serving.metrics import Metrics


class App:
    """Answers without waiting for anything, as one that computes does, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def at_once(admission: Admission, paths: Sequence[str]) -> list[Message]:
    """The first message of each answer to requests that arrive together."""

    async def one(path: str) -> Message:
        sent: list[Any] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await admission({"type": "http", "path": path, "method": "GET", "headers": []}, receive, send)
        return dict(sent[0])

    async def together() -> list[Message]:
        return list(await asyncio.gather(*(one(path) for path in paths)))

    return asyncio.run(together())


def admission(most: int) -> tuple[Admission, App, Metrics]:
    app, metrics = App(), Metrics(lambda: datetime(2017, 11, 6, tzinfo=UTC))
    return Admission(app, most, metrics), app, metrics


def test_two_of_five_that_come_together_are_let_in() -> None:
    """The others get 429 with Retry-After, and the application never sees them."""
    door, app, metrics = admission(2)
    answers = at_once(door, ["/v1/recommendations"] * 5)
    assert sorted(answer["status"] for answer in answers) == [200, 200, 429, 429, 429]
    refused = [dict(answer["headers"]) for answer in answers if answer["status"] == 429]
    assert {headers[b"retry-after"] for headers in refused} == {b"1"}
    assert app.asked == 2
    assert metrics.registry.get_sample_value("serving_shed_total") == 3


def test_room_is_given_back() -> None:
    """Twice two requests: nobody is refused."""
    door, app, _ = admission(2)
    statuses = [answer["status"] for _ in range(2) for answer in at_once(door, ["/v1/recommendations"] * 2)]
    assert (statuses, app.asked) == ([200] * 4, 4)


def test_operators_always_get_in() -> None:
    """With no room at all: health, readiness and metrics answer."""
    door, _, _ = admission(0)
    answers = at_once(door, ["/healthz", "/readyz", "/metrics", "/v1/recommendations"])
    assert [answer["status"] for answer in answers] == [200, 200, 200, 429]
