"""The verb `replay` on the generated shop: weeks with faults, and what the ledger says of each."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from pipeline_assets_tests.shop import Shop
from pipeline_assets_tests.world import FIRST_DAY

FIRST, LAST = "2017-03-14", "2017-03-18"
FAULTS = {
    "corrupt_5@2017-03-14": None,  # goes on: no event
    "prices_x100@2017-03-15": ("blocked", "2017-03-15"),
    "online_store_down@2017-03-16": ("answers", "2017-03-16"),
    "truncated_bundle@2017-03-17": ("run_failed", "2017-03-17"),
    "degraded_model@2017-03-18": ("gate_reject", "2017-03-18"),
}


def test_replay(tmp_path: Path) -> None:
    """Every fault ends as its table says, on its day; the page and the figures are there; no request failed."""
    shop = Shop(tmp_path)
    shop.deliver(FIRST_DAY, date(2017, 3, 25))
    out = tmp_path / "replayed"
    faults = [part for fault in FAULTS for part in ("--fault", fault)]
    asked = ["--from", FIRST, "--to", LAST, "--policy", "never", "--label-weeks", "4", "--customers", "10"]
    done = shop.command("replay", *asked, *faults, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    events = [json.loads(line) for line in (out / "never.ledger.jsonl").read_text().splitlines()]
    happened = {(event["kind"], event["day"]) for event in events}
    assert {wanted for wanted in FAULTS.values() if wanted} <= happened, events
    (answers,) = [event["facts"] for event in events if event["kind"] == "answers"]
    assert set(answers) == {"batch"}, "with the online store down nobody is ranked, and nothing fails"
    (held,) = [event for event in events if event["kind"] == "held"]
    assert held["day"] == "2017-03-15", "a blocked day publishes nothing"
    assert "<h1>Replay</h1>" in (out / "replay.html").read_text()
    figures = json.loads(done.stdout)["policies"]["never"]
    assert figures["events"]["gate_promote"] == 1, "the first model, and no other"


SYSTEM_FAULTS = {  # of a week and a half with weekly training -> what the ledger must hold: kind, day and a part of its words
    "bit_flipped_bundle@2017-03-14": ("run_failed", "2017-03-14", "found sha256"),
    "online_store_slow@2017-03-14": ("answers", "2017-03-14", "batch"),
    "wrong_schema_bundle@2017-03-15": ("run_failed", "2017-03-15", "features"),
    "online_store_stale@2017-03-15": ("answers", "2017-03-15", "batch"),
    "nan_scores_bundle@2017-03-16": ("run_failed", "2017-03-16", "finite scores"),
    "release_table_unreachable@2017-03-16": ("fault", "2017-03-16", "found it unreachable: 0 answers failed"),
    "constant_scores_bundle@2017-03-17": ("run_failed", "2017-03-17", "answer for warm-up customer"),
    "killed_run@2017-03-17": ("fault", "2017-03-17", "1 run reported as failed"),
    "gate_bypassed@2017-03-18": ("shadow", "2017-03-18", "version 2"),
    "database_locked@2017-03-18": ("fault", "2017-03-18", "database of runs"),
    "rollback_in_rollout@2017-03-19": ("fault", "2017-03-19", "version 2 in shadow, version 1 stays"),
    "double_trigger@2017-03-19": ("fault", "2017-03-19", "1 runs asked for, then 0 more"),
    "daemon_down@2017-03-20": ("caught_up", "2017-03-23", "2017-03-20"),
    "label_stream_stops@2017-03-24": ("held", "2017-03-26", "no features"),
}
REFUSED = {
    "2017-03-14",
    "2017-03-15",
    "2017-03-16",
    "2017-03-17",
}  # days whose bundle is refused; on all others no run fails


def test_replay_of_system_faults(tmp_path: Path) -> None:
    """Each ends as `story.SYSTEM_FAULTS` says, on its day; no other run fails and no answer does."""
    shop = Shop(tmp_path)
    shop.deliver(FIRST_DAY, date(2017, 3, 27))
    out = tmp_path / "replayed"
    faults = [part for fault in SYSTEM_FAULTS for part in ("--fault", fault)]
    asked = ["--from", FIRST, "--to", "2017-03-26", "--policy", "weekly", "--label-weeks", "4", "--customers", "10"]
    done = shop.command("replay", *asked, *faults, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    events = [json.loads(line) for line in (out / "weekly.ledger.jsonl").read_text().splitlines()]
    told = "\n".join(f"{event['day']} {event['kind']}: {event['text']}" for event in events)
    missing = [
        fault
        for fault, (kind, day, words) in SYSTEM_FAULTS.items()
        if not [e for e in events if (e["kind"], e["day"]) == (kind, day) and words in e["text"]]
    ]
    assert not missing, told
    assert {event["day"] for event in events if event["kind"] == "run_failed"} == REFUSED, told
    caught = [event["text"] for event in events if event["kind"] == "caught_up"]
    assert caught == ["2017-03-20", "2017-03-21", "2017-03-22"], "once, in order"
    assert not [event for event in events if event["facts"].get("failed")], told
