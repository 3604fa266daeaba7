"""Row rules and day verdicts, evaluated from the pandera declarations.

The rules are pandera checks, but they are evaluated one vectorised mask at a time instead of through
`schema.validate(lazy=True)`: that builds one failure case per bad cell and does not end when every row is bad
(48 CPU s and 1.8 GB on 1.47 M rows, then stopped), while a mask costs the same however many rows are bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd
import pyarrow

from pipeline_assets.schemas.feeds import Feed

PARSE_ERRORS = "parse_errors"  # text of values that could not be read as their declared type, from the source layer
DUPLICATE = "duplicate"  # exact repeats have no effect: set aside, but not a sign of a bad day


@dataclass(frozen=True)
class ValidationPolicy:
    """When a day is blocked.

    Args:
        max_bad_share: share of a day's rows that may break a rule (repeats not counted).
        max_unparsed_share: share of unreadable values in one column from which the column counts as retyped.
        closed_days: business days on which the shop is shut, so that an empty day is not a broken upstream.
    """

    max_bad_share: float
    max_unparsed_share: float
    closed_days: frozenset[date] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """What is known about one feed on one business day. No verdict means no work."""

    feed: str
    event_date: date
    status: str  # passed | blocked
    rows_read: int
    rows_valid: int
    rows_quarantined: int
    reasons: tuple[str, ...] = ()
    rules: dict[str, int] = field(default_factory=dict)  # rule -> quarantined rows


@dataclass(frozen=True)
class Validated:
    """Result of one call. `valid` has the feed's columns; `quarantined` has them plus rule and reason."""

    valid: pyarrow.Table
    quarantined: pyarrow.Table
    verdicts: tuple[Verdict, ...]


def to_pandas(feed: Feed, table: pyarrow.Table) -> pd.DataFrame:
    """Arrow to the pandas types the schema declares (strings stay in Arrow memory)."""
    columns = {}
    for name in feed.columns:
        values = table.column(name)
        if pyarrow.types.is_date(values.type):
            values = values.cast(pyarrow.timestamp("us"))
        columns[name] = values.to_pandas(types_mapper={pyarrow.string(): pd.StringDtype("pyarrow")}.get)
    return pd.DataFrame(columns)


def _first_broken_rule(feed: Feed, frame: pd.DataFrame, parse_errors: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Per row the first rule it breaks ('' for none) and the reason, in the order of the declaration."""
    rule = np.full(len(frame), "", dtype=object)
    reason = np.full(len(frame), "", dtype=object)

    def mark(mask: np.ndarray, name: str, why: str, values: pd.Series | None = None) -> None:
        fresh = mask & (rule == "")
        if not fresh.any():
            return
        rule[fresh] = name
        if values is None:
            reason[fresh] = why
        else:
            reason[fresh] = [f"{why}, found {str(value)[:80]!r}" for value in values[fresh]]

    mark(parse_errors.notna().to_numpy(), "unreadable", "cannot be read as the declared type", parse_errors)
    for name, column in feed.schema.columns.items():
        values = frame[name]
        missing = values.isna().to_numpy()
        if not column.nullable:
            mark(missing, f"{name}_missing", f"{name} must not be empty")
        if isinstance(values.dtype, np.dtype) and values.dtype.kind == "f":
            mark(np.isinf(values.to_numpy()), f"{name}_finite", f"{name} must be finite", values)
        for check in column.checks:
            passed = check(values).check_output
            broken = ~passed.reindex(frame.index, fill_value=True).fillna(True).to_numpy(dtype=bool) & ~missing
            mark(broken, str(check.name), f"{name} breaks {check.name}", values)
    for check in feed.schema.checks:
        passed = check(frame).check_output.fillna(False).to_numpy(dtype=bool)
        mark(~passed, str(check.name), f"row breaks {check.name}")
    repeated = frame.duplicated(["event_date", feed.key], keep="first").to_numpy()
    mark(repeated, DUPLICATE, f"{feed.key} was already seen that day")
    return rule, reason


def _verdict(feed: Feed, day: date, rule: np.ndarray, policy: ValidationPolicy) -> Verdict:
    rows = len(rule)
    broken = rule[rule != ""]
    names, counts = np.unique(broken.astype(str), return_counts=True)
    rules = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
    bad = len(broken) - rules.get(DUPLICATE, 0)
    reasons = []
    if rows == 0 and not feed.may_be_empty and day not in policy.closed_days:
        reasons.append(
            f"{feed.name} of {day} is empty; wanted at least one row; deliver the day again, or name it in calendar.closed_days"
        )
    if rows and bad / rows > policy.max_bad_share:
        worst = max((name for name in rules if name != DUPLICATE), key=lambda name: rules[name])
        reasons.append(
            f"{bad} of {rows} rows of {feed.name} on {day} ({bad / rows:.1%}) break a rule, most of them {worst}; "
            f"wanted at most {policy.max_bad_share:.0%}; see the quarantine, mend the source and deliver the day again"
        )
    if rows and not feed.may_be_empty and len(broken) == rows:
        reasons.append(f"no row of {feed.name} on {day} is valid")
    return Verdict(
        feed.name, day, "blocked" if reasons else "passed", rows, rows - len(broken), len(broken), tuple(reasons), rules
    )


def validate(feed: Feed, table: pyarrow.Table, days: Sequence[date], policy: ValidationPolicy) -> Validated:
    """Split rows into valid and quarantined and give one verdict per day.

    Args:
        table: the feed's columns, plus `parse_errors` (string, null where all was readable); any number of days.
        days: every day that was asked for; a day without rows gets a verdict too.

    Returns:
        `Validated`; rows of blocked days are in neither part of it: a bad batch is never visible to readers, and
        stays whole in `raw`.
    """
    frame = to_pandas(feed, table)
    parse_errors = table.column(PARSE_ERRORS).to_pandas(types_mapper={pyarrow.string(): pd.StringDtype("pyarrow")}.get)
    rule, reason = _first_broken_rule(feed, frame, parse_errors)
    row_day = frame["event_date"].to_numpy().astype("datetime64[D]")
    order = np.argsort(row_day, kind="stable")
    edges = np.searchsorted(row_day[order], np.array([np.datetime64(d) for d in days] or [], dtype="datetime64[D]"))
    verdicts = []
    for day, start in zip(days, edges, strict=True):
        end = np.searchsorted(row_day[order], np.datetime64(day), side="right")
        verdicts.append(_verdict(feed, day, rule[order[start:end]], policy))
    blocked = np.array([np.datetime64(v.event_date) for v in verdicts if v.status == "blocked"], dtype="datetime64[D]")
    kept = ~np.isin(row_day, blocked)
    clean = rule == ""
    own = table.select(feed.columns)
    quarantined = own.filter(pyarrow.array(kept & ~clean))
    for name, values in ((PARSE_ERRORS, parse_errors), ("rule", rule), ("reason", reason)):
        column = pyarrow.array(np.asarray(values, dtype=object)[kept & ~clean], pyarrow.string(), from_pandas=True)
        quarantined = quarantined.append_column(name, column)
    return Validated(own.filter(pyarrow.array(kept & clean)), quarantined, tuple(verdicts))
