"""Where files are: a local folder or an object store, listed and read the same way.

An object store is a URL that Arrow knows (`s3://bucket/drops`, `gs://…`, `abfs://…`); options such as `?region=` and
`?endpoint_override=` go with it, credentials come from the store's own environment or roles. DuckDB reads through Arrow's file
system in ranges, so nothing is copied here first.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from pipeline_assets.recommender.errors import SourceError

if TYPE_CHECKING:
    import duckdb

_TABLE = re.compile(r"(?P<stem>.+?)\.(?P<kind>parquet|csv|jsonl|ndjson)(?P<packed>\.gz)?")
MAX_LINE_BYTES = (
    16_000_000  # DuckDB's limit for JSON lines, too; with its 2 MB one huge field would cost the whole CSV file
)
EXTENSIONS = "parquet, csv, jsonl or ndjson, the texts also with .gz"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class StoredFile:
    """One file with rows.

    Args:
        path: as DuckDB opens it.
        name: without the folder.
        version: changes when the content does (size and time of change).
        changed_at: when it was last written or put there.
    """

    path: str
    name: str
    version: str
    changed_at: datetime

    @property
    def stem(self) -> str:
        return self.name[: -len(self.extension) - 1]

    @property
    def extension(self) -> str:
        match = _TABLE.fullmatch(self.name)
        assert match is not None, "listed by its extension"
        return self.name[len(match["stem"]) + 1 :]

    def reader(self, con: duckdb.DuckDBPyConnection) -> str:
        """The DuckDB table function that reads it. Values of texts stay text: `conform` casts them, one bad value costs one row."""
        path = _quoted(self.path)
        if self.extension == "parquet":
            return f"read_parquet({path})"
        if self.extension.startswith("csv"):
            options = f"header = true, all_varchar = true, strict_mode = false, max_line_size = {MAX_LINE_BYTES}"
            return f"read_csv({path}, {options})"
        # all rows are looked at for their keys: one that is rare would be lost silently otherwise
        found = con.execute(f"describe select * from read_json({path}, format = 'nd', sample_size = -1)").fetchall()
        columns = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name, *_ in found)
        return f"read_json({path}, format = 'nd', columns = {{{columns}}})"

    def has_rows(self, con: duckdb.DuckDBPyConnection) -> bool:
        """False for JSON lines without a line: they do not even say which columns there are."""
        if "json" not in self.extension:
            return True
        return bool(con.execute(f"select exists(from read_ndjson_objects({_quoted(self.path)}))").fetchall()[0][0])


def _decoded(source: BinaryIO, target: BinaryIO) -> bool:
    """Copy a text, with U+FFFD for what is no UTF-8; whether there was any."""
    decoder, is_mended = codecs.getincrementaldecoder("utf-8")(errors="replace"), False
    while True:
        read = source.read(1 << 20)
        text = decoder.decode(read, final=not read)
        is_mended = is_mended or "\ufffd" in text
        target.write(text.encode())
        if not read:
            return is_mended


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def is_table(name: str) -> bool:
    """Whether the name has an extension that is read; a file still being written, `x.csv.part`, has not."""
    return _TABLE.fullmatch(name) is not None


@dataclass(frozen=True)
class Storage:
    """A root folder or URL."""

    root: str

    @property
    def shown(self) -> str:
        """The root for messages: without credentials and options."""
        if not self._is_remote:
            return str(self._folder)
        parts = urlsplit(self.root)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

    @property
    def _is_remote(self) -> bool:
        return "://" in self.root and not self.root.startswith("file://")

    @property
    def _folder(self) -> Path:
        return Path(urlsplit(self.root).path if self.root.startswith("file://") else self.root)

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        """Arrow's file system and the root's path in it."""
        import pyarrow
        from pyarrow.fs import FileSystem

        try:
            system, path = FileSystem.from_uri(self.root)
        except (OSError, pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            raise self._failed(error) from None
        return system, path

    def _failed(self, error: Exception) -> SourceError:
        return SourceError(
            f"source.path {self.shown}",
            found=" ".join(str(error).split())[:300],
            wanted="a folder or bucket that can be listed",
            fix="check the address, the network, and the credentials in the environment of this process",
        )

    def attach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Let a DuckDB session open the files."""
        if self._is_remote:
            from fsspec.implementations.arrow import ArrowFSWrapper

            con.register_filesystem(ArrowFSWrapper(self._remote[0]))

    def mended(self, file: StoredFile, folder: Path) -> StoredFile | None:
        """A copy of a text in which bytes that are no UTF-8 are U+FFFD; None for other files and for texts without such bytes.

        Made once for each version of the file, a megabyte at a time.
        """
        if file.extension == "parquet":
            return None
        name = f"{file.stem}.{file.extension.removesuffix('.gz')}"
        place = hashlib.sha256(f"{file.path} {file.version}".encode()).hexdigest()[:16]
        copy = folder / f"mended-{place}" / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(f"{name}.{os.getpid()}.part")
            try:
                with self._bytes(file) as source, part.open("wb") as target:
                    if not _decoded(source, target):
                        return None
                part.replace(copy)
            finally:
                part.unlink(missing_ok=True)
        return StoredFile(str(copy), name, file.version, file.changed_at)

    def _bytes(self, file: StoredFile) -> Any:
        """The bytes of a file, unpacked."""
        remote = self._remote[0] if self._is_remote else None
        opened = remote.open_input_stream(file.path.partition("://")[2]) if remote else Path(file.path).open("rb")  # noqa: SIM115
        return gzip.GzipFile(fileobj=opened) if file.extension.endswith(".gz") and not remote else opened

    def files(self, place: str) -> list[StoredFile] | None:
        """The file `place`, or the files in the folder `place`, in order of their names; None when there is neither.

        Without an extension `place` is also a file of that name with one: `orders` finds orders.csv.

        Raises:
            SourceError: the storage cannot be listed.
        """
        listed = self._listed(place)
        if listed is None:
            beside = [file for file in self._listed("") or [] if is_table(file.name) and file.stem == place]
            return beside or None
        return sorted((file for file in listed if is_table(file.name)), key=lambda file: file.name)

    def check(self) -> None:
        """The root exists and can be listed.

        Raises:
            SourceError: it cannot.
        """
        if self._listed("") is None:
            raise self._failed(FileNotFoundError(f"there is no folder {self.shown}"))

    def _listed(self, place: str) -> list[StoredFile] | None:
        return self._listed_remote(place) if self._is_remote else self._listed_local(place)

    def _listed_local(self, place: str) -> list[StoredFile] | None:
        path = self._folder / place
        try:
            if not path.exists():
                return None
            paths = [path] if path.is_file() else sorted(child for child in path.iterdir() if child.is_file())
            states = [(child, child.stat()) for child in paths]
        except OSError as error:
            raise self._failed(error) from None
        return [
            # a file that was moved or copied here with its old time of writing has a new time of change
            StoredFile(
                str(child),
                child.name,
                f"{stat.st_size}-{stat.st_mtime_ns}",
                _moment(max(stat.st_mtime_ns, stat.st_ctime_ns)),
            )
            for child, stat in states
        ]

    def _listed_remote(self, place: str) -> list[StoredFile] | None:
        from pyarrow.fs import FileSelector, FileType

        system, root = self._remote
        path = f"{root.rstrip('/')}/{place}".rstrip("/")
        try:
            (info,) = system.get_file_info([path])
            if info.type == FileType.NotFound:
                return None
            infos = [info] if info.type == FileType.File else system.get_file_info(FileSelector(path))
        except OSError as error:
            raise self._failed(error) from None
        return [
            StoredFile(
                f"{system.type_name}://{info.path}",
                info.base_name,
                f"{info.size}-{info.mtime_ns}",
                _moment(info.mtime_ns),
            )
            for info in infos
            if info.type == FileType.File
        ]
