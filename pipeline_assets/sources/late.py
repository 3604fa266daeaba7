"""Late and corrected deliveries: which days that were landed are others now, and what has to be computed again because of it.

Belongs here: finding them. Does not: landing again (landing.py), deciding when to look (automation.py). The rule, in one place: a
day that is delivered again, or gets rows late, is landed again whole; the newest delivery supersedes, its history stays in the
lake; the same rows again have no effect. docs/adr/0011-late-data.md says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.versions import stale_days
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.sources.batch import LandedBatch
from pipeline_assets.sources.landing import landed_batches, unjudged


def redelivered(
    changed_days: Callable[[Feed, Mapping[date, LandedBatch]], list[date]], lake: Lake, newest: date, look_back: int
) -> dict[date, list[str]]:
    """Days of the last `look_back` whose deliveries are not what was landed and judged: day -> feeds.

    A day that was never landed is not late. One that was landed again by a run that was killed before it was judged is.
    """
    first = newest - timedelta(days=look_back)
    found: dict[date, list[str]] = {}
    for feed in FEEDS.values():
        landed = landed_batches(lake, feed, first, newest)
        changed = {*changed_days(feed, landed), *unjudged(lake, feed, first, newest)} if landed else set()
        for day in changed:
            found.setdefault(day, []).append(feed.name)
    return dict(sorted(found.items()))


def stale_features(lake: Lake, cutoffs: Sequence[date]) -> dict[date, list[str]]:
    """Those of `cutoffs` whose features were computed from something that has changed since, with the reasons."""
    tables = [f"features/{name}" for name in ("customer", "product", "customer_product")]
    stale = stale_days(lake, tables)
    reasons = {day: why for table in tables for day, why in stale.get(table, {}).items()}
    return {day: reasons[day] for day in sorted(reasons) if day in set(cutoffs)}
