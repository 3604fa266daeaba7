"""Files of a backup: a folder or a tar file, each file with its SHA-256, the list of them last.

Belongs here: writing, reading, checking. Does not: what is in a backup and in which order (backup.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from pipeline_assets.recommender.errors import ConfigurationError, Damaged

LISTING = "BACKUP.json"
FORMAT = 1
_PIECE = 1 << 20
_PACKED = {".tar": "w", ".tgz": "w:gz", ".gz": "w:gz"}
_AGAIN = "take another backup; this one is not used"


@dataclass(frozen=True)
class Kept:
    """One file: its place in the data folder, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


class _Hashing(io.RawIOBase):
    """A file as it is read, no further than `size`: a file that somebody appends to is what it was at the beginning."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left, self.sha256 = file, size, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        self.sha256.update(piece)
        return piece


class _Sink(Protocol):
    def put(self, name: str, source: IO[bytes], size: int, mode: int) -> None: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700)

    def put(self, name: str, source: IO[bytes], size: int, mode: int) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(source, file, _PIECE)
            os.fsync(file.fileno())
        path.chmod(mode)


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def put(self, name: str, source: IO[bytes], size: int, mode: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, mode
        self._tar.addfile(member, source)


class Writing:
    """A backup that is being written."""

    def __init__(self, sink: _Sink) -> None:
        self._sink, self.files = sink, list[Kept]()

    def add(self, path: Path, name: str) -> None:
        """Copy a file as it is now."""
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            hashing = _Hashing(file, found.st_size)
            self._sink.put(name, hashing, found.st_size, found.st_mode & 0o777)  # type: ignore[arg-type]
        self.files.append(Kept(name, found.st_size, hashing.sha256.hexdigest()))

    def finish(self, about: dict[str, Any]) -> None:
        """The list of all files, and what the backup says of itself."""
        text = json.dumps(
            {"format": FORMAT, **about, "files": [asdict(file) for file in self.files]}, indent=1
        ).encode()
        self._sink.put(LISTING, io.BytesIO(text), len(text), 0o600)


@contextmanager
def written(to: Path) -> Iterator[Writing]:
    """A backup that is at `to` when all went well, and nowhere otherwise. Readable by its owner only: it has the keys.

    Raises:
        ConfigurationError: there is something at `to`.
    """
    if to.exists():
        raise ConfigurationError(
            f"backup {to}", found="something is there", wanted="a name that is free", fix="choose another"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    staging = to.with_name(f".{to.name}-{os.getpid()}")
    try:
        if to.suffix in _PACKED:
            os.close(os.open(staging, os.O_CREAT | os.O_EXCL, 0o600))
            with tarfile.open(staging, _PACKED[to.suffix]) as tar:  # type: ignore[call-overload]
                yield Writing(_Tar(tar))
        else:
            yield Writing(_Folder(staging))
        staging.rename(to)
    finally:
        if staging.is_dir():
            shutil.rmtree(staging)
        staging.unlink(missing_ok=True)


def unpacked(source: Path, to: Path) -> dict[str, Any]:
    """Copy the files of a backup into the new folder `to`, each checked against the list; returns what the backup says of itself.

    Raises:
        ConfigurationError: `source` is no backup.
        Damaged: a file is missing, is another than was written, or was not listed.
    """
    found = dict[str, Kept]()
    listing = b""
    to.mkdir(mode=0o700)
    try:
        for name, mode, file in _members(source):
            if name == LISTING:
                listing = file.read()
                continue
            path = to / _inside(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            sha256, size = hashlib.sha256(), 0
            with path.open("xb") as target:
                while piece := file.read(_PIECE):
                    size += len(piece)
                    sha256.update(piece)
                    target.write(piece)
            path.chmod(mode)
            found[name] = Kept(name, size, sha256.hexdigest())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Damaged(f"backup {source}", found=error, wanted="files that can be read", fix=_AGAIN) from error
    if not listing:
        raise ConfigurationError(f"backup {source}", found=f"no {LISTING}", wanted="a whole backup", fix=_AGAIN)
    about = _parsed(listing, source)
    wanted = {file["path"]: Kept(**file) for file in about.pop("files")}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise Damaged(
                f"{name} of backup {source}",
                found=_described(found.get(name)),
                wanted=_described(wanted.get(name)),
                fix=_AGAIN,
            )
    return about


def _parsed(listing: bytes, source: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(listing)
    except ValueError as error:
        raise Damaged(f"{LISTING} of backup {source}", found=error, wanted="JSON", fix=_AGAIN) from None
    if about.get("format") != FORMAT:
        raise ConfigurationError(
            f"backup {source}",
            found=f"format {about.get('format')}",
            wanted=f"format {FORMAT}",
            fix="restore with the code that wrote it",
        )
    return about


def _described(file: Kept | None) -> str:
    return f"{file.size} bytes, SHA-256 {file.sha256[:16]}" if file else "nothing"


def _inside(name: str) -> PurePosixPath:
    """A name that leads nowhere else."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Damaged("backup", found=f"a file {name}", wanted="files inside the data folder", fix=_AGAIN)
    return path


def _members(source: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, mode and content of each file, one at a time."""
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                yield str(path.relative_to(source)), path.stat().st_mode & 0o777, file
        return
    if not source.is_file():
        raise ConfigurationError(
            f"backup {source}", found="nothing", wanted="a folder or a tar file", fix="correct --from"
        )
    with tarfile.open(source, "r|*") as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None:
                yield member.name, member.mode & 0o777, content
