"""Simulated ticks of sensors and schedules, and a real receiver for the alerts that they send."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg


def tick(
    definitions: dg.Definitions,
    sensor: str,
    instance: dg.DagsterInstance,
    resources: Mapping[str, Any],
    cursor: str | None = None,
) -> Any:
    """Evaluate a sensor once, as its daemon does: run_requests, skip_message, cursor."""
    with dg.build_sensor_context(
        instance, cursor, resources=resources, repository_def=definitions.get_repository_def()
    ) as context:
        return definitions.resolve_sensor_def(sensor).evaluate_tick(context)


def requested(tick: Any) -> list[tuple[str | None, str | None]]:
    """Job (None: the sensor's only one) and partition of each run that a tick asked for."""
    return [(request.job_name, request.partition_key) for request in tick.run_requests]


def failure_tick(
    definitions: dg.Definitions,
    result: dg.ExecuteInProcessResult,
    instance: dg.DagsterInstance,
    resources: Mapping[str, Any],
) -> None:
    """Evaluate sensor `alert_on_failure` for a failed run."""
    (event,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.RUN_FAILURE]
    context = dg.build_run_status_sensor_context(
        "alert_on_failure", event, instance, result.dagster_run, resources=resources
    )
    definitions.resolve_sensor_def("alert_on_failure")(context.for_run_failure())


@dataclass
class Inbox:
    """What a webhook on loopback has received."""

    url: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def webhook() -> Iterator[Inbox]:
    """A real HTTP server on a free loopback port that takes every alert."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    inbox.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    try:
        yield inbox
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
