"""A source with faults on chosen days, for replays and game days: what a shop's delivery can do wrong, done on purpose.

Belongs here: changing a delivery before the contract sees it. Does not: what becomes of it (validation, landing, the monitors).
Only days with a fault are touched. A fault changes the same rows each time, because it picks them by a hash of their id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import count
from zoneinfo import ZoneInfo

import pyarrow

from pipeline_assets.recommender.errors import ConfigurationError, SourceError
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS
from pipeline_assets.sources.base import Source, conform, connect
from pipeline_assets.sources.batch import LandedBatch, ReopeningSource, differing

LATE_DAYS = 3  # after so many days the rest of a `late_day` is delivered
DELETED = 20  # the day's best-selling products that `product_deleted` takes out of the catalogue


def _share(percent: int) -> str:
    return f"md5_number_lower(event_id) % 100 < {percent}"


def _as_new_events(rows: str, suffix: str) -> str:
    return f"select * exclude (copy) replace (event_id || '-{suffix}-' || copy as event_id) from ({rows})"


# Nine more of each line of the department that sells second best (of the best one where there is only one).
_SEASONAL = """select delivered.*, copy from delivered join known using (product_id), range(9) as r (copy) where department = (
    select department from (
        select department, count(*) as n from delivered join known using (product_id) where department is not null
        group by department order by n desc, department limit 2) order by n, department desc limit 1)"""
# A tenth of the purchases in the first second of the shop's day, a tenth in its last one, and a tenth at each of the moments around two o'clock
# where clocks are changed. Counted in hours from midnight, a day of 23 or 25 hours would end at the wrong moment.
_AT_THE_EDGES = (
    "select * exclude (part) replace (case part"
    " when 0 then cast(event_date as timestamptz)"
    " when 1 then cast(event_date + 1 as timestamptz) - interval 1 second"
    " when 2 then cast(event_date as timestamptz) + interval 90 minutes"
    " when 3 then cast(event_date as timestamptz) + interval 150 minutes"
    " else event_ts end as event_ts)"
    " from (select *, md5_number_lower(event_id) % 10 as part from delivered)"
)


def _changes_clocks(day: date, time_zone: str) -> bool:
    zone = ZoneInfo(time_zone)
    return len({datetime.combine(day + timedelta(days=n), time(), zone).utcoffset() for n in (0, 1)}) > 1


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with a day's delivery, and how it should end."""

    name: str
    sql: str  # a query over `delivered`, the feed's rows of the day; empty for faults of the calendar
    ends: str
    feed: str = "purchases"
    is_on: Callable[[date, str], bool] = lambda day, time_zone: True  # the days that it can happen on, in a time zone


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("missing_day", "", "the day never arrives; features of days whose window needs it wait"),
        Fault("late_day", f"select * from delivered where not {_share(40)}", "landed again when the rest comes"),
        Fault("empty_file", "select * from delivered where false", "blocked"),
        Fault(
            "duplicate_events", "select * from delivered union all select * from delivered", "duplicates are set aside"
        ),
        Fault("column_renamed", "select * exclude (amount), amount as total from delivered", "blocked, named"),
        Fault(
            "column_retyped",
            "select * replace ('EUR ' || amount || ',-' as amount) from delivered",
            "blocked, named",
        ),
        Fault(
            "corrupt_5",
            f"select * replace (case when not {_share(5)} then quantity else -1 end as quantity) from delivered",
            "bad rows are quarantined, the day goes on",
        ),
        Fault(
            "corrupt_60",
            f"select * replace (case when not {_share(60)} then quantity else -1 end as quantity) from delivered",
            "blocked",
        ),
        Fault("prices_x100", "select * replace (amount * 100 as amount) from delivered", "blocked"),
        Fault(
            "bot",
            "select * from delivered union all "
            + _as_new_events(
                "select * from (select * from delivered order by event_id limit 1), range(10000) as r (copy)", "bot"
            ),
            "the customer's rows are set aside, the day goes on",
        ),
        Fault(
            "future_timestamps",
            f"select * replace (case when {_share(2)} then event_ts + interval 400 days else event_ts end as event_ts) from delivered",
            "quarantined",
        ),
        Fault(
            "huge_field",
            "select * exclude (first) replace (case when event_id = first then repeat('x', 1000000) else customer_id end as customer_id)"
            " from (select *, min(event_id) over () as first from delivered)",
            "quarantined, in bounded memory",
        ),
        Fault(
            "broken_encoding",
            f"select * replace (case when {_share(2)} then '\ufffd' || customer_id else customer_id end as customer_id) from delivered",
            "quarantined: files are read with that mark where bytes are no text",
        ),
        Fault(
            "clock_change",
            _AT_THE_EDGES,
            "one partition of 23 or 25 hours, nothing is set aside",
            is_on=_changes_clocks,
        ),
        Fault(
            "leap_day",
            _AT_THE_EDGES,
            "one partition, nothing is set aside",
            is_on=lambda day, _: (day.month, day.day) == (2, 29),
        ),
        Fault(
            "year_end",
            _AT_THE_EDGES,
            "one partition, nothing is set aside",
            is_on=lambda day, _: (day.month, day.day) == (12, 31),
        ),
        # A season is not a broken upstream: each row is well formed, and one part of the assortment sells ten times as much.
        Fault(
            "season",
            f"select * from delivered union all {_as_new_events(_SEASONAL, 'season')}",
            "input drift; with policy drift the model is trained again",
        ),
        Fault("product_deleted", "", "the products are never recommended again", feed="products"),
    )
}


def require_possible(faults: Mapping[date, Iterable[str]], time_zone: str) -> None:
    """Refuse names that are none, and days on which a fault cannot happen.

    Raises:
        ConfigurationError: naming the day, and for a fault of the calendar the next one that would do.
    """
    for day, names in faults.items():
        if unknown := sorted(set(names) - set(FAULTS)):
            raise ConfigurationError(
                f"source.faults of {day}",
                found=", ".join(unknown),
                wanted=f"one or more of {', '.join(FAULTS)}",
                fix="correct the name",
            )
        for name in names:
            if not FAULTS[name].is_on(day, time_zone):
                raise ConfigurationError(
                    f"fault {name} of {day}",
                    found=f"an ordinary day in {time_zone}",
                    wanted=_next_of(FAULTS[name], day, time_zone),
                    fix="choose that day, or a period that has one",
                )


def _next_of(fault: Fault, day: date, time_zone: str) -> str:
    for later in (day + timedelta(days=n) for n in count(1)):
        if fault.is_on(later, time_zone):
            return f"a day such as {later}"
        if later.year > day.year + 8:  # no leap day is further away
            return f"a time zone in which {fault.name} happens"
    raise AssertionError("days do not end")


class FaultySource:
    """`source`, with `faults` on some of its days. A day may have several.

    Args:
        until: the newest day that is over: what `late_day` held back comes `LATE_DAYS` later.
        max_unparsed_share: as of the source (settings.validation).
        time_zone: the shop's.

    Raises:
        ConfigurationError: as `require_possible`.
    """

    def __init__(
        self,
        source: Source,
        faults: Mapping[date, Sequence[str]],
        until: date,
        max_unparsed_share: float,
        time_zone: str,
    ) -> None:
        require_possible(faults, time_zone)
        self._source, self._faults, self._until = source, faults, until
        self._max_unparsed_share, self._time_zone = max_unparsed_share, time_zone

    def arrived_days(self) -> list[date]:
        return [day for day in self._source.arrived_days() if "missing_day" not in self._faults.get(day, ())]

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        for day in days:
            if "missing_day" in self._faults.get(day, ()):
                raise SourceError(
                    f"{feed.name} of {day}",
                    found="fault missing_day: nothing was delivered",
                    wanted="a day that has arrived",
                    fix="remove the fault from source.faults, or leave the day out",
                )
        pieces, clean = [], []
        for day in sorted(days):
            acting = [FAULTS[name] for name in self._faults.get(day, ()) if FAULTS[name].feed == feed.name]
            acting = [fault for fault in acting if fault.name != "late_day" or self._is_held_back(day)]
            if not acting:
                clean.append(day)
                continue
            if clean:
                pieces.append(self._source.read(feed, clean))
                clean = []
            pieces.append(self._changed(feed, day, acting))
        if clean:
            pieces.append(self._source.read(feed, clean))
        return pyarrow.concat_tables(pieces, promote_options="permissive") if len(pieces) > 1 else pieces[0]

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        """Landed days that are others now: those of the source, and late ones whose rest has come."""
        changed = self._source.changed_days(feed, landed) if isinstance(self._source, ReopeningSource) else []
        come = [
            day
            for day in landed
            if "late_day" in self._faults.get(day, ()) and not self._is_held_back(day) and day not in changed
        ]
        return sorted([*changed, *differing(self, feed, come, landed)])

    def _is_held_back(self, day: date) -> bool:
        return self._until < day + timedelta(days=LATE_DAYS)

    def _changed(self, feed: Feed, day: date, faults: Sequence[Fault]) -> pyarrow.Table:
        rows = self._source.read(feed, [day])
        with connect(self._time_zone) as con:
            delivered = rows.drop_columns([PARSE_ERRORS])
            if any("join known" in fault.sql for fault in faults):
                con.register("known", self._catalogue())
            for number, fault in enumerate(faults):
                if fault.name == "product_deleted":
                    delivered = pyarrow.concat_tables([delivered, self._deleted(day)])
                    continue
                con.register("delivered", delivered)
                delivered = con.sql(f"select * from ({fault.sql}) as fault_{number}").to_arrow_table()
            con.register("changed", delivered)
            where = f"{feed.name} of {day} with {', '.join(fault.name for fault in faults)}"
            return conform(con, "changed", feed, self._max_unparsed_share, where)

    def _catalogue(self) -> pyarrow.Table:
        """The products that were delivered first."""
        return self._source.read(FEEDS["products"], [self._source.arrived_days()[0]]).drop_columns([PARSE_ERRORS])

    def _deleted(self, day: date) -> pyarrow.Table:
        """The day's best sellers as the catalogue has them from `day` on: not sellable."""
        sold = self._source.read(FEEDS["purchases"], [day])
        known = self._catalogue()
        with connect(self._time_zone) as con:
            con.register("sold", sold)
            con.register("known", known)
            best = f"select product_id from sold group by product_id order by count(*) desc, product_id limit {DELETED}"
            changed = con.sql(
                f"select * replace (false as is_sellable, date '{day}' as event_date) from known where product_id in ({best})"
            ).to_arrow_table()
        return changed.cast(known.schema)
