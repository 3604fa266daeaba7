"""`pipeline-assets erase`, `backup` and `restore`. Thin shells over resources/erasure.py and resources/backup.py."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline_assets.settings import Settings, get_settings

WAIT = 3600.0  # a training of the sample's year takes some minutes


def erase(arguments: argparse.Namespace) -> int:
    """Remove everything that is stored about a customer: rows of every table, in old versions too, events, online features, lists, answers, bundles
    and pages. Waits for runs that are in progress, and runs wait for it. Ends with a receipt; delivered again, she is dropped. Safe to repeat.

    With --verify nothing is removed: everything is looked through, exit code 1 with what still holds her.
    """
    from pipeline_assets.cli import quiet
    from pipeline_assets.cli_models import progress
    from pipeline_assets.resources.erasure import erase, verify

    quiet()
    settings, say = get_settings(), progress(arguments.json)
    if arguments.verify:
        found = verify(settings, arguments.customer, arguments.wait)
        if arguments.json:
            print(json.dumps({"verified": not found, "found": found}, indent=1))
        else:
            print("\n".join(f"still in {place}" for place in found) or "verified: nothing holds this customer")
        return 1 if found else 0
    receipt = erase(settings, arguments.customer, say, arguments.wait)
    if arguments.json:
        print(json.dumps(receipt.as_json() if receipt else None, indent=1))
    elif receipt is None:
        print("nothing to do: erased before, and nothing has come since")
    else:
        print(f"receipt {receipt.erasure_id}: customer {receipt.customer_digest[:16]}, {receipt.finished_at}")
        print(
            f"{receipt.rows} rows or texts of {len(receipt.removed)} places; verified, in the ledger and in the audit log"
        )
        for place in receipt.not_looked_at:
            print(f"not looked at: {place}")
    return 0


def backup(arguments: argparse.Namespace) -> int:
    """Copy everything that the embedded profile keeps into a folder or a tar file, while the pipeline and the API may be at work: databases through
    SQLite's own backup, every index before what it names, the SHA-256 of every file. The copy has the keys: it is readable by its owner only.
    """
    from pipeline_assets.cli import quiet
    from pipeline_assets.cli_models import progress
    from pipeline_assets.resources.backup import back_up

    quiet()
    files = back_up(get_settings(), arguments.to.absolute(), datetime.now(UTC), progress(arguments.json))
    if arguments.json:
        print(json.dumps({"to": str(arguments.to), "files": len(files), "bytes": sum(file.size for file in files)}))
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """Make the data folder of a backup, on this machine or another, at the same path or another. Every file is checked first; a folder that is not
    empty is refused. Runs that were in progress when the backup was taken are reported as failed; `run` goes on from there.
    """
    from pipeline_assets.cli import quiet
    from pipeline_assets.cli_models import progress
    from pipeline_assets.resources.backup import restore

    quiet()
    settings, say = get_settings(), progress(arguments.json)
    found = restore(settings, arguments.source.absolute(), say)
    ended = _settle(settings, found.is_moved)
    if ended:
        say(f"{len(ended)} runs were in progress; they are reported as failed")
    if arguments.json:
        print(json.dumps({**asdict(found), "data_dir": str(settings.data_dir), "ended_runs": ended}, indent=1))
    return 0


def _settle(settings: Settings, is_moved: bool) -> list[str]:
    """What only the tools themselves can do with the new folder; returns runs that nobody executes any more."""
    import dagster as dg

    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.lost_runs import end_all_runs

    if is_moved and (settings.data_dir / "feast_registry.db").exists():
        FeatureStoreResource().apply()  # its sources are in the lake's folder
    if not (settings.data_dir / "dagster").exists():
        return []
    with dg.DagsterInstance.get() as instance:
        return end_all_runs(instance)


def add_verbs(verbs: Any) -> None:
    """Register the verbs of this module."""
    verb = verbs.add_parser("erase", help="a customer, from everything that is stored", description=erase.__doc__)
    verb.add_argument("--customer", required=True, metavar="ID", help="the shop's id of the customer")
    verb.add_argument("--verify", action="store_true", help="only look whether something holds her")
    verb.add_argument(
        "--wait", type=float, default=WAIT, metavar="SECONDS", help="for runs in progress (default %(default).0f)"
    )
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=erase)
    verb = verbs.add_parser("backup", help="a copy of all that is kept, while it is used", description=backup.__doc__)
    verb.add_argument(
        "--to", required=True, type=Path, metavar="PLACE", help="a new folder, or a new file NAME.tar or NAME.tar.gz"
    )
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=backup)
    verb = verbs.add_parser("restore", help="the data folder of a backup", description=restore.__doc__)
    verb.add_argument("--from", dest="source", required=True, type=Path, metavar="PLACE", help="what `backup` wrote")
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=restore)
