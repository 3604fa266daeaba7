"""`pipeline-assets release`, `audit` and `replay-answer`. Thin shells over resources/{rollout,passport}_run.py and serving/audit.py."""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline_assets.settings import Settings, get_settings

if TYPE_CHECKING:
    from pipeline_assets.serving.release_state import Release

SHOWN = 10  # releases and audit rows that are listed unless more are asked for


def status(arguments: argparse.Namespace) -> int:
    """What is live, what is on trial and what its guardrails say, and the newest releases."""
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.rollout_run import findings_of
    from pipeline_assets.serving.release_state import history, open_state
    from pipeline_assets.serving.rollout_state import view

    settings, now = get_settings(), datetime.now(UTC)
    engine = open_state(settings.release_url)
    served, rows = view(engine), history(engine, arguments.limit)
    rollout = served.rollout
    findings = findings_of(settings, local_lake(settings.data_dir), rollout, now) if rollout else ()
    if arguments.json:
        content = {
            "live": served.live and asdict(served.live),
            "candidate": served.candidate and asdict(served.candidate),
        }
        content |= {"rollout": rollout and asdict(rollout), "guardrails": [asdict(found) for found in findings]}
        print(json.dumps({**content, "releases": [asdict(row) for row in rows]}, indent=1, default=str))
        return 0
    print(f"live: {_named(served.live)}" if served.live else "nothing is live")
    if rollout and served.candidate:
        minutes = (now - rollout.entered_at).total_seconds() / 60
        print(
            f"on trial: {_named(served.candidate)}, {rollout.state.stage} {rollout.state.share:.0%} for {minutes:.0f} minutes"
        )
        for found in findings:
            print(f"  {found.verdict:12} {found.guardrail}: {found.detail}")
    for row in rows:
        print(
            f"{row.id:4} {row.state:8} {row.recorded_at:%Y-%m-%d %H:%M} model {row.model_version} of {row.as_of}  {row.reason}"
        )
    return 0


def promote(arguments: argparse.Namespace) -> int:
    """Make the model on trial live for everybody, or any recorded release (--release). It has to pass its probe; the audit log keeps
    who and why."""
    from pipeline_assets.resources.rollout_run import promote as go

    return _moved(arguments, go)


def rollback(arguments: argparse.Namespace) -> int:
    """End what is on trial; with nothing on trial go back to the model that was live before, or to a recorded release (--release).
    A second rollback goes back to what the first one left. The registry's champion follows."""
    from pipeline_assets.resources.rollout_run import roll_back

    return _moved(arguments, roll_back)


def _moved(arguments: argparse.Namespace, go: Callable[..., Release]) -> int:
    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.rollout_run import follow_alias
    from pipeline_assets.serving.release_state import open_state

    quiet()
    settings = get_settings()
    live = go(settings, arguments.reason, getpass.getuser(), datetime.now(UTC), arguments.release)
    moved = follow_alias(_tracking(settings), open_state(settings.release_url))
    if arguments.json:
        print(json.dumps({"live": asdict(live), "champion_moved_to": moved}, indent=1, default=str))
    else:
        print(f"live: {_named(live)}" + (f"; champion is version {moved} again" if moved else ""))
    return 0


def audit_list(arguments: argparse.Namespace) -> int:
    """The newest rows of the audit log, oldest first."""
    from pipeline_assets.serving.audit import entries
    from pipeline_assets.serving.release_state import open_state

    rows = entries(open_state(get_settings().release_url), arguments.limit)
    if arguments.json:
        print(json.dumps([{**asdict(row), "details": json.loads(row.details)} for row in rows], indent=1))
        return 0
    for row in rows:
        print(f"{row.id:4} {row.at[:19]} {row.actor}: {row.action} {row.subject}: {row.reason}")
    return 0


def audit_verify(arguments: argparse.Namespace) -> int:
    """Whether every row of the audit log is what was written, and follows the row before; exit code 1 and the first row that does not.
    Keep the printed digest elsewhere: rows cut off at the end would leave a whole, shorter log."""
    from pipeline_assets.serving.audit import verify
    from pipeline_assets.serving.release_state import open_state

    found = verify(open_state(get_settings().release_url))
    if arguments.json:
        print(json.dumps(asdict(found), indent=1))
    elif found.broken_at is None:
        print(f"whole: {found.rows} rows, newest digest {found.head}")
    else:
        print(f"BROKEN at row {found.broken_at}: {found.problem}; the {found.rows} rows before it are whole")
    return 0 if found.broken_at is None else 1


def replay_answer(arguments: argparse.Namespace) -> int:
    """How an answer came to be: model, features as served, candidates with their scores before and after rules, and the purchases behind each
    product, down to their raw batch. It is computed again: exit code 0 when it is equal, 1 with the first difference."""
    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.passport_run import trace

    quiet()
    settings = get_settings()
    found = trace(settings, local_lake(settings.data_dir), arguments.answer)
    line, difference = found.passport.line, found.passport.first_difference
    if arguments.json:
        parts = [{**asdict(part), "is_equal": part.is_equal} for part in found.passport.parts]
        content = {
            "line": line,
            "parts": parts,
            "candidates": found.passport.candidates,
            "raw": found.raw,
            "features": found.passport.features,
        }
        print(json.dumps({**content, "first_difference": difference and difference.name}, indent=1, default=str))
        return 0 if difference is None else 1
    who = f"customer {line['customer_id']}" if line["customer_id"] else "a visitor"
    print(f"{line['ts']} for {who}: release {line['release_id']}, {line['arm']}, bundle {line['bundle_id']}")
    for part in found.passport.parts:
        print(
            f"{'equal' if part.is_equal else 'DIFFERS':8} {part.name}"
            + ("" if part.is_equal else f": {part.recorded}; here {part.here}")
        )
    before = {product: score for product, score, _ in found.passport.candidates}
    for product, score in zip(line["product_ids"], line["scores"], strict=True):
        bought = found.raw[product]
        newest = (
            f", newest {bought[0]['event_date']}, event {bought[0]['event_id']} of batch {bought[0]['batch_id']}"
            if bought
            else ""
        )
        own = f"{before[product]:.4f}" if product in before else "not ranked"
        print(f"  {product}: score {own}, after rules {score:.4f}; bought in {len(bought)} lines before{newest}")
    print("equal: the same answer comes out again" if difference is None else f"DIFFERENT, first in {difference.name}")
    return 0 if difference is None else 1


def _named(release: Release) -> str:
    return f"release {release.id}, model {release.model_version} of {release.as_of}"


def _tracking(settings: Settings) -> Any:
    from pipeline_assets.resources.tracking import Tracking

    return Tracking(tracking_uri=settings.mlflow_uri, artifact_root=str(settings.data_dir / "mlflow_artifacts"))


def add_verbs(verbs: Any) -> None:
    """Register the verbs of this module."""
    release = verbs.add_parser("release", help="what is served: status, promote, rollback", description=__doc__)
    actions = release.add_subparsers(required=True, metavar="ACTION")
    parser = actions.add_parser("status", help="what is live and on trial", description=status.__doc__)
    parser.add_argument("--limit", type=int, default=SHOWN, help="releases to list (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(function=status)
    for function, text in ((promote, "live for everybody, now"), (rollback, "back to the model before")):
        parser = actions.add_parser(function.__name__, help=text, description=function.__doc__)
        parser.add_argument("--reason", required=True, help="kept in the audit log")
        parser.add_argument("--release", type=int, metavar="ID", help="a release by its number, see status")
        parser.add_argument("--json", action="store_true", help="machine-readable output")
        parser.set_defaults(function=function)
    audit = verbs.add_parser("audit", help="who changed what is served, and why", description="The audit log.")
    actions = audit.add_subparsers(required=True, metavar="ACTION")
    parser = actions.add_parser("list", help="the newest rows", description=audit_list.__doc__)
    parser.add_argument("--limit", type=int, default=SHOWN, help="(default %(default)s)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(function=audit_list)
    parser = actions.add_parser("verify", help="is it what was written?", description=audit_verify.__doc__)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(function=audit_verify)
    parser = verbs.add_parser(
        "replay-answer", help="how an answer came to be, computed again", description=replay_answer.__doc__
    )
    parser.add_argument("answer", metavar="ANSWER_ID", help="answer_id of an answer of the API")
    parser.add_argument(
        "--json", action="store_true", help="machine-readable output, with all candidates, feature values and raw rows"
    )
    parser.set_defaults(function=replay_answer, reads_lake=True)
