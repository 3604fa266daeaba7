"""One call judges a feed: row rules say which rows go to quarantine, batch rules which days are blocked.

Row rules are in `rows.py`, batch rules in `batches.py`; every rule is listed in docs/validation.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow
import pyarrow.compute as pc

from pipeline_assets.schemas import rows as row_rules
from pipeline_assets.schemas.batches import BatchPolicy, Finding, History, Profile, compare, nulls, profile
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.schemas.rows import BOT, DUPLICATE, PARSE_ERRORS, Rule, to_pandas

__all__ = ["DUPLICATE", "PARSE_ERRORS", "Validated", "ValidationPolicy", "Verdict", "to_pandas", "validate"]

NO_SIGN_OF_A_BAD_DAY = (DUPLICATE, BOT)  # set aside, and not counted as bad rows
KEPT_CHARACTERS = 2_000  # of a value in quarantine: enough to see what it is; a field may be gigabytes
NO_HISTORY = History()


@dataclass(frozen=True)
class ValidationPolicy:
    """When a row is quarantined and a day is blocked, as far as the declaration does not say.

    Args:
        max_bad_share: share of a day's rows that may break a rule (repeats and bots not counted).
        max_unparsed_share: share of unreadable values in one column from which the column counts as retyped.
        closed_days: business days on which the shop is shut, so that an empty day is not a broken upstream.
        accepted_days: days that a person looked at: the rules that compare with earlier days only tell.
        time_zone: the shop's; without it moments are not compared with their business day.
        day_tolerance: how far outside its business day a moment may lie.
        max_actor_rows: rows of one customer and day; above it all of them are a bot's. 2017 has 184 at most.
        references: what becomes of rows whose product was never in the products feed.
        first_day: from which day on the products feed must be known without a gap for `references` to say anything.
        batch: limits of the rules that compare a day with earlier ones.
    """

    max_bad_share: float
    max_unparsed_share: float
    closed_days: frozenset[date] = frozenset()
    accepted_days: frozenset[date] = frozenset()
    time_zone: str | None = None
    day_tolerance: timedelta = timedelta(hours=1)
    max_actor_rows: int = 1_000
    references: Literal["off", "flag", "quarantine"] = "flag"
    first_day: date | None = None
    batch: BatchPolicy = field(default_factory=BatchPolicy)


@dataclass(frozen=True)
class Verdict:
    """What is known about one feed on one business day. No verdict means no work.

    What follows `blocked_by` describes the day and the delivery, and takes no part in comparing verdicts.
    """

    feed: str
    event_date: date
    status: str  # passed | blocked
    rows_read: int
    rows_valid: int
    rows_quarantined: int
    reasons: tuple[str, ...] = ()
    rules: Mapping[str, int] = field(default_factory=dict)  # rule -> quarantined rows
    blocked_by: tuple[str, ...] = ()  # names of the batch rules, one for each reason
    warnings: tuple[str, ...] = field(default=(), compare=False)
    flagged: Mapping[str, int] = field(default_factory=dict, compare=False)  # rule -> valid rows that it points out
    profile: Profile | None = field(default=None, compare=False)
    batch_id: str = field(default="", compare=False)  # the delivery that was judged
    recorded_at: datetime | None = field(default=None, compare=False)  # set by the ledger


@dataclass(frozen=True)
class Validated:
    """Result of one call. `valid` has the feed's columns and rows of passed days; `quarantined` has them plus rule and reason."""

    valid: pyarrow.Table
    quarantined: pyarrow.Table
    verdicts: tuple[Verdict, ...]


class _Marks:
    """Per row the first rule that it breaks: 0 for none, otherwise one more than the rule's place in `rules`."""

    def __init__(self, n_rows: int) -> None:
        self.code = np.zeros(n_rows, dtype=np.int16)
        self.rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        fresh = rule.broken & (self.code == 0) if self.rules else rule.broken
        if fresh.any():
            self.rules.append(Rule(rule.name, rule.why, fresh, rule.values))
            self.code[fresh] = len(self.rules)

    @property
    def clean(self) -> np.ndarray:
        return np.asarray(self.code == 0, dtype=bool)


def _mark(
    feed: Feed, table: pyarrow.Table, row_day: np.ndarray, policy: ValidationPolicy, history: History
) -> tuple[_Marks, dict[str, np.ndarray]]:
    """The broken rule of each row, and rule -> rows that are pointed out and stay valid."""
    marks, flagged = _Marks(len(table)), dict[str, np.ndarray]()
    for rule in row_rules.declared_rules(feed, table):
        marks.add(rule)
    if policy.time_zone:
        for rule in row_rules.timestamp_rules(feed, table, row_day, ZoneInfo(policy.time_zone), policy.day_tolerance):
            marks.add(rule)
    again = row_rules.repeated(table, ["event_date", feed.key])
    marks.add(Rule(DUPLICATE, f"{feed.key} was already seen that day", again))
    for column, other in feed.references.items():
        if policy.references == "off" or column not in history.known:
            continue
        values, name = table.column(column), f"{column.removesuffix('_id')}_unknown"
        strangers = row_rules.unknown(values, history.known[column], row_day) & marks.clean
        if policy.references == "flag":
            flagged[name] = strangers
        else:
            marks.add(Rule(name, f"{column} was never in the feed {other} up to that day", strangers, values))
    if feed.actor:
        crowd = row_rules.crowded(table, ["event_date", feed.actor], policy.max_actor_rows, marks.clean)
        why = f"more than {policy.max_actor_rows} rows of one {feed.actor} that day"
        marks.add(Rule(BOT, why, crowd, table.column(feed.actor)))
    return marks, flagged


def _day_findings(
    feed: Feed, day: date, n_rows: int, rules: Mapping[str, int], policy: ValidationPolicy
) -> list[Finding]:
    """What the day's own rows say: empty, too many bad rows, no valid row."""
    findings = []
    if n_rows == 0 and not feed.may_be_empty and day not in policy.closed_days:
        text = f"{feed.name} of {day} is empty; wanted at least one row; deliver the day again, or name it in calendar.closed_days"
        findings.append(Finding("empty", True, text))
    faults = {name: count for name, count in rules.items() if name not in NO_SIGN_OF_A_BAD_DAY}
    bad, judged = sum(faults.values()), n_rows - rules.get(BOT, 0)
    if judged and bad / judged > policy.max_bad_share:
        worst = max(faults, key=lambda name: faults[name])
        text = (
            f"{bad} of {judged} rows of {feed.name} on {day} ({bad / judged:.1%}) break a rule, most of them {worst}; "
            f"wanted at most {policy.max_bad_share:.0%}; see the quarantine, mend the source and deliver the day again"
        )
        findings.append(Finding("bad_rows", True, text))
    if n_rows and not feed.may_be_empty and sum(rules.values()) == n_rows:
        findings.append(Finding("no_valid_row", True, f"no row of {feed.name} on {day} is valid"))
    return findings


def compared(feed: Feed, day: date, found: Profile, history: History, policy: ValidationPolicy) -> list[Finding]:
    """The rules that compare a day with earlier ones; on an accepted day they only tell."""
    findings = compare(feed, day, found, history, policy.batch)
    return [Finding(f.rule, False, f.text) for f in findings] if day in policy.accepted_days else findings


def _verdicts(
    feed: Feed,
    table: pyarrow.Table,
    row_day: np.ndarray,
    marks: _Marks,
    flagged: Mapping[str, np.ndarray],
    days: Sequence[date],
    policy: ValidationPolicy,
    history: History,
) -> list[Verdict]:
    sizes = table.select(feed.measures)
    order = None
    if not (row_day[1:] >= row_day[:-1]).all():
        since = (row_day - np.fmin.reduce(row_day)).astype(np.int64)
        since[np.isnat(row_day)] = np.iinfo(np.int16).max  # last, where NumPy sorts them too
        order = np.argsort(since.astype(np.int16), kind="stable")  # 16 bits are sorted by radix
    in_order = row_day if order is None else row_day[order]
    absent = {name: row_rules.missing(table.column(name)) for name in feed.columns}
    absent = {name: mask for name, mask in absent.items() if mask.any()}
    verdicts = []
    for day in days:
        at = np.datetime64(day, "D")
        start, end = np.searchsorted(in_order, at), np.searchsorted(in_order, at, side="right")
        own = slice(start, end) if order is None else order[start:end]
        n_rows, codes = int(end - start), marks.code[own]
        counts = np.bincount(codes, minlength=len(marks.rules) + 1)[1:]
        rules = dict[str, int]()
        for rule, count in zip(marks.rules, counts, strict=True):
            if count:
                rules[rule.name] = rules.get(rule.name, 0) + int(count)
        rules = dict(sorted(rules.items()))
        of_day = sizes.slice(int(start), n_rows) if order is None else sizes.take(own)
        counted = n_rows - sum(rules.get(name, 0) for name in NO_SIGN_OF_A_BAD_DAY)
        found = profile(feed, of_day, codes == 0, counted)
        findings = [
            *_day_findings(feed, day, n_rows, rules, policy),
            *nulls(feed, day, n_rows, {name: int(mask[own].sum()) for name, mask in absent.items()}, policy.batch),
            *compared(feed, day, found, history, policy),
        ]
        history = replace(history, profiles={**history.profiles, day: found})
        blocking, told = [f for f in findings if f.blocks], [f.text for f in findings if not f.blocks]
        if extra := sorted(history.extra_columns.get(day, ())):
            told.append(f"{feed.name} of {day} has columns that the contract does not have: {', '.join(extra)}")
        broken = sum(rules.values())
        verdicts.append(
            Verdict(
                feed.name,
                day,
                "blocked" if blocking else "passed",
                n_rows,
                n_rows - broken,
                broken,
                tuple(f.text for f in blocking),
                rules,
                tuple(f.rule for f in blocking),
                tuple(told),
                {name: int(mask[own].sum()) for name, mask in flagged.items() if mask[own].any()},
                found,
                history.batch_ids.get(day, ""),
            )
        )
    return verdicts


def _quarantined(feed: Feed, table: pyarrow.Table, marks: _Marks) -> pyarrow.Table:
    """Broken rows with `parse_errors`, rule and reason; values of any size are cut."""
    broken = ~marks.clean
    aside = table.select([*feed.columns, PARSE_ERRORS]).filter(pyarrow.array(broken))
    for at, column in enumerate(aside.schema):
        if (
            pyarrow.types.is_string(column.type)
            and (pc.max(pc.binary_length(aside[at])).as_py() or 0) > KEPT_CHARACTERS
        ):
            aside = aside.set_column(at, column, pc.utf8_slice_codeunits(aside[at], 0, KEPT_CHARACTERS))
    code = pyarrow.array(marks.code[broken] - 1)
    names = pyarrow.array([rule.name for rule in marks.rules], pyarrow.string()).take(code)
    reasons: list[pyarrow.Array] = []
    for rule in marks.rules:  # rule by rule, and then back into the order of the rows
        values = None if rule.values is None else rule.values.filter(pyarrow.array(rule.broken))
        reasons.append(
            pyarrow.array([rule.why], pyarrow.string()).take(pyarrow.array(np.zeros(int(rule.broken.sum()), np.int8)))
            if values is None
            else row_rules.quoted(rule.why, values)
        )
    by_rule = np.concatenate([np.flatnonzero(rule.broken) for rule in marks.rules] or [np.empty(0, np.int64)])
    joined = pyarrow.chunked_array(reasons, pyarrow.string()).take(pyarrow.array(np.argsort(by_rule, kind="stable")))
    return aside.append_column("rule", names).append_column("reason", joined)


def validate(
    feed: Feed,
    table: pyarrow.Table,
    days: Sequence[date],
    policy: ValidationPolicy,
    history: History = NO_HISTORY,
) -> Validated:
    """Split rows into valid and quarantined and give one verdict per day.

    Args:
        table: the feed's columns, plus `parse_errors` (string, null where all was readable); any number of days.
        days: every day that was asked for, in order; a day without rows gets a verdict too.
        history: profiles of earlier days and known references. Days of this call are each other's history.

    Returns:
        `Validated`. A blocked day has no valid row: a bad batch is never visible to readers, and stays whole in `raw`. Its
        broken rows are among the quarantined, for people.
    """
    row_day = row_rules.business_days(table.column("event_date"))
    marks, flagged = _mark(feed, table, row_day, policy, history)
    verdicts = _verdicts(feed, table, row_day, marks, flagged, days, policy, history)
    blocked = np.array([v.event_date for v in verdicts if v.status == "blocked"], dtype="datetime64[D]")
    kept = marks.clean & ~np.isin(row_day, blocked) if len(blocked) else marks.clean
    valid = table.select(feed.columns)
    if not kept.all():
        valid = valid.filter(pyarrow.array(kept))
    return Validated(valid, _quarantined(feed, table, marks), tuple(verdicts))
