"""Where the dbt project runs. Belongs here: giving an engine schema `lake`, and taking a mart's rows back. Does not: SQL of models.

Two engines, chosen by the dbt target alone (PIPELINE_DBT_TARGET). `duckdb` is a scratch file that a run writes and throws away;
it looks at the lake's Parquet files themselves. `postgres` is a server: the rows of the run are copied to it and the marts stay
there as well, for whoever asks them in SQL. Both give back the same rows in the same order, so that digests are equal.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow

from pipeline_assets.recommender.columns import CUSTOMER_ID
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.schemas.feeds import FEEDS

if TYPE_CHECKING:
    import duckdb

SCHEMA = "warehouse"
# DuckDB's own limit, for us and for dbt, who open one database in one process. 600 MB are no faster, at 400 the whole run stays near 1 GB.
MEMORY = "400MB"
PARTS = 10_000  # of the customers; a share is so many of them
_BATCH = 100_000  # rows on their way to a server: 10 MB of text
_SQL_TYPES = {
    "string": "varchar",
    "double": "double precision",
    "bool": "boolean",
    "date32[day]": "date",
    "timestamp[us, tz=UTC]": "timestamptz",
}


@dataclass(frozen=True)
class Snapshot:
    """What one build reads: the run's days, and of each feed an explicit list of files and the days in them that may be read.

    `share`: of the customers, above 0, up to 1; the same ones on every day and in every feed. Rows without a customer all stay.
    """

    first: date
    last: date
    files: dict[str, list[str]]
    days: dict[str, list[date]]
    share: float = 1.0


class Engine(Protocol):
    """One build's database, between `prepare` and `close`."""

    def prepare(self, snapshot: Snapshot) -> None:
        """Schema `lake` holds the snapshot's feeds and the run's window."""

    def count(self, mart: str, days: Sequence[date]) -> dict[date, int]:
        """Rows of a mart on those of `days` that have any."""

    def rows(self, mart: str, days: Sequence[date], order: Sequence[str]) -> pyarrow.Table:
        """Rows of a mart of `days` (in order), by day and `order`."""

    def close(self) -> None:
        """Nothing of the run stays but what the target keeps."""


def quoted(names: Sequence[object], kind: str = "") -> str:
    """SQL literals in a list."""
    return ", ".join(f"{kind}'{str(name).replace(chr(39), chr(39) * 2)}'" for name in names)


def select_feed(feed: str, snapshot: Snapshot) -> str:
    """DuckDB's select of a feed: an explicit file list, never a glob, because a glob would also read replaced files."""
    schema = FEEDS[feed].arrow_schema
    columns = ", ".join(schema.names)
    if not snapshot.files[feed] or not snapshot.days[feed]:
        typed = ", ".join(f"cast(null as {_SQL_TYPES[str(field.type)]}) as {field.name}" for field in schema)
        return f"select {typed} where false"
    return f"""select {columns} from read_parquet([{quoted(snapshot.files[feed])}], hive_partitioning = true,
        hive_types = {{'event_date': date}}) where event_date in ({quoted(snapshot.days[feed], "date ")}){_chosen(schema, snapshot.share)}"""


def _chosen(schema: pyarrow.Schema, share: float) -> str:
    """The condition that leaves a share of the customers: by a hash of their id, so that a smaller share is part of a larger one."""
    if share >= 1 or CUSTOMER_ID not in schema.names:
        return ""
    return f" and ({CUSTOMER_ID} is null or md5_number_lower({CUSTOMER_ID}) % {PARTS} < {round(share * PARTS)})"


@contextmanager
def _duckdb(path: str = ":memory:") -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the limits of profiles.yml, in settings: other options than dbt's would be another database to DuckDB."""
    import duckdb

    with duckdb.connect(path) as con:
        con.execute(f"set memory_limit = '{MEMORY}'; set threads = 2; set timezone = 'UTC'")
        con.execute("set preserve_insertion_order = false")
        yield con


class DuckDbEngine:
    """A scratch file beside the lake. It holds one build's days and is deleted: no state, no second copy of the marts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading = ExitStack()
        self._con: duckdb.DuckDBPyConnection | None = None  # while marts are read: opening costs 20 ms

    def prepare(self, snapshot: Snapshot) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.close()  # what a killed run left behind
        with _duckdb(str(self._path)) as con:
            con.execute("create schema lake")
            con.execute(
                "create table lake.run_window as select ?::date as first_day, ?::date as last_day",
                [snapshot.first, snapshot.last],
            )
            for feed in FEEDS:
                con.execute(f"create view lake.{feed} as {select_feed(feed, snapshot)}")

    def count(self, mart: str, days: Sequence[date]) -> dict[date, int]:
        return dict(self._opened().sql(_count(mart, days)).fetchall())

    def rows(self, mart: str, days: Sequence[date], order: Sequence[str]) -> pyarrow.Table:
        query = f"{_select(mart, days)} order by {', '.join(('event_date', *order))}"
        return self._opened().sql(query).to_arrow_table()

    def _opened(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            self._con = self._reading.enter_context(_duckdb(str(self._path)))
        return self._con

    def close(self) -> None:
        self._reading.close()
        self._con = None
        for path in (self._path, Path(f"{self._path}.wal")):
            path.unlink(missing_ok=True)
        shutil.rmtree(f"{self._path}.tmp", ignore_errors=True)  # where it spills


class PostgresEngine:
    """A PostgreSQL database, by dbt's credentials. Schema `lake` holds the rows of one build; schema `warehouse` keeps the marts."""

    def __init__(self, credentials: Any) -> None:
        self._address = {
            "host": credentials.host,
            "port": credentials.port,
            "user": credentials.user,
            "password": credentials.password or None,
            "dbname": credentials.database,
        }

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """One transaction."""
        import psycopg2

        try:
            connection = psycopg2.connect(**self._address)
        except psycopg2.OperationalError as error:
            raise ConfigurationError(
                f"dbt target postgres at {self._address['host']}:{self._address['port']}",
                found=" ".join(str(error).split()),
                wanted="a PostgreSQL that lets us in",
                fix="correct PIPELINE_PG_HOST, _PORT, _USER, _PASSWORD, _DATABASE, or start the server",
            ) from None
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def prepare(self, snapshot: Snapshot) -> None:
        with self._cursor() as cursor, _duckdb() as con:
            cursor.execute("create schema if not exists lake")
            cursor.execute("create table if not exists lake.run_window (first_day date, last_day date)")
            cursor.execute("truncate lake.run_window")
            cursor.execute("insert into lake.run_window values (%s, %s)", [snapshot.first, snapshot.last])
            for feed in FEEDS.values():
                columns = ", ".join(f"{field.name} {_SQL_TYPES[str(field.type)]}" for field in feed.arrow_schema)
                # unlogged: a copy of lake rows needs no crash safety of its own
                cursor.execute(f"create unlogged table if not exists lake.{feed.name} ({columns})")
                cursor.execute(f"truncate lake.{feed.name}")
                reader = con.sql(select_feed(feed.name, snapshot)).to_arrow_reader(_BATCH)
                for batch in reader:
                    cursor.copy_expert(f"copy lake.{feed.name} from stdin (format csv)", _as_csv(batch))
                cursor.execute(f"analyze lake.{feed.name}")

    def count(self, mart: str, days: Sequence[date]) -> dict[date, int]:
        with self._cursor() as cursor:
            cursor.execute(_count(mart, days))
            return dict(cursor.fetchall())

    def rows(self, mart: str, days: Sequence[date], order: Sequence[str]) -> pyarrow.Table:
        import tempfile

        with self._cursor() as cursor, _duckdb() as con, tempfile.NamedTemporaryFile(suffix=".csv") as file:
            cursor.execute(
                """select column_name, data_type from information_schema.columns
                where table_schema = %s and table_name = %s order by ordinal_position""",
                [SCHEMA, mart],
            )
            types = ", ".join(f"'{name}': '{kind}'" for name, kind in cursor.fetchall())
            cursor.copy_expert(f"copy ({_select(mart, days)}) to stdout (format csv, force_quote *)", file)
            file.flush()
            # text that is quoted is text, even when it is empty; only nothing at all is null
            return con.sql(
                f"""select * from read_csv('{file.name}', header = false, auto_detect = false, delim = ',', quote = '"', escape = '"',
                allow_quoted_nulls = false, columns = {{{types}}}) order by {", ".join(("event_date", *order))}"""
            ).to_arrow_table()

    def close(self) -> None:
        with self._cursor() as cursor:
            cursor.execute(f"truncate {', '.join(f'lake.{feed}' for feed in FEEDS)}")


def engine_of(credentials: Any, project: Path) -> Engine:
    """The engine of a dbt target, by the type of its credentials; a relative path is relative to the project, as for dbt.

    Raises:
        ConfigurationError: no engine for that type of database.
    """
    if credentials.type == "duckdb":
        return DuckDbEngine(project / credentials.path)
    if credentials.type == "postgres":
        return PostgresEngine(credentials)
    raise ConfigurationError(
        "PIPELINE_DBT_TARGET",
        found=f"a target of type {credentials.type}",
        wanted="a target of type duckdb or postgres",
        fix="choose one of those; the other targets are for dbt's own command line",
    )


def _span(days: Sequence[date]) -> str:
    return f"event_date >= date '{min(days)}' and event_date <= date '{max(days)}'"


def _select(mart: str, days: Sequence[date]) -> str:
    return f"select * from {SCHEMA}.{mart} where {_span(days)}"


def _count(mart: str, days: Sequence[date]) -> str:
    return f"select event_date, count(*) from {SCHEMA}.{mart} where {_span(days)} group by event_date"


def _as_csv(batch: pyarrow.RecordBatch) -> Any:
    import io

    import pyarrow.csv

    text = io.BytesIO()
    # texts are quoted, so that an empty one is not null
    pyarrow.csv.write_csv(batch, text, pyarrow.csv.WriteOptions(include_header=False))
    text.seek(0)
    return text
