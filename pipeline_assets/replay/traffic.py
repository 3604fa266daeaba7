"""The real API on loopback for the replayed days. Its clock is the wall's: a rollout's evidence is of what was answered since it began.

Belongs here: the server's thread, the requests. Does not: what the answers are worth (outcome.py).
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import httpx
import numpy as np

from pipeline_assets.recommender.errors import RunFailed
from pipeline_assets.serving.online import CustomerFeatures, FeastOnlineFeatures, OnlineFeatures

if TYPE_CHECKING:
    from pipeline_assets.serving.service import Service
    from pipeline_assets.settings import Settings

STORE_FAULTS = ("online_store_down", "online_store_slow", "online_store_stale")
SLOW_SECONDS = 1.5  # more than an answer may take (serving.answer_seconds)
STALE = timedelta(days=30)  # before any bundle that may still be live
READY_TRIES = 20  # each waits for the online store as long as an answer may; opening it takes seconds on a busy machine


def path_of(customer_id: str) -> str:
    """Where the list of a customer is."""
    return f"/v1/customers/{customer_id}/recommendations"


def level_of(response: httpx.Response) -> str:
    """What an answer is: `ranked`, `batch`, `popularity`, or `failed`."""
    if response.status_code != 200:
        return "failed"
    level = str(response.json()["fallback_level"])
    return "ranked" if level == "none" else level


class _Store:
    """An online store that can be taken down, slowed down, held up, and set back."""

    def __init__(self, store: OnlineFeatures, api: Api) -> None:
        self._store, self._api = store, api

    def read(self, customer_id: str) -> CustomerFeatures | None:
        fault = self._api.store_fault
        time.sleep(self._api.hold_seconds)
        if fault == "online_store_down":
            raise ConnectionError("fault online_store_down: the online store does not answer")
        if fault == "online_store_slow":
            time.sleep(SLOW_SECONDS)
        features = self._store.read(customer_id)
        if fault == "online_store_stale" and features is not None:
            features = replace(features, feature_ts=features.feature_ts - STALE)
        return features


class Api:
    """One API process's worth of serving, in a thread of this process, so that its online store can be taken down."""

    def __init__(self, settings: Settings) -> None:
        from pipeline_assets.serving.__main__ import config_from
        from pipeline_assets.serving.app import create_app

        self.store_fault = ""  # one of STORE_FAULTS while it acts
        self.hold_seconds = 0.0  # that each read waits
        config = config_from(settings)

        def connect(names: Sequence[str]) -> OnlineFeatures:
            return _Store(FeastOnlineFeatures(config.feast, names), self)

        self.app = create_app(config, connect=connect)
        self._client: httpx.Client | None = None

    @property
    def client(self) -> httpx.Client:
        """Asks it; threads may share it."""
        assert self._client is not None, "inside running()"
        return self._client

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    @contextmanager
    def running(self) -> Iterator[Api]:
        """Listening on a free port of the loopback interface."""
        import uvicorn

        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(self.app, log_level="error", access_log=False))
            thread = threading.Thread(target=server.run, args=([listening],), name="replayed-api", daemon=True)
            thread.start()
            while not server.started and thread.is_alive():  # it listens when its bundle is loaded
                time.sleep(0.05)
            if not server.started:
                raise RunFailed(
                    "the replayed API", found="it ended before it listened", wanted="a server", fix="see its log above"
                )
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            try:
                with httpx.Client(base_url=url, trust_env=False, timeout=30) as self._client:
                    yield self
            finally:
                server.should_exit = True
                thread.join()

    def follow(self) -> None:
        """Look at the release table now, not at the next poll, and be ready for traffic; a night has passed, so the online store is asked again
        that failed on the morning before.

        Raises:
            RunFailed: it does not become ready.
        """
        self.service.releases.refresh()
        while self.service.breaker.is_open:
            time.sleep(0.05)
        for _ in range(READY_TRIES):
            ready = self.client.get("/readyz").json()
            if ready["ready"]:
                return
        raise RunFailed(
            "the replayed API",
            found="; ".join(ready["reasons"]),
            wanted="ready for traffic",
            fix="see the release table and the online store",
        )

    def look_afresh(self) -> str:
        """Look at the release table over a new connection; returns what came of it."""
        self.service.releases.disconnect()
        return self.service.releases.refresh()

    def morning(self, day: date, customers: Sequence[str], seed: int) -> Counter[str]:
        """The requests of the morning after `day`: `customers`, in shuffled order, and on Mondays a stranger and an anonymous visitor.

        These two get no personal answer; every day they would use up the budget of personalised answers where few customers ask.

        Returns:
            Answers by what they were: `ranked`, `batch`, `popularity`, `failed`.
        """
        random = np.random.default_rng([seed, day.toordinal()])
        paths = [path_of(customer) for customer in customers]
        if (day + timedelta(days=1)).weekday() == 0:
            paths += [path_of("nobody-knows-me"), "/v1/recommendations"]
        found: Counter[str] = Counter()
        for place in random.permutation(len(paths)):
            found[level_of(self.client.get(paths[int(place)]))] += 1
        self.service.log.flush()  # the monitors read its files
        return found
