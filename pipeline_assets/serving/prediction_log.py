"""One JSON line per answer, appended by a background thread to <folder>/<YYYY-MM-DD>.jsonl (UTC day of the answer).

Belongs here: writing lines without making an answer wait. Does not: what a line means (service), reading it.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 0.5  # what a killed process loses at most: the answers of this time, and of one write
SHADOW = "shadow"  # folder beside the answers: what was computed and never given


class PredictionLog:
    """A bounded queue and one writer. A full queue or a full disk loses lines and counts them; answers go on.

    Each flush is one append per file, so several processes can share a folder without mixing lines.

    Args:
        folder: created if missing.
        dropped: told how many lines were lost.
    """

    def __init__(self, folder: Path, max_lines: int, dropped: Callable[[int], None]) -> None:
        self._folder, self._dropped = folder, dropped
        self._queue: queue.Queue[tuple[str, Mapping[str, Any]]] = queue.Queue(max_lines)
        self._closing, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._write, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def append(self, day: str, line: Mapping[str, Any]) -> None:
        """Queue a line for the file of `day` 'YYYY-MM-DD'; never waits."""
        try:
            self._queue.put_nowait((day, line))
        except queue.Full:
            self._dropped(1)

    def close(self) -> None:
        """Write what is queued, then stop."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Write what is queued now, and wait for a write under way."""
        with self._writing:
            self._flush(self._drain())

    def _write(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            self.flush()

    def _drain(self) -> list[tuple[str, Mapping[str, Any]]]:
        lines = []
        while True:
            try:
                lines.append(self._queue.get_nowait())
            except queue.Empty:
                return lines

    def _flush(self, lines: list[tuple[str, Mapping[str, Any]]]) -> None:
        days: dict[str, list[str]] = {}
        for day, line in lines:
            days.setdefault(day, []).append(json.dumps(line) + "\n")
        for day, texts in days.items():
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with (self._folder / f"{day}.jsonl").open("ab", buffering=0) as stream:
                    rest = memoryview("".join(texts).encode())
                    while rest:
                        rest = rest[stream.write(rest) :]
            except OSError as error:
                logger.error("prediction log of %s: %d lines lost: %s", day, len(texts), error)
                self._dropped(len(texts))
