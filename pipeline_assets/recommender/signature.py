"""ed25519 signatures of bundles: who made them. Verifying needs public keys only; several are accepted, for rotation.

Belongs here: signing and checking bytes, reading keys. Does not: making keys (resources/signing), what is signed (manifest).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import BundleError, ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "ed25519"


@dataclass(frozen=True)
class TrustedKeys:
    """Raw public keys of 32 bytes: a signature by any of them is accepted."""

    keys: tuple[bytes, ...]

    @classmethod
    def read(cls, files: Sequence[Path]) -> TrustedKeys:
        """The keys in `files`, one PEM public key each, as `openssl pkey -pubout` writes it.

        Raises:
            ConfigurationError: names the file that is missing or no ed25519 public key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        keys = []
        for path in files:
            try:
                key = load_pem_public_key(path.read_bytes())
            except OSError as error:
                raise _unusable(path, error.strerror or error, "public") from None
            except ValueError:
                raise _unusable(path, "no PEM public key", "public") from None
            if not isinstance(key, Ed25519PublicKey):
                raise _unusable(path, f"a key of type {type(key).__name__}", "public")
            keys.append(key.public_bytes_raw())
        return cls(tuple(keys))

    def check(self, message: bytes, signature: bytes, culprit: str, fix: str) -> None:
        """Return if `signature`, the content of a signature file, is one of `message` by a trusted key.

        Raises:
            BundleError: `culprit` is not a signature, is by a key that is not trusted, or is of other bytes.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            fields = json.loads(signature)
            named, value = str(fields["key_id"]), base64.b64decode(fields["signature"], validate=True)
        except (ValueError, KeyError, TypeError):
            raise BundleError(culprit, found="no signature", wanted="an ed25519 signature", fix=fix) from None
        known = {key_id(key): key for key in self.keys}
        if named not in known:
            raise BundleError(
                culprit,
                found=f"a signature by key {ascii(named)[1:-1][:32]}",
                wanted=f"one by {_listed(known)}",
                fix="if the signer is yours, add its public key to signing.public_keys; otherwise find out who wrote it",
            )
        try:
            Ed25519PublicKey.from_public_bytes(known[named]).verify(value, message)
        except InvalidSignature:
            raise BundleError(
                culprit, found=f"a signature of other content by key {named}", wanted="one of this manifest", fix=fix
            ) from None


def sign(message: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of a signature file: algorithm, key id and signature as JSON. The same bytes for the same message."""
    fields = {
        "algorithm": ALGORITHM,
        "key_id": key_id(public_bytes(key)),
        "signature": base64.b64encode(key.sign(message)).decode(),
    }
    return json.dumps(fields, indent=1).encode()


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The raw public key that belongs to a private one."""
    return key.public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    """The name of a key: the first 16 hexadecimal digits of the SHA-256 of its public part."""
    return hashlib.sha256(public).hexdigest()[:16]


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file without a password, as `openssl genpkey -algorithm ed25519` writes it.

    Raises:
        ConfigurationError: names the file, never its content.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise _unusable(path, error.strerror or error, "private") from None
    except (ValueError, TypeError):  # TypeError: the key has a password
        raise _unusable(path, "no PEM private key, or one with a password", "private") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, f"a key of type {type(key).__name__}", "private")
    return key


def _listed(ids: Iterable[str]) -> str:
    return " or ".join(f"key {name}" for name in ids) or "a trusted key, of which none is configured"


def _unusable(path: Path, found: object, kind: str) -> ConfigurationError:
    return ConfigurationError(
        f"{kind} key {path}",
        found=found,
        wanted=f"a readable PEM file with an ed25519 {kind} key",
        fix="correct signing.key_file or signing.public_keys; without them, build a bundle: the first one makes a pair",
    )
