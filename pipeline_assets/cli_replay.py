"""`pipeline-assets replay`. A thin shell over replay/."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pipeline_assets.cli_models import progress
from pipeline_assets.replay.story import POLICIES, SYSTEM_FAULTS, parse_fault
from pipeline_assets.settings import Settings, get_settings
from pipeline_assets.settings_rollout import RolloutSettings
from pipeline_assets.sources.faulty import FAULTS

# A replay trains up to once a week: models of few weeks are cheaper, for all policies alike. What that does to their comparison was not measured.
LABEL_WEEKS = 8
# Six months of so many customers take less than half an hour (benchmarks/results/replay.md).
REPLAYED = 500
ASKING = 40  # of them each morning: both arms of a canary have enough
# A morning's requests come within seconds, so a stage is a morning. Latency is of this machine and hour, and would make the ledger depend on them.
ROLLOUT: dict[str, Any] = {
    "stage_minutes": 0,
    "steps": [0.5],
    "shadow_share": 1,
    "min_answers": 30,
    "min_customers": 20,
    "guardrails": [name for name in RolloutSettings().guardrails if name != "latency"],
}


def replay(arguments: argparse.Namespace) -> int:
    """Run a past period again, day by day on a replay clock: real assets, gates, sensors, rollout and API, under one retraining policy or
    several, with faults on days of your choice. Ends with a ledger of all that happened and a page that compares the policies.
    """
    from pipeline_assets.cli import quiet
    from pipeline_assets.replay.drive import Question, question_json, summary
    from pipeline_assets.replay.drive import replay as run
    from pipeline_assets.replay.replay_page import write_page

    settings = get_settings()
    quiet()
    say = progress(arguments.json)
    days = f"{arguments.first}-{arguments.last}"
    folder = (arguments.out or settings.data_dir / "replays" / days).absolute()
    values: dict[str, dict[str, Any]] = {"training": {"label_weeks": arguments.label_weeks}, "rollout": ROLLOUT}
    share = arguments.share or _share(settings, arguments.first, say)
    if share < 1:
        values["source"] = {"customer_share": share}
    policies = tuple(dict.fromkeys(arguments.policy or ["weekly"]))
    faults = tuple(parse_fault(text) for text in arguments.fault)
    question = Question(arguments.first, arguments.last, policies, faults, arguments.customers, arguments.seed, values)
    replays = run(question, folder, settings, say)
    found = summary(replays, question)
    (folder / "question.json").write_text(question_json(question) + "\n")
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    page = write_page(replays, found, folder / "replay.html")
    if arguments.json:
        print(json.dumps({**found, "page": str(page)}, indent=1))
        return 0
    for policy, figures in found["policies"].items():
        earned = figures["revenue_a_week"]
        say(f"{policy}: {f'{earned:,.0f} a week' if earned is not None else 'no week is over'}, {figures['events']}")
    say(f"page: {page}")
    return 0


def _share(settings: Settings, first: date, say: Callable[[str], None]) -> float:
    """The share that about `REPLAYED` of the customers are who were known before the first day; all where they are fewer, or nobody says who there is."""
    from pipeline_assets.resources.sources import build_source
    from pipeline_assets.schemas.feeds import FEEDS

    source = build_source(settings, datetime.now(UTC))
    days = [day for day in source.arrived_days() if day < first]
    known = len(source.read(FEEDS["customers"], days)["customer_id"].unique()) if days else 0
    share = min(1.0, float(f"{REPLAYED / known:.2g}")) if known else 1.0
    say(f"{share:.2g} of {known:,} customers are replayed (--share 1: all of them)")
    return share


def add_verbs(verbs: Any, day: Callable[[str], date]) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("replay", help="a past period again, day by day, with faults", description=replay.__doc__)
    verb.add_argument("--from", dest="first", type=day, required=True, help="first business day to replay")
    verb.add_argument("--to", dest="last", type=day, required=True, help="last business day to replay")
    told = "; ".join(f"{name}: {meaning}" for name, meaning in POLICIES.items())
    verb.add_argument(
        "--policy", action="append", choices=list(POLICIES), help=f"may be given several times (default weekly). {told}"
    )
    names = ", ".join([*FAULTS, *SYSTEM_FAULTS])
    verb.add_argument(
        "--fault", action="append", default=[], metavar="NAME@DAY", help=f"may be given several times: {names}"
    )
    verb.add_argument("--out", type=Path, help="a new folder (default: replays/FROM-TO in the data folder)")
    verb.add_argument(
        "--customers", type=int, default=ASKING, help="customers who ask the API each morning (default %(default)s)"
    )
    verb.add_argument(
        "--share",
        type=float,
        help=f"of the shop's customers, those that are replayed (default: about {REPLAYED} of them; 1: all); fewer are faster, and differences less certain",
    )
    verb.add_argument(
        "--label-weeks", type=int, default=LABEL_WEEKS, help="weeks a model is trained on (default %(default)s)"
    )
    verb.add_argument("--seed", type=int, default=7, help="of the order of requests (default %(default)s)")
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=replay)
