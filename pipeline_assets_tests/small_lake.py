"""A lake with the validated rows of a handful of days, small enough to redo the marts by hand.

Sunday 2017-01-01 to Monday the 9th, two orders a day, one product `p1` that both contain, in stores s1 and s2. Each Sunday's plan
puts p1 on display in s1 from Monday to Sunday; so p1 of an s1 order is on display on every day but the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow

from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import Verdict

DAYS = [date(2017, 1, 1) + timedelta(days=n) for n in range(9)]
SUNDAY, MONDAY = DAYS[7], DAYS[8]


def lines(day: date) -> list[dict[str, Any]]:
    """Order `<day>-a` in s1: two lines of p1 and one of p2. Order `<day>-b` in s2: one line of p1."""
    moment = datetime(day.year, day.month, day.day, 17, tzinfo=UTC)
    wanted = [("a", "c1", "p1", "s1"), ("a", "c1", "p1", "s1"), ("a", "c1", "p2", "s1"), ("b", "c2", "p1", "s2")]
    return [
        {
            "event_id": f"{day}-{n}",
            "order_id": f"{day}-{order}",
            "customer_id": customer,
            "product_id": product,
            "store_id": store,
            "quantity": 1.0,
            "amount": 1.5,
            "discount": 0.0,
            "event_ts": moment,
            "event_date": day,
        }
        for n, (order, customer, product, store) in enumerate(wanted)
    ]


def plan(sunday: date) -> list[dict[str, Any]]:
    """What is known on a Sunday: p1 on display in s1 next week, a campaign mailed to c1 with a coupon for p2."""
    week = {"valid_from": sunday + timedelta(days=1), "valid_to": sunday + timedelta(days=7), "event_date": sunday}
    return [
        {"event_id": f"{sunday}-d", "product_id": "p1", "channel": "display", "placement": "A", "store_id": "s1", **week},
        {"event_id": f"{sunday}-m", "channel": "campaign", "placement": "TypeA", "customer_id": "c1", "campaign_id": f"k{sunday}", **week},
        {"event_id": f"{sunday}-c", "product_id": "p2", "channel": "coupon", "placement": "9", "campaign_id": f"k{sunday}", **week},
    ]  # fmt: skip


def feeds_of(day: date) -> dict[str, list[dict[str, Any]]]:
    """Rows of a day per feed; the catalogue and the customers are known on the first."""
    is_first = day == DAYS[0]
    products = [
        {"product_id": p, "department": None, "category": "", "type": "T", "brand": 'é"x,y\n', "is_sellable": p == "p1"}
        for p in ("p1", "p2")
    ]
    return {
        "purchases": lines(day),
        "exposures": plan(day) if day.isoweekday() == 7 else [],
        "products": [{**row, "event_date": day} for row in products] if is_first else [],
        "customers": [{"customer_id": c, "event_date": day} for c in ("c1", "c2")] if is_first else [],
    }


def validated(lake: Lake, days: Sequence[date], changed: Mapping[str, list[dict[str, Any]]] | None = None) -> None:
    """Write `validated/<feed>` of `days`, and a passed verdict for each; `changed` replaces the rows of feeds."""
    for feed in FEEDS.values():
        rows = [row for day in days for row in (changed or {}).get(feed.name, feeds_of(day)[feed.name])]
        lake.replace_days(f"validated/{feed.name}", pyarrow.Table.from_pylist(rows, feed.arrow_schema), days, "run")
    judge(lake, "passed", days)


def judge(lake: Lake, status: str, days: Sequence[date], feeds: Sequence[str] = tuple(FEEDS)) -> None:
    """Record verdicts; of two on one feed and day the later call counts."""
    recorded_at = datetime.now(UTC)
    verdicts = [Verdict(feed, day, status, 1, 1, 0) for feed in feeds for day in days]
    lake.record_verdicts(verdicts, "run", recorded_at)


def small_lake(root: Path) -> Lake:
    """The lake of `DAYS`."""
    lake = Lake(root=str(root / "lake"))
    validated(lake, DAYS)
    return lake
