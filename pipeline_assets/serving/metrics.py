"""Prometheus metrics of one serving process. No customer or product id is ever a label."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline_assets.serving.answers import Answer, Live, Stage

STAGE_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)  # ranking takes 0.3 ms
STAGES = (*get_args(Stage), "whole")
VERSIONS = 4  # of models whose latency is kept: live and on trial, and the two before them; 208 series
LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The metrics, in a registry of their own so that several apps can live in one test process.

    Args:
        clock: wall clock, for the age of the bundle.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("serving_requests", "Requests", ["endpoint", "status"], registry=r)
        self.latency = Histogram(
            "serving_latency_seconds", "Latency", ["endpoint"], buckets=LATENCY_BUCKETS, registry=r
        )
        self._stages = Histogram(
            "serving_stage_latency_seconds",
            "Latency of answers by part: features, rank, rules; whole is all of it, of fallbacks too",
            ["model_version", "stage"],
            buckets=STAGE_BUCKETS,
            registry=r,
        )
        self._watches: dict[str, dict[str, Histogram]] = {}  # version -> stage -> its child
        self.answers = Counter(
            "serving_answers", "Answers", ["fallback_level", "customer_kind", "model_version"], registry=r
        )
        self.fallbacks = Counter(
            "serving_fallbacks", "Answers that are not the ranker's, by reason", ["reason"], registry=r
        )
        self.in_flight = Gauge("serving_in_flight", "Answers being computed", registry=r)
        self.shed = Counter("serving_shed", "Requests refused with 429 because too many were in flight", registry=r)
        self.log_dropped = Counter("serving_prediction_log_dropped", "Prediction log lines lost", registry=r)
        self.shadow_dropped = Counter("serving_shadow_dropped", "Requests that the shadow had no room for", registry=r)
        self.candidate_failures = Counter(
            "serving_candidate_failures",
            "Canary answers given by the stable model, the candidate having failed",
            registry=r,
        )
        self.rollout_share = Gauge("serving_rollout_share", "Share of the customers that get the candidate", registry=r)
        self.swaps = Counter("serving_bundle_swaps", "Bundles taken into service", registry=r)
        self.refusals = Counter("serving_bundle_refusals", "Releases refused before traffic", registry=r)
        self.model = Gauge(
            "serving_model_info", "1 for what is served", ["model_version", "bundle_id", "as_of"], registry=r
        )
        self.age = Gauge("serving_bundle_age_seconds", "Since the live bundle was created; NaN before", registry=r)
        self.age.set(float("nan"))
        self.poll_age = Gauge("serving_release_poll_age_seconds", "Since the release table was last read", registry=r)
        self.recent_events = Gauge("serving_recent_events", "Events of customers in memory", registry=r)
        self.events_poll_age = Gauge(
            "serving_events_poll_age_seconds", "Since recent events were last read", registry=r
        )
        self._clock = clock

    def swapped(self, live: Live) -> None:
        """Show `live` as what is served, and nothing else."""
        manifest = live.bundle.manifest
        created = datetime.fromisoformat(manifest.created_at)
        self.model.clear()
        self.model.labels(manifest.model_version, manifest.bundle_id, manifest.as_of).set(1)
        self.age.set_function(lambda: (self._clock() - created).total_seconds())
        self.swaps.inc()

    def answered(self, answer: Answer, model_version: str) -> None:
        """Count one answer."""
        self.answers.labels(answer.fallback_level, answer.customer_kind, model_version).inc()
        if answer.reason:
            self.fallbacks.labels(answer.reason).inc()
        watches = self._watches.get(model_version) or self._watched(model_version)
        watches["whole"].observe(answer.latency_ms / 1e3)
        for stage, seconds in answer.stages:
            watches[stage].observe(seconds)

    def _watched(self, model_version: str) -> dict[str, Histogram]:
        """Begin to time a version; beyond `VERSIONS` the one that was first seen is forgotten."""
        while len(self._watches) >= VERSIONS and (oldest := next(iter(self._watches), None)) is not None:
            for stage in self._watches.pop(oldest, ()):
                self._stages.remove(oldest, stage)
        found = {stage: self._stages.labels(model_version, stage) for stage in STAGES}
        self._watches[model_version] = found
        return found

    def exposition(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)


class Telemetry:
    """ASGI middleware that counts and times requests by route template, never by path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            endpoint = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(endpoint, str(status)).inc()
            self._metrics.latency.labels(endpoint).observe(time.perf_counter() - start)
