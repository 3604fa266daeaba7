"""One serving process: the live bundle, the online store, the pool that waits for it, the log and the metrics.

Belongs here: calling the ladder with a deadline and turning failures into flagged fallbacks. Does not: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

from pipeline_assets.serving.answers import (
    Answer,
    AskedFor,
    Live,
    NoPersonalAnswer,
    fallback_answer,
    personal_answer,
)
from pipeline_assets.serving.breaker import Breaker, StoreUnavailable
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.live import Releases
from pipeline_assets.serving.metrics import Metrics
from pipeline_assets.serving.online import OnlineFeatures
from pipeline_assets.serving.prediction_log import PredictionLog
from pipeline_assets.serving.release_state import Release

logger = logging.getLogger(__name__)
T = TypeVar("T")
Connect = Callable[[Sequence[str]], OnlineFeatures]  # customer feature names of the live bundle -> a reader of them


class Service:
    """Everything but HTTP.

    Args:
        connect: opens the online store for a list of customer features; called again if a new bundle wants others.
        wall: aware wall clock; monotonic: seconds.
    """

    def __init__(
        self, config: ServingConfig, connect: Connect, wall: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self.config, self._connect, self._wall = config, connect, wall
        self.metrics = Metrics(wall)
        self.breaker = Breaker(config.breaker_failures, config.breaker_seconds, monotonic)
        self.releases = Releases(
            config.release_url,
            config.public_keys,
            poll_seconds=config.poll_seconds,
            retry_refused_seconds=config.retry_refused_seconds,
            clock=monotonic,
            on_swap=self._swapped,
            on_refusal=self._refused,
        )
        self.metrics.poll_age.set_function(lambda: monotonic() - self.releases.looked_at)
        self.log = PredictionLog(config.log_dir, config.log_queue_lines, self.metrics.log_dropped.inc)
        self.in_flight = 0
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="answer")
        self._readers: dict[tuple[str, ...], OnlineFeatures] = {}
        self._connecting = threading.Lock()
        self._was_ready = False
        self._told = (-1, "")  # release and error type of the last ranker failure that was logged

    def start(self) -> None:
        """Start the log writer and the release follower."""
        self.log.start()
        self.releases.start()

    def stop(self) -> None:
        """Stop following and write out the log; a read that hangs is not waited for."""
        self.releases.stop()
        self.log.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, live: Live, asked: AskedFor) -> Answer:
        """The best answer that can be given now, within `answer_seconds`; never raises for a broken part."""
        if asked.customer_id is None:
            return fallback_answer(live, asked, "anonymous")
        try:
            return await self._within_deadline(self._ranked, live, asked, asked.customer_id)
        except NoPersonalAnswer as error:
            reason = error.reason
        except StoreUnavailable as error:
            reason = "online_store"
            if error.__cause__ is not None:  # a read that failed, not one that the breaker spared
                logger.warning("%s", error)
        except TimeoutError:
            reason = "timeout"
            self.breaker.failed()
        except Exception as error:  # the one boundary: whatever breaks, the customer gets the next rung, flagged
            reason = "ranker"
            if self._told != (told := (live.release_id, type(error).__name__)):  # once, not at the rate of requests
                self._told = told
                logger.exception("the ranker failed; answering from the fallback")
        return fallback_answer(live, asked, reason)

    async def not_ready(self) -> list[str]:
        """Why this process should not get traffic yet; empty when it should.

        Once ready it stays ready: an online store that fails later costs personalisation, and taking every process out
        of rotation for it would turn the fallback into an outage.
        """
        live = self.releases.live
        if live is None:
            return ["no bundle is loaded"]
        if not self._was_ready:
            try:
                await self._within_deadline(self._read, live, live.bundle.warmup[0].customer_id)
            except (StoreUnavailable, TimeoutError) as error:
                return [f"the online store does not answer: {error or 'timeout'}"]
            self._was_ready = True
        return []

    def record(self, live: Live, answer: Answer) -> str:
        """Log and count an answer; returns its new id."""
        answer_id, now, manifest = uuid.uuid4().hex, self._wall(), live.bundle.manifest
        self.metrics.answered(answer, manifest.model_version)
        line = {
            "answer_id": answer_id,
            "ts": now.isoformat(),
            "customer_id": answer.customer_id,
            "model_version": manifest.model_version,
            "bundle_id": manifest.bundle_id,
            "as_of": manifest.as_of,
            "fallback_level": answer.fallback_level,
            "product_ids": [product for product, _ in answer.slate],
            "scores": [score for _, score in answer.slate],
        }
        self.log.append(now.date().isoformat(), line)
        return answer_id

    async def _within_deadline(self, call: Callable[..., T], *arguments: object) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        return await asyncio.wait_for(running, self.config.answer_seconds)

    def _ranked(self, live: Live, asked: AskedFor, customer_id: str) -> Answer:
        with self.breaker:
            features = self._reader(live).read(customer_id)
        if features is None:
            return fallback_answer(live, asked, "unknown_customer")
        return personal_answer(live, asked, features, self.config.max_feature_lag)

    def _read(self, live: Live, customer_id: str) -> None:
        with self.breaker:
            self._reader(live).read(customer_id)

    def _reader(self, live: Live) -> OnlineFeatures:
        names = live.bundle.features.customer
        if names not in self._readers:
            with self._connecting:
                if names not in self._readers:
                    self._readers[names] = self._connect(names)
        return self._readers[names]

    def _swapped(self, live: Live) -> None:
        self.metrics.swapped(live)
        self._pool.submit(self._read, live, live.bundle.warmup[0].customer_id)  # opens the store before a customer asks

    def _refused(self, release: Release, reason: str) -> None:
        self.metrics.refusals.inc()
