"""Recent events of customers: one table that is written once for each event id and followed by a rising id.

Belongs here: the tables and their functions, for SQLite (default) and PostgreSQL. Does not: what an event does to an answer
(behaviour), HTTP (routes_events), the broker (sources/stream_events.py).
Writers take turns until they commit, so ids become visible in their order: a follower that has seen 7 never misses a later 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pipeline_assets.serving.behaviour import Event

BUSY_SECONDS = 15  # a writer of SQLite waits so long for its turn
metadata = sa.MetaData()
events_table = sa.Table(
    "recent_events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.String(128), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("customer_id", sa.String(128), nullable=False),
    sa.Column("product_id", sa.String(128), nullable=False),
    sa.Column(
        "at", sa.String(32), nullable=False, index=True
    ),  # ISO 8601 with microseconds, UTC: text order is time order
    sqlite_autoincrement=True,  # an id is never used again, also when the newest rows were removed
)
positions_table = sa.Table(
    "event_positions",
    metadata,
    sa.Column("topic", sa.String(249), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
)
dead_table = sa.Table(
    "dead_events",
    metadata,
    sa.Column("topic", sa.String(249), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True),
    sa.Column("reason", sa.String(300), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=True),  # the first bytes
    sa.Column("received_at", sa.String(32), nullable=False),
)


@dataclass(frozen=True)
class DeadEvent:
    """A message that is no event."""

    topic: str
    partition: int
    offset: int
    reason: str
    payload: bytes | None


def open_events(url: str) -> sa.Engine:
    """An engine on the tables, which are created where they are missing (with the folder, for SQLite).

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached.
    """
    parsed = sa.make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    if is_file:
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args={"timeout": BUSY_SECONDS} if is_file else {})
    if is_file:
        with engine.connect() as connection:
            connection.exec_driver_sql("pragma journal_mode=wal")  # followers read while a writer writes
    metadata.create_all(engine)
    return engine


def timely(events: Sequence[Event], now: datetime, retention: timedelta) -> list[Event]:
    """Events that are young enough to be kept; one from the future counts as of now, so that no wrong clock outlives the others."""
    return [
        event if event.at <= now else Event(event.event_id, event.kind, event.customer_id, event.product_id, now)
        for event in events
        if event.at >= now - retention
    ]


def append(
    engine: sa.Engine,
    events: Sequence[Event],
    received_at: datetime,
    positions: Mapping[tuple[str, int], int] | None = None,
    dead: Sequence[DeadEvent] = (),
) -> int:
    """Keep events whose id is new, and how far their topic was read, in one transaction; returns how many were new.

    Positions never go back, so two readers of one topic have the effect of one.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: nothing was kept.
    """
    with engine.begin() as connection:
        _take_turn(connection)
        new = 0
        if events:
            rows = [_row(event) for event in {event.event_id: event for event in reversed(events)}.values()]
            statement = _insert(connection, events_table).on_conflict_do_nothing(index_elements=["event_id"])
            returned = connection.execute(statement.returning(events_table.c.id), rows[::-1])
            new = len(returned.all())
        for (topic, partition), offset in (positions or {}).items():
            statement = _insert(connection, positions_table).values(
                topic=topic, partition=partition, next_offset=offset
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["topic", "partition"],
                    set_={"next_offset": offset},
                    where=positions_table.c.next_offset < offset,
                )
            )
        if dead:
            values = [{**vars(message), "received_at": _utc(received_at)} for message in dead]
            connection.execute(_insert(connection, dead_table).on_conflict_do_nothing(), values)
    return new


def positions_of(engine: sa.Engine, topic: str) -> dict[int, int]:
    """Partition -> the first offset that was not kept."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(positions_table).where(positions_table.c.topic == topic))
        return {row.partition: row.next_offset for row in rows}


def forget_positions(engine: sa.Engine, topic: str, partitions: Sequence[int]) -> None:
    """Let these partitions begin anew: what was to be read next is gone from the broker."""
    with engine.begin() as connection:
        connection.execute(
            positions_table.delete().where(
                positions_table.c.topic == topic, positions_table.c.partition.in_(list(partitions))
            )
        )


def after(engine: sa.Engine, last_id: int, most: int) -> list[tuple[int, Event]]:
    """The next `most` events with their ids, in the order in which they were kept."""
    query = sa.select(events_table).where(events_table.c.id > last_id).order_by(events_table.c.id).limit(most)
    with engine.connect() as connection:
        return [(row.id, _event(row)) for row in connection.execute(query)]


def purge(engine: sa.Engine, before: datetime) -> int:
    """Remove events that happened before; returns how many. What is older than the retention is not taken again, so none comes back."""
    with engine.begin() as connection:
        _take_turn(connection)
        return connection.execute(events_table.delete().where(events_table.c.at < _utc(before))).rowcount


def of_customer(engine: sa.Engine, customer_id: str) -> int:
    """How many events of a customer are kept."""
    query = sa.select(sa.func.count()).select_from(events_table).where(events_table.c.customer_id == customer_id)
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def forget(engine: sa.Engine, customer_id: str) -> int:
    """Remove all events of a customer, also from pages of SQLite's file that are free then; returns how many there were."""
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("pragma secure_delete=on")
        _take_turn(connection)
        return connection.execute(events_table.delete().where(events_table.c.customer_id == customer_id)).rowcount


def forget_dead(engine: sa.Engine, names_her: Callable[[bytes], bool]) -> int:
    """Remove messages that were no events and that name a customer; returns how many."""
    found = [dead for dead in dead_events(engine) if dead.payload is not None and names_her(dead.payload)]
    keys = (dead_table.c.topic, dead_table.c.partition, dead_table.c.offset)
    with engine.begin() as connection:
        for dead in found:
            place = (dead.topic, dead.partition, dead.offset)
            connection.execute(dead_table.delete().where(*(k == v for k, v in zip(keys, place, strict=True))))
    return len(found)


def dead_events(engine: sa.Engine) -> list[DeadEvent]:
    """Messages that were no events, by topic, partition and offset."""
    columns = [dead_table.c[name] for name in ("topic", "partition", "offset", "reason", "payload")]
    with engine.connect() as connection:
        return [DeadEvent(*row) for row in connection.execute(sa.select(*columns).order_by(*columns[:3]))]


def _take_turn(connection: sa.Connection) -> None:
    """One writer at a time, until commit."""
    if connection.dialect.name == "sqlite":
        connection.execute(events_table.delete().where(events_table.c.id < 0))  # takes the write lock
    else:
        connection.execute(sa.text("LOCK TABLE recent_events IN SHARE ROW EXCLUSIVE MODE"))


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _row(event: Event) -> dict[str, str]:
    return {**vars(event), "at": _utc(event.at)}


def _event(row: sa.Row[Any]) -> Event:
    return Event(row.event_id, row.kind, row.customer_id, row.product_id, datetime.fromisoformat(row.at))


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
