"""Erasing a customer from everything that this pipeline stores, with a receipt, and looking whether she is gone.

Belongs here: the order, the ledger, the receipt. Does not: how a place is cleaned (erasure_lake.py, erasure_stores.py, erasure_files.py).
The order is: the ledger says that she is being erased, so that from then on landing drops her; every place is cleaned; everything is looked
through again; only then there is a receipt. A run that was killed anywhere in between is finished by the next (docs/adr/0051-erasure.md).
"""

from __future__ import annotations

import getpass
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.erased import digest_of, record, recorded
from pipeline_assets.resources.erasure_files import erase_files, look_at_files
from pipeline_assets.resources.erasure_lake import Removed, erase_table, look_at_table, removed_by, tables
from pipeline_assets.resources.erasure_stores import (
    erase_events,
    erase_online,
    is_server,
    look_at_events,
    look_at_online,
)
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.resources.lake_lock import alone, shared
from pipeline_assets.resources.mentions import Mentions
from pipeline_assets.serving import audit
from pipeline_assets.serving.release_state import open_state
from pipeline_assets.settings import Settings

Say = Callable[[str], object]


@dataclass(frozen=True)
class Receipt:
    """What was removed of whom, when. The customer is a digest; `removed` has places where something was."""

    erasure_id: str
    customer_digest: str
    started_at: str
    finished_at: str
    is_resumed: bool  # an earlier attempt was killed: what it removed outside the lake is not counted here
    removed: tuple[Removed, ...]
    not_looked_at: tuple[str, ...]
    verified: bool  # everything was looked through again, and nothing names her

    @property
    def rows(self) -> int:
        return sum(place.rows for place in self.removed)

    def as_json(self) -> dict[str, Any]:
        """For the ledger and for programs."""
        return {**asdict(self), "rows": self.rows}


def erase(settings: Settings, customer_id: str, say: Say, wait: float) -> Receipt | None:
    """Remove everything that is stored about a customer; None when she was erased before and nothing of her has come since.

    Args:
        wait: seconds for runs that are in progress to end.

    Raises:
        Busy: they did not.
        ConfigurationError: the id is empty, or something still names her at the end: what is named has to be looked at by a person.
    """
    her, lake = _named(customer_id), local_lake(settings.data_dir)
    with alone(lake.root, wait):
        customer = digest_of(lake, customer_id)
        before = recorded(lake, customer)
        if before and before[-1]["state"] == "finished" and not list(_look(settings, lake, her)):
            return None
        is_resumed = bool(before) and before[-1]["state"] == "started"
        started_at = datetime.now(UTC)
        erasure_id = before[-1]["erasure_id"] if is_resumed else uuid.uuid4().hex
        if not is_resumed:
            record(lake, customer, erasure_id, "started", "{}", started_at)
        removed = list(_remove(settings, lake, her, f"erasure-{erasure_id}", say))
        left = list(_look(settings, lake, her))
        if left:
            raise ConfigurationError(
                f"erasure {erasure_id}",
                found=f"still named in {'; '.join(left[:5])}" + (f" and {len(left) - 5} more" if len(left) > 5 else ""),
                wanted="nothing that names her",
                fix="remove these by hand (rows of the audit log stay: write no customers into reasons), then erase again",
            )
        receipt = Receipt(
            erasure_id,
            customer,
            started_at.isoformat(),
            datetime.now(UTC).isoformat(),
            is_resumed,
            tuple(removed),
            _servers(settings),
            verified=True,
        )
        _keep(settings, lake, receipt)
    return receipt


def verify(settings: Settings, customer_id: str, wait: float) -> list[str]:
    """Everything that still holds a customer, by name; nothing when she is gone. Writes nothing."""
    her, lake = _named(customer_id), local_lake(settings.data_dir)
    with shared(lake.root, wait):
        return list(_look(settings, lake, her))


def _named(customer_id: str) -> Mentions:
    if not customer_id.strip():
        raise ConfigurationError("customer", found="no id", wanted="the id of a customer", fix="pass --customer ID")
    return Mentions(customer_id)


def _remove(settings: Settings, lake: Lake, her: Mentions, run_id: str, say: Say) -> Iterator[Removed]:
    """Clean place after place; yields those where something was."""
    for table in tables(lake):
        done, total = erase_table(lake, table, her, run_id), removed_by(lake, table, run_id)
        found = Removed(done.place, max(done.rows, total.rows), done.files, total.content or done.content)
        if found.is_anything:
            say(f"{found.place}: {found.rows} rows of {len(found.content)} days, {len(found.files)} old files")
            yield found
    for other in (
        *([erase_events(settings, her)] if _has_events(settings) else []),
        *([erase_online(settings, her)] if _has_online_store(settings) else []),
        *erase_files(settings, her),
    ):
        if other.is_anything:
            say(f"{other.place}: {other.rows} rows or texts")
            yield other


def _look(settings: Settings, lake: Lake, her: Mentions) -> Iterator[str]:
    for table in tables(lake):
        yield from look_at_table(lake, table, her)
    if _has_events(settings):
        yield from look_at_events(settings, her)
    if _has_online_store(settings):
        yield from look_at_online(settings, her)
    yield from look_at_files(settings, her)


def _has_events(settings: Settings) -> bool:
    return bool(settings.events.url) or (settings.data_dir / "events.db").exists()


def _has_online_store(settings: Settings) -> bool:
    """A store of its own, or the file of the embedded one: before the first features were published there is none, and Feast is not imported."""
    return settings.stores.online_store is not None or (settings.data_dir / "online_store.db").exists()


def _servers(settings: Settings) -> tuple[str, ...]:
    """Databases of tools that are servers: texts of theirs (reasons, pages) are not looked through from here."""
    urls = {"MLflow": settings.mlflow_uri, "releases": settings.release_url}
    return tuple(f"texts of {name}: a server" for name, url in urls.items() if "://" in url and is_server(url))


def _keep(settings: Settings, lake: Lake, receipt: Receipt) -> None:
    """The audit log first: an erasure that is finished in the ledger is in the audit log."""
    content = json.dumps(receipt.as_json(), sort_keys=True)
    engine = open_state(settings.release_url)
    try:
        known = {json.loads(row.details).get("erasure_id") for row in audit.entries(engine) if row.action == "erase"}
        if receipt.erasure_id not in known:
            with engine.begin() as connection:
                audit.record(
                    connection,
                    actor=getpass.getuser(),
                    action="erase",
                    subject=f"customer {receipt.customer_digest[:16]}",
                    reason="a customer was erased",
                    at=datetime.fromisoformat(receipt.finished_at),
                    details={
                        "erasure_id": receipt.erasure_id,
                        "rows": receipt.rows,
                        "receipt_sha256": hashlib.sha256(content.encode()).hexdigest(),
                    },
                )
    finally:
        engine.dispose()
    finished_at = datetime.fromisoformat(receipt.finished_at)
    record(lake, receipt.customer_digest, receipt.erasure_id, "finished", content, finished_at)
