"""Taking one customer out of the stores beside the lake that are asked by her id: recent events, and the online store.

Belongs here: SQLite, PostgreSQL and Redis, as the settings name them. Does not: files of the data folder (erasure_files.py).
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import sqlalchemy as sa

from pipeline_assets.recommender.columns import CUSTOMER_ID
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.erasure_lake import Removed
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.mentions import Mentions
from pipeline_assets.resources.sqlite_files import connected, write_anew
from pipeline_assets.serving.event_store import dead_events, forget, forget_dead, of_customer, open_events
from pipeline_assets.settings import Settings


def is_server(url: str) -> bool:
    """Whether a database is more than a file."""
    return sa.make_url(url).get_backend_name() != "sqlite"


def erase_events(settings: Settings, her: Mentions) -> Removed:
    """Remove her events and messages of hers that were none."""
    engine = open_events(settings.events_url)
    try:
        rows = forget(engine, her.customer_id) + forget_dead(engine, her.named_in)
    finally:
        engine.dispose()
    return Removed(f"events {_place(settings.events_url)}", rows)


def look_at_events(settings: Settings, her: Mentions) -> list[str]:
    """What the database of events still holds of her."""
    engine = open_events(settings.events_url)
    try:
        rows = of_customer(engine, her.customer_id)
        rows += sum(dead.payload is not None and her.named_in(dead.payload) for dead in dead_events(engine))
    finally:
        engine.dispose()
    return [f"{rows} events in {_place(settings.events_url)}"] if rows else []


def erase_online(settings: Settings, her: Mentions) -> Removed:
    """Remove her features from the online store, whichever it is."""
    return Removed(_online_name(settings), _online(settings, her.customer_id, is_removing=True))


def look_at_online(settings: Settings, her: Mentions) -> list[str]:
    """What the online store still holds of her."""
    rows = _online(settings, her.customer_id, is_removing=False)
    return [f"{rows} rows in {_online_name(settings)}"] if rows else []


def _place(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)


def _online_name(settings: Settings) -> str:
    return f"online store ({settings.online_store['type']})"


def _online(settings: Settings, customer_id: str, *, is_removing: bool) -> int:
    """Rows or keys of a customer in the online store, counted or removed.

    Feast has no call that removes one entity: its keys are made with Feast's own function, and every table that has such keys is asked.
    """
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.infra.online_stores.helpers import get_online_store_from_config
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    config = FeatureStoreResource().open().config
    store: Any = get_online_store_from_config(config.online_store)
    entity = EntityKey(join_keys=[CUSTOMER_ID], entity_values=[Value(string_val=customer_id)])
    key = serialize_entity_key(entity, config.entity_key_serialization_version)
    kind = str(settings.online_store["type"])
    if kind == "sqlite":
        with closing(connected(settings.online_store["path"])) as database:
            tables = _sqlite_tables(database)
            found = sum(
                database.execute(f'select count(*) from "{t}" where entity_key = ?', (key,)).fetchone()[0]
                for t in tables
            )
            for table in tables if is_removing else ():
                database.execute(f'delete from "{table}" where entity_key = ?', (key,))
            database.commit()
            if is_removing:
                write_anew(database)
        return int(found)
    if kind == "redis":
        client = store._get_client(
            config.online_store
        )  # Feast's own connection: it knows about sentinels, clusters and TLS
        name = key + config.project.encode()
        return int(client.delete(name) if is_removing else client.exists(name))
    if kind == "postgres":
        schema = config.online_store.db_schema or config.online_store.user
        with store._get_conn(config) as connection, connection.cursor() as cursor:
            query = "select table_name from information_schema.columns where table_schema = %s and column_name = 'entity_key'"
            cursor.execute(query, (schema,))
            total = 0
            for (table,) in cursor.fetchall():
                verb = "delete" if is_removing else "select 1"
                cursor.execute(f'{verb} from "{schema}"."{table}" where entity_key = %s', (key,))
                total += cursor.rowcount
            connection.commit()
        return total
    raise ConfigurationError(
        "setting stores.online_store",
        found=f"type {kind}",
        wanted="sqlite, redis or postgres, which an erasure knows",
        fix=f"remove entity {key.hex()} of project {config.project} by hand, or use one of these",
    )


def _sqlite_tables(database: Any) -> list[str]:
    names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
    return [n for n in names if any(c[1] == "entity_key" for c in database.execute(f'pragma table_info("{n}")'))]
