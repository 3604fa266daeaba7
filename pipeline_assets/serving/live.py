"""From the release database to what is served: poll, probe in a child, load, swap; and who gets the model on trial.

Belongs here: hot swap and its refusals. Does not: answering requests. A refused release leaves the old one in service.
A candidate that does not load, or fails in answers, ends its rollout from here: no sensor has to be awake for that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from pipeline_assets.recommender.bundle import load_bundle
from pipeline_assets.recommender.columns import CUSTOMER_ID, PRODUCT_ID, RANK, SCORE
from pipeline_assets.recommender.errors import BundleError, PipelineError
from pipeline_assets.recommender.signature import TrustedKeys
from pipeline_assets.serving.answers import Live
from pipeline_assets.serving.probe import ProbeReport, probe
from pipeline_assets.serving.release_state import Release, open_state
from pipeline_assets.serving.rollout import ROLLED_BACK, is_canary
from pipeline_assets.serving.rollout_state import Rollout, View, advance, view
from pipeline_assets.serving.rules import Slate

logger = logging.getLogger(__name__)
Outcome = Literal["none", "same", "swapped", "refused", "unreachable"]
CANDIDATE_FAILURES = 5  # in a row in one process: a model that fails now and then is the guardrail's matter


@dataclass(frozen=True)
class Trial:
    """The model on trial, loaded."""

    rollout: Rollout
    candidate: Live


@dataclass(frozen=True)
class Refused:
    """A release that this process did not take, and when it tries again."""

    release_id: int
    until: float
    reason: str


class BatchSlates(Mapping[str, Slate]):
    """Batch recommendations by customer: three flat columns and a slice per customer, read once."""

    def __init__(self, path: Path | None) -> None:
        """Read `path` (customer_id, rank, product_id, score); None holds no customer.

        Raises:
            BundleError: the file is missing, damaged or lacks a column.
        """
        self._slices: dict[str, slice] = {}
        if path is None:
            return
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, columns=[CUSTOMER_ID, RANK, PRODUCT_ID, SCORE])
            table = table.sort_by([(CUSTOMER_ID, "ascending"), (RANK, "ascending")]).combine_chunks()
            self._products = table[PRODUCT_ID].cast(pa.large_string()).combine_chunks()
            self._scores = table[SCORE].cast(pa.float64()).combine_chunks()
            counts = pc.value_counts(table[CUSTOMER_ID].cast(pa.large_string()).combine_chunks())
        except (OSError, pa.ArrowException) as error:
            raise BundleError(
                str(path), found=str(error).splitlines()[0], wanted="batch recommendations", fix="write them again"
            ) from None
        start = 0
        for customer, n in zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True):
            self._slices[customer] = slice(start, start + n)
            start += n

    def __getitem__(self, customer_id: str) -> Slate:
        rows = self._slices[customer_id]
        return list(zip(self._products[rows].to_pylist(), self._scores[rows].to_pylist(), strict=True))

    def __contains__(self, customer_id: object) -> bool:
        return customer_id in self._slices

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._slices)

    def __len__(self) -> int:
        return len(self._slices)


class Releases:
    """The live snapshot, and the thread that follows the release table.

    Args:
        url: SQLAlchemy URL of the release table.
        public_keys: PEM files of the keys that may sign bundles, read for each one, so that a rotation needs no restart.
        on_swap: told of each new snapshot; on_refusal: of each refused release, with the reason.
        clock: monotonic seconds; wall: aware.
        name: of this process, for the audit log.
        check: the probe; replaced in tests.
    """

    def __init__(
        self,
        url: str,
        public_keys: Sequence[Path],
        *,
        poll_seconds: float,
        retry_refused_seconds: float,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        name: str,
        on_swap: Callable[[Live], None],
        on_refusal: Callable[[Release, str], None],
        check: Callable[[Path, TrustedKeys], ProbeReport] = probe,
    ) -> None:
        self.live: Live | None = None
        self.trial: Trial | None = None
        self.looked_at = clock()  # of the last look that reached the table: its age is the dead-man's switch
        self._url, self._poll, self._retry, self._clock = url, poll_seconds, retry_refused_seconds, clock
        self._public_keys = public_keys
        self._wall, self._name = wall, name
        self._failures = 0  # of the candidate, in a row
        self._to_report: tuple[Rollout, str] | None = None  # a rollout that this process has to end, and why
        self._on_swap, self._on_refusal, self._check = on_swap, on_refusal, check
        self._engine: sa.Engine | None = None
        self._refused: Refused | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.looked = threading.Event()  # once, whatever was found
        self._thread = threading.Thread(target=self._follow, name="releases", daemon=True)

    def start(self) -> None:
        """Begin to follow; the first look is taken at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following and close the database; waits for a look under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the database; the next look opens it again."""
        if self._engine is not None:
            self._engine.dispose()

    def live_for(self, customer_id: str | None) -> Live | None:
        """What answers a customer: the candidate for its share of them, else what is live. Visitors who are not known get the latter."""
        live, trial = self.live, self.trial
        if trial is None or customer_id is None or live is None:
            return live
        rollout = trial.rollout
        return trial.candidate if is_canary(customer_id, rollout.id, rollout.salt, rollout.state.share) else live

    def candidate_answered(self) -> None:
        """The candidate ranked: its failures are not in a row."""
        self._failures = 0

    def candidate_failed(self, live: Live, reason: str) -> None:
        """Count a failure of the candidate; after five in a row nobody is sent to it, and the next look ends its rollout."""
        self._failures += 1
        trial = self.trial
        if self._failures >= CANDIDATE_FAILURES and trial is not None and trial.candidate is live:
            self._to_report = (trial.rollout, f"{self._failures} failures in a row in one process: {reason}")
            self._settle(None)

    def refresh(self) -> Outcome:
        """Look once, and swap if another release is live and passes. The old snapshot answers meanwhile and after."""
        with self._lock:
            try:
                self._engine = self._engine or open_state(self._url)
                self._report(self._engine)
                now = view(self._engine)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                logger.error("release table cannot be read: %s", error)
                return "unreachable"
            self.looked_at = self._clock()
            outcome = self._follow_live(now)
            self._follow_candidate(now)
            return outcome

    def _follow_live(self, now: View) -> Outcome:
        release = now.live
        if release is None:
            return "none"
        if self.live is not None and release.id == self.live.release_id:
            return "same"
        trial = self.trial
        if trial is not None and trial.candidate.release_id == release.id:
            live: Live | None = replace(trial.candidate, arm="stable", rollout_id=None)
        else:
            live = self._checked(release)
        if live is None:
            return "refused"
        self.live = live
        self._on_swap(live)
        logger.info("serving %s", live.bundle.manifest.bundle_id)
        return "swapped"

    def _follow_candidate(self, now: View) -> None:
        rollout, release, trial = now.rollout, now.candidate, self.trial
        if rollout is None or release is None or self.live is None:
            self._settle(None)
        elif trial is not None and trial.candidate.release_id == release.id:
            self._settle(replace(trial, rollout=rollout))
        elif self._to_report is None:
            candidate = self._checked(release)
            if candidate is not None:
                self._failures = 0
                self._settle(Trial(rollout, replace(candidate, arm="canary", rollout_id=rollout.id)))
                logger.info("on trial: %s", candidate.bundle.manifest.bundle_id)
            elif self._refused is not None:
                self._settle(None)
                self._to_report = (rollout, f"refused by a server: {self._refused.reason}")

    def _settle(self, trial: Trial | None) -> None:
        """Take a trial into service, or end it; the stable arm's answers say of which rollout they are part."""
        self.trial = trial
        rollout_id = trial.rollout.id if trial else None
        if self.live is not None and self.live.rollout_id != rollout_id:
            self.live = replace(self.live, rollout_id=rollout_id)

    def _report(self, engine: sa.Engine) -> None:
        """End a rollout whose candidate this process cannot serve."""
        if self._to_report is not None:
            rollout, reason = self._to_report
            now = view(engine).rollout  # its revision may have moved on; it is the same rollout that is ended
            if now is not None and now.id == rollout.id:
                advance(engine, now, ROLLED_BACK, reason, actor=self._name, at=self._wall())
            self._to_report = None

    def _checked(self, release: Release) -> Live | None:
        """The loaded release, None when it was refused (now, or a short while ago)."""
        refused = self._refused
        if refused is not None and refused.release_id == release.id and self._clock() < refused.until:
            return None
        try:
            return self._load(release)
        except (PipelineError, OSError, ValueError, KeyError) as error:  # the last two: a bundle of other software
            self._refused = Refused(release.id, self._clock() + self._retry, str(error))
            logger.error("release %s refused, the one before stays: %s", release.id, error)
            self._on_refusal(release, str(error))
            return None

    def _load(self, release: Release) -> Live:
        directory, trusted = Path(release.bundle_path), TrustedKeys.read(self._public_keys)
        report = self._check(directory, trusted)
        if not report.accepted:
            raise BundleError(
                release.bundle_path,
                found=report.reason,
                wanted="a bundle that passes its probe",
                fix="release another bundle",
            )
        bundle = load_bundle(directory, trusted)
        path = Path(release.recommendations_path) if release.recommendations_path else None
        return Live(release.id, bundle, BatchSlates(path))

    def _follow(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self.looked.set()
            self._stop.wait(self._poll)
