"""The verb `replay` on the generated shop: three days with faults, and the first one again. The whole week is in chaos/test_replayed_faults.py."""

from __future__ import annotations

from pathlib import Path

from pipeline_assets.replay.story import SYSTEM_FAULTS
from pipeline_assets_tests.replaying import OF_A_SEASON, OF_A_WEEK, OF_PROCESSES, OF_SERVING, days_of, opened, replayed


def test_replay(tmp_path: Path) -> None:
    """Every fault ends as its table says, on its day; the page is there; no request failed. Asked again, the same happens."""
    shop, out = opened(tmp_path), tmp_path / "replayed"
    events = replayed(shop, out, OF_A_WEEK, "2017-03-14", "2017-03-16", "never", "corrupt_5@2017-03-14")
    answers = {event["day"]: set(event["facts"]) for event in events if event["kind"] == "answers"}
    assert answers == {f"2017-03-{day}": {"batch"} for day in (14, 16)}
    assert days_of(events, "held") == {"2017-03-15"}, "a blocked day publishes nothing"
    assert days_of(events, "run_failed") == {f"2017-03-{day}" for day in (14, 16)}
    assert days_of(events, "drift_report") == {"2017-03-14"}, "its verdict is unknown on the first day, and stays that"
    assert len([event for event in events if event["kind"] == "gate_promote"]) == 1, "the first model, and no other"
    assert "<h1>Replay</h1>" in (out / "replay.html").read_text()
    again = replayed(shop, tmp_path / "again", OF_A_WEEK, "2017-03-14", "2017-03-14", "never", "corrupt_5@2017-03-14")
    assert again == [event for event in events if event["day"] <= "2017-03-14"]


def test_every_fault_of_the_system_is_replayed() -> None:
    """In chaos/test_replayed_faults.py."""
    replayed_ones = (*OF_A_WEEK, *OF_PROCESSES, *OF_SERVING, *OF_A_SEASON)
    assert {name.partition("@")[0] for name in replayed_ones} >= set(SYSTEM_FAULTS)
