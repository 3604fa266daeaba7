"""Taking one customer out of the files of the data folder that are no lake: lists, answers, bundles, pages, databases of tools.

Belongs here: one way for each kind of file, chosen by what a file is. Does not: a list of files, which would go stale; keys, which are no data.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from pipeline_assets.recommender.columns import CUSTOMER_ID
from pipeline_assets.recommender.errors import BundleError
from pipeline_assets.recommender.manifest import make_manifest, publish, read
from pipeline_assets.resources.durable import write_whole
from pipeline_assets.resources.erasure_lake import Removed
from pipeline_assets.resources.mentions import Mentions
from pipeline_assets.resources.signing import signing_key, trusted
from pipeline_assets.resources.sqlite_files import connected, is_sqlite, names_her, pieces, redact, write_anew
from pipeline_assets.settings import Settings

_NOT_LOOKED_AT = ("lake", "lake.lock", "keys")  # erasure_lake.py; no data
_ANSWERS, _WARMUP, _BEFORE = "prediction_log", "warmup.json", "before"
_PIECE = 1 << 26  # a text file is held whole; a larger one is searched and reported


def erase_files(settings: Settings, her: Mentions) -> Iterator[Removed]:
    """Remove her from every file of the data folder that names her; yields what was done to each."""
    data = settings.data_dir
    yield from _erase_bundles(data / "bundles", her, settings)
    for path in _files(data, "bundles"):
        name = str(path.relative_to(data))
        if is_sqlite(path):
            yield Removed(name, _erase_sqlite(settings, path, her))
        elif path.suffix == ".duckdb":
            path.unlink()  # what dbt builds in; every build makes it anew from the lake
            yield Removed(name, files=(name,))
        elif path.suffix == ".parquet":
            yield Removed(name, _erase_parquet(path, her))
        elif path.suffix == ".csv":
            yield Removed(name, _erase_csv(path, her))
        elif path.parts[len(data.parts)] == _ANSWERS:
            yield Removed(name, _blank_lines(path, her))
        elif (text := _text(path)) is not None and her.named_in(text):
            write_whole(path, her.redacted(text))
            yield Removed(name, 1)


def look_at_files(settings: Settings, her: Mentions) -> Iterator[str]:
    """Files of the data folder that name her, to the last byte where that can be told."""
    for path in _files(settings.data_dir):
        name = str(path.relative_to(settings.data_dir))
        if is_sqlite(path):
            found = names_her(path, her)
        elif path.suffix == ".parquet":
            found = her.rows(pyarrow.parquet.read_table(path)) is not None
        elif path.suffix == ".csv":
            found = any(is_hers for _, is_hers in _csv_rows(path, her))
        elif path.parts[len(settings.data_dir.parts)] == _ANSWERS or path.stat().st_size > _PIECE:
            found = her.named_in_any(pieces(path))
        else:
            text = _text(path)
            found = her.named_in(text) if text is not None else her.named_in_binary(path.read_bytes())
        if found:
            yield name


def _files(data: Path, *apart: str) -> Iterator[Path]:
    """Every file but those of the lake, the keys and what is `apart`; what belongs to a database is looked at with it."""
    for top in sorted(data.iterdir()):
        if top.name not in (*_NOT_LOOKED_AT, *apart):
            found = sorted(top.rglob("*")) if top.is_dir() else [top]
            yield from (p for p in found if p.is_file() and not p.name.endswith(("-wal", "-shm")))


def _text(path: Path) -> bytes | None:
    """The content of a text file; None for another, or one that is too large to be held."""
    if path.stat().st_size > _PIECE:
        return None
    content = path.read_bytes()
    return content if _is_text(content) else None


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\x00" not in content


def _erase_sqlite(settings: Settings, path: Path, her: Mentions) -> int:
    """Texts of a tool's database; of a store whose rows were removed by id, what they left in the file. The release database keeps its rows:
    the audit chain would not hold otherwise."""
    if path == settings.data_dir / "release.db":
        return 0
    found = redact(path, her) if names_her(path, her) else 0
    if not found:
        with closing(connected(path)) as database:
            (free,) = database.execute("pragma freelist_count").fetchone()
            if free or any(part.stat().st_size for part in (path.with_name(f"{path.name}-wal"),) if part.exists()):
                write_anew(database)
    return found


def _erase_parquet(path: Path, her: Mentions) -> int:
    rows = pyarrow.parquet.read_table(path)
    held = her.rows(rows)
    if held is None:
        return 0
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(rows.filter(pc.invert(held)), sink)
    write_whole(path, sink.getvalue().to_pybytes())
    return int(pc.sum(held).as_py())


def _csv_rows(path: Path, her: Mentions) -> Iterator[tuple[list[str], bool]]:
    """Rows of a CSV file, its header the first, and whether they are hers: by the column, or because they name her."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        column = None
        for number, row in enumerate(csv.reader(file)):
            if number == 0:
                column = row.index(CUSTOMER_ID) if CUSTOMER_ID in row else None
            is_hers = column is not None and row[column : column + 1] == [her.customer_id]
            yield row, is_hers or any(her.named_in(value.encode(errors="surrogateescape")) for value in row)


def _erase_csv(path: Path, her: Mentions) -> int:
    removed, kept = 0, io.StringIO(newline="")
    writer = csv.writer(kept, lineterminator="\n")
    for row, is_hers in _csv_rows(path, her):
        removed += is_hers
        if not is_hers:
            writer.writerow(row)
    if removed:
        write_whole(path, kept.getvalue().encode(errors="surrogateescape"))
    return removed


def _blank_lines(path: Path, her: Mentions) -> int:
    """Write blanks over her lines, where they are: an API may be appending to the file, and landing goes on at a place in it."""
    blanked, place = 0, 0
    with path.open("r+b") as file:
        for line in file:
            if line.endswith(b"\n") and her.named_in(line):
                os.pwrite(file.fileno(), b" " * (len(line) - 1), place)
                blanked += 1
            place += len(line)
        os.fsync(file.fileno())
    return blanked


def _erase_bundles(bundles: Path, her: Mentions, settings: Settings) -> Iterator[Removed]:
    """What a killed erasure left is put right first: a bundle that was about to take its place takes it, everything else hidden goes."""
    for staged in bundles.glob(".*/*"):
        if staged.name != _BEFORE and staged.is_dir() and not (bundles / staged.name).exists():
            staged.rename(bundles / staged.name)
    for hidden in bundles.glob(".*"):
        shutil.rmtree(hidden)
    for folder in sorted(bundles.glob("*")):
        if any(her.named_in(text) for path in folder.iterdir() if (text := _text(path)) is not None):
            yield Removed(f"bundles/{folder.name}", _rewrite_bundle(folder, her, settings))


def _rewrite_bundle(folder: Path, her: Mentions, settings: Settings) -> int:
    """A bundle without her as a warm-up customer, signed again, at the same place. One that cannot be trusted, or has no other warm-up
    customer, is removed: nobody could serve it.

    Returns:
        How many warm-up requests went.
    """
    try:
        manifest, blobs = read(folder, trusted(settings))
    except BundleError:
        shutil.rmtree(folder)
        return 1
    warmup = json.loads(blobs[_WARMUP])
    kept = [n for n, request in enumerate(warmup["requests"]) if request["customer_id"] != her.customer_id]
    if not kept:
        shutil.rmtree(folder)
        return len(warmup["requests"])
    blobs = {name: her.redacted(blob) if _is_text(blob) else blob for name, blob in blobs.items()}
    blobs[_WARMUP] = json.dumps({part: [warmup[part][n] for n in kept] for part in warmup}).encode()
    listing = make_manifest(manifest.model_version, manifest.as_of, manifest.created_at, blobs)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        new = Path(temporary) / folder.name
        publish(new, listing, blobs, signing_key(settings))
        folder.rename(Path(temporary) / _BEFORE)
        new.rename(folder)
    return len(warmup["requests"]) - len(kept)
