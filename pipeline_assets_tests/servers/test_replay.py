"""The verb `replay` on the generated shop: a week with faults, and what the ledger says of each."""

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
