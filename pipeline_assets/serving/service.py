"""One serving process: the live bundle, the online store, the pool that waits for it, the log and the metrics.

Belongs here: calling the ladder with a deadline and turning failures into flagged fallbacks. Does not: HTTP.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from pipeline_assets.serving.answers import (
    Answer,
    AskedFor,
    Live,
    Moment,
    NoPersonalAnswer,
    Stage,
    fallback_answer,
    known_at,
    personal_answer,
)
from pipeline_assets.serving.behaviour import Event
from pipeline_assets.serving.breaker import Breaker, StoreUnavailable
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.live import Releases
from pipeline_assets.serving.metrics import Metrics
from pipeline_assets.serving.online import CustomerFeatures, OnlineFeatures, Remembered
from pipeline_assets.serving.prediction_line import answer_id, line_of, rules_digest
from pipeline_assets.serving.prediction_log import SHADOW, PredictionLog
from pipeline_assets.serving.recent import Follower, Recent
from pipeline_assets.serving.release_state import Release
from pipeline_assets.serving.shadow import Job, Shadow

logger = logging.getLogger(__name__)
T = TypeVar("T")
CANDIDATE_FAULTS = ("ranker",)  # the model's own; a store that fails or hangs hits both arms
Connect = Callable[[Sequence[str]], OnlineFeatures]  # customer feature names of the live bundle -> a reader of them


class Laps:
    """How long the stages of one answer took: called at the end of each. A read that waits for a thread of the pool waits within `features`."""

    __slots__ = ("_at", "_clock", "stages")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._at = clock, clock()
        self.stages: list[tuple[Stage, float]] = []

    def __call__(self, stage: Stage) -> None:
        now = self._clock()
        self.stages.append((stage, now - self._at))
        self._at = now


class Service:
    """Everything but HTTP.

    Args:
        connect: opens the online store for a list of customer features; called again if a new bundle wants others.
        wall: aware wall clock; monotonic: seconds.
    """

    def __init__(
        self, config: ServingConfig, connect: Connect, wall: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self.config, self._connect, self.wall, self._monotonic = config, connect, wall, monotonic
        self.metrics = Metrics(wall)
        self.breaker = Breaker(config.breaker_failures, config.breaker_seconds, monotonic)
        self.releases = Releases(
            config.release_url,
            config.public_keys,
            poll_seconds=config.poll_seconds,
            retry_refused_seconds=config.retry_refused_seconds,
            clock=monotonic,
            wall=wall,
            name=f"server {socket.gethostname()}:{os.getpid()}",
            on_swap=self._swapped,
            on_refusal=self._refused,
        )
        self.metrics.rollout_share.set_function(lambda: t.rollout.state.share if (t := self.releases.trial) else 0.0)
        self.metrics.poll_age.set_function(lambda: monotonic() - self.releases.looked_at)
        self.log = PredictionLog(config.log_dir, config.log_queue_lines, self.metrics.log_dropped.inc)
        self.shadow_log = PredictionLog(config.log_dir / SHADOW, config.log_queue_lines, self.metrics.log_dropped.inc)
        self.shadow = Shadow(self.shadow_log, self._again, wall, monotonic, self.metrics.shadow_dropped.inc)
        self.recent = Recent(config.events_in_memory, config.events_per_customer)
        self.follower = Follower(
            config.events_url or f"sqlite:///{config.log_dir / 'events.db'}",
            self.recent,
            config.follow_seconds,
            config.retention,
            wall,
            monotonic,
        )
        self.metrics.recent_events.set_function(lambda: self.recent.count)
        self.metrics.events_poll_age.set_function(lambda: monotonic() - self.follower.looked_at)
        self._rules_digest = rules_digest(config.rules)
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="answer")
        self._readers: dict[tuple[str, ...], Remembered] = {}
        self._connecting = threading.Lock()
        self._opening: Future[None] | None = None
        self._was_ready = False
        self._told = (-1, "")  # release and error type of the last ranker failure that was logged

    def start(self) -> None:
        """Start the log writers, the shadow and the release follower."""
        self.log.start()
        self.shadow_log.start()
        self.shadow.start()
        self.releases.start()
        self.follower.start()

    def wait_until_warm(self) -> None:
        """Wait for the first look at releases and events, and for the online store, for at most `start_seconds`.

        Before that nobody should listen: a worker that takes the place of a killed one would answer its share with 503.
        """
        end = self._monotonic() + self.config.start_seconds
        for looked in (self.releases.looked, self.follower.looked):
            looked.wait(max(0.0, end - self._monotonic()))
        if self._opening is not None:
            wait([self._opening], max(0.0, end - self._monotonic()))

    def stop(self) -> None:
        """Stop following and write out the log; a read that hangs is not waited for."""
        self.releases.stop()
        self.follower.stop()
        self.shadow.stop()
        self.log.close()
        self.shadow_log.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def answer(self, live: Live, asked: AskedFor) -> tuple[Live, Answer]:
        """The best answer that can be given now, within `answer_seconds`, and what it was computed from; never raises for a broken part.

        A candidate that fails costs its customer nothing: what is stable answers, and the failure is the candidate's.
        """
        started, arm, laps = self._monotonic(), live.arm, Laps(self._monotonic)
        answer = await self._attempt(live, asked, laps)
        failed = answer.reason if arm == "canary" and answer.reason in CANDIDATE_FAULTS else ""
        if failed:
            self.metrics.candidate_failures.inc()
            self.releases.candidate_failed(live, failed)
            live, laps = self.releases.live or live, Laps(self._monotonic)
            answer = await self._attempt(live, asked, laps)
        elif arm == "canary":
            self.releases.candidate_answered()
        milliseconds, stages = (self._monotonic() - started) * 1e3, tuple(laps.stages)
        return live, replace(answer, arm=arm, failed=failed, latency_ms=milliseconds, stages=stages)

    async def _attempt(self, live: Live, asked: AskedFor, laps: Laps) -> Answer:
        moment = self._moment(live, asked.customer_id)
        if asked.customer_id is None:
            return fallback_answer(live, asked, "anonymous", moment)
        try:
            reader = self._readers.get(live.bundle.features.customer)
            if reader is not None and (features := reader.recall(asked.customer_id)) is not None:
                laps("features")  # nothing to wait for
                return personal_answer(live, asked, features, self.config.max_feature_lag, moment, laps)
            return await self._within_deadline(self._ranked, live, asked, asked.customer_id, moment, laps)
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
        return fallback_answer(live, asked, reason, moment)

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

    def record(self, live: Live, asked: AskedFor, answer: Answer) -> str:
        """Log and count an answer, and let the other model of a rollout rank a share of the requests; returns the answer's new id."""
        chance, now = uuid.uuid4().hex, self.wall()
        identifier = answer_id(now, chance)
        self.metrics.answered(answer, live.bundle.manifest.model_version)
        self.log.append(now.date().isoformat(), line_of(live, asked, answer, identifier, now, self._rules_digest))
        trial, is_drawn = self.releases.trial, int(chance[-8:], 16) / 2**32 < self.config.shadow_share
        if trial is not None and is_drawn and answer.features is not None and not answer.failed:
            is_candidate = answer.arm == "stable"
            other = trial.candidate if is_candidate else self.releases.live or live
            self.shadow.put(Job(identifier, asked, answer, other, is_candidate))
        return identifier

    def features_of(self, live: Live, customer_id: str) -> CustomerFeatures | None:
        """A customer's features as the online store has them now; None if it does not answer."""
        try:
            with self.breaker:
                return self._reader(live).read(customer_id)
        except StoreUnavailable:
            return None

    def _again(self, job: Job) -> Answer:
        shown = job.shown
        assert shown.features is not None, "only ranked answers are ranked again"
        assert shown.moment is not None, "an answer has its moment"
        asked = replace(job.asked, explain=False)
        return personal_answer(job.other, asked, shown.features, self.config.max_feature_lag, shown.moment)

    async def _within_deadline(self, call: Callable[..., T], *arguments: object) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)
        return await asyncio.wait_for(running, self.config.answer_seconds)

    def _moment(self, live: Live, customer_id: str | None) -> Moment:
        """Now, for this customer. On a replayed calendar the shop's day is the one after the bundle's."""
        now, zone = self.wall(), self.config.time_zone
        today = now.astimezone(zone).date() if zone else known_at(live.as_of).date()
        return Moment(now, today, self.config.rules, self._recently(customer_id, now))

    def _recently(self, customer_id: str | None, now: datetime) -> tuple[Event, ...]:
        found = self.recent.of(customer_id)
        return tuple(event for event in found if event.at >= now - self.config.retention) if found else found

    def _ranked(self, live: Live, asked: AskedFor, customer_id: str, moment: Moment, laps: Laps) -> Answer:
        with self.breaker:
            features = self._reader(live).read(customer_id)
        laps("features")
        if features is None:
            return fallback_answer(live, asked, "unknown_customer", moment)
        return personal_answer(live, asked, features, self.config.max_feature_lag, moment, laps)

    def _read(self, live: Live, customer_id: str) -> None:
        with self.breaker:
            self._reader(live).read(customer_id)

    def _reader(self, live: Live) -> Remembered:
        names = live.bundle.features.customer
        if names not in self._readers:
            with self._connecting:
                if names not in self._readers:
                    lately = self.config.remember_seconds, self.config.remember_customers
                    self._readers[names] = Remembered(self._connect(names), *lately, self._monotonic)
        return self._readers[names]

    def _swapped(self, live: Live) -> None:
        self.metrics.swapped(live)
        gc.freeze()  # a full collection walks 200,000 objects of a bundle: 15 % of the CPU, and pauses (measured)
        # opens the store before a customer asks
        self._opening = self._pool.submit(self._read, live, live.bundle.warmup[0].customer_id)

    def _refused(self, release: Release, reason: str) -> None:
        self.metrics.refusals.inc()
