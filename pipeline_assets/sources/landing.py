"""From a source to the lake: landing batches as received, then admitting the rows that keep the rules.

Write, audit, publish: `raw/<feed>` is where a batch is staged, and only `validated/<feed>` reads it. Both steps work on any
number of days in bounded memory: days are taken in groups of about `ROWS_AT_ONCE` rows, each group is one commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta

import pyarrow

from pipeline_assets.resources.content import contents, in_order
from pipeline_assets.resources.erased import Erased
from pipeline_assets.resources.lake import BATCHES, Lake
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS, ValidationPolicy, Verdict, validate
from pipeline_assets.sources.base import Source, extra_columns, refuse_extra_columns
from pipeline_assets.sources.batch import Batch, LandedBatch
from pipeline_assets.sources.history import read_history, unsettled

# More rows cost more memory and hardly less CPU time (benchmarks/small.py; figures in benchmarks/results/scale.md). A larger day is taken alone.
ROWS_AT_ONCE = 700_000
FIRST_DAYS = 7  # read before anything is known of a day's size
_LEDGER = pyarrow.schema(
    [
        ("feed", pyarrow.string()),
        ("event_date", pyarrow.date32()),
        ("batch_id", pyarrow.string()),
        ("rows", pyarrow.int64()),
        ("digest", pyarrow.string()),
        ("extra_columns", pyarrow.list_(pyarrow.string())),
        ("run_id", pyarrow.string()),
        ("recorded_at", pyarrow.timestamp("us", "UTC")),
    ]
)
BLOCKED = "blocked"  # data version of a day that nobody may read


def landed_batches(lake: Lake, feed: Feed, first: date, last: date) -> dict[date, LandedBatch]:
    """The newest batch of each day from `first` to `last` that was ever landed."""
    if not lake.exists(BATCHES):
        return {}
    newest: dict[date, LandedBatch] = {}
    for row in lake.read(BATCHES, first, last).sort_by("recorded_at").to_pylist():
        if row.pop("feed") == feed.name:
            del row["run_id"]
            row["extra_columns"] = tuple(row.get("extra_columns") or ())  # an older ledger has none
            newest[row["event_date"]] = LandedBatch(feed.name, **row)
    return newest


def unjudged(lake: Lake, feed: Feed, first: date, last: date) -> list[date]:
    """Days whose verdict is about an older batch than the newest that was landed: a run was killed in between, and nothing else would
    come back to a day that had a verdict before."""
    landed, judged = landed_batches(lake, feed, first, last), lake.verdicts(feed.name, first, last)
    known = {day: verdict.batch_id for day, verdict in judged.items() if verdict.batch_id}  # an older ledger has none
    return sorted(day for day, batch in landed.items() if known.get(day, batch.batch_id) != batch.batch_id)


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


def groups_of_rows(days: Sequence[date], rows: Mapping[date, int], at_once: int) -> Iterator[list[date]]:
    """Days in order, at most `at_once` rows together; a day that has more is alone."""
    current: list[date] = []
    held = 0
    for day in sorted(days):
        if current and held + rows.get(day, 0) > at_once:
            yield current
            current, held = [], 0
        current.append(day)
        held += rows.get(day, 0)
    if current:
        yield current


def land_days(
    source: Source,
    lake: Lake,
    feed: Feed,
    days: Sequence[date],
    run_id: str,
    recorded_at: datetime,
    rows_at_once: int = ROWS_AT_ONCE,
    refuse_extra: bool = False,
) -> list[Batch]:
    """Copy `days` of a feed from the source to `raw/<feed>` as received, one immutable batch a day.

    How many days are read next follows from the size of those before: of all of them, because feeds come in weekly bursts, or of the
    last ones where these are larger. Rows of customers who were erased are dropped before anything is written; the batch's digest is of
    what was delivered, so that a source is not taken for corrected because of them.

    Raises:
        SourceError, SchemaError: from the source; the days of that group are left as they were.
        SchemaError: columns that the contract does not have, with `refuse_extra`.
    """
    batches: list[Batch] = []
    waiting, size, erased = sorted(days), FIRST_DAYS, Erased(lake)
    seen_days, seen_rows = 0, 0
    while waiting:
        group = next(groups(waiting, size))
        waiting = waiting[len(group) :]
        delivered = source.read(feed, group)
        extra = extra_columns(delivered)
        if refuse_extra:
            refuse_extra_columns(extra, f"{feed.name} of {group[0]}..{group[-1]}")
        received = in_order(delivered, feed.key).replace_schema_metadata(None)
        rows = erased.without(received)
        content = lake.replace_days(f"raw/{feed.name}", rows, group, run_id)
        as_received = contents(received, group) if len(rows) < len(received) else content
        landed = [
            Batch(
                feed.name,
                day,
                f"{feed.name}-{day}-{found.digest[:12]}",
                found.rows,
                as_received[day].digest,
                extra_columns=tuple(extra),
                erased_rows=as_received[day].rows - found.rows,
            )
            for day, found in content.items()
        ]
        ledger = [{**vars(batch), "run_id": run_id, "recorded_at": recorded_at} for batch in landed]
        lake.append(BATCHES, pyarrow.Table.from_pylist(ledger, _LEDGER))
        batches += landed
        seen_days, seen_rows = seen_days + len(group), seen_rows + len(rows)
        rows_a_day = max(seen_rows / seen_days, len(rows) / len(group))
        size = max(1, min(len(days), int(rows_at_once / rows_a_day))) if rows_a_day else len(days)
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


def _published_before(lake: Lake, feed: Feed, blocked: Sequence[Verdict]) -> list[date]:
    """Blocked days whose rows in `validated` are of the very batch that is blocked: its rows break
    the same rules as when it passed, before its history was there."""
    if not blocked:
        return []
    days = [verdict.event_date for verdict in blocked]
    passed, stored = lake.verdicts(feed.name, min(days), max(days), "passed"), lake.days(f"validated/{feed.name}")
    same = [v for v in blocked if v.event_date in stored and v.event_date in passed]
    same = [v for v in same if (passed[v.event_date].batch_id, passed[v.event_date].rules) == (v.batch_id, v.rules)]
    return [v.event_date for v in same]


def _admit(
    lake: Lake, feed: Feed, days: Sequence[date], policy: ValidationPolicy, run_id: str, recorded_at: datetime
) -> tuple[list[Verdict], dict[date, str]]:
    """One group of days of `admit_days`; the digests of the days that passed."""
    raw, valid, aside = (f"{layer}/{feed.name}" for layer in ("raw", "validated", "quarantine"))
    inputs, digests = {raw: lake.version(raw)}, dict[date, str]()
    result = validate(feed, lake.read_days(raw, days), days, policy, read_history(lake, feed, days, policy))
    passed = [verdict.event_date for verdict in result.verdicts if verdict.status == "passed"]
    blocked = [verdict for verdict in result.verdicts if verdict.status != "passed"]
    lake.record_verdicts(blocked, run_id, recorded_at)  # before anything else: from here on nobody reads these days
    broken = in_order(_quarantine(feed, result.quarantined, run_id), feed.key)
    lake.replace_days(aside, broken, days, run_id, inputs=inputs)
    if withdrawn := _published_before(lake, feed, blocked):
        lake.replace_days(valid, feed.arrow_schema.empty_table(), withdrawn, run_id, inputs=inputs)
    if passed:
        rows = in_order(result.valid, feed.key)
        content = lake.replace_days(valid, rows, passed, run_id, inputs=inputs)
        digests = {day: found.digest for day, found in content.items()}
    lake.record_verdicts([v for v in result.verdicts if v.status == "passed"], run_id, recorded_at)
    return list(result.verdicts), digests


def admit_days(
    lake: Lake,
    feed: Feed,
    days: Sequence[date],
    policy: ValidationPolicy,
    run_id: str,
    recorded_at: datetime,
    rows_at_once: int = ROWS_AT_ONCE,
) -> tuple[list[Verdict], list[str]]:
    """Validate `raw/<feed>`, publish `validated/<feed>` and `quarantine/<feed>`, and record one verdict per day.

    No reader sees a bad or half batch, at no moment. A blocked verdict is recorded first, and `validated` keeps the last good
    rows under it, if they are of another batch; a passed one last, after the rows are published in one commit. A crash in between leaves a day without a
    verdict or with the one it had, over rows that were audited; the same days again give the same content.

    A later day that was judged before `days` were known, and would be judged otherwise now, is admitted again, so that the
    order in which days are validated does not matter (docs/adr/0015-batch-rules.md).

    Returns:
        The verdicts and the content digest of each day of `validated/<feed>`, both in day order, `BLOCKED` for a blocked day;
        behind them those of days that were judged again.
    """
    verdicts: list[Verdict] = []
    digests: dict[date, str] = {}
    lake.create(f"validated/{feed.name}", feed.arrow_schema)
    rows_of = lake.rows_by_day(f"raw/{feed.name}")
    for group in groups_of_rows(days, rows_of, rows_at_once):
        of_group, published = _admit(lake, feed, group, policy, run_id, recorded_at)
        verdicts, digests = [*verdicts, *of_group], digests | published
    for verdict in unsettled(lake, feed, days, policy):
        # another run may have judged the day after this one started: the newest verdict counts, and this is newer
        newer = (
            max(recorded_at, verdict.recorded_at + timedelta(microseconds=1)) if verdict.recorded_at else recorded_at
        )
        of_day, published = _admit(lake, feed, [verdict.event_date], policy, run_id, newer)
        verdicts, digests = [*verdicts, *of_day], digests | published
    return verdicts, [digests.get(verdict.event_date, BLOCKED) for verdict in verdicts]
