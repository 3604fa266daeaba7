"""The command line: thin shells over the functions that the assets use. `pipeline-assets --help` lists the verbs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import date
from typing import Any

from pipeline_assets.recommender.errors import ConfigurationError, PipelineError
from pipeline_assets.settings import Settings, get_settings

_NOISE = ("alembic", "mlflow", "feast", "dagster", "py.warnings", "evidently", "matplotlib")


def _quiet() -> None:
    """Library chatter off: a person watches this output. Errors still come through."""
    warnings.simplefilter("ignore")
    for name in _NOISE:
        logging.getLogger(name).setLevel(logging.ERROR)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; wanted a day such as 2017-11-12") from None


def run(arguments: argparse.Namespace) -> int:
    """Bring the whole loop up to the newest day and print a summary."""
    if arguments.until:
        os.environ["PIPELINE_CALENDAR__UNTIL"] = arguments.until.isoformat()
        get_settings.cache_clear()
    settings = get_settings()
    _quiet()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    say(f"source {settings.source.kind}, data in {settings.data_dir}")
    import dagster as dg

    from pipeline_assets.definitions import build_defs
    from pipeline_assets.loop import Loop

    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.get() as instance:
        day = Loop(settings, build_defs(settings), instance, say).run()
    say("done")
    return _print_summary(settings, day, as_json=False)


def summary(arguments: argparse.Namespace) -> int:
    """Print the summary of the newest released day."""
    _quiet()
    from pipeline_assets.resources.lake import local_lake

    days = local_lake(get_settings().data_dir).days("deployment/bundle")
    if not days:
        raise ConfigurationError("summary", found="nothing was released yet", wanted="a finished run", fix="run `make run` first")
    return _print_summary(get_settings(), max(days), arguments.json)


def _print_summary(settings: Settings, day: date, as_json: bool) -> int:
    from pipeline_assets.summary import collect, render

    content: dict[str, Any] = collect(settings, day)
    print(json.dumps(content, indent=1, default=str) if as_json else render(content))
    return 0


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    root = argparse.ArgumentParser(prog="pipeline-assets", description=__doc__)
    verbs = root.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("run", help="the whole loop up to the newest day; safe to repeat", description=run.__doc__)
    verb.add_argument("--until", type=_day, help="stop the clock at this business day (YYYY-MM-DD)")
    verb.set_defaults(function=run)
    verb = verbs.add_parser("summary", help="what the last run found, and five recommendations with reasons", description=summary.__doc__)
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=summary)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; an error of ours is one line, not a stack trace.

    Dagster wraps what an asset raised; its cause is shown the same way.
    """
    options = parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
