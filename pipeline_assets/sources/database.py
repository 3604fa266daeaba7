"""A database that is only read: connections, streamed statements, and messages without secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline_assets.recommender.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")
ROWS_AT_ONCE = 20_000  # of a streamed result: 20,000 lines of purchases are 10 MB as Python objects


class Refused(Exception):
    """The database refused a statement; the message is safe to show. Never leaves the source."""


class Database:
    """One URL. Nothing is connected before it is asked; every question is a connection of its own.

    Args:
        url: SQLAlchemy URL, a secret.
        connect_args: what the driver wants besides.
    """

    def __init__(self, url: str, connect_args: Mapping[str, Any]) -> None:
        self._url, self._connect_args = url, dict(connect_args)

    @cached_property
    def _engine(self) -> sa.Engine:
        import sqlalchemy as sa

        try:
            # hide_parameters: values of customers do not belong into messages
            return sa.create_engine(
                self._url, connect_args=self._connect_args, poolclass=sa.pool.NullPool, hide_parameters=True
            )
        except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
            has_dialect = isinstance(error, sa.exc.NoSuchModuleError | ModuleNotFoundError)
            raise ConfigurationError(
                "setting source.url",
                found=str(error) if has_dialect else "a text that is no SQLAlchemy URL",  # which may hold a password
                wanted="dialect+driver://user:password@host/database, with the driver installed",
                fix="correct PIPELINE_SOURCE__URL or the file of PIPELINE_SOURCE__URL_FILE, or install the driver",
            ) from None

    @property
    def shown(self) -> str:
        """The database for messages: no user, password or options."""
        url = self._engine.url
        return f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}"

    def _safe(self, error: Exception) -> str:
        """A driver's message on one line, without the password, should it repeat it."""
        text = " ".join(str(getattr(error, "orig", None) or error).split())[:400]
        password = self._engine.url.password
        return text.replace(str(password), "***") if password else text

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """A connection that only reads, where the database can promise that.

        Raises:
            SourceError: there is none to be had.
        """
        import sqlalchemy as sa

        try:
            connection = self._engine.connect()
        except sa.exc.DBAPIError as error:
            raise SourceError(
                f"database {self.shown}",
                found=self._safe(error),
                wanted="a connection that may read",
                fix="check address, user and password of PIPELINE_SOURCE__URL, and that the server is up",
            ) from None
        try:
            yield connection.execution_options(
                **({"postgresql_readonly": True} if connection.dialect.name == "postgresql" else {})
            )
        finally:
            try:
                connection.close()
            except sa.exc.DBAPIError:  # it is broken already, and who broke it is told
                connection.invalidate()

    def has_table(self, name: str) -> bool:
        import sqlalchemy as sa

        with self._connection() as connection:
            return bool(sa.inspect(connection).has_table(name))

    def ask(self, statement: sa.Executable, use: Callable[[sa.CursorResult[Any]], T]) -> T:
        """What `use` makes of the result, which a server-side cursor streams.

        Raises:
            SourceError: there is no connection, or it broke.
            Refused: the database does not accept the statement.
        """
        import sqlalchemy as sa

        with self._connection() as connection:
            try:
                streamed = connection.execution_options(stream_results=True, yield_per=ROWS_AT_ONCE)
                return use(streamed.execute(statement))
            except sa.exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise SourceError(
                        f"database {self.shown}",
                        found=self._safe(error),
                        wanted="a connection that lasts until the rows are read",
                        fix="run it again; see the database's log",
                    ) from None
                raise Refused(self._safe(error)) from None

    def refusal(self, statement: sa.Executable) -> str | None:
        """What the database says to a statement that it refuses; None when it accepts it."""
        try:
            self.ask(statement, lambda result: result.fetchall())
        except Refused as error:
            return str(error)
        return None


def literal(sql: str) -> str:
    """SQL for `sqlalchemy.text` in which a colon is no parameter: `'12:30'`, `x::date`."""
    return sql.replace("\\", "\\\\").replace(":", "\\:")
