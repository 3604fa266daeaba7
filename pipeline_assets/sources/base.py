"""The source interface, and the one place where values get the contract's types."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Protocol

import pyarrow

from pipeline_assets.recommender.errors import SchemaError
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS

if TYPE_CHECKING:
    import duckdb

_DUCKDB_TYPES = {
    "string": "VARCHAR",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}


class Source(Protocol):
    """Delivers feeds by business day. All methods may be called from any process."""

    def arrived_days(self) -> list[date]:
        """Business days for which every feed that the source has is complete, in order."""
        ...

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        """Rows of consecutive `days`: the feed's columns in order, plus `parse_errors`.

        Raises:
            SourceError: a day has not arrived or cannot be read.
            SchemaError: a required column is missing, or cannot be read as its type in most rows.
        """
        ...


def conform(
    con: duckdb.DuckDBPyConnection, view: str, feed: Feed, max_unparsed_share: float, where: str
) -> pyarrow.Table:
    """Cast a mapped view to the contract, keeping what cannot be cast as text in `parse_errors`.

    Args:
        view: a view or table of `con` with the contract's column names; nullable columns may be absent.
        where: what the rows are, for messages (a file or a feed and its days).

    Raises:
        SchemaError: naming the column, what was found and what was wanted.
    """
    found = {row[0]: row[1] for row in con.execute(f"describe {view}").fetchall()}
    selected: list[str] = []
    unreadable: dict[str, str] = {}  # column -> condition
    for field in feed.arrow_schema:
        column, wanted = field.name, _DUCKDB_TYPES[str(field.type)]
        if column not in found:
            if not feed.schema.columns[column].nullable:
                extra = sorted(set(found) - set(feed.columns))
                raise SchemaError(
                    f"column {column} of {where}",
                    found=f"columns {', '.join(sorted(found))}",
                    wanted=f"{column} ({wanted})"
                    + (f"; perhaps it was renamed to one of: {', '.join(extra)}" if extra else ""),
                    fix="deliver the column again or map it in the source's mapping file",
                )
            selected.append(f'cast(null as {wanted}) as "{column}"')
        elif found[column] == wanted or (wanted == "TIMESTAMPTZ" and found[column] == "TIMESTAMP WITH TIME ZONE"):
            selected.append(f'"{column}"')
        else:
            selected.append(f'try_cast("{column}" as {wanted}) as "{column}"')
            unreadable[column] = f'"{column}" is not null and try_cast("{column}" as {wanted}) is null'
    errors = [
        f"""case when {condition} then '{column}=' || left(cast("{column}" as varchar), 200) end"""
        for column, condition in unreadable.items()
    ]
    parse_errors = f"nullif(concat_ws('; ', {', '.join(errors)}), '')" if errors else "cast(null as varchar)"
    table = con.sql(f"select {', '.join(selected)}, {parse_errors} as {PARSE_ERRORS} from {view}").to_arrow_table()
    if table[PARSE_ERRORS].null_count < len(table):
        counted = ", ".join(f"count(*) filter (where {condition})" for condition in unreadable.values())
        (counts,) = con.execute(f"select {counted} from {view}").fetchall()
        _refuse_retyped(table, found, dict(zip(unreadable, counts, strict=True)), max_unparsed_share, where)
    schema = feed.arrow_schema.append(pyarrow.field(PARSE_ERRORS, pyarrow.string()))
    return table.cast(schema)


def _refuse_retyped(
    table: pyarrow.Table, found: dict[str, str], counts: dict[str, int], max_unparsed_share: float, where: str
) -> None:
    for column, count in counts.items():
        if count / len(table) > max_unparsed_share:
            raise SchemaError(
                f"column {column} of {where}",
                found=f"type {found[column]}, {count} of {len(table)} values unreadable",
                wanted=f"values that read as {table.schema.field(column).type}",
                fix="the column was retyped or the mapping is wrong; deliver it in its declared type",
            )
