"""From a source to the lake: landing batches as received, then admitting the rows that keep the rules.

Both work on any number of consecutive days in bounded memory: days are taken in groups, each group is one commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow

from pipeline_assets.resources.lake import BATCHES, Lake, digest, in_days
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS, ValidationPolicy, Verdict, validate
from pipeline_assets.sources.base import Source


@dataclass(frozen=True)
class Batch:
    """One landed day of one feed. `batch_id` identifies the content: the same content has the same id."""

    feed: str
    event_date: date
    batch_id: str
    rows: int
    digest: str


def groups(days: Sequence[date], size: int) -> Iterator[list[date]]:
    """Consecutive days, at most `size` together; a gap starts a new group."""
    current: list[date] = []
    for day in sorted(days):
        if current and (len(current) == size or (day - current[-1]).days > 1):
            yield current
            current = []
        current.append(day)
    if current:
        yield current


def combined(digests: Sequence[str]) -> str:
    """One digest for several days, for the data version of a range run."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def land_days(
    source: Source, lake: Lake, feed: Feed, days: Sequence[date], run_id: str, recorded_at: datetime
) -> list[Batch]:
    """Copy `days` of a feed from the source to `raw/<feed>` as received, one immutable batch a day.

    Raises:
        SourceError, SchemaError: from the source; the days of that group are left as they were.
    """
    batches: list[Batch] = []
    for group in groups(days, feed.days_at_once):
        rows = source.read(feed, group)
        landed = []
        for day in group:
            of_day = in_days(rows, day)
            content = digest(of_day)
            landed.append(Batch(feed.name, day, f"{feed.name}-{day}-{content[:12]}", len(of_day), content))
        lake.replace_days(f"raw/{feed.name}", rows, group, run_id)
        ledger = [{**vars(batch), "run_id": run_id, "recorded_at": recorded_at} for batch in landed]
        lake.append(BATCHES, pyarrow.Table.from_pylist(ledger))
        batches += landed
    return batches


def _quarantine(feed: Feed, quarantined: pyarrow.Table, run_id: str) -> pyarrow.Table:
    """Quarantined rows as stored: the values as received, the rule, the reason, and where they came from."""
    schema = pyarrow.schema(
        [*feed.arrow_schema, *((name, pyarrow.string()) for name in (PARSE_ERRORS, "rule", "reason"))]
    )
    rows = quarantined.cast(schema)
    for name, value in (("source", f"raw/{feed.name}"), ("run_id", run_id)):
        rows = rows.append_column(name, pyarrow.array([value] * len(rows), pyarrow.string()))
    return rows


def admit_days(
    lake: Lake, feed: Feed, days: Sequence[date], policy: ValidationPolicy, run_id: str, recorded_at: datetime
) -> tuple[list[Verdict], list[str]]:
    """Validate `raw/<feed>` into `validated/<feed>` and `quarantine/<feed>`, then record one verdict per day.

    The verdict is recorded last, so a crash leaves days without one, which nobody reads. Days that are blocked keep no
    row in either table; they stay whole in raw.

    Returns:
        The verdicts and the content digest of each day of `validated/<feed>`, both in day order.
    """
    verdicts: list[Verdict] = []
    digests: list[str] = []
    for group in groups(days, feed.days_at_once):
        rows = lake.read(f"raw/{feed.name}", group[0], group[-1])
        result = validate(feed, rows, group, policy)
        lake.replace_days(f"validated/{feed.name}", result.valid, group, run_id)
        lake.replace_days(f"quarantine/{feed.name}", _quarantine(feed, result.quarantined, run_id), group, run_id)
        lake.record_verdicts(result.verdicts, run_id, recorded_at)
        verdicts += result.verdicts
        digests += [digest(in_days(result.valid, day), sort_by=feed.key) for day in group]
    return verdicts, digests
