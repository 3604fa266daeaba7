"""Quarantine as people use it: what is in it, rows as examples, and taking a day back in after a rule or its data was fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.errors import BlockedPartition, ConfigurationError
from pipeline_assets.resources.content import split_days
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS, Verdict
from pipeline_assets.sources.landing import groups_of_rows

ROWS_AT_ONCE = 200_000  # of quarantine, while examples are chosen
EXAMPLES = 2  # rows that are shown of each rule
SHOWN_CHARACTERS = 60  # of a value in an example


@dataclass(frozen=True)
class Quarantined:
    """Rows of one feed, day and rule in quarantine, with one reason as an example."""

    feed: str
    day: date
    rule: str
    rows: int
    status: str  # of the day's verdict
    run_id: str
    example: str


def _read(lake: Lake, feed: Feed, first: date | None, last: date | None, columns: list[str] | None) -> pyarrow.Table:
    table = f"quarantine/{feed.name}"
    return lake.read(table, first, last, columns) if lake.exists(table) else None


def listing(
    lake: Lake, feeds: Sequence[str], first: date | None = None, last: date | None = None, rule: str | None = None
) -> list[Quarantined]:
    """What is in quarantine, by feed, day and rule."""
    found = []
    for name in feeds:
        rows = _read(lake, FEEDS[name], first, last, ["event_date", "rule", "reason", "run_id"])
        if rows is None or len(rows) == 0:
            continue
        if rule:
            rows = rows.filter(pc.equal(rows["rule"], rule))
        counted = rows.group_by(["event_date", "rule"], use_threads=False).aggregate(
            [("reason", "count"), ("reason", "first"), ("run_id", "first")]
        )
        days = counted["event_date"].to_pylist()
        verdicts = lake.verdicts(name, min(days), max(days)) if days else {}
        found += [
            Quarantined(
                name,
                row["event_date"],
                row["rule"],
                row["reason_count"],
                verdicts[row["event_date"]].status if row["event_date"] in verdicts else "no verdict",
                row["run_id_first"],
                row["reason_first"],
            )
            for row in counted.to_pylist()
        ]
    return sorted(found, key=lambda row: (row.feed, row.day, row.rule))


def render(rows: Sequence[Quarantined]) -> str:
    """The listing as a person reads it on a terminal."""
    if not rows:
        return "nothing is in quarantine"
    lines = [f"{'feed':<10} {'day':<10} {'verdict':<10} {'rule':<24} {'rows':>8}  example"]
    lines += [
        f"{row.feed:<10} {row.day} {row.status:<10} {row.rule:<24} {row.rows:>8}  {row.example[:100]}" for row in rows
    ]
    return "\n".join([*lines, f"{sum(row.rows for row in rows)} rows in all"])


def _cell(value: object, most: int = SHOWN_CHARACTERS) -> str:
    text = "" if value is None else str(value)
    text = text if len(text) <= most else text[:most] + "..."
    return text.replace("|", "\\|").replace("\n", " ").replace("\r", " ").replace("<", "&lt;")


def examples_by_rule(lake: Lake, feed: Feed, rows_of: Mapping[date, int]) -> dict[date, str]:
    """A markdown table for each day with rows in quarantine: the first rows of every rule, with reason and values.

    Args:
        rows_of: day -> its rows in quarantine; so many days are read together that memory does not grow with their number.
    """
    if not lake.exists(f"quarantine/{feed.name}"):
        return {}
    found = {}
    for days in groups_of_rows([day for day, rows in rows_of.items() if rows], rows_of, ROWS_AT_ONCE):
        stored = lake.read_days(f"quarantine/{feed.name}", days).sort_by("event_date")
        found |= {day: _examples(feed, rows) for day, rows in split_days(stored, days).items() if len(rows)}
    return found


def _examples(feed: Feed, rows: pyarrow.Table) -> str:
    shown = ["rule", "reason", PARSE_ERRORS, *(name for name in feed.columns if name != "event_date")]
    numbers = rows.append_column("row", pyarrow.arange(0, len(rows)))
    first = numbers.group_by("rule", use_threads=False).aggregate([("row", "list")])
    lines = [f"| {' | '.join(shown)} |", "|" + "---|" * len(shown)]
    for row in rows.take(
        [number for listed in first["row_list"].to_pylist() for number in listed[:EXAMPLES]]
    ).to_pylist():
        cells = [row["rule"], _cell(row["reason"], 2 * SHOWN_CHARACTERS), *(_cell(row[name]) for name in shown[2:])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Moved:
    """What judging a day again did."""

    feed: str
    day: date
    before: Verdict
    after: Verdict

    def rows(self, rule: str | None) -> int:
        """Rows of a rule (of all without one) that left quarantine; negative when rows came in."""
        count = lambda rules: rules.get(rule, 0) if rule else sum(rules.values())  # noqa: E731
        return count(self.before.rules) - count(self.after.rules)

    def summary(self, rule: str | None = None) -> str:
        what = f"rule {rule}" if rule else "all rules"
        reasons = "".join(f"\n  {reason}" for reason in self.after.reasons)
        return (
            f"{self.feed} of {self.day}: {self.before.status} -> {self.after.status}; {self.rows(rule)} rows left quarantine "
            f"({what}), {_left(self.after.rules, rule)} remain; {self.before.rows_valid} -> {self.after.rows_valid} valid rows{reasons}"
        )


def _left(rules: Mapping[str, int], rule: str | None) -> int:
    return rules.get(rule, 0) if rule else sum(rules.values())


def judged(lake: Lake, feed: str, day: date, rule: str | None = None) -> Verdict:
    """The verdict to start a readmission from.

    Raises:
        BlockedPartition: the day was never validated.
        ConfigurationError: a rule that the day's verdict does not have.
    """
    verdict = lake.verdicts(feed, day, day).get(day)
    if verdict is None:
        raise BlockedPartition(
            f"{feed} of {day}",
            found="no verdict",
            wanted="a day that was validated",
            fix=f"materialise validated/{feed} for {day} first",
        )
    if rule and rule not in verdict.rules:
        raise ConfigurationError(
            "--rule",
            found=rule,
            wanted=f"a rule with rows of {feed} of {day} in quarantine: {', '.join(verdict.rules) or 'there are none'}",
            fix="see `pipeline-assets quarantine list`, or leave the option out",
        )
    return verdict
