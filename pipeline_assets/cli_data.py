"""`pipeline-assets data …`: versions of the lake's tables, for a person. Thin shells over resources/versions.py and rebuild.py."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline_assets.settings import get_settings

EXAMPLES = 5  # rows of a difference that are shown


def _show(rows: Sequence[Mapping[str, Any]], as_json: bool, nothing: str) -> None:
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
    elif not rows:
        print(nothing)
    else:
        from tabulate import tabulate

        print(tabulate([{name: str(value) for name, value in row.items()} for row in rows], headers="keys"))


def _lake() -> Any:
    from pipeline_assets.resources.lake import local_lake

    return local_lake(get_settings().data_dir)


def log(arguments: argparse.Namespace) -> int:
    """Every version of a table's days: when, by which run, how many rows, their digest, and whether they changed."""
    from pipeline_assets.resources.versions import log

    entries = log(_lake(), arguments.table, arguments.first or date.min, arguments.last or date.max)
    rows = [
        {
            "version": entry.version,
            "day": entry.event_date,
            "rows": entry.rows,
            "digest": entry.digest if arguments.json else entry.digest[:12],
            "changed": "yes" if entry.is_changed else "no",
            "committed": f"{entry.committed_at:%Y-%m-%d %H:%M:%S}",
            "run": entry.run_id if arguments.json else entry.run_id[:8],
        }
        for entry in entries
    ]
    _show(rows, arguments.json, f"{arguments.table} has no version of these days")
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Days whose content differs between two versions; with --day, which rows of it."""
    from pipeline_assets.resources.versions import diff, row_difference

    lake = _lake()
    if arguments.day is None:
        changes = diff(lake, arguments.table, arguments.before, arguments.after)
        rows = [
            {
                "day": change.event_date,
                "rows before": change.before.rows if change.before else "never written",
                "rows after": change.after.rows if change.after else "never written",
                "digest before": change.before.digest[:12] if change.before else "",
                "digest after": change.after.digest[:12] if change.after else "",
            }
            for change in changes
        ]
        _show(rows, arguments.json, "no day differs")
        return 0
    found = row_difference(lake, arguments.table, arguments.day, arguments.before, arguments.after)
    if not arguments.json:
        print(f"{len(found.only_before)} rows only before, {len(found.only_after)} rows only after")
    rows = [
        {"only": side, **row}
        for side, table in (("before", found.only_before), ("after", found.only_after))
        for row in table.slice(0, len(table) if arguments.json else EXAMPLES).to_pylist()
    ]
    _show(rows, arguments.json, "")
    return 0


def stale(arguments: argparse.Namespace) -> int:
    """Days that were computed from something that has changed since, and what it was. Exit code 1 when there are any."""
    from pipeline_assets.resources.versions import stale_days

    found = stale_days(_lake())
    rows = [
        {"table": table, "day": day, "because": "; ".join(reasons)}
        for table, days in found.items()
        for day, reasons in days.items()
    ]
    _show(rows, arguments.json, "nothing is stale")
    return 1 if rows else 0


def sweep(arguments: argparse.Namespace) -> int:
    """Remove files that killed writers left and no version names. Never touches a version."""
    from pipeline_assets.resources.versions import orphans, sweep

    limit = datetime.now(UTC) - timedelta(hours=arguments.older_than_hours)
    found = orphans(_lake(), limit) if arguments.dry_run else sweep(_lake(), limit)
    _show([{"file": path} for path in found], arguments.json, "no orphans")
    return 0


def rebuild(arguments: argparse.Namespace) -> int:
    """Build a past training set again from the versions it was built from. Exit code 1 when the result differs."""
    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.rebuild import rebuild_training_set

    quiet()
    say: Callable[[str], object] = (lambda _line: None) if arguments.json else print
    with tempfile.TemporaryDirectory(prefix="rebuild-") as temporary:
        folder = Path(arguments.folder or temporary)
        result = rebuild_training_set(get_settings(), arguments.day, arguments.version, folder, say)
    if arguments.json:
        print(json.dumps({**vars(result), "is_equal": result.is_equal}, default=vars))
    else:
        for table, version in result.inputs.items():
            newer = result.changed_inputs.get(table)
            print(f"  {table} at version {version}" + (f" (now {newer})" if newer else ""))
        print(f"recorded: {result.recorded.rows} rows, {result.recorded.digest}")
        print(f"rebuilt:  {result.rebuilt.rows} rows, {result.rebuilt.digest}")
        print("equal" if result.is_equal else "DIFFERENT: the code or the training settings are not those of the time")
    return 0 if result.is_equal else 1


def add_verbs(verbs: Any, day: Callable[[str], date]) -> None:
    """Register `data` and what can be done with it."""
    data = verbs.add_parser(
        "data", help="versions of the tables: log, diff, stale, sweep, rebuild", description=__doc__
    )
    kinds = data.add_subparsers(required=True, metavar="WHAT")

    def kind(name: str, function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = kinds.add_parser(name, help=function.__doc__, description=function.__doc__)
        found.add_argument("--json", action="store_true", help="machine-readable output")
        found.set_defaults(function=function, reads_lake=True)
        return found

    parser = kind("log", log)
    parser.add_argument("table", help="a table of the lake, such as validated/purchases")
    parser.add_argument("--from", dest="first", type=day, help="first day (YYYY-MM-DD)")
    parser.add_argument("--to", dest="last", type=day, help="last day")
    parser = kind("diff", diff)
    parser.add_argument("table", help="a table of the lake")
    parser.add_argument("before", type=int, help="a version, as `data log` shows it")
    parser.add_argument("after", type=int, nargs="?", help="another one (default: the newest)")
    parser.add_argument("--day", type=day, help="show the rows of this day that differ")
    kind("stale", stale)
    parser = kind("sweep", sweep)
    parser.add_argument(
        "--older-than-hours",
        type=float,
        default=24.0,
        help="younger files may belong to a running writer (default %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list, remove nothing")
    parser = kind("rebuild", rebuild)
    parser.add_argument("day", type=day, help="the training set's business day")
    parser.add_argument("--version", type=int, help="which version of it (default: the newest)")
    parser.add_argument("--folder", help="keep the restored tables there (default: a temporary folder)")
