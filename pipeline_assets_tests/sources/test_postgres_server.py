"""The tests' own PostgreSQL: it is real, and it asks for passwords."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pipeline_assets_tests.postgres import READER, READER_PASSWORD, Postgres


def test_a_database_of_its_own(postgres: Postgres) -> None:
    """What one test writes is in its database alone, and is gone when the database is made again."""
    for _ in range(2):
        engine = sa.create_engine(postgres.database("own"))
        with engine.begin() as connection:
            assert sa.inspect(connection).get_table_names() == []
            connection.execute(sa.text("create table t (x int)"))
        engine.dispose()


def test_reader_needs_its_password(postgres: Postgres) -> None:
    """The right one reads; a wrong one is refused, so a test of wrong credentials can fail."""
    engine = sa.create_engine(postgres.url(user=READER, password=READER_PASSWORD))
    with engine.connect() as connection:
        assert "PostgreSQL 18" in connection.execute(sa.text("select version()")).scalar_one()
    engine.dispose()
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        sa.create_engine(postgres.url(user=READER, password="wrong")).connect()
