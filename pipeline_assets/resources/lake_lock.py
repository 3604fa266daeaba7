"""Who may be in the lake at the same time: runs beside each other, an erasure alone.

Belongs here: the lock file beside the lake. Does not: who takes it (lake.py for runs, loop.py and the verbs for what is no run, erasure.py).
`flock`: the kernel releases it when its holder ends, however that is, so no killed run can keep an erasure out, or the reverse. A reader
that comes while an erasure waits is let in: a loop's workers can never wait for their parent (docs/adr/0051-erasure.md).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_assets.recommender.errors import Busy, ConfigurationError

RUN_WAITS = 900.0  # seconds that a run waits for an erasure to end; chosen, not measured on a large shop
_LOOKS = 0.1  # seconds between two tries


@contextmanager
def shared(root: str, wait: float | None = None) -> Iterator[None]:
    """Read and write the lake at `root` beside others that do; no erasure begins before the end. A lake on an object store has no lock.

    Raises:
        Busy: an erasure did not end within `wait` seconds (None: `RUN_WAITS`).
    """
    with _held(root, fcntl.LOCK_SH, RUN_WAITS if wait is None else wait, "a run", "an erasure is in progress"):
        yield


@contextmanager
def alone(root: str, wait: float) -> Iterator[None]:
    """Nobody else is in the lake at `root`, and nobody comes in before the end.

    Raises:
        Busy: runs did not end within `wait` seconds.
        ConfigurationError: the lake is on an object store, where nobody could be kept out.
    """
    if "://" in root:
        raise ConfigurationError(
            f"lake {root}",
            found="a lake on an object store",
            wanted="a lake on a disk",
            fix="erase where it is mounted",
        )
    with _held(root, fcntl.LOCK_EX, wait, "an erasure", "a run, or a command that reads the lake, is in progress"):
        yield


@contextmanager
def _held(root: str, kind: int, wait: float, who: str, why_not: str) -> Iterator[None]:
    if "://" in root:
        yield
        return
    path, until = Path(f"{root.rstrip('/')}.lock"), time.monotonic() + wait
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Busy(
                        f"lake {root}",
                        found=f"{why_not}, and {who} has waited {wait:.0f} seconds",
                        wanted="runs and erasures one after the other",
                        fix=f"wait and start again; `fuser {path}` names the processes",
                    ) from None
                time.sleep(_LOOKS)
        yield
