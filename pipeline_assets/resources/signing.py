"""The key that bundles are signed with: from a file, or a pair of this data folder that is made on first use.

Belongs here: where keys are and making them. Does not: signing and verifying (recommender/signature).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.recommender.signature import TrustedKeys, read_signing_key
from pipeline_assets.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def trusted(settings: Settings) -> TrustedKeys:
    """The public keys that the settings name."""
    return TrustedKeys.read(settings.public_key_files)


def signing_key(settings: Settings) -> Ed25519PrivateKey:
    """The private key of this pipeline. Profile `local` makes a pair where no file is named and none was made yet.

    Raises:
        ConfigurationError: the file cannot be used, or profile `production` names none.
    """
    path = settings.signing.key_file
    if path is None:
        if settings.profile == "production":
            raise ConfigurationError(
                "setting signing.key_file",
                found="nothing",
                wanted="a PEM file with an ed25519 private key",
                fix="openssl genpkey -algorithm ed25519 -out FILE, and set PIPELINE_SIGNING__KEY_FILE",
            )
        path = settings.local_pair / "bundle_signing.pem"
        _complete_pair(path, settings.local_pair / "bundle_signing.pub")
    return read_signing_key(path)


def _complete_pair(private: Path, public: Path) -> None:
    """Make what is missing of a pair. Of two processes the first one's key stays, and the public one is made of it."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private.parent.mkdir(parents=True, exist_ok=True)
    if not private.exists():
        new = Ed25519PrivateKey.generate()
        pem = new.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        _write_once(private, pem, 0o600)
    if not public.exists():
        key = read_signing_key(private).public_key()
        _write_once(public, key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo), 0o644)


def _write_once(path: Path, content: bytes, mode: int) -> None:
    """A synced file with `content`; one that is there stays. A link fails where the name is taken, unlike a rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        with contextlib.suppress(FileExistsError):  # another process was first
            path.hardlink_to(temporary)
    finally:
        Path(temporary).unlink()
