"""Leave an online store that fails or hangs alone for a while, so that answers stay fast."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from pipeline_assets.recommender.errors import PipelineError


class StoreUnavailable(PipelineError):
    """The online store failed, or has failed so often that it is not asked."""


class Breaker:
    """Wrap each read in `with breaker:`. After `failures` failed reads in a row it refuses for `seconds`, then lets
    reads through again; the first failure of those refuses again.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float]) -> None:
        self._limit, self._seconds, self._clock = failures, seconds, clock
        self._lock = threading.Lock()
        self._failed = 0
        self._open_until = float("-inf")

    @property
    def is_open(self) -> bool:
        return self._clock() < self._open_until

    def failed(self) -> None:
        """Count a failed read (also called for one that did not come back in time)."""
        with self._lock:
            self._failed += 1
            if self._failed >= self._limit:
                self._open_until = self._clock() + self._seconds

    def __enter__(self) -> Breaker:
        if self.is_open:
            raise StoreUnavailable(
                "online store", found=f"{self._failed} failures in a row", wanted="an answer", fix="restore the store"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._failed = 0
            return
        self.failed()
        raise StoreUnavailable(
            "online store", found=f"{type(error).__name__}: {error}", wanted="an answer", fix="restore the store"
        ) from error
