"""The signed manifest of a bundle and the atomic publication of its directory.

Belongs here: which files a bundle has, their sizes and digests, publishing, checking. Does not: what is in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import BundleError
from pipeline_assets.recommender.signature import TrustedKeys, public_bytes, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
FILES = (
    "model.txt",
    "features.json",
    "products.parquet",
    "fallback.parquet",
    "evaluation.json",
    "model_card.md",
    "warmup.json",
)
COMPILED = re.compile(r"model\.[a-z0-9]+-[a-z0-9_]+\.o")  # may be there: the model as machine code, by kind of machine
REWRITE = "write the bundle again from its training run; a bundle is never mended in place"


@dataclass(frozen=True)
class BundleFile:
    """One file of a bundle: name, bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle consists of; `bundle_id` is derived from all but `created_at`."""

    bundle_id: str
    model_version: str
    as_of: str
    created_at: str
    files: tuple[BundleFile, ...]


def make_manifest(model_version: str, as_of: str, created_at: str, blobs: Mapping[str, bytes]) -> Manifest:
    """The manifest of `blobs` (file name -> content)."""
    files = tuple(BundleFile(name, len(blob), hashlib.sha256(blob).hexdigest()) for name, blob in sorted(blobs.items()))
    return Manifest(_bundle_id(model_version, as_of, files), model_version, as_of, created_at, files)


def publish(
    directory: Path, manifest: Manifest, blobs: Mapping[str, bytes], signing_key: Ed25519PrivateKey
) -> Manifest:
    """Make `directory` appear with all files at once: written and synced beside it, signed manifest last, then renamed.

    Returns the manifest that is there: an identical bundle that was published before with the same key is left alone.

    Raises:
        BundleError: another bundle, a damaged one or one by another key is already at `directory`.
    """
    own = TrustedKeys((public_bytes(signing_key),))
    if directory.exists():
        return _same(directory, manifest, own)
    listing = json.dumps(asdict(manifest), indent=1).encode()
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for name, blob in [*blobs.items(), (SIGNATURE, sign(listing, signing_key)), (MANIFEST, listing)]:
            _write_synced(staging / name, blob)
        staging.chmod(0o755)  # mkdtemp makes it private; the server may run as another user
        _sync_directory(staging)
        try:
            staging.rename(directory)
        except OSError:
            if not directory.exists():
                raise
            return _same(directory, manifest, own)  # another writer was first
        _sync_directory(directory.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def verify(directory: Path, trusted: TrustedKeys) -> Manifest:
    """Check that a trusted key signed the manifest, and every file is there with the recorded size and SHA-256."""
    return read(directory, trusted)[0]


def read(directory: Path, trusted: TrustedKeys) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files (name -> content) of a bundle, verified: the bytes that were checked are those returned.

    Parses the signature, then the signed manifest, and no other file.

    Raises:
        BundleError: names the file, what was found and what was wanted.
    """
    path = directory / MANIFEST
    try:
        listing = path.read_bytes()
        trusted.check(listing, _signature(directory), str(directory / SIGNATURE), REWRITE)
        raw = json.loads(listing)
        files = tuple(BundleFile(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in raw["files"])
        manifest = Manifest(raw["bundle_id"], raw["model_version"], raw["as_of"], raw["created_at"], files)
    except OSError as error:
        raise BundleError(str(path), found=error.strerror, wanted="a readable manifest", fix=REWRITE) from None
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            str(path), found=f"{type(error).__name__}: {error}", wanted="a manifest", fix=REWRITE
        ) from None
    listed = sorted(file.path for file in files)
    if [name for name in listed if not COMPILED.fullmatch(name)] != sorted(FILES):
        raise BundleError(str(path), found=f"files {listed}", wanted=f"files {sorted(FILES)}", fix=REWRITE)
    blobs = {file.path: _verified(directory / file.path, file) for file in files}
    wanted_id = _bundle_id(manifest.model_version, manifest.as_of, files)
    if manifest.bundle_id != wanted_id:
        raise BundleError(str(path), found=f"bundle_id {manifest.bundle_id}", wanted=wanted_id, fix=REWRITE)
    return manifest, blobs


def _signature(directory: Path) -> bytes:
    try:
        return (directory / SIGNATURE).read_bytes()
    except FileNotFoundError:
        return b""  # unsigned


def _verified(path: Path, wanted: BundleFile) -> bytes:
    try:
        size = path.stat().st_size
        if size != wanted.size:
            raise BundleError(str(path), found=f"{size} bytes", wanted=f"{wanted.size} bytes", fix=REWRITE)
        blob = path.read_bytes()
    except OSError as error:
        raise BundleError(str(path), found=error.strerror, wanted="a readable file", fix=REWRITE) from None
    sha256 = hashlib.sha256(blob).hexdigest()
    if sha256 != wanted.sha256:
        raise BundleError(str(path), found=f"sha256 {sha256}", wanted=f"sha256 {wanted.sha256}", fix=REWRITE)
    return blob


def _same(directory: Path, wanted: Manifest, own: TrustedKeys) -> Manifest:
    found = verify(directory, own)
    if found.bundle_id != wanted.bundle_id:
        raise BundleError(
            str(directory), found=f"bundle {found.bundle_id}", wanted=f"bundle {wanted.bundle_id}",
            fix="give the new model its own version; a published bundle is never overwritten",
        )  # fmt: skip
    return found


def _bundle_id(model_version: str, as_of: str, files: Sequence[BundleFile]) -> str:
    listing = sorted((file.path, file.size, file.sha256) for file in files)
    digest = hashlib.sha256(json.dumps([model_version, as_of, listing]).encode()).hexdigest()
    return f"{model_version}-{as_of}-{digest[:12]}"


def _write_synced(path: Path, blob: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(blob)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
