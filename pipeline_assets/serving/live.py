"""From the release table to what is served: poll, probe in a child, load, swap.

Belongs here: hot swap and its refusals. Does not: answering requests. A refused release leaves the old one in service.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from pipeline_assets.recommender.bundle import load_bundle
from pipeline_assets.recommender.columns import CUSTOMER_ID, PRODUCT_ID, RANK, SCORE
from pipeline_assets.recommender.errors import BundleError, PipelineError
from pipeline_assets.recommender.signature import TrustedKeys
from pipeline_assets.serving.answers import Live, Slate
from pipeline_assets.serving.probe import ProbeReport, probe
from pipeline_assets.serving.release_state import Release, current_live, open_state

logger = logging.getLogger(__name__)
Outcome = Literal["none", "same", "swapped", "refused", "unreachable"]


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
        clock: monotonic seconds.
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
        on_swap: Callable[[Live], None],
        on_refusal: Callable[[Release, str], None],
        check: Callable[[Path, TrustedKeys], ProbeReport] = probe,
    ) -> None:
        self.live: Live | None = None
        self.looked_at = clock()  # of the last look that reached the table: its age is the dead-man's switch
        self._url, self._poll, self._retry, self._clock = url, poll_seconds, retry_refused_seconds, clock
        self._public_keys = public_keys
        self._on_swap, self._on_refusal, self._check = on_swap, on_refusal, check
        self._engine: sa.Engine | None = None
        self._refused: tuple[int, float] | None = None  # release id, when to try it again
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="releases", daemon=True)

    def start(self) -> None:
        """Begin to follow; the first look is taken at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following and close the database; waits for a look under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._engine is not None:
            self._engine.dispose()

    def refresh(self) -> Outcome:
        """Look once, and swap if another release is live and passes. The old snapshot answers meanwhile and after."""
        with self._lock:
            try:
                self._engine = self._engine or open_state(self._url)
                release = current_live(self._engine)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                logger.error("release table cannot be read: %s", error)
                return "unreachable"
            self.looked_at = self._clock()
            if release is None:
                return "none"
            if self.live is not None and release.id == self.live.release_id:
                return "same"
            if self._refused is not None and self._refused[0] == release.id and self._clock() < self._refused[1]:
                return "refused"
            try:
                live = self._load(release)
            except (PipelineError, OSError, ValueError, KeyError) as error:  # the last two: a bundle of other software
                self._refused = (release.id, self._clock() + self._retry)
                logger.error("release %s refused, the one before stays: %s", release.id, error)
                self._on_refusal(release, str(error))
                return "refused"
            self.live = live
            self._on_swap(live)
            logger.info("serving %s", live.bundle.manifest.bundle_id)
            return "swapped"

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
            self._stop.wait(self._poll)
