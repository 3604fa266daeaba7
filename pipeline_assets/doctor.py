"""`pipeline-assets doctor`: is the source usable? Configuration, connection, mapping, and a sample of the data, before anything runs.

It only reads: nothing is landed, and what a source wants to keep beside itself goes to a folder that is thrown away. Each check is a
function over a source and yields findings; one failure does not hide the others, unless there is nothing to look at without it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.errors import NotEnoughData, PipelineError
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import validate
from pipeline_assets.settings import Settings
from pipeline_assets.sources.base import InspectableSource, day_of

OK, INFO, WARN, FAIL = "ok", "info", "warn", "FAIL"
PEEKED_ROWS = 1_000
RECENT_DAYS = 7  # change feeds are quiet on some days: the newest week is looked at
# Measured on 60 days of the sample (1.7 % of its lines between 0 and 5 o'clock, 6.6 % on the worst day): read with a zone that is
# one hour off, 0.8 % of the lines lie on another day; five hours off, 17 % do, and 17 % are at night; six hours the other way, 33 %.
OTHER_DAY_WARN, OTHER_DAY_FAIL = 0.005, 0.05
NIGHT_WARN = 0.12
BROKER_SECONDS = 10.0  # a person waits
UNKNOWN_WARN, UNKNOWN_FAIL = 0.01, 0.50  # purchases of products that the products feed does not have


@dataclass(frozen=True)
class Finding:
    """One line of the report; the last three only where something is to be done."""

    check: str
    status: str
    found: str
    culprit: str = ""
    wanted: str = ""
    fix: str = ""


def failed(check: str, error: PipelineError, status: str = FAIL) -> Finding:
    """An error as a finding."""
    return Finding(check, status, str(error.found), error.culprit, str(error.wanted), error.fix)


def examine(settings: Settings, now: datetime, scratch: Path) -> Iterator[Finding]:
    """All findings, in the order in which a person would look.

    Args:
        now: which day it is, for the wall clock.
        scratch: a folder for what is only needed meanwhile.
    """
    from pipeline_assets.resources.sources import build_source, newest_complete_day

    where = settings.source.path if settings.source.kind == "files" else ""
    yield Finding(
        "configuration", OK, f"profile {settings.profile}, source {settings.source.kind} {where or ''}".strip()
    )
    try:
        source = build_source(settings, now, spool=scratch)
    except PipelineError as error:
        yield failed("mapping", error)
        return
    if settings.source.mapping:
        yield Finding("mapping", OK, f"{settings.source.mapping} is understood")
    if settings.source.kind == "stream":
        yield from broker(settings)
    try:
        days = source.arrived_days()
    except PipelineError as error:
        yield failed("connection and purchases", error)
        return
    until = newest_complete_day(settings, now)
    yield from business_days(settings, days, until)
    if not days:
        return
    rows: dict[str, pyarrow.Table] = {}
    for feed in FEEDS.values():
        yield from feed_findings(settings, source, feed, days, rows)
    if "purchases" in rows:
        yield from moments(settings, source, rows["purchases"], days[-1])
    if "purchases" in rows and "products" in rows:
        yield from references(rows["purchases"], rows["products"])


def broker(settings: Settings) -> Iterator[Finding]:
    """Whether the brokers answer and the topics exist; what has arrived is read from the lake, after `consume`."""
    from contextlib import closing

    from pipeline_assets.sources.mapping import read_mapping
    from pipeline_assets.sources.stream import stream_feeds
    from pipeline_assets.sources.stream_broker import Broker

    calendar = settings.calendar
    quick = settings.stream.model_copy(update={"give_up_seconds": BROKER_SECONDS})
    try:
        with closing(Broker(quick, threading.Event(), lambda line: None)) as connection:
            for feed in stream_feeds(read_mapping(settings.source.mapping), calendar.time_zone, calendar.first_day):
                partitions = connection.partitions(feed.topic)
                if partitions:
                    yield Finding("broker", OK, f"topic {feed.topic} has {partitions} partitions")
                elif feed.is_wanted:
                    yield Finding(
                        "broker",
                        FAIL,
                        "no such topic",
                        culprit=f"topic {feed.topic}",
                        wanted=f"the topic of {feed.feed.name}",
                        fix="create it, or correct `from` in the mapping file",
                    )
    except PipelineError as error:
        yield failed("broker", error)


def business_days(settings: Settings, days: Sequence[date], until: date) -> Iterator[Finding]:
    """Which days have arrived, which are missing between them, and whether they are enough to train on."""
    from pipeline_assets.recommender.split import weeks_before

    calendar, training = settings.calendar, settings.training
    if not days:
        yield Finding(
            "business days",
            FAIL,
            "no day has arrived",
            culprit="purchases",
            wanted=f"purchases between calendar.first_day {calendar.first_day} and the newest complete day {until}",
            fix="check source.path or the table, calendar.first_day, calendar.until and the day expression of [purchases]"
            if settings.source.kind != "stream"
            else "let `pipeline-assets consume` land the stream first",
        )
        return
    span = (days[-1] - days[0]).days + 1
    yield Finding("business days", OK, f"{len(days)} days, {days[0]} to {days[-1]}")
    missing = sorted({days[0] + timedelta(days=n) for n in range(span)} - set(days))
    if missing:
        yield Finding(
            "business days",
            WARN,
            f"{len(missing)} of {span} days are missing: {', '.join(map(str, missing[:3]))}{' …' if len(missing) > 3 else ''}",
            culprit="purchases",
            wanted="every day; weeks that touch a missing day are left out of training",
            fix="deliver them, or name the days on which the shop was shut in calendar.closed_days",
        )
    try:
        weeks_before(
            days[-1],
            calendar.first_day,
            week_start=calendar.week_start,
            horizon_days=training.horizon_days,
            label_weeks=training.label_weeks,
            early_stopping_weeks=training.early_stopping_weeks,
            evaluation_weeks=training.evaluation_weeks,
            usable_days=set(days),
        )
    except NotEnoughData as error:
        yield failed("enough to train", error, WARN)


def feed_findings(
    settings: Settings, source: Any, feed: Feed, days: Sequence[date], rows: dict[str, pyarrow.Table]
) -> Iterator[Finding]:
    """Where a feed is, whether its newest rows can be read, and what validation says of them; puts the rows into `rows`."""
    from pipeline_assets.assets.validated import validation_policy

    name = f"feed {feed.name}"
    looked_at = [days[-1]] if not feed.may_be_empty else spanned(days)
    if feed.name == "exposures":
        looked_at = looked_at[-RECENT_DAYS:]
    try:
        place = source.place(feed) if is_inspectable(source) else settings.source.kind
        if place is None:
            yield Finding(name, INFO, "not there; it is optional, the pipeline goes without it")
            return
        if place.startswith("derived"):
            yield Finding(name, INFO, f"not there; {place}")
            return
        table = source.read(feed, looked_at)
        if is_inspectable(source):
            extra = source.peek(feed, days[-1], 1).unmapped
            if extra:
                yield Finding(name, INFO, f"columns that nothing maps are not read: {', '.join(extra)}")
    except PipelineError as error:
        yield failed(name, error)
        return
    rows[feed.name] = table
    result = validate(feed, table, looked_at, validation_policy())
    blocked = [verdict for verdict in result.verdicts if verdict.status != "passed"]
    rules: dict[str, int] = {}
    for verdict in result.verdicts:
        for rule, count in verdict.rules.items():
            rules[rule] = rules.get(rule, 0) + count
    counted = f"{len(table)} rows of {looked_at[0]}" + (f" to {looked_at[-1]}" if len(looked_at) > 1 else "")
    quarantined = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items(), key=lambda item: -item[1]))
    if blocked:
        yield Finding(
            name,
            FAIL,
            f"{counted} in {place}; {'; '.join(blocked[0].reasons)}",
            culprit=f"{feed.name} of {blocked[0].event_date}",
            wanted="a day that passes validation",
            fix=f"mend the source, or the mapping's columns; rules broken: {quarantined or 'none'}",
        )
    elif quarantined:
        yield Finding(
            name,
            WARN,
            f"{counted} in {place}; rows set aside: {quarantined}",
            culprit=feed.name,
            wanted="rows that keep the rules (pipeline_assets/schemas/feeds.py)",
            fix="they go to the quarantine, the others go on; mend the source if they should not",
        )
    else:
        yield Finding(name, OK, f"{counted} in {place}")


def is_inspectable(source: object) -> bool:
    """Whether the source can say where it reads, and show values before their types."""
    return hasattr(source, "peek")


def spanned(days: Sequence[date]) -> list[date]:
    """All days from the first to the last."""
    return [days[0] + timedelta(days=n) for n in range((days[-1] - days[0]).days + 1)]


def moments(settings: Settings, source: Any, purchases: pyarrow.Table, day: date) -> Iterator[Finding]:
    """Whether timestamps say their zone, and whether they fit the business day and the shop's hours."""
    import duckdb

    zone = settings.calendar.time_zone
    with duckdb.connect() as con:
        con.register("purchases", purchases)
        local = f"timezone('{zone}', event_ts)"
        ((rows, other, night),) = con.execute(
            f"""select count(event_ts), count(*) filter ({day_of("event_ts", "TIMESTAMP WITH TIME ZONE", zone)} <> event_date),
                count(*) filter (extract(hour from {local}) < 5) from purchases"""
        ).fetchall()
    advice = "set `time_zone` in the mapping to the zone of the timestamps, and calendar.time_zone to the shop's"
    if rows and other / rows > OTHER_DAY_WARN:
        yield Finding(
            "time zone",
            FAIL if other / rows > OTHER_DAY_FAIL else WARN,
            f"{other} of {rows} purchases of {day} ({other / rows:.1%}) lie on another day by the clock of {zone}",
            culprit="purchases.event_ts",
            wanted="timestamps on the business day that the delivery says",
            fix=advice,
        )
    elif rows and night / rows > NIGHT_WARN:
        yield Finding(
            "time zone",
            WARN,
            f"{night} of {rows} purchases of {day} ({night / rows:.1%}) lie between 0 and 5 o'clock in {zone}",
            culprit="purchases.event_ts",
            wanted="the hours in which the shop sells",
            fix=f"{advice}; nothing, if it does sell at night",
        )
    elif rows:
        yield Finding("time zone", OK, f"purchases of {day} are on their day by the clock of {zone}")
    if is_inspectable(source) and is_naive(source, day):
        from pipeline_assets.sources.mapping import read_mapping

        written = read_mapping(settings.source.mapping).time_zone
        yield Finding(
            "time zone",
            INFO if written else WARN,
            f"event_ts says no zone; it is read as {written or zone}",
            culprit="purchases.event_ts",
            wanted="timestamps with an offset, or `time_zone` in the mapping file",
            fix=f'write `time_zone = "{zone}"` at the top of the mapping file, if that is what they are',
        )


def is_naive(source: InspectableSource, day: date) -> bool:
    """Whether the day's timestamps carry no offset."""
    values = source.peek(FEEDS["purchases"], day, PEEKED_ROWS).mapped["event_ts"].drop_null()
    if pyarrow.types.is_timestamp(values.type):
        return values.type.tz is None
    if not pyarrow.types.is_string(values.type):
        return False
    has_offset = pc.match_substring_regex(values, r"(Z|UTC|[+-]\d{2}(:?\d{2})?)$")
    return len(values) > 0 and not pc.any(has_offset).as_py()


def references(purchases: pyarrow.Table, products: pyarrow.Table) -> Iterator[Finding]:
    """Purchases of products that the products feed does not have, and whether anything may be recommended."""
    known = products["product_id"].unique()
    unknown = pc.invert(pc.is_in(purchases["product_id"], known))
    count, rows = pc.sum(unknown).as_py() or 0, len(purchases)
    if rows and count / rows > UNKNOWN_WARN:
        example = purchases["product_id"].filter(unknown)[0].as_py()
        yield Finding(
            "references",
            FAIL if count / rows > UNKNOWN_FAIL else WARN,
            f"{count} of {rows} purchases ({count / rows:.1%}) are of products that are not in products, such as {example!r}",
            culprit="purchases.product_id",
            wanted="ids that products has; others are never recommended",
            fix="deliver all products, or map product_id to the same code in both feeds",
        )
    else:
        yield Finding("references", OK, f"{rows - count} of {rows} purchases are of known products")
    if not pc.any(products["is_sellable"]).as_py():
        yield Finding(
            "references",
            FAIL,
            f"none of {len(known)} products is sellable",
            culprit="products.is_sellable",
            wanted="true for what may be recommended",
            fix="correct is_sellable in the mapping",
        )


def render(findings: Sequence[Finding]) -> str:
    """The report as a person reads it."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:4}  {finding.check:{width}}  {finding.found}")
        if finding.status in (WARN, FAIL):
            lines += [f"      {'':{width}}  {part}: {getattr(finding, part)}" for part in ("culprit", "wanted", "fix")]
    failures, warnings = (sum(finding.status == status for finding in findings) for status in (FAIL, WARN))
    lines.append("")
    lines.append(
        f"{failures} to mend before anything runs, {warnings} to look at"
        if failures
        else f"ready to run, {warnings} to look at"
    )
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The report for programs."""
    return {"ready": all(finding.status != FAIL for finding in findings), "findings": [asdict(f) for f in findings]}
