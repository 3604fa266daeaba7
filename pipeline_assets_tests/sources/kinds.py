"""Every kind of source, as a factory: the same delivery put where that kind reads it. `test_source_contract.py` runs on all of them.

A new kind adds one `Kind` to KINDS. What a kind cannot express is said by its flags, not by skipping tests.

A `Delivery` has frames in the shop's own column names; column DAY is the business day on which a row was delivered. Kinds that are
told the day by a file's name group by it; the others drop it and find the day from the mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline_assets.sources.base import InspectableSource, SourceCalendar
from pipeline_assets.sources.mapping import SourceMapping

DAY = "__delivered"


@dataclass(frozen=True)
class Delivery:
    """What a shop has: feed -> rows.

    Args:
        tables: by the name that the mapping's `from` gives (the feed's name without one).
        empty_days: days that are delivered without a row, by kinds that can.
    """

    tables: Mapping[str, pd.DataFrame]
    mapping: SourceMapping
    calendar: SourceCalendar
    empty_days: tuple[date, ...] = ()
    max_unparsed_share: float = 0.5


Build = Callable[[Delivery, Path, pytest.FixtureRequest], InspectableSource]


@dataclass(frozen=True)
class Kind:
    """One kind of source.

    Args:
        build: puts a delivery where it is read (an empty folder is given) and makes the source.
        days_by_name: a delivery says its day, and can be empty; otherwise the day follows from the rows.
        has_dead_letters: a row without a business day is set aside before it is in any day.
    """

    name: str
    build: Build
    days_by_name: bool = False
    has_dead_letters: bool = False


# Files


def _write(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith("parquet"):
        frame.to_parquet(path, index=False, coerce_timestamps="us")
    elif ".csv" in path.name:
        frame.to_csv(path, index=False, sep=";")  # gzip by the extension
    else:
        frame.to_json(path, orient="records", lines=True, date_format="iso", date_unit="us")


def write_daily(delivery: Delivery, root: Path, extension: str) -> None:
    """One file a table and day."""
    for table, frame in delivery.tables.items():
        for day, rows in frame.groupby(DAY, sort=False):
            _write(rows.drop(columns=DAY), root / table / f"{day}.{extension}")
        for day in delivery.empty_days:
            _write(frame.iloc[:0].drop(columns=DAY), root / table / f"{day}.{extension}")


def write_whole(delivery: Delivery, root: Path, extension: str) -> None:
    """One file a table."""
    for table, frame in delivery.tables.items():
        _write(frame.drop(columns=DAY), root / f"{table}.{extension}")


def write_folder(delivery: Delivery, root: Path, extension: str) -> None:
    """A folder a table, whose files are cut anywhere."""
    for table, frame in delivery.tables.items():
        rows, half = frame.drop(columns=DAY), (len(frame) + 1) // 2
        _write(rows[:half], root / table / f"part-1.{extension}")
        _write(rows[half:], root / table / f"part-2.{extension}")


def _files(write: Callable[[Delivery, Path, str], None], extension: str) -> Build:
    def build(delivery: Delivery, folder: Path, request: pytest.FixtureRequest) -> InspectableSource:
        from pipeline_assets.sources.files import FilesSource

        (folder / "drops").mkdir()
        write(delivery, folder / "drops", extension)
        return FilesSource(
            str(folder / "drops"), delivery.mapping, delivery.calendar, delivery.max_unparsed_share, folder / "spool"
        )

    return build


def _object_store(write: Callable[[Delivery, Path, str], None], extension: str) -> Build:
    def build(delivery: Delivery, folder: Path, request: pytest.FixtureRequest) -> InspectableSource:
        from pipeline_assets.sources.files import FilesSource

        store = request.getfixturevalue("object_store")
        (folder / "drops").mkdir()
        write(delivery, folder / "drops", extension)
        store.upload(folder / "drops", folder.name)
        return FilesSource(
            store.url(folder.name), delivery.mapping, delivery.calendar, delivery.max_unparsed_share, folder / "spool"
        )

    return build


# Databases


def load(url: str, delivery: Delivery, connect_args: Mapping[str, Any] | None = None) -> None:
    """Create a table a frame, with the types of the frame, and fill it."""
    import sqlalchemy as sa

    engine = sa.create_engine(url, connect_args=dict(connect_args or {}), poolclass=sa.pool.NullPool)
    is_text = engine.dialect.name == "sqlite"  # which has no type for moments
    with engine.begin() as connection:
        for name, frame in delivery.tables.items():
            rows = frame.drop(columns=DAY)
            columns = []
            for column, dtype in rows.dtypes.items():
                kind: Any = sa.String() if pd.api.types.is_string_dtype(dtype) else sa.Double()
                if str(dtype).startswith("datetime64"):
                    kind = sa.String() if is_text else sa.DateTime(timezone=isinstance(dtype, pd.DatetimeTZDtype))
                    if is_text:
                        rows = rows.assign(
                            **{str(column): rows[column].map(lambda moment: moment.isoformat(" "), na_action="ignore")}
                        )
                columns.append(sa.Column(str(column), kind))
            table = sa.Table(name, sa.MetaData(), *columns)
            table.create(connection)
            values = rows.astype(object).where(rows.notna(), None).to_dict("records")
            values = [
                {key: v.to_pydatetime() if isinstance(v, pd.Timestamp) else v for key, v in row.items()}
                for row in values
            ]
            if values:
                connection.execute(table.insert(), values)
    engine.dispose()


def _sql(url_of: Callable[[Path, pytest.FixtureRequest], tuple[str, Mapping[str, Any]]]) -> Build:
    def build(delivery: Delivery, folder: Path, request: pytest.FixtureRequest) -> InspectableSource:
        from pipeline_assets.sources.sql import SqlSource

        url, connect_args = url_of(folder, request)
        load(url, delivery, connect_args)
        return SqlSource(url, connect_args, delivery.mapping, delivery.calendar, delivery.max_unparsed_share)

    return build


def _sqlite(folder: Path, request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return f"sqlite:///{folder / 'shop.db'}", {}


def _postgres(folder: Path, request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.getfixturevalue("contract_database"), {}


def _snowflake(folder: Path, request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.getfixturevalue("snowflake")(folder.name)


# Streams


def _stream(delivery: Delivery, folder: Path, request: pytest.FixtureRequest) -> InspectableSource:
    """One topic a table, one JSON message a row, over two partitions; every partition has shown the end of the last day."""
    from pipeline_assets.resources.lake import Lake
    from pipeline_assets.sources.stream import StreamSource, stream_feeds
    from pipeline_assets.sources.stream_messages import ROWS, Message, sort_messages, start_of
    from pipeline_assets.sources.stream_table import Position, StreamTable, table_of

    lake, calendar = Lake(root=str(folder)), delivery.calendar
    received_at = datetime(2018, 1, 1, tzinfo=UTC)
    days = [day for frame in delivery.tables.values() for day in frame[DAY]]
    end = start_of(max(days, default=calendar.first_day) + timedelta(days=1), calendar.time_zone)
    for stream in stream_feeds(delivery.mapping, calendar.time_zone, date(2017, 1, 1)):
        if stream.topic not in delivery.tables:
            continue
        frame = delivery.tables[stream.topic]
        text = frame.drop(columns=DAY).to_json(orient="records", lines=True, date_format="iso", date_unit="us")
        messages = [
            Message(stream.topic, at % 2, at // 2, line.encode(), len(line), start_of(day, calendar.time_zone))
            for at, (line, day) in enumerate(zip(filter(None, text.split("\n")), frame[DAY], strict=True))
        ]
        rows = sort_messages(stream, messages, 65_536, received_at).rows
        places = [(stream.topic, 0), (stream.topic, 1)]
        StreamTable(lake, table_of(stream.feed.name), ROWS, "event_date").commit(
            rows, "", dict.fromkeys(places), dict.fromkeys(places, Position(len(messages), end)), {stream.topic: 2}
        )
    return StreamSource(lake, delivery.mapping, calendar, timedelta(0), delivery.max_unparsed_share)


KINDS = [
    Kind("csv daily", _files(write_daily, "csv"), days_by_name=True),
    Kind("parquet daily", _files(write_daily, "parquet"), days_by_name=True),
    Kind("jsonl daily", _files(write_daily, "jsonl"), days_by_name=True),
    Kind("csv one file", _files(write_whole, "csv")),
    Kind("csv.gz folder", _files(write_folder, "csv.gz")),
    Kind("parquet one file", _files(write_whole, "parquet")),
    Kind("ndjson.gz one file", _files(write_whole, "ndjson.gz")),
    Kind("s3 csv daily", _object_store(write_daily, "csv"), days_by_name=True),
    Kind("sqlite", _sql(_sqlite)),
    Kind("postgres", _sql(_postgres)),
    Kind("stream", _stream, has_dead_letters=True),
]
if find_spec(
    "fakesnow"
):  # the environment of requirements-snowflake.lock has this kind and no other (make engines-snowflake)
    KINDS = [Kind("snowflake", _sql(_snowflake))]
