"""The command line: thin shells over the functions that the assets use. `pipeline-assets --help` lists the verbs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pipeline_assets import (
    cli_data,
    cli_models,
    cli_quarantine,
    cli_release,
    cli_replay,
    cli_serving,
    cli_upkeep,
    cli_watch,
)
from pipeline_assets.recommender.errors import ConfigurationError, PipelineError
from pipeline_assets.settings import PROJECT_ROOT, Settings, get_settings, with_until

_NOISE = ("alembic", "mlflow", "feast", "dagster", "py.warnings", "evidently", "matplotlib")


def quiet() -> None:
    """Library chatter off: a person watches this output. Errors still come through."""
    warnings.simplefilter("ignore")
    logging.captureWarnings(True)  # libraries reset the filters as they are imported; the logger below stays silent
    for name in _NOISE:
        logging.getLogger(name).setLevel(logging.ERROR)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; wanted a day such as 2017-11-12") from None


def run(arguments: argparse.Namespace) -> int:
    """Bring the whole loop up to the newest day and print a summary."""
    settings = with_until(arguments.until) if arguments.until else get_settings()
    quiet()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    say(f"source {settings.source.kind}, data in {settings.data_dir}")
    import dagster as dg

    from pipeline_assets.loop import Loop

    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.get() as instance:
        day = Loop(settings, instance, say).run()
    say("done")
    return _print_summary(settings, day, as_json=False)


def dev(arguments: argparse.Namespace) -> int:
    """Start the Dagster UI and daemon of this checkout, on loopback."""
    settings = get_settings()
    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    os.chdir(PROJECT_ROOT)
    dagster = str(Path(sys.executable).parent / "dagster")
    os.execv(dagster, [dagster, "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(arguments.port)])


def summary(arguments: argparse.Namespace) -> int:
    """Print the summary of the newest released day."""
    quiet()
    from pipeline_assets.resources.lake import local_lake

    days = local_lake(get_settings().data_dir).days("deployment/bundle")
    if not days:
        raise ConfigurationError(
            "summary", found="nothing was released yet", wanted="a finished run", fix="run `make run` first"
        )
    return _print_summary(get_settings(), max(days), arguments.json)


def consume(arguments: argparse.Namespace) -> int:
    """Land the messages of the stream in the lake, until SIGTERM or one of the bounds."""
    settings = get_settings()
    calendar = settings.calendar
    if settings.source.kind != "stream":
        raise ConfigurationError(
            "consume",
            found=f"source.kind = {settings.source.kind}",
            wanted="source.kind = stream",
            fix="set PIPELINE_SOURCE__KIND and PIPELINE_STREAM__BOOTSTRAP_SERVERS",
        )
    quiet()
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.sources.mapping import read_mapping
    from pipeline_assets.sources.stream import stream_feeds
    from pipeline_assets.sources.stream_consumer import consume as land_messages

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True)

    say(f"broker {settings.stream.bootstrap_servers}, lake in {settings.data_dir}")
    done = land_messages(
        settings.stream,
        local_lake(settings.data_dir),
        stream_feeds(read_mapping(settings.source.mapping), calendar.time_zone, calendar.first_day),
        stop,
        say,
        clock=lambda: datetime.now(UTC),
        until_idle=arguments.until_idle,
        max_batches=arguments.max_batches,
        from_oldest=arguments.from_oldest,
    )
    say(
        f"done: {done.landed} events landed, {done.dead} dead letters, {done.filtered} filtered out, {done.batches} batches"
    )
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Check configuration, connection, mapping and a sample of the data, and say what to mend; exit code 1 if something must be. Writes nothing."""
    import tempfile

    from pipeline_assets.doctor import as_json, examine, failed, render

    quiet()
    try:
        settings = with_until(arguments.until) if arguments.until else get_settings()
    except ConfigurationError as error:
        findings = [failed("configuration", error)]
    else:
        with tempfile.TemporaryDirectory(prefix="doctor-") as scratch:
            findings = list(examine(settings, datetime.now().astimezone(), Path(scratch)))
    report = as_json(findings)
    print(json.dumps(report, indent=1, ensure_ascii=False) if arguments.json else render(findings))
    return 0 if report["ready"] else 1


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
    verb = verbs.add_parser("dev", help="the Dagster UI and daemon", description=dev.__doc__)
    verb.add_argument("--port", type=int, default=3000, help="(default %(default)s)")
    verb.set_defaults(function=dev)
    verb = verbs.add_parser(
        "summary", help="what the last run found, and five recommendations with reasons", description=summary.__doc__
    )
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=summary)
    verb = verbs.add_parser(
        "consume",
        help="the stream's messages into the lake; may be killed and started again",
        description=consume.__doc__,
    )
    verb.add_argument(
        "--until-idle",
        type=float,
        metavar="SECONDS",
        help="end when all is read and nothing came for so long (default: go on for ever)",
    )
    verb.add_argument("--max-batches", type=int, metavar="N", help="end after N batches")
    verb.add_argument(
        "--from-oldest",
        action="store_true",
        help="where the broker has dropped messages that were not landed, record the gap and go on",
    )
    verb.set_defaults(function=consume)
    cli_data.add_verbs(verbs, _day)
    cli_quarantine.add_verbs(verbs, _day)
    cli_models.add_verbs(verbs, _day)
    cli_release.add_verbs(verbs)
    cli_serving.add_verbs(verbs)
    cli_watch.add_verbs(verbs)
    cli_upkeep.add_verbs(verbs)
    cli_replay.add_verbs(verbs, _day)
    verb = verbs.add_parser(
        "doctor", help="is the source usable? says what to mend before a run", description=doctor.__doc__
    )
    verb.add_argument("--until", type=_day, help="stop the clock at this business day (YYYY-MM-DD)")
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=doctor)
    return root


def _in_the_lake() -> AbstractContextManager[None]:
    """Until the end of a verb that reads versions of tables no erasure begins. Where there is no lake, nothing is made."""
    from pipeline_assets.resources.lake_lock import shared

    root = get_settings().data_dir / "lake"
    return shared(str(root)) if root.exists() else nullcontext()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; an error of ours is one line, not a stack trace.

    Dagster wraps what an asset raised; its cause is shown the same way.
    """
    options = parser().parse_args(arguments)
    try:
        with _in_the_lake() if getattr(options, "reads_lake", False) else nullcontext():
            return int(options.function(options))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
