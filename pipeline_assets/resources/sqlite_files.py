"""SQLite files as files: what is in them to the last byte, and taking a name out of their texts.

Belongs here: databases of tools (Dagster, MLflow), whose tables are not ours. Does not: which files there are (erasure_files.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipeline_assets.resources.mentions import Mentions

_HEADER = b"SQLite format 3\x00"
_BUSY_SECONDS = 60  # others may be writing: a daemon's tick, an API's event
_PIECE, _OVERLAP = 1 << 22, 1 << 10


def connected(path: Path | str) -> sqlite3.Connection:
    """A connection that overwrites what it deletes."""
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    database.execute("pragma secure_delete=on")
    return database


def is_sqlite(path: Path) -> bool:
    """By its first bytes."""
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def parts(path: Path) -> list[Path]:
    """A database and what it was about to write into it."""
    return [each for each in (path, path.with_name(f"{path.name}-wal")) if each.exists()]


def names_her(path: Path, her: Mentions) -> bool:
    """Whether her id stands in a row, or anywhere in the file and its log, where deleted rows leave what they had."""
    if her.named_in_any(piece for part in parts(path) for piece in pieces(part)):
        return True
    with closing(connected(path)) as database:
        return next(_naming(database, her), None) is not None


def pieces(path: Path) -> Iterator[bytes]:
    """A file in pieces that overlap, so that no name is cut by all of them."""
    with path.open("rb") as file:
        rest = b""
        while piece := file.read(_PIECE):
            yield rest + piece
            rest = piece[-_OVERLAP:]


def redact(path: Path, her: Mentions) -> int:
    """Take her id out of every text of every table, and write the file anew without what is no row; returns how many rows named her."""
    with closing(connected(path)) as database:
        found = list(_naming(database, her))
        for table, column, row, value in found:
            clean = her.redacted(value.encode()).decode() if isinstance(value, str) else her.redacted(value)
            database.execute(f'update "{table}" set "{column}" = ? where rowid = ?', (clean, row))
        database.commit()
        write_anew(database)
    return len(found)


def _naming(database: sqlite3.Connection, her: Mentions) -> Iterator[tuple[str, str, int, str | bytes]]:
    """Table, column, row and value of each text that names her."""
    tables = database.execute(
        "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and sql not like '%without rowid%'"
    ).fetchall()
    for (table,) in tables:
        for _, column, *_ in database.execute(f'pragma table_info("{table}")').fetchall():
            # `instr` finds the few rows in SQLite itself; a cast, because a text may be stored as a blob and the reverse
            query = f'select rowid, "{column}" from "{table}" where instr(cast("{column}" as text), ?) > 0'
            for row, value in database.execute(query, (her.customer_id,)).fetchall():
                if isinstance(value, str | bytes) and her.named_in(value.encode() if isinstance(value, str) else value):
                    yield table, column, row, value


def write_anew(database: sqlite3.Connection) -> None:
    """Rows only: no free page, no log."""
    database.execute("vacuum")
    database.execute("pragma wal_checkpoint(truncate)")
