"""What the other model would have answered: computed beside the requests, logged, never given.

Belongs here: a bounded queue and one thread. Does not: which requests (service), what the lines are compared for (guardrails).
An answer never waits for this: with a full queue (a slow or dead shadow) a request is left out and counted.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline_assets.serving.answers import Answer, AskedFor, Live
from pipeline_assets.serving.prediction_line import mean_price
from pipeline_assets.serving.prediction_log import PredictionLog

logger = logging.getLogger(__name__)
QUEUE = 32  # requests; each holds a customer's 40 KB of features


@dataclass(frozen=True, eq=False)
class Job:
    """A request that was answered, and the model that is to rank it again.

    Args:
        shown: what was given.
        other: the model whose slate is wanted; is_candidate: it is the one on trial.
    """

    answer_id: str
    asked: AskedFor
    shown: Answer
    other: Live
    is_candidate: bool


class Shadow:
    """One thread that ranks jobs by `rank` and logs what came out.

    Args:
        rank: the other model's answer; may raise anything.
        wall: aware wall clock; monotonic: seconds.
        dropped: told of each job that was left out.
    """

    def __init__(
        self,
        log: PredictionLog,
        rank: Callable[[Job], Answer],
        wall: Callable[[], datetime],
        monotonic: Callable[[], float],
        dropped: Callable[[], None],
    ) -> None:
        self._log, self._rank, self._wall, self._monotonic, self._dropped = log, rank, wall, monotonic, dropped
        self._queue: queue.Queue[Job | None] = queue.Queue(QUEUE)
        self._told = (-1, "")
        self._thread = threading.Thread(target=self._follow, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to rank."""
        self._thread.start()

    def put(self, job: Job) -> None:
        """Queue a job; never waits."""
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            self._dropped()

    def stop(self) -> None:
        """Rank nothing more. A job that hangs is not waited for: the thread ends with the process."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return

    def _follow(self) -> None:
        while (job := self._queue.get()) is not None:
            self.one(job)

    def one(self, job: Job) -> None:
        """Rank a job and log it."""
        started, error, products = self._monotonic(), "", []
        try:
            products = [product for product, _ in self._rank(job).slate]
        except (
            Exception
        ) as failure:  # the one boundary of the shadow: whatever breaks is a finding, not a failure of ours
            error = f"{type(failure).__name__}: {failure}"[:200]
            if self._told != (
                told := (job.other.release_id, type(failure).__name__)
            ):  # once, not at the rate of requests
                self._told = told
                logger.exception("the shadow failed; answers go on")
        now, manifest = self._wall(), job.other.bundle.manifest
        line: dict[str, Any] = {
            "answer_id": job.answer_id,
            "ts": now.isoformat(),
            "customer_id": job.asked.customer_id,
            "rollout_id": job.other.rollout_id,
            "is_candidate": job.is_candidate,
            "model_version": manifest.model_version,
            "bundle_id": manifest.bundle_id,
            "error": error,
            "latency_ms": round((self._monotonic() - started) * 1e3, 3),
            "product_ids": products,
            "price": mean_price(job.other, products),
            "change": None if error else changed(products, [product for product, _ in job.shown.slate]),
        }
        self._log.append(now.date().isoformat(), line)


def changed(products: list[str], shown: list[str]) -> float:
    """Share of the longer slate's slots whose product is not in the other slate."""
    longest = max(len(products), len(shown))
    return 1 - len(set(products) & set(shown)) / longest if longest else 0.0
