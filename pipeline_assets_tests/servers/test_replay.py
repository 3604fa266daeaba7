"""The verb `replay` on the generated shop: days with faults, and what the ledger says of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pipeline_assets.replay.story import SYSTEM_FAULTS
from pipeline_assets_tests.shop import Shop
from pipeline_assets_tests.world import FIRST_DAY

Wanted = Mapping[
    str, tuple[str, str, str]
]  # fault -> what the ledger must hold: kind of event, its day, a part of its words
# Of data, models and serving. The bundles of all days but the 15th are refused: what was live before them goes on.
OF_A_WEEK: Wanted = {
    "bit_flipped_bundle@2017-03-14": ("run_failed", "2017-03-14", "found sha256"),
    "online_store_slow@2017-03-14": ("answers", "2017-03-14", "batch"),
    "prices_x100@2017-03-15": ("blocked", "2017-03-15", ""),
    "nan_scores_bundle@2017-03-16": ("run_failed", "2017-03-16", "finite scores"),
    "online_store_down@2017-03-16": ("answers", "2017-03-16", "batch"),
    "truncated_bundle@2017-03-17": ("run_failed", "2017-03-17", "bytes"),
    "release_table_unreachable@2017-03-17": ("fault", "2017-03-17", "found it unreachable: 0 answers failed"),
    "degraded_model@2017-03-18": ("gate_reject", "2017-03-18", ""),
    "constant_scores_bundle@2017-03-18": ("run_failed", "2017-03-18", "answer for warm-up customer"),
    "online_store_stale@2017-03-18": ("answers", "2017-03-18", "batch"),
    "wrong_schema_bundle@2017-03-19": ("run_failed", "2017-03-19", "81 features"),
    "killed_run@2017-03-19": ("fault", "2017-03-19", "1 run reported as failed"),
}
# Of processes and operations, with weekly training.
OF_PROCESSES: Wanted = {
    "gate_bypassed@2017-03-18": ("shadow", "2017-03-18", "version 2"),
    "database_locked@2017-03-18": ("fault", "2017-03-18", "database of runs"),
    "rollback_in_rollout@2017-03-19": ("fault", "2017-03-19", "version 2 in shadow, version 1 stays"),
    "double_trigger@2017-03-19": ("fault", "2017-03-19", "1 runs asked for, then 0 more"),
    "daemon_down@2017-03-20": ("caught_up", "2017-03-23", "2017-03-20"),
    "label_stream_stops@2017-03-24": ("held", "2017-03-26", "no features"),
}


def replayed(root: Path, wanted: Wanted, first: str, last: str, policy: str, *more: str) -> list[dict[str, Any]]:
    """The ledger of a replay with these faults, which holds what is wanted."""
    shop, out = Shop(root), root / "replayed"
    shop.deliver(FIRST_DAY, date(2017, 3, 27))
    faults = [part for fault in (*wanted, *more) for part in ("--fault", fault)]
    asked = ["--from", first, "--to", last, "--policy", policy, "--label-weeks", "4", "--customers", "10"]
    done = shop.command("replay", *asked, *faults, "--out", str(out), "--json", timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    events = [json.loads(line) for line in (out / f"{policy}.ledger.jsonl").read_text().splitlines()]
    missing = [
        fault
        for fault, (kind, day, words) in wanted.items()
        if not [e for e in events if (e["kind"], e["day"]) == (kind, day) and words in e["text"]]
    ]
    assert not missing, "\n".join(f"{event['day']} {event['kind']}: {event['text']}" for event in events)
    assert not [event for event in events if event["facts"].get("failed")], "no answer failed"
    return events


def days_of(events: list[dict[str, Any]], kind: str) -> set[str]:
    return {event["day"] for event in events if event["kind"] == kind}


def test_replay(tmp_path: Path) -> None:
    """Every fault ends as its table says, on its day; the page and the figures are there; no request failed."""
    events = replayed(tmp_path, OF_A_WEEK, "2017-03-14", "2017-03-19", "never", "corrupt_5@2017-03-14")
    answers = {event["day"]: set(event["facts"]) for event in events if event["kind"] == "answers"}
    assert answers == {f"2017-03-{day}": {"batch"} for day in (14, 16, 18)}
    assert days_of(events, "held") == {"2017-03-15"}, "a blocked day publishes nothing"
    assert days_of(events, "run_failed") == {f"2017-03-{day}" for day in (14, 16, 17, 18, 19)}
    assert len([event for event in events if event["kind"] == "gate_promote"]) == 1, "the first model, and no other"
    assert "<h1>Replay</h1>" in (tmp_path / "replayed" / "replay.html").read_text()


def test_replay_of_processes_and_operations(tmp_path: Path) -> None:
    """No run fails; the days that the daemon missed are caught up once, in order."""
    events = replayed(tmp_path, OF_PROCESSES, "2017-03-18", "2017-03-26", "weekly")
    assert days_of(events, "run_failed") == set()
    caught = [event["text"] for event in events if event["kind"] == "caught_up"]
    assert caught == ["2017-03-20", "2017-03-21", "2017-03-22"]
    assert days_of(events, "held") == {"2017-03-24", "2017-03-25", "2017-03-26"}


def test_every_fault_of_the_system_is_replayed() -> None:
    """In one of the two."""
    assert {name.partition("@")[0] for name in (*OF_A_WEEK, *OF_PROCESSES)} >= set(SYSTEM_FAULTS)
