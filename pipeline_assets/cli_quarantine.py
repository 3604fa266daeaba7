"""`pipeline-assets quarantine …`: rows that broke a rule, for a person. Thin shells over sources/quarantine.py and the job `ingest`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from typing import Any

from pipeline_assets.settings import get_settings

FEEDS = ("purchases", "exposures", "products", "customers")  # as in schemas/feeds.py, which takes a second to import


def show(arguments: argparse.Namespace) -> int:
    """Print what is in quarantine: rows by feed, day and rule, with a reason as an example."""
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.sources.quarantine import listing, render

    feeds = [arguments.feed] if arguments.feed else FEEDS
    rows = listing(local_lake(get_settings().data_dir), feeds, arguments.first, arguments.last, arguments.rule)
    print(json.dumps([asdict(row) for row in rows], indent=1, default=str) if arguments.json else render(rows))
    return 0


def readmit(arguments: argparse.Namespace) -> int:
    """Judge a day again from its raw rows, in a Dagster run of its own, and say how many rows left quarantine. Safe to repeat.

    The exit code is 1 when the day is blocked still.
    """
    from pipeline_assets.cli import quiet
    from pipeline_assets.loop import Task, execute
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.sources.quarantine import Moved, judged

    quiet()
    settings = get_settings()
    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    lake, feed, day = local_lake(settings.data_dir), arguments.feed, arguments.day
    before = judged(lake, feed, day, arguments.rule)
    layers = ("raw", "validated") if arguments.land else ("validated",)
    execute(Task("ingest", f"readmit {feed} of {day}", (day,), tuple(f"{layer}/{feed}" for layer in layers)))
    after = judged(lake, feed, day)
    print(Moved(feed, day, before, after).summary(arguments.rule))
    return 0 if after.status == "passed" else 1


def add_verbs(verbs: Any, day: Callable[[str], date]) -> None:
    """Register `quarantine` and what can be done with it."""
    group = verbs.add_parser("quarantine", help="rows that broke a rule: list, readmit", description=__doc__)
    kinds = group.add_subparsers(required=True, metavar="WHAT")
    parser = kinds.add_parser("list", help=show.__doc__, description=show.__doc__)
    parser.add_argument("--feed", choices=FEEDS)
    parser.add_argument("--from", dest="first", type=day, help="first day (YYYY-MM-DD)")
    parser.add_argument("--to", dest="last", type=day, help="last day")
    parser.add_argument("--rule", help="only rows that broke this rule")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(function=show)
    parser = kinds.add_parser("readmit", help="judge a day again from its raw rows", description=readmit.__doc__)
    parser.add_argument("--feed", choices=FEEDS, required=True)
    parser.add_argument("--day", type=day, required=True)
    parser.add_argument("--rule", help="count the rows of this rule; the whole day is judged either way")
    parser.add_argument(
        "--land", action="store_true", help="fetch the day from the source first, where its data were fixed"
    )
    parser.set_defaults(function=readmit)
