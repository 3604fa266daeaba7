"""The lake: Delta tables on disk or an object store, partitioned by business day.

Belongs here: reading, atomic replacement of days, versions, content digests, verdicts. Does not: what rows mean.
Delta through delta-rs: a day is replaced in one commit (0.04 s measured), readers never see half of it, writers of different
days do not disturb each other, and every version stays readable (see docs/adr/0001-lake.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow
import tenacity

from pipeline_assets.recommender.errors import BlockedPartition, NotEnoughData
from pipeline_assets.resources.content import DayContent, contents, from_json, to_json
from pipeline_assets.resources.day_file import ROW_GROUP, DayFile, blob_writer
from pipeline_assets.resources.delta_tables import Filter, between, opened, rows_of
from pipeline_assets.resources.lake_lock import shared
from pipeline_assets.schemas.batches import Profile
from pipeline_assets.schemas.validation import Verdict

if TYPE_CHECKING:
    from deltalake import DeltaTable

VERDICTS = "ledger/verdicts"
BATCHES = "ledger/batches"
_PLAIN = ("feed", "event_date", "status", "rows_read", "rows_valid", "rows_quarantined")  # of a verdict, as stored
_LISTS = ("reasons", "blocked_by", "warnings")
COMPACT_EVERY = 64  # appends to a ledger: its files stay few, so that reading it does not slow down over the years
# Old versions are what reproduction stands on: delta-rs would otherwise delete commits after 30 days.
CONFIGURATION = {
    "delta.checkpointInterval": "10",  # whoever opens a table reads all commits since: 11 ms after 46 of them, 2 after none
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}

# Arrow's own allocator keeps what it frees: landing 56 days of exposures peaked at 995 MB with it and at 838 with the C library's, in 10 %
# less CPU time (fewer page faults).
pyarrow.set_memory_pool(pyarrow.system_memory_pool())


@dataclass(frozen=True)
class Commit:
    """One version of a table that replaced days: what it wrote, and the versions of the tables it was computed from."""

    table: str
    version: int
    committed_at: datetime
    run_id: str
    days: dict[date, DayContent]
    inputs: dict[str, int]
    erased: dict[date, DayContent]  # what these days held before, where a customer's rows went and nothing else changed


@lru_cache(maxsize=8)
def _statuses(lake: Lake, state: tuple[str, int], feed: str) -> dict[date, str]:
    """Day -> status of its newest verdict; a training asks for the same days many times. `state`: id and version of the table."""
    columns = ["event_date", "status", "recorded_at"]
    rows = rows_of(lake._read(VERDICTS), [("feed", "=", feed)], columns).sort_by(columns[-1])
    return dict(zip(rows["event_date"].to_pylist(), rows["status"].to_pylist(), strict=True))


class Lake(dg.ConfigurableResource):
    """Delta tables under one root folder or URL."""

    root: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Lake]:
        """A run has the lake to its end: an erasure waits. A tick of a sensor, which is no run, does not hold it."""
        with shared(self.root) if context.run else nullcontext():
            yield self

    def uri(self, table: str) -> str:
        return f"{self.root.rstrip('/')}/{table}"

    def _read(self, table: str, version: int | None = None) -> DeltaTable:
        """To read: the newest version, or an older one."""
        from deltalake import DeltaTable

        return opened(self.uri(table)) if version is None else DeltaTable(self.uri(table), version=version)

    def _write(self, table: str) -> DeltaTable:
        """To write: a handle of its own, which the writing changes."""
        from deltalake import DeltaTable

        return DeltaTable(self.uri(table))

    def exists(self, table: str) -> bool:
        from deltalake import DeltaTable

        return bool(DeltaTable.is_deltatable(self.uri(table)))

    def _require(self, table: str) -> None:
        if not self.exists(table):
            raise NotEnoughData(
                f"lake table {table}", found="no table", wanted="at least one written day", fix="materialise it first"
            )

    def version(self, table: str) -> int:
        """The newest version number; 0 is the first commit."""
        return int(self._read(table).version())

    def replace_days(
        self,
        table: str,
        rows: pyarrow.Table,
        days: Sequence[date],
        run_id: str,
        *,
        key: str | None = None,
        inputs: Mapping[str, int] | None = None,
        evolves: bool = False,
        notes: Mapping[str, str] | None = None,
    ) -> dict[date, DayContent]:
        """Atomically make `rows` the whole content of `days`, and of no other day.

        The commit carries rows and digest of each day and the versions of its inputs, so that no crash can part them. Rows of
        other days are an error of Delta's own (they fail the predicate). A concurrent writer of the same day is retried, the
        last one wins.

        Args:
            key: the column whose order makes digests canonical; without it the order of `rows` counts.
            inputs: table -> version that `rows` were computed from.
            evolves: columns that the table does not have yet are added to it.
            notes: what else the commit says of itself.

        Returns:
            Rows and digest of each of `days`.
        """
        import deltalake

        found = contents(rows, days, key)
        listed = ", ".join(f"'{day}'" for day in found)

        def write(properties: Any) -> None:
            deltalake.write_deltalake(
                self.uri(table),
                rows,
                mode="overwrite",
                predicate=f"event_date IN ({listed})",
                schema_mode="merge" if evolves else None,
                partition_by=["event_date"],
                commit_properties=properties,
                writer_properties=blob_writer(rows.schema),
            )

        self.create(table, rows.schema)
        self._commit(write, found, run_id, inputs, notes)
        return found

    def day_file(self, table: str, schema: pyarrow.Schema, day: date, row_group: int = ROW_GROUP) -> DayFile:
        """A new file for `replace_day`, for a day that does not fit into memory."""
        self.create(table, schema)
        return DayFile(self.uri(table), schema, day, row_group)

    def replace_day(
        self,
        table: str,
        file: DayFile,
        run_id: str,
        inputs: Mapping[str, int] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> DayContent:
        """`replace_days` of the day of `file`, in one commit as well; the digest is of the order in the file."""
        content = file.finish()

        def write(properties: Any) -> None:
            self._write(table).create_write_transaction(
                [file.action()],
                mode="overwrite",
                schema=file.schema,
                partition_by=["event_date"],
                partition_filters=[("event_date", "=", file.day.isoformat())],
                commit_properties=properties,
            )

        # 0: Delta must not fit this commit to one that was faster, as it would where both bring the first rows of the day (both stayed)
        self._commit(write, {file.day: content}, run_id, inputs, notes, max_commit_retries=0)
        return content

    def _commit(
        self,
        write: Callable[[Any], None],
        found: dict[date, DayContent],
        run_id: str,
        inputs: Mapping[str, int] | None,
        notes: Mapping[str, str] | None,
        **options: int,
    ) -> None:
        """Repeat `write` while other writers are faster, with what the commit says of itself."""
        import deltalake

        own = {"dagster_run_id": run_id, "content": to_json(found), "inputs": json.dumps(dict(inputs or {}))}
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(deltalake.exceptions.CommitFailedError),
            stop=tenacity.stop_after_attempt(8),
            wait=tenacity.wait_random_exponential(0.05, 2),
            reraise=True,
        )(write, deltalake.CommitProperties(custom_metadata={**(notes or {}), **own}, **options))

    def versions(self, tables: Iterable[str]) -> dict[str, int]:
        """The newest version of each table that exists: taken before reading, it is what a commit names as its inputs."""
        return {table: self.version(table) for table in tables if self.exists(table)}

    def create(self, table: str, schema: pyarrow.Schema, partition_by: str | None = "event_date") -> None:
        """An empty table, unless it is there already."""
        import deltalake

        if not self.exists(table):
            deltalake.DeltaTable.create(
                self.uri(table), schema, partition_by=partition_by, mode="ignore", configuration=CONFIGURATION
            )

    def append(self, table: str, rows: pyarrow.Table) -> None:
        """Add rows to a ledger (verdicts, batches): history is kept, readers take the newest row of a key."""
        import deltalake

        self.create(table, rows.schema, partition_by=None)
        deltalake.write_deltalake(self.uri(table), rows, mode="append", schema_mode="merge")
        written = self._write(table)
        if written.version() % COMPACT_EVERY == 0:
            written.optimize.compact()

    def read(
        self,
        table: str,
        start: date | None = None,
        end: date | None = None,
        columns: list[str] | None = None,
        version: int | None = None,
    ) -> pyarrow.Table:
        """Rows of the days from `start` to `end`, both included.

        Raises:
            NotEnoughData: the table does not exist yet.
        """
        self._require(table)
        return rows_of(self._read(table, version), between(start, end), columns)

    def read_days(self, table: str, days: Sequence[date], version: int | None = None) -> pyarrow.Table:
        """Rows of just these days, of a version or of the newest one.

        Raises:
            NotEnoughData: the table does not exist yet.
        """
        self._require(table)
        return rows_of(self._read(table, version), [("event_date", "in", [day.isoformat() for day in days])])

    def schema(self, table: str) -> pyarrow.Schema:
        """Columns and types, event_date included; a list's values are called `element`."""
        return pyarrow.schema(self._read(table).schema().to_arrow())

    def rows_by_day(self, table: str) -> dict[date, int]:
        """Number of rows of each day that has any, from the log alone."""
        if not self.exists(table):
            return {}
        found: dict[date, int] = {}
        files = pyarrow.table(self._read(table).get_add_actions(flatten=True))
        for day, rows in zip(files["partition.event_date"].to_pylist(), files["num_records"].to_pylist(), strict=True):
            found[day] = found.get(day, 0) + rows
        return found

    def files(
        self, table: str, start: date | None = None, end: date | None = None, version: int | None = None
    ) -> list[str]:
        """The data files of a version or the newest one: an explicit list, because a glob would also read replaced ones."""
        if not self.exists(table):
            return []
        return sorted(self._read(table, version).file_uris(file_pruning_predicate=between(start, end) or None))

    def days(self, table: str) -> set[date]:
        """Days that have rows."""
        if not self.exists(table):
            return set()
        partitions = self._read(table).partitions()
        return {date.fromisoformat(str(partition["event_date"])) for partition in partitions}

    def commits(self, table: str) -> list[Commit]:
        """The versions of a table that replaced days, oldest first."""
        if not self.exists(table):
            return []
        return [
            Commit(
                table,
                int(entry["version"]),
                datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
                str(entry["dagster_run_id"]),
                from_json(entry["content"]),
                {name: int(version) for name, version in json.loads(entry["inputs"]).items()},
                from_json(entry.get("erased", "{}")),
            )
            for entry in reversed(self._read(table).history())
            if "content" in entry
        ]

    # Verdicts: one per feed and day, the newest counts; no verdict means no work (docs/design/reliability.md E1).

    def record_verdicts(self, verdicts: Iterable[Verdict], run_id: str, recorded_at: datetime) -> None:
        rows = [
            {
                **{name: getattr(v, name) for name in _PLAIN},
                **{name: list(getattr(v, name)) for name in _LISTS},
                "rules": json.dumps(dict(v.rules), sort_keys=True),
                "flagged": json.dumps(dict(v.flagged), sort_keys=True),
                "profile": json.dumps(asdict(v.profile), sort_keys=True) if v.profile else None,
                "batch_id": v.batch_id,
                "run_id": run_id,
                "recorded_at": recorded_at,
            }
            for v in verdicts
        ]
        schema = pyarrow.schema(
            [
                ("feed", pyarrow.string()),
                ("event_date", pyarrow.date32()),
                ("status", pyarrow.string()),
                ("rows_read", pyarrow.int64()),
                ("rows_valid", pyarrow.int64()),
                ("rows_quarantined", pyarrow.int64()),
                *((name, pyarrow.list_(pyarrow.string())) for name in _LISTS),
                *((name, pyarrow.string()) for name in ("rules", "flagged", "profile", "batch_id")),
                ("run_id", pyarrow.string()),
                ("recorded_at", pyarrow.timestamp("us", "UTC")),
            ]
        )
        self.append(VERDICTS, pyarrow.Table.from_pylist(rows, schema))

    def verdicts(self, feed: str, start: date, end: date, status: str | None = None) -> dict[date, Verdict]:
        """The newest verdict of each day of one feed; with `status` the newest one that said so, which may be superseded."""
        if not self.exists(VERDICTS):
            return {}
        newest: dict[date, Verdict] = {}
        filters: list[Filter] = [("feed", "=", feed), *between(start, end)]
        table = rows_of(self._read(VERDICTS), [*filters, ("status", "=", status)] if status else filters)
        for row in table.sort_by("recorded_at").to_pylist():
            stored = json.loads(row["profile"]) if row.get("profile") else None  # an older ledger has none
            newest[row["event_date"]] = Verdict(
                **{name: row[name] for name in _PLAIN},
                **{name: tuple(row.get(name) or ()) for name in _LISTS},
                rules=json.loads(row["rules"]),
                flagged=json.loads(row.get("flagged") or "{}"),
                profile=Profile(**stored) if stored else None,
                batch_id=row.get("batch_id") or "",
                recorded_at=row["recorded_at"],
            )
        return newest

    def statuses(self, feed: str, start: date, end: date) -> dict[date, str]:
        """The status of each day's newest verdict: what most readers ask for, without all of it being read and parsed."""
        if not self.exists(VERDICTS):
            return {}
        table = self._read(VERDICTS)
        found = _statuses(self, (str(table.metadata().id), table.version()), feed)
        return {day: status for day, status in found.items() if start <= day <= end}

    def passed_days(self, feeds: Iterable[str], start: date, end: date) -> list[date]:
        """Days on which every feed has a passed verdict, in order."""
        found = [self.statuses(feed, start, end).items() for feed in feeds]
        sets = [{day for day, status in statuses if status == "passed"} for statuses in found]
        return sorted(set.intersection(*sets)) if sets else []

    def blocked_days(self, feed: str, start: date, end: date) -> list[date]:
        """Days whose newest verdict on a feed is not a passed one, in order."""
        return sorted(day for day, status in self.statuses(feed, start, end).items() if status != "passed")

    def require_passed(self, feeds: Sequence[str], days: Sequence[date]) -> None:
        """The guard at the entrance of every computation on validated data.

        Raises:
            BlockedPartition: naming the first feed and day that is blocked or has no verdict, and why.
        """
        for feed in feeds:
            statuses = self.statuses(feed, min(days), max(days))
            for day in days:
                if statuses.get(day) != "passed":
                    verdict = self.verdicts(feed, day, day).get(day)
                    why = "no verdict" if verdict is None else "; ".join(verdict.reasons)
                    raise BlockedPartition(
                        f"{feed} of {day}",
                        found=why,
                        wanted="a passed verdict",
                        fix=f"materialise validated/{feed} for {day} from good data",
                    )


def local_lake(data_dir: Path) -> Lake:
    """The lake of the local profile."""
    return Lake(root=str(data_dir / "lake"))
