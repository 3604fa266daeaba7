"""Verbs of the API's operators. Thin shells over pipeline_assets/serving."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
from typing import Any

from pipeline_assets.settings_access import KeySettings


def key(arguments: argparse.Namespace) -> int:
    """Make an API key and print it, once, with the entry for the keys file. The key itself is kept nowhere."""
    made = f"pa_{secrets.token_urlsafe(32)}"
    entry = KeySettings(
        name=arguments.name,
        sha256=hashlib.sha256(made.encode()).hexdigest(),
        scopes=tuple(arguments.scope),
        requests_per_second=arguments.requests_per_second,
    )
    values = entry.model_dump(mode="json", exclude_none=True)
    if arguments.json:
        print(json.dumps({"key": made, "entry": values}, indent=1))
        return 0
    print(f"key, shown once: {made}\n\nfor the file that access.keys_file names:\n\n[[keys]]")
    for name, value in values.items():
        print(f"{name} = {json.dumps(value)}")
    return 0


def add_verbs(verbs: Any) -> None:
    """`key`."""
    verb = verbs.add_parser("key", help="a new API key, and its entry for the keys file", description=key.__doc__)
    verb.add_argument("--name", required=True, help="of who uses it; appears in the audit log")
    verb.add_argument(
        "--scope", required=True, action="append", choices=["read", "events:write", "admin"], help="may be repeated"
    )
    verb.add_argument("--requests-per-second", type=float, metavar="N", help="of each worker (default: no limit)")
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=key)
