"""What validation knows beside the rows in front of it, read from the lake: profiles of other days, and references.

Belongs here: building the `History` that the pure rules take as an argument. Does not: judging.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow

from pipeline_assets.recommender.errors import BlockedPartition
from pipeline_assets.resources.lake import BATCHES, Lake
from pipeline_assets.schemas.batches import LOOK_BACK_DAYS, History
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import ValidationPolicy, Verdict, compared

_LOOK_BACK = timedelta(days=LOOK_BACK_DAYS)
_COMPARED = ("volume", "shift_")  # how the names of these rules begin


def read_history(lake: Lake, feed: Feed, days: Sequence[date], policy: ValidationPolicy) -> History:
    """Profiles of the eight weeks before `days`, what the referenced feeds have had, and the columns that were delivered.

    Raises:
        BlockedPartition: rows with unknown references are to be quarantined, and the referenced feed has a gap.
    """
    before = lake.verdicts(feed.name, min(days) - _LOOK_BACK, max(days)) if feed.is_compared else {}
    profiles = {day: verdict.profile for day, verdict in before.items() if verdict.profile}
    known = {}
    if policy.references != "off":
        for column, other in feed.references.items():
            rows = _known(lake, FEEDS[other], max(days), policy)
            if rows is not None:
                known[column] = rows
    batches = _batches(lake, feed, days)
    extra = {day: row.get("extra_columns") or [] for day, row in batches.items()}  # an older ledger has none
    return History(profiles, known, extra, {day: row["batch_id"] for day, row in batches.items()})


def _known(lake: Lake, other: Feed, last: date, policy: ValidationPolicy) -> pyarrow.Table | None:
    """The first day of each key of a feed, or None where the feed was not validated without a gap up to `last`."""
    first = policy.first_day or last
    wanted = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    passed = set(lake.passed_days([other.name], first, last))
    gaps = [day for day in wanted if day not in passed]
    if gaps and policy.references == "quarantine":
        raise BlockedPartition(
            f"{other.name} of {gaps[0]}",
            found=f"{len(gaps)} days up to {last} without a passed verdict",
            wanted=f"every day from {first}, because validation.references = quarantine needs all that was ever known",
            fix=f"materialise validated/{other.name} for these days first",
        )
    if gaps:
        return None
    rows = lake.read(f"validated/{other.name}", None, last, [other.key, "event_date"])
    return rows.group_by(other.key).aggregate([("event_date", "min")]).rename_columns(["id", "first_day"])


def _batches(lake: Lake, feed: Feed, days: Sequence[date]) -> dict[date, dict[str, Any]]:
    """The newest ledger row of each day that was landed."""
    if not lake.exists(BATCHES):
        return {}
    rows = lake.read(BATCHES, min(days), max(days)).sort_by("recorded_at").to_pylist()
    return {row["event_date"]: row for row in rows if row["feed"] == feed.name and row["event_date"] in set(days)}


def unsettled(lake: Lake, feed: Feed, days: Sequence[date], policy: ValidationPolicy) -> list[Verdict]:
    """Verdicts on days that were judged already and would be judged otherwise, now that `days` are known.

    Batch rules compare a day with earlier ones. Validated in another order, a day may have been judged before its history was
    there; judging it again makes the outcome the same in every order. Only the newest verdict's profile is needed to know.
    """
    if not feed.is_compared:
        return []
    verdicts = lake.verdicts(feed.name, min(days) - _LOOK_BACK, max(days) + _LOOK_BACK)
    history = History({day: verdict.profile for day, verdict in verdicts.items() if verdict.profile})
    found = []
    for day in sorted(history.profiles):
        if day < min(days):
            continue
        now = {f.rule for f in compared(feed, day, history.profiles[day], history, policy) if f.blocks}
        then = {name for name in verdicts[day].blocked_by if name.startswith(_COMPARED)}
        if now != then:
            found.append(verdicts[day])
    return found
