"""A copy of everything that the embedded profile keeps, taken while it works, and a data folder made of it.

Belongs here: what is copied in which order, and what has to be told of a new place. Does not: the files of a backup (archive.py).
Content is written before the index that names it, everywhere in this pipeline. So an index is copied before the content: whatever comes in
between is content that nothing names yet, as after a kill. Dagster names days of the lake, releases name bundles, tables name the versions that
they were computed from and runs of MLflow, these name artifacts (docs/adr/0052-backup.md).
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.errors import ConfigurationError, Damaged
from pipeline_assets.resources.archive import Kept, Writing, unpacked, written
from pipeline_assets.resources.erasure_lake import tables
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.resources.lake_lock import shared
from pipeline_assets.resources.release import BUNDLE_TABLE
from pipeline_assets.resources.sqlite_files import is_sqlite
from pipeline_assets.settings import Settings

_BUSY_SECONDS = 60
_SCRATCH = ("dbt",)  # what dbt builds in; every build makes it anew
_NOT_COPIED = ("-wal", "-shm", "-journal")  # what databases keep beside them
# Tables in this order of their layers: each before those whose versions its commits name. A verdict is written after what it is about.
_LAYERS = ("monitoring", "recommendations", "deployment", "evaluation", "training", "features", "warehouse")
_SOURCES = ("ledger/verdicts", "validated", "quarantine", "ledger/batches", "raw", "stream")
# Databases: the first ones name what is in the lake, the last one is named there.
_BEFORE_THE_LAKE = ("dagster/index.db", "dagster/runs.db", "dagster", "release.db")


@dataclass(frozen=True)
class Restored:
    """Where from, of when, how much, and what the place of the data folder was."""

    created_at: str
    files: int
    size: int
    was_at: str
    is_moved: bool


def back_up(settings: Settings, to: Path, at: datetime, say: Callable[[str], object]) -> tuple[Kept, ...]:
    """Copy the data folder to a folder or a tar file, beside whatever writes into it.

    Raises:
        ConfigurationError: something is there, or a store is a server, which has a way of its own to be backed up.
        Damaged: a database or a table cannot be read.
    """
    require_embedded(settings)
    data, lake = settings.data_dir, local_lake(settings.data_dir)
    if not data.is_dir() or to.resolve().is_relative_to(data.resolve()):
        raise ConfigurationError(
            f"backup {to}",
            found=f"data folder {data}" + (", which is around it" if data.is_dir() else ", which does not exist"),
            wanted="a place outside an existing data folder",
            fix="choose another place, or set PIPELINE_DATA_DIR",
        )
    with shared(lake.root), written(to) as backup:
        databases = _databases(data)
        for path in (path for path in databases if _rank(path, data) < len(_BEFORE_THE_LAKE)):
            _add_database(backup, path, data)
        say(f"{len(backup.files)} databases that name days of the lake")
        named = [path for table in _in_order(tables(lake)) for path in _add_log(backup, lake, table)]
        for path in (path for path in databases if _rank(path, data) == len(_BEFORE_THE_LAKE)):
            _add_database(backup, path, data)
        say(f"logs of the tables, and {len(databases)} databases in all")
        for path in (*named, *_others(data)):
            if path.exists():  # a file that retention removes meanwhile is one that nothing needs
                backup.add(path, str(path.relative_to(data)))
        backup.finish({"created_at": at.isoformat(), "data_dir": str(data)})
    say(f"{len(backup.files)} files, {sum(file.size for file in backup.files) / 2**20:.0f} MB in {to}")
    return tuple(backup.files)


def restore(settings: Settings, source: Path, say: Callable[[str], object]) -> Restored:
    """Make the data folder of a backup, checked file by file; the folder appears when it is whole.

    Raises:
        ConfigurationError: the data folder is not empty, or `source` is no backup.
        Damaged: a file of the backup is not what was written; there is no data folder then.
    """
    require_embedded(settings)
    data = settings.data_dir
    if data.exists() and any(data.iterdir()):
        raise ConfigurationError(
            f"data folder {data}",
            found="files in it",
            wanted="no folder, or an empty one",
            fix="name another one with PIPELINE_DATA_DIR, or move this one away",
        )
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{data.name}-restoring-", dir=data.parent) as temporary:
        new = Path(temporary) / data.name
        about = unpacked(source, new)
        found = [path for path in new.rglob("*") if path.is_file()]
        restored = Restored(
            about["created_at"],
            len(found),
            sum(path.stat().st_size for path in found),
            about["data_dir"],
            is_moved=about["data_dir"] != str(data),
        )
        say(f"{restored.files} files of {restored.created_at}, each with the digest that it was written with")
        if restored.is_moved:
            _move(new, about["data_dir"], str(data))
            say(f"paths of {restored.was_at} are now those of {data}")
        new.chmod(0o755)
        if data.exists():
            data.rmdir()
        new.rename(data)
    return restored


def require_embedded(settings: Settings) -> None:
    """Raises ConfigurationError naming the stores that are servers."""
    stores = settings.stores
    servers = {name: getattr(stores, name) for name in ("mlflow_uri", "release_url", "feast_registry", "online_store")}
    named = [f"stores.{name}" for name, value in servers.items() if value] + ["events.url"] * bool(settings.events.url)
    if named:
        raise ConfigurationError(
            f"setting {named[0]}",
            found=f"stores of their own: {', '.join(named)}",
            wanted="the embedded profile, whose stores are files of the data folder",
            fix="back up servers with their own tools (pg_dump, a snapshot of Redis), releases before MLflow before the data folder",
        )


def _databases(data: Path) -> list[Path]:
    found = [path for path in _files(data) if is_sqlite(path)]
    return sorted(found, key=lambda path: (_rank(path, data), path))


def _rank(path: Path, data: Path) -> int:
    name = path.relative_to(data)
    places = [n for n, place in enumerate(_BEFORE_THE_LAKE) if name == Path(place) or name.is_relative_to(place)]
    return places[0] if places else len(_BEFORE_THE_LAKE)


def _files(data: Path) -> Iterator[Path]:
    """Files of the data folder but for the lake, for scratch and for what databases keep beside them."""
    for top in sorted(data.iterdir()):
        if top.name not in ("lake", "lake.lock", *_SCRATCH):
            found = sorted(top.rglob("*")) if top.is_dir() else [top]
            yield from (path for path in found if path.is_file() and not path.name.endswith(_NOT_COPIED))


def _others(data: Path) -> list[Path]:
    return [path for path in _files(data) if not is_sqlite(path)]


def _add_database(backup: Writing, path: Path, data: Path) -> None:
    """As it is between two transactions, through SQLite's own backup, and whole."""
    with tempfile.TemporaryDirectory(prefix="backup-") as folder:
        copy = Path(folder) / path.name
        try:
            with (
                closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(
                    target
                )  # in one go: in parts, it begins anew with every write in between, and may never end
                (state,) = target.execute("pragma quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            state = str(error)
        if state != "ok":
            raise Damaged(
                f"database {path}", found=state, wanted="a whole database", fix="restore it from an older backup"
            )
        copy.chmod(path.stat().st_mode & 0o777)
        backup.add(copy, str(path.relative_to(data)))


def _in_order(names: list[str]) -> list[str]:
    """Tables so that each comes before those that its commits name."""
    order = (*_LAYERS, *_SOURCES)

    def place(table: str) -> int:
        found = [n for n, layer in enumerate(order) if table == layer or table.split("/")[0] == layer]
        return found[0] if found else -1

    return sorted(names, key=place)


def _add_log(backup: Writing, lake: Lake, table: str) -> list[Path]:
    """Copy the log of a table up to a commit; returns the data files that it names and that are there. What the newest version names must be."""
    import deltalake

    root = Path(lake.root)
    log = root / table / "_delta_log"
    last = log / "_last_checkpoint"  # first: it names a checkpoint that is there by now
    pointer = [last] if last.exists() else []
    commits = sorted(path for path in log.iterdir() if path.suffix in (".json", ".parquet") and path.name[0].isdigit())
    for path in (*pointer, *commits):
        backup.add(path, str(path.relative_to(root.parent)))
    newest = max(int(path.name.split(".")[0]) for path in commits)
    try:
        live = deltalake.DeltaTable(lake.uri(table), version=newest).file_uris()
    except deltalake.exceptions.DeltaError as error:
        raise Damaged(
            f"table {table}", found=error, wanted="a readable log", fix="restore it from an older backup"
        ) from error
    if gone := [path for path in live if not Path(path).exists()]:
        raise Damaged(
            f"table {table}",
            found=f"no file {Path(gone[0]).relative_to(root)}",
            wanted=f"the {len(live)} files of its newest version",
            fix="restore it from an older backup",
        )
    return [path for path in _named(log, commits) if path.exists()]


def _named(log: Path, commits: list[Path]) -> list[Path]:
    """Data files that commits added, of all versions: old ones stay readable. Some are gone where a customer was erased."""
    actions = (json.loads(line) for path in commits if path.suffix == ".json" for line in path.read_text().splitlines())
    return sorted({log.parent / unquote(action["add"]["path"]) for action in actions if "add" in action})


def _move(data: Path, old: str, new: str) -> None:
    """Tell the new place to what keeps the old one: addresses of artifacts, paths of bundles. The audit log stays what was written."""
    for name, skipped in (("mlflow.db", ()), ("release.db", ("audit",))):
        if (data / name).exists():
            with closing(sqlite3.connect(data / name)) as database:
                _replace_in(database, f"{old}/", f"{new}/", skipped)
                database.commit()
    lake = local_lake(data)
    if lake.exists(BUNDLE_TABLE):
        rows = lake.read(BUNDLE_TABLE)
        moved = pc.replace_substring(rows["path"], f"{old}/", f"{new}/", max_replacements=1)
        rows = rows.set_column(rows.schema.get_field_index("path"), "path", moved.cast(pyarrow.string()))
        lake.replace_days(BUNDLE_TABLE, rows, sorted(lake.days(BUNDLE_TABLE)), "restore")


def _replace_in(database: sqlite3.Connection, old: str, new: str, skipped: tuple[str, ...]) -> None:
    """In every text of every table: addresses of files have the path behind `file://`."""
    names = database.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
    for (table,) in names.fetchall():
        columns: list[Any] = database.execute(f'pragma table_info("{table}")').fetchall()
        for column in (row[1] for row in columns if table not in skipped):
            database.execute(
                f'update "{table}" set "{column}" = replace("{column}", ?, ?)'
                f' where typeof("{column}") = \'text\' and instr("{column}", ?) > 0',
                (old, new, old),
            )
