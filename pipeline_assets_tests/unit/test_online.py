"""Features that were read lately are not read again; how long lately is, and how many are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from pipeline_assets.serving.online import CustomerFeatures, Remembered


@dataclass
class Store:
    """Knows every customer but `stranger`; a new row each time."""

    asked: list[str] = field(default_factory=list)

    def read(self, customer_id: str) -> CustomerFeatures | None:
        self.asked.append(customer_id)
        if customer_id == "stranger":
            return None
        return CustomerFeatures([], b"", np.array([len(self.asked)], np.float32), datetime(2017, 11, 6, tzinfo=UTC))


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_row_counts_for_the_seconds_that_were_said() -> None:
    """Read at 100 s and kept for 30 s: there at 129.9 s, gone at 130 s; a new read begins anew."""
    clock = Clock()
    remembered = Remembered(Store(), 30.0, 10, clock)
    first = remembered.read("c1")
    assert first is not None
    clock.seconds = 129.9
    assert remembered.recall("c1") is first
    clock.seconds = 130.0
    assert remembered.recall("c1") is None
    second = remembered.read("c1")
    assert remembered.recall("c1") is second is not first


def test_a_read_asks_the_store_each_time() -> None:
    """Only `recall` answers from memory, so readiness and the breaker see the store."""
    store = Store()
    remembered = Remembered(store, 30.0, 10, Clock())
    remembered.read("c1")
    remembered.read("c1")
    assert store.asked == ["c1", "c1"]


def test_nothing_is_remembered_of_a_stranger() -> None:
    """A customer whose features are published a moment later is seen at once."""
    remembered = Remembered(Store(), 30.0, 10, Clock())
    assert remembered.read("stranger") is None
    assert remembered.recall("stranger") is None


def test_zero_seconds_remember_nothing() -> None:
    """The default."""
    remembered = Remembered(Store(), 0.0, 10, Clock())
    remembered.read("c1")
    assert remembered.recall("c1") is None


def test_the_oldest_row_leaves_first() -> None:
    """Room for two: a, b, then a again, then c; b is the one that was read longest ago."""
    remembered = Remembered(Store(), 30.0, 2, Clock())
    for customer in ("a", "b", "a", "c"):
        remembered.read(customer)
    assert [remembered.recall(customer) is not None for customer in ("a", "b", "c")] == [True, False, True]
