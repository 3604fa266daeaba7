"""Replays of the generated shop with faults on their days, and what the ledger has to hold of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

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
    "overload@2017-03-15": ("fault", "2017-03-15", "left out, as nobody shopped on this day"),
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
# Of serving, of the machine and of people: each alone on its day, or with others that it does not touch.
OF_SERVING: Wanted = {
    "cold_start@2017-03-18": ("fault", "2017-03-18", "the first answer is ranked"),
    "malformed_requests@2017-03-18": ("fault", "2017-03-18", "1 x 404, 1 x 413, 10 x 422"),
    "gate_bypassed@2017-03-18": ("shadow", "2017-03-18", "version 2"),
    "shadow_dead@2017-03-19": ("fault", "2017-03-19", "version 2 is on trial: 0 answers failed"),
    "overload@2017-03-19": ("fault", "2017-03-19", "40 at once, 8 are let in: some told to come again, 0 failed"),
    "killed_worker@2017-03-19": ("fault", "2017-03-19", "10 asked, 0 failed"),
    "rollout_under_load@2017-03-20": ("fault", "2017-03-20", "many answers, 0 failed"),
    "disk_full@2017-03-20": ("fault", "2017-03-20", "the run failed, with room the next one follows"),
    "monitor_stops@2017-03-20": ("dead_man", "2017-03-21", "skew_report, quality_report, slo_report: nothing since 2017-03-19"),
    "rollback_twice@2017-03-21": ("fault", "2017-03-21", "of 2017-03-21, then version 1 of 2017-03-20, then version 1 of 2017-03-21"),
    "alert_storm@2017-03-21": ("fault", "2017-03-21", "1000 failures in an hour, 21 deliveries, 1001 in the log"),
    "slow_bundle@2017-03-22": ("run_failed", "2017-03-22", "found # ms CPU; wanted at most 60 ms"),
    "backfilled_twice@2017-03-23": ("fault", "2017-03-23", "82 days landed again twice in random order, 0 of 1518 days of tables changed"),
    "restored_backup@2017-03-24": ("fault", "2017-03-24", "tables are the same, the audit log is whole, the bundle of 2017-03-24 loads"),
    "erased_in_training@2017-03-24": ("fault", "2017-03-24", "after a training that was in progress, 0 places still name her"),
}  # fmt: skip
# Two weeks of a season, under policy drift: trained when the cool-down of a week lets it, refused on each other day.
OF_A_SEASON: Wanted = {"retrain_loop@2017-03-19": ("decision_retrain", "2017-03-24", "drift on 2017-03-24")}


def opened(root: Path, last: date = date(2017, 3, 27), **more: str) -> Shop:
    """A shop whose days have arrived; `more` settings."""
    shop = Shop(root, more)
    shop.deliver(FIRST_DAY, last)
    return shop


def replayed(
    shop: Shop, out: Path, wanted: Wanted, first: str, last: str, policy: str, *more: str
) -> list[dict[str, Any]]:
    """The ledger of a replay with these faults, which holds what is wanted of days up to `last`."""
    faults = [part for fault in (*wanted, *more) for part in ("--fault", fault)]
    asked = ["--from", first, "--to", last, "--policy", policy, "--label-weeks", "4", "--customers", "10"]
    done = shop.command("replay", *asked, *faults, "--out", str(out), "--json", timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    events = [json.loads(line) for line in (out / f"{policy}.ledger.jsonl").read_text().splitlines()]
    missing = [
        fault
        for fault, (kind, day, words) in wanted.items()
        if day <= last and not [e for e in events if (e["kind"], e["day"]) == (kind, day) and words in e["text"]]
    ]
    assert not missing, "\n".join(f"{event['day']} {event['kind']}: {event['text']}" for event in events)
    assert not [event for event in events if event["facts"].get("failed")], "no answer failed"
    return events


def days_of(events: list[dict[str, Any]], kind: str) -> set[str]:
    return {event["day"] for event in events if event["kind"] == kind}
