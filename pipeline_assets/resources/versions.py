"""Versions of the lake's tables: what changed, what is stale because of it, what can be built again.

Belongs here: reading the commits of tables. Does not: writing days (lake.py). A commit carries rows and digest of each day it wrote
and the versions of the tables it was computed from, so everything here follows from the tables themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.content import DayContent
from pipeline_assets.resources.lake import VERDICTS, Commit, Lake
from pipeline_assets.resources.training_data import FEATURE_TABLES, TRAINING_SET
from pipeline_assets.resources.warehouse import MARTS
from pipeline_assets.schemas.feeds import FEEDS

PLANS_DAYS = 21  # a promotion plan is known at most two weeks before it ends; resources/snapshots.py reads as far back
_AS_OF = ("features", "training")  # layers whose days depend on every day before them, and on the verdicts on those
DERIVED = (
    *(f"validated/{feed}" for feed in FEEDS),
    *(f"warehouse/{mart}" for mart in MARTS),
    *FEATURE_TABLES,
    TRAINING_SET,
)


@dataclass(frozen=True)
class Entry:
    """One day of one commit, for the log."""

    table: str
    event_date: date
    version: int
    committed_at: datetime
    run_id: str
    rows: int
    digest: str
    is_changed: bool  # against the version before that wrote this day


@dataclass(frozen=True)
class Change:
    """One day whose content differs between two versions; None where it was never written."""

    event_date: date
    before: DayContent | None
    after: DayContent | None


@dataclass(frozen=True)
class RowDifference:
    """Rows of a day that only one of two versions has."""

    only_before: pyarrow.Table
    only_after: pyarrow.Table


def log(lake: Lake, table: str, first: date, last: date) -> list[Entry]:
    """Every version of every day from `first` to `last`, oldest first."""
    entries: list[Entry] = []
    known: dict[date, str] = {}
    for commit in lake.commits(table):
        for day, content in sorted(commit.days.items()):
            changed = known.get(day) != content.digest
            known[day] = content.digest
            if first <= day <= last:
                stamp = (commit.version, commit.committed_at, commit.run_id)
                entries.append(Entry(table, day, *stamp, content.rows, content.digest, changed))
    return entries


def content_at(commits: Iterable[Commit], version: int | None = None) -> dict[date, DayContent]:
    """What each day held at a version (by default the newest)."""
    found: dict[date, DayContent] = {}
    for commit in commits:
        if version is None or commit.version <= version:
            found |= commit.days
    return found


def diff(lake: Lake, table: str, before: int, after: int | None = None) -> list[Change]:
    """Days whose content differs between two versions of a table, in order.

    Raises:
        NotEnoughData: the table has no such version.
    """
    commits = lake.commits(table)
    newest = commits[-1].version if commits else -1
    for version in (before, newest if after is None else after):
        if not 0 <= version <= newest:
            raise NotEnoughData(
                f"versions of {table}",
                found=f"version {version}",
                wanted=f"a version from 0 to {newest}" if commits else "a table that was written",
                fix=f"see `pipeline-assets data log {table}`",
            )
    old, new = content_at(commits, before), content_at(commits, after)
    return [Change(day, old.get(day), new.get(day)) for day in sorted({*old, *new}) if old.get(day) != new.get(day)]


def row_difference(lake: Lake, table: str, day: date, before: int, after: int | None = None) -> RowDifference:
    """The rows of a day that only one of two versions has, each as often as it is there."""
    import duckdb

    old, new = lake.read_days(table, [day], before), lake.read_days(table, [day], after)
    with duckdb.connect() as con:
        con.register("old_rows", old)
        con.register("new_rows", new)
        gone = con.sql("select * from old_rows except all select * from new_rows order by all").to_arrow_table()
        added = con.sql("select * from new_rows except all select * from old_rows order by all").to_arrow_table()
    return RowDifference(gone, added)


class _History:
    """The commits of every table, read once."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._commits = lake, dict[str, list[Commit]]()
        self._changed: dict[tuple[str, int], set[date]] = {}
        self._verdicts: dict[str, list[tuple[date, datetime, str]]] = {}

    def commits(self, table: str) -> list[Commit]:
        if table not in self._commits:
            self._commits[table] = self._lake.commits(table)
        return self._commits[table]

    def changed_since(self, table: str, version: int) -> set[date]:
        """Days whose content is not what it was at `version`, but for what was erased since."""
        if (table, version) not in self._changed:
            old, new = content_at(self.commits(table), version), content_at(self.commits(table))
            for commit in self.commits(
                table
            ):  # an erasure takes rows away and makes nothing stale (docs/adr/0051-erasure.md)
                if commit.version > version:
                    old |= {day: commit.days[day] for day, was in commit.erased.items() if old.get(day) == was}
            self._changed[table, version] = {day for day in {*old, *new} if old.get(day) != new.get(day)}
        return self._changed[table, version]

    def judged_since(self, feed: str, moment: datetime) -> set[date]:
        """Days of a feed whose verdict is not what it was at `moment`."""
        if feed not in self._verdicts:
            rows = self._lake.read(VERDICTS).to_pylist() if self._lake.exists(VERDICTS) else []
            ordered = sorted((row for row in rows if row["feed"] == feed), key=lambda row: row["recorded_at"])
            self._verdicts[feed] = [(row["event_date"], row["recorded_at"], row["status"]) for row in ordered]
        then, now = dict[date, str](), dict[date, str]()
        for day, recorded_at, status in self._verdicts[feed]:
            now[day] = status
            if recorded_at <= moment:
                then[day] = status
        return {day for day, status in now.items() if then.get(day, status) != status}


def stale_days(lake: Lake, tables: Sequence[str] = DERIVED) -> dict[str, dict[date, list[str]]]:
    """Days that were computed from something that has changed since: table -> day -> what, in words.

    A day is compared with the versions of its inputs that its own commit names, by content: the same rows delivered again make
    nothing stale. What was never computed is not stale.
    """
    history = _History(lake)
    found: dict[str, dict[date, list[str]]] = {}
    for table in tables:
        newest = {day: each for each in history.commits(table) for day in each.days if day not in each.erased}
        is_as_of = table.split("/")[0] in _AS_OF
        for day, commit in sorted(newest.items()):
            reasons = []
            for source, version in sorted(commit.inputs.items()):
                plans = timedelta(days=PLANS_DAYS) if source == "validated/exposures" else timedelta()
                first = date.min if is_as_of else day - plans
                changed = sorted(d for d in history.changed_since(source, version) if first <= d <= day)
                reasons += [f"{source} of {_listed(changed)} changed"] if changed else []
            judged_from = dict.fromkeys(FEEDS, date.min) if is_as_of else {}
            if not is_as_of and "validated/exposures" in commit.inputs:  # plans of blocked days are left out
                judged_from["exposures"] = day - timedelta(days=PLANS_DAYS)
            for feed, first in judged_from.items():
                judged = sorted(d for d in history.judged_since(feed, commit.committed_at) if first <= d <= day)
                reasons += [f"the verdict on {feed} of {_listed(judged)} changed"] if judged else []
            if reasons:
                found.setdefault(table, {})[day] = reasons
    return found


def _listed(days: Sequence[date], most: int = 3) -> str:
    shown = ", ".join(map(str, days[:most]))
    return shown if len(days) <= most else f"{shown} and {len(days) - most} more"


def orphans(lake: Lake, older_than: datetime) -> list[str]:
    """Files in table folders that no commit names and that were last written before `older_than`: left by killed writers."""
    import json

    from pyarrow import fs

    files, root = (
        fs.FileSystem.from_uri(lake.root) if "://" in lake.root else (fs.LocalFileSystem(), lake.root.rstrip("/"))
    )
    selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
    everything = [info for info in files.get_file_info(selector) if info.type == fs.FileType.File]
    logs: dict[str, list[Any]] = {}
    for info in everything:
        if "/_delta_log/" in info.path:
            logs.setdefault(info.path.split("/_delta_log/")[0], []).append(info)
    named: set[str] = set()
    for table, entries in logs.items():
        for entry in entries:
            if entry.base_name.endswith(".json") and entry.base_name[:1].isdigit():
                for line in files.open_input_stream(entry.path).read().decode().splitlines():
                    if (added := json.loads(line).get("add")) is not None:
                        named.add(f"{table}/{_unquoted(added['path'])}")
    found = []
    for info in everything:
        table = next((name for name in logs if info.path.startswith(f"{name}/")), None)
        is_log = "/_delta_log/" in info.path
        # in the log, a commit that was being written: `_commit_...` on a store, `<commit>.json#1` on a disk
        is_known = info.path in named if not is_log else not re.search(r"^_commit_|#", info.base_name)
        if table is not None and not is_known and info.mtime < older_than:
            found.append(info.path)
    return sorted(found)


def _unquoted(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


def sweep(lake: Lake, older_than: datetime) -> list[str]:
    """Remove `orphans`; returns what was removed. No version of any table is touched."""
    from pyarrow import fs

    files = fs.FileSystem.from_uri(lake.root)[0] if "://" in lake.root else fs.LocalFileSystem()
    found = orphans(lake, older_than)
    for path in found:
        files.delete_file(path)
    return found
