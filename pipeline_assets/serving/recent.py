"""What a worker remembers of its customers' recent events, and the thread that follows the event table.

Belongs here: memory and following. Does not: the table (event_store), what an event does to an answer (behaviour).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa

from pipeline_assets.serving.behaviour import Event
from pipeline_assets.serving.event_store import after, open_events, purge

logger = logging.getLogger(__name__)
ROWS_AT_ONCE = 5_000
PURGE_SECONDS = 3_600.0


class Recent:
    """The newest events of each customer, bounded in all: who was quiet longest is forgotten first.

    One thread adds, any thread reads: a customer's events are a tuple that is replaced, never changed.
    """

    def __init__(self, most: int, per_customer: int) -> None:
        self._most, self._per_customer = most, per_customer
        self._by_customer: OrderedDict[str, tuple[Event, ...]] = OrderedDict()
        self.count = 0

    def add(self, events: Iterable[Event]) -> None:
        """Remember events, each id once; their order of arrival makes no difference."""
        for event in events:
            before = self._by_customer.get(event.customer_id, ())
            kept = sorted((*before, event), key=lambda known: (known.at, known.event_id))[-self._per_customer :]
            self._by_customer[event.customer_id] = tuple(kept)
            self._by_customer.move_to_end(event.customer_id)
            self.count += len(kept) - len(before)
        while self.count > self._most:
            _, forgotten = self._by_customer.popitem(last=False)
            self.count -= len(forgotten)

    def of(self, customer_id: str | None) -> tuple[Event, ...]:
        """Events of a customer, oldest first."""
        return self._by_customer.get(customer_id, ()) if customer_id is not None else ()


class Follower:
    """Brings new rows of the event table into memory; also removes what is too old, once an hour.

    A table that cannot be read leaves the memory as it is: answers go on with what is known.

    Args:
        seconds: between two looks; `nudge` asks for one at once.
        wall: aware wall clock; monotonic: seconds.
    """

    def __init__(
        self,
        url: str,
        recent: Recent,
        seconds: float,
        retention: timedelta,
        wall: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._url, self._recent, self._seconds, self._retention = url, recent, seconds, retention
        self._wall, self._monotonic = wall, monotonic
        self.looked_at = monotonic()  # of the last look that reached the table
        self._engine: sa.Engine | None = None
        self._opening, self._looking = threading.Lock(), threading.Lock()
        self._last_id = 0
        self._purge_at = monotonic()
        self._fails = False
        self._stopping = False
        self._wake = threading.Event()
        self.looked = threading.Event()  # once, whatever was found
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)

    def start(self) -> None:
        """Begin to follow; the first look is taken at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following and close the database."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._engine is not None:
            self._engine.dispose()

    def nudge(self) -> None:
        """Look now."""
        self._wake.set()

    def engine(self) -> sa.Engine:
        """The table, opened when it is first wanted.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: it cannot be reached.
        """
        with self._opening:
            self._engine = self._engine or open_events(self._url)
            return self._engine

    def look(self) -> int:
        """Take all rows that are new; returns how many, or -1 if the table cannot be read."""
        with self._looking:
            try:
                found = self._take()
                self._purge()
            except (sa.exc.SQLAlchemyError, OSError) as error:
                if not self._fails:  # once, not twice a second
                    logger.error("recent events cannot be read, going on with what is known: %s", error)
                self._fails = True
                return -1
            self._fails = False
            self.looked_at = self._monotonic()
            return found

    def _take(self) -> int:
        found = 0
        while rows := after(self.engine(), self._last_id, ROWS_AT_ONCE):
            oldest = self._wall() - self._retention
            self._recent.add(event for _, event in rows if event.at >= oldest)
            self._last_id = rows[-1][0]
            found += len(rows)
        return found

    def _purge(self) -> None:
        if self._monotonic() >= self._purge_at:
            self._purge_at = self._monotonic() + PURGE_SECONDS
            purge(self.engine(), self._wall() - self._retention)

    def _follow(self) -> None:
        while not self._stopping:
            self.look()
            self.looked.set()
            self._wake.wait(self._seconds)
            self._wake.clear()
