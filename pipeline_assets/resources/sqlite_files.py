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
    """Whether her id stands in the file or its log, in rows or in what deleted rows left."""
    return any(her.named_in(piece) for part in parts(path) for piece in _pieces(part))


def _pieces(path: Path) -> Iterator[bytes]:
    """A file in pieces that overlap, so that no name is cut by all of them."""
    with path.open("rb") as file:
        rest = b""
        while piece := file.read(_PIECE):
            yield rest + piece
            rest = piece[-_OVERLAP:]


def redact(path: Path, her: Mentions) -> int:
    """Take her id out of every text of every table, and write the file anew without what is no row; returns how many rows named her."""
    changed = 0
    with closing(connected(path)) as database:
        tables = database.execute(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and sql not like '%without rowid%'"
        ).fetchall()
        for (table,) in tables:
            columns = [row[1] for row in database.execute(f'pragma table_info("{table}")')]
            for column in columns:
                # `instr` finds the few rows in SQLite itself; a cast, because a text may be stored as a blob and the reverse
                query = f'select rowid, "{column}" from "{table}" where instr(cast("{column}" as text), ?) > 0'
                for row, value in database.execute(query, (her.customer_id,)).fetchall():
                    text = value.encode() if isinstance(value, str) else value
                    if isinstance(text, bytes) and (clean := her.redacted(text)) != text:
                        stored = clean.decode() if isinstance(value, str) else clean
                        database.execute(f'update "{table}" set "{column}" = ? where rowid = ?', (stored, row))
                        changed += 1
        database.commit()
        write_anew(database)
    return changed


def write_anew(database: sqlite3.Connection) -> None:
    """Rows only: no free page, no log."""
    database.execute("vacuum")
    database.execute("pragma wal_checkpoint(truncate)")
