"""The API in this process: a real bundle, release table, batch file and prediction log; the online store is a table in the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi.testclient import TestClient

from pipeline_assets.recommender.packing import pack
from pipeline_assets.serving.app import create_app
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.online import CustomerFeatures
from pipeline_assets.serving.probe import question
from pipeline_assets.serving.release_state import open_state, record_live
from pipeline_assets.serving.service import Service
from pipeline_assets_tests import tiny_bundle as tiny

KNOWN_AT = datetime(2017, 11, 6, tzinfo=UTC)  # features as of 2017-11-05
NOW = datetime(2017, 11, 6, 2, 0, tzinfo=UTC)
URL = "/v1/customers/{}/recommendations"


@dataclass
class Store:
    """An online store that knows c1 (and c2, whose candidates are all gone), and can be broken, slow or stale."""

    feature_ts: datetime = KNOWN_AT
    error: Exception | None = None
    hang: threading.Event | None = None
    blob: bytes = pack(tiny.PAIR)
    reads: int = 0

    def read(self, customer_id: str) -> CustomerFeatures | None:
        self.reads += 1
        if self.hang:
            self.hang.wait()
        if self.error:
            raise self.error
        candidates = {"c1": tiny.CANDIDATES, "c2": ("g1", "g2", "g3", "g4")}.get(customer_id)
        if candidates is None:
            return None
        return CustomerFeatures(candidates, self.blob, tiny.CUSTOMER, self.feature_ts)


@dataclass
class World:
    """A data folder, a store and two clocks that stand still."""

    root: Path
    store: Store = field(default_factory=Store)
    seconds: float = 0.0

    def release(self, version: str = "m1", as_of: str = tiny.AS_OF, batch: bool = True, **changes: object) -> Path:
        """Write and release a bundle and its batch recommendations: c1 gets p5, gone, p4; c9 gets p3."""
        directory, _ = tiny.write(self.root / "bundles", version, as_of, **changes)
        path = self.root / f"{as_of}.parquet"
        rows = [("c9", 1, "p3", 0.3), ("c1", 3, "p4", 0.1), ("c1", 1, "p5", 0.9), ("c1", 2, "gone", 0.5)]
        pd.DataFrame(rows, columns=["customer_id", "rank", "product_id", "score"]).to_parquet(path)
        record_live(
            open_state(self.url),
            bundle_path=str(directory),
            model_version=version,
            as_of=as_of,
            recommendations_path=str(path) if batch else None,
            recorded_at=NOW,
        )
        return directory

    @property
    def url(self) -> str:
        return f"sqlite:///{self.root / 'release.db'}"

    def client(self, **limits: Any) -> TestClient:
        limits = {"answer_seconds": 600.0, "poll_seconds": 3600.0, "follow_seconds": 3600.0} | limits  # no test waits
        limits = {"events_url": f"sqlite:///{self.root / 'events.db'}"} | limits
        config = ServingConfig(self.url, self.root / "log", public_keys=[tiny.trust(self.root)], **limits)
        app = create_app(config, connect=self.connect, wall=lambda: NOW, monotonic=lambda: self.seconds)
        return TestClient(app, raise_server_exceptions=False)

    def quick(self, **limits: Any) -> TestClient:
        """`client` with the probe's questions asked in this process, 1.5 CPU s less: for tests that are not about the probe."""
        client = self.client(**limits)
        service_of(client).releases._check = question
        return client

    def connect(self, names: Sequence[str]) -> Store:
        assert tuple(names) == tiny.FEATURES.customer
        return self.store

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / "log" / "2017-11-06.jsonl").read_text().splitlines()]


def service_of(client: TestClient) -> Service:
    service = client.app.state.service  # type: ignore[attr-defined]
    assert isinstance(service, Service)
    return service


def products(answer: dict[str, Any]) -> list[str]:
    return [item["product_id"] for item in answer["items"]]


def metric(client: TestClient, name: str) -> float:
    """The value of one exposed sample, 0 if it has not been counted yet."""
    found = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0
