"""Who was erased: the ledger, which has no id, and dropping rows of erased customers as they are delivered again.

Belongs here: the key, digests, `ledger/erasures`, the filter of landing. Does not: erasing (erasure.py).
A digest is HMAC-SHA256 under a key of this data folder: ids are few and short, so a plain hash of them could be turned back by trying all.
"""

from __future__ import annotations

import hmac
import os
import secrets
from datetime import datetime
from pathlib import Path

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.columns import CUSTOMER_ID
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.lake import Lake

ERASURES = "ledger/erasures"
_SCHEMA = pyarrow.schema(
    [
        ("customer_digest", pyarrow.string()),
        ("erasure_id", pyarrow.string()),
        (
            "state",
            pyarrow.string(),
        ),  # started: landing drops her from here on; part: a place is done; finished: verified
        ("receipt", pyarrow.string()),  # JSON of the part, or of the whole
        ("recorded_at", pyarrow.timestamp("us", "UTC")),
    ]
)


def key_file(lake: Lake) -> Path:
    """Beside the lake, with the keys of bundles."""
    return Path(lake.root).parent / "keys" / "erasure.key"


def digest_of(lake: Lake, customer_id: str) -> str:
    """The digest of a customer in this data folder; the key is made with the first.

    Raises:
        ConfigurationError: somebody was erased, and the key is gone.
    """
    path = key_file(lake)
    if not path.exists() and not lake.exists(ERASURES):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
    return _digest(_key(lake), customer_id)


def _digest(key: bytes, customer_id: str) -> str:
    return hmac.digest(key, customer_id.encode(), "sha256").hex()


def _key(lake: Lake) -> bytes:
    path = key_file(lake)
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        key = b""
        why = getattr(error, "strerror", None) or "no hexadecimal key"
    else:
        why = f"{len(key)} bytes"
    if len(key) != 32:
        raise ConfigurationError(
            f"key of erasures {path}",
            found=why,
            wanted="the key that the digests of erased customers were made with",
            fix="put the file back from a backup; without it, customers who were erased would come back unnoticed",
        )
    return key


def record(lake: Lake, customer_digest: str, erasure_id: str, state: str, receipt: str, at: datetime) -> None:
    """Add a row to the ledger."""
    row = {
        "customer_digest": customer_digest,
        "erasure_id": erasure_id,
        "state": state,
        "receipt": receipt,
        "recorded_at": at,
    }
    lake.append(ERASURES, pyarrow.Table.from_pylist([row], _SCHEMA))


def recorded(lake: Lake, customer_digest: str) -> list[dict[str, str]]:
    """Rows about one customer, oldest first."""
    if not lake.exists(ERASURES):
        return []
    rows = lake.read(ERASURES)
    return rows.filter(pc.equal(rows["customer_digest"], customer_digest)).sort_by("recorded_at").to_pylist()


class Erased:
    """Those of some rows' customers who were erased. Made once for a landing: it reads the ledger and remembers who is not in it."""

    def __init__(self, lake: Lake) -> None:
        self._digests: set[str] = set()
        if lake.exists(ERASURES):  # looking for a folder is all that it costs where nobody was ever erased
            self._digests = set(lake.read(ERASURES, columns=["customer_digest"])["customer_digest"].to_pylist())
            self._key = _key(lake)

    def is_erased(self, customer_id: str | None) -> bool:
        """Of one customer."""
        return bool(self._digests) and customer_id is not None and _digest(self._key, customer_id) in self._digests

    def without(self, rows: pyarrow.Table) -> pyarrow.Table:
        """The rows that are about nobody who was erased: one digest for each customer, not for each row."""
        if not self._digests or CUSTOMER_ID not in rows.schema.names:
            return rows
        found = [each for each in pc.unique(rows[CUSTOMER_ID]).to_pylist() if self.is_erased(each)]
        if not found:
            return rows
        gone = pc.is_in(rows[CUSTOMER_ID], pyarrow.array(found, rows[CUSTOMER_ID].type))
        return rows.filter(pc.invert(gone))
