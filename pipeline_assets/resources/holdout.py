"""The door to what was bought after an as-of day. Labels of any week are read through it, and reads of the holdout are counted.

Belongs here: who read which week of the holdout, what for and when. Does not: reading rows (`training_data.window_purchases`, which
wants a door), deciding what is read. A contract test knows every other place that reads purchases (contract/test_holdout_door.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

import pyarrow

from pipeline_assets.resources.lake import Lake

HOLDOUT_READS = "ledger/holdout_reads"
# Only the first two judge a model. Training and monitoring come by the holdout in operation, when its weeks are past; they are counted all the same.
Purpose = Literal["evaluation", "backtest", "tuning", "training", "rebuild", "monitoring"]
_SCHEMA = pyarrow.schema(
    [
        ("week", pyarrow.date32()),
        ("dagster_run_id", pyarrow.string()),
        ("purpose", pyarrow.string()),
        ("recorded_at", pyarrow.timestamp("us", "UTC")),
    ]
)


@dataclass(frozen=True)
class Door:
    """One reader of labels: what for, in which run, when. `holdout_start` None: nothing is held out.

    `ledger` is the lake that counts, also where rows are read from a copy of it.
    """

    ledger: Lake
    purpose: Purpose
    run_id: str
    recorded_at: datetime
    holdout_start: date | None

    def held_out(self, weeks: Sequence[date], horizon_days: int) -> list[date]:
        """Those of the as-of days whose window has a day on or after the start of the holdout."""
        start = self.holdout_start
        return [week for week in weeks if start and week + timedelta(days=horizon_days) >= start]

    def enter(self, weeks: Sequence[date], horizon_days: int) -> int:
        """Record the weeks that are about to be read, if they are of the holdout; returns how many are."""
        read = self.held_out(weeks, horizon_days)
        if read:
            rows = [
                {"week": week, "dagster_run_id": self.run_id, "purpose": self.purpose, "recorded_at": self.recorded_at}
                for week in read
            ]
            self.ledger.append(HOLDOUT_READS, pyarrow.Table.from_pylist(rows, _SCHEMA))
        return len(read)


@dataclass(frozen=True)
class Reads:
    """All reads of one week of the holdout for one purpose."""

    week: date
    purpose: str
    reads: int
    runs: int
    first: datetime
    last: datetime


def holdout_reads(lake: Lake) -> list[Reads]:
    """What the ledger says, by week and purpose; empty when the holdout was never read."""
    if not lake.exists(HOLDOUT_READS):
        return []
    found: dict[tuple[date, str], list[dict[str, Any]]] = {}
    for row in lake.read(HOLDOUT_READS).to_pylist():
        found.setdefault((row["week"], row["purpose"]), []).append(row)
    return [
        Reads(
            week,
            purpose,
            len(rows),
            len({row["dagster_run_id"] for row in rows}),
            min(row["recorded_at"] for row in rows),
            max(row["recorded_at"] for row in rows),
        )
        for (week, purpose), rows in sorted(found.items())
    ]


def counted(reads: Sequence[Reads]) -> dict[str, int]:
    """Number of reads by purpose."""
    total: Counter[str] = Counter()
    for entry in reads:
        total[entry.purpose] += entry.reads
    return dict(sorted(total.items()))
