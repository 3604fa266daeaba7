"""`pipeline-assets backtest`, `reproduce`, `explain` and `holdout`. Thin shells over functions that the assets use too."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.settings import Settings, get_settings, with_until, with_values

if TYPE_CHECKING:
    from pipeline_assets.resources.explanation import Explained
    from pipeline_assets.resources.tracking import Tracking


def progress(as_json: bool) -> Callable[[str], None]:
    """Lines with the seconds since now: on stdout, or on stderr where stdout is for programs."""
    started, file = time.monotonic(), sys.stderr if as_json else sys.stdout

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", flush=True, file=file)

    return say


def spent() -> dict[str, float]:
    """CPU seconds of this process and of those it waited for, and the highest memory of one of them, so far."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": round(sum(use.ru_utime + use.ru_stime for use in (own, children)), 1),
        "peak_gb": round(max(own.ru_maxrss, children.ru_maxrss) / 1024**2, 2),
    }


def _until(last: date) -> Settings:
    """The clock stopped at `last`; never later than where it was stopped.

    Raises:
        ConfigurationError: it stands before `last`.
    """
    stopped = get_settings().calendar.until
    if stopped and last > stopped:
        raise ConfigurationError(
            "calendar.until",
            found=f"the clock is stopped at {stopped}",
            wanted=f"{last} or later: what is known by then is asked for",
            fix="choose an earlier day, or move PIPELINE_CALENDAR__UNTIL",
        )
    return with_until(last)


def backtest(arguments: argparse.Namespace) -> int:
    """Recommendations as they would have been made on the morning of past days: trained on what was known before the day, for every
    customer who was known. Lands and builds what is missing up to the day before, promotes and releases nothing.

    Writes one Parquet file: as_of (the day given), customer_id, rank, product_id, score.
    """
    from pipeline_assets.cli import quiet

    quiet()
    say = progress(arguments.json)
    if arguments.horizon_days is not None:
        with_values({"training": {"horizon_days": arguments.horizon_days}})
    days = sorted(set(arguments.as_of))
    ahead = get_settings().training.horizon_days if arguments.measure else 0
    settings = _until(days[-1] + timedelta(days=ahead - 1))
    say(f"source {settings.source.kind}, data in {settings.data_dir}")
    import dagster as dg

    from pipeline_assets.loop import Loop
    from pipeline_assets.resources.backtest import backtest, cutoffs, write_slates
    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.holdout import Door
    from pipeline_assets.resources.lake import local_lake

    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    lake, started_at, start = local_lake(settings.data_dir), datetime.now(UTC), settings.calendar.holdout_start
    run_id = f"backtest-{started_at:%Y%m%dT%H%M%S}"
    with dg.DagsterInstance.get() as instance:
        loop = Loop(settings, instance, say)
        loop.prepare(days[-1] + timedelta(days=ahead - 1), lambda lake: cutoffs(lake, days, settings))
    doors = (Door(lake, "training", run_id, started_at, start), Door(lake, "backtest", run_id, started_at, start))
    found = []
    for day in days:
        say(f"backtest as of {day}")
        measuring = doors[1] if arguments.measure else None
        found.append(backtest(lake, FeatureStoreResource(), day, arguments.top, settings, doors[0], measuring, say))
    write_slates(arguments.out, found)
    if arguments.json:
        content = {"out": arguments.out, **spent(), "backtests": [each.summary() for each in found]}
        print(json.dumps(content, indent=1, default=str))
        return 0
    for each in found:
        say(f"{each.as_of}: {len(each.slates)} rows for {each.customers} customers, {each.trees} trees")
        for name, value in (each.measures or {}).items():
            say(f"  {name} {value:.4f}")
    say(f"wrote {arguments.out}; CPU {spent()['cpu_seconds']:.0f} s, peak {spent()['peak_gb']:.1f} GB of a process")
    return 0


def reproduce(arguments: argparse.Namespace) -> int:
    """Train a model again from the versions of the data, the settings and the parameters that were recorded with it, and compare: inputs,
    training set, trees and recommendations. Exit code 1 when something differs; the first difference is named.
    """
    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.reproduction import reproduce

    quiet()
    settings, say = get_settings(), progress(arguments.json)
    with tempfile.TemporaryDirectory(prefix="reproduce-") as temporary:
        folder = Path(arguments.folder or temporary)
        newest, own = arguments.newest_inputs, arguments.own_settings
        result = reproduce(
            settings, _tracking(settings), arguments.model, folder, say, newest_inputs=newest, own_settings=own
        )
    difference = result.first_difference
    if arguments.json:
        parts = [{**asdict(part), "is_equal": part.is_equal} for part in result.parts]
        found = {**asdict(result), "parts": parts, "is_equal": result.is_equal, **spent()}
        print(json.dumps({**found, "first_difference": difference and difference.name}, indent=1, default=str))
        return 0 if result.is_equal else 1
    for part in result.parts:
        verdict = "equal" if part.is_equal else "DIFFERS" if part.decides else "differs"
        print(f"{verdict:8} {part.name}: {part.recorded}" + ("" if part.is_equal else f"; here {part.here}"))
    told = [part.name for part in result.parts if not part.decides and not part.is_equal]
    besides = f" (besides, {' and '.join(told)} differ)" if told else ""
    if difference is None:
        print(f"equal: model {result.reference} as of {result.as_of} is what comes out again{besides}")
    else:
        print(f"DIFFERENT, first in {difference.name}: recorded {difference.recorded}, here {difference.here}{besides}")
    return 0 if result.is_equal else 1


def explain(arguments: argparse.Namespace) -> int:
    """Why a customer gets a product: a sentence for the shopper, one for a merchant, and what every feature added to the score (SHAP values).
    For a product that is no candidate: why not, and exit code 1.
    """
    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.explanation import Explained, explain
    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.lake import local_lake

    quiet()
    settings = get_settings()
    lake, product = local_lake(settings.data_dir), arguments.product
    found = explain(
        lake,
        FeatureStoreResource(),
        _tracking(settings),
        arguments.customer,
        product,
        arguments.day,
        arguments.model,
        settings,
    )
    is_candidate = isinstance(found, Explained)
    if arguments.json:
        # JSON has no NaN: a feature that is not known is null
        content = asdict(found) | {"is_candidate": is_candidate}
        if isinstance(found, Explained):
            content["contributions"] = [
                {"feature": name, "value": None if value != value else value, "contribution": share}
                for name, value, share in found.contributions
            ]
        print(json.dumps(content, indent=1, default=str, allow_nan=False))
    elif isinstance(found, Explained):
        print(_explained(found))
    else:
        print(f"{found.name} is no candidate for customer {found.customer_id} as of {found.as_of}:")
        print("\n".join(f"  - {reason}" for reason in found.reasons))
    return 0 if is_candidate else 1


def _explained(found: Explained) -> str:
    from tabulate import tabulate

    rows = [
        (name, "not known" if value != value else f"{value:.4g}", f"{share:+.4f}")
        for name, value, share in found.contributions
        if share
    ]
    table = tabulate(rows, headers=("feature", "value", "contribution"), colalign=("left", "right", "right"), disable_numparse=True)  # fmt: skip
    total = f"base {found.base:.4f} and contributions add up to the score {found.score:.4f} of model {found.model}, as of {found.as_of}"
    return f"shopper:  {found.shopper}\nmerchant: {found.merchant}\n\n{table}\n\n{total}"


def _tracking(settings: Settings) -> Tracking:
    from pipeline_assets.resources.tracking import Tracking

    return Tracking(tracking_uri=settings.mlflow_uri, artifact_root=str(settings.data_dir / "mlflow_artifacts"))


def holdout(arguments: argparse.Namespace) -> int:
    """How often labels of the holdout were read: by week and purpose, in how many runs, when first and last."""
    from pipeline_assets.resources.holdout import counted, holdout_reads
    from pipeline_assets.resources.lake import local_lake

    settings = get_settings()
    start, reads = settings.calendar.holdout_start, holdout_reads(local_lake(settings.data_dir))
    if arguments.json:
        content = {"holdout_start": start, "reads": counted(reads), "weeks": [asdict(entry) for entry in reads]}
        print(json.dumps(content, indent=1, default=str))
        return 0
    if reads:
        from tabulate import tabulate

        rows = [{name: str(value)[:19] for name, value in asdict(entry).items()} for entry in reads]
        print(tabulate(rows, headers="keys"))
    total = ", ".join(f"{number} for {purpose}" for purpose, number in counted(reads).items())
    print(f"holdout from {start}: {total or 'never'} read" if start else "nothing is held out")
    return 0


def add_verbs(verbs: Any, day: Callable[[str], date]) -> None:
    """Register the verbs of this module."""
    parser = verbs.add_parser(
        "backtest", help="what would have been recommended on a past day", description=backtest.__doc__
    )
    parser.add_argument(
        "--as-of",
        type=day,
        nargs="+",
        action="extend",
        required=True,
        metavar="DAY",
        help="recommendation days (YYYY-MM-DD): everything before them is known, nothing of them is",
    )
    parser.add_argument("--horizon-days", type=int, help="length of the window, whole weeks (default: the setting)")
    parser.add_argument("--top", type=int, default=20, help="products a customer (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="also say how good the slates were; reads what was bought in the window, through the holdout's door",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output; progress goes to stderr")
    parser.set_defaults(function=backtest, reads_lake=True)
    parser = verbs.add_parser(
        "reproduce", help="train a recorded model again and compare", description=reproduce.__doc__
    )
    parser.add_argument("model", help="a version of the registry, or the id of a training run")
    parser.add_argument(
        "--newest-inputs", action="store_true", help="take the tables as they are now, to see which of them changed"
    )
    parser.add_argument("--own-settings", action="store_true", help="keep the settings of this process")
    parser.add_argument("--folder", help="keep the restored tables there (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="machine-readable output; progress goes to stderr")
    parser.set_defaults(function=reproduce, reads_lake=True)
    parser = verbs.add_parser("explain", help="why a customer gets a product, or does not", description=explain.__doc__)
    parser.add_argument("--customer", required=True, metavar="ID")
    parser.add_argument("--product", required=True, metavar="ID")
    parser.add_argument("--day", type=day, help="business day whose features count (default: the newest)")
    parser.add_argument("--model", metavar="VERSION", help="a registered version or a run id (default: the champion)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(function=explain, reads_lake=True)
    parser = verbs.add_parser("holdout", help="who read the holdout, and how often", description=holdout.__doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(function=holdout, reads_lake=True)
