"""Replays in which everything goes wrong that has a name: part of `make chaos`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from pipeline_assets_tests.replaying import OF_A_SEASON, OF_A_WEEK, OF_PROCESSES, OF_SERVING, days_of, opened, replayed


def test_faults_of_data_models_and_serving(tmp_path: Path) -> None:
    """The bundles of all days but the blocked one are refused: what was live before them goes on."""
    out = tmp_path / "replayed"
    events = replayed(opened(tmp_path), out, OF_A_WEEK, "2017-03-14", "2017-03-19", "never", "corrupt_5@2017-03-14")
    answers = {event["day"]: set(event["facts"]) for event in events if event["kind"] == "answers"}
    assert answers == {f"2017-03-{day}": {"batch"} for day in (14, 16, 18)}
    assert days_of(events, "held") == {"2017-03-15"}
    assert days_of(events, "run_failed") == {f"2017-03-{day}" for day in (14, 16, 17, 18, 19)}
    assert len([event for event in events if event["kind"] == "gate_promote"]) == 1, "the first model, and no other"


def test_faults_of_processes_and_operations(tmp_path: Path) -> None:
    """No run fails; the days that the daemon missed are caught up once, in order."""
    events = replayed(opened(tmp_path), tmp_path / "replayed", OF_PROCESSES, "2017-03-18", "2017-03-26", "weekly")
    assert days_of(events, "run_failed") == set()
    caught = [event["text"] for event in events if event["kind"] == "caught_up"]
    assert caught == ["2017-03-20", "2017-03-21", "2017-03-22"]
    assert days_of(events, "held") == {"2017-03-24", "2017-03-25", "2017-03-26"}


def test_faults_of_serving_and_operations(tmp_path: Path) -> None:
    """Each day is published but that of the slow bundle; days that nobody watched are watched later, in order; nothing else fails."""
    events = replayed(opened(tmp_path), tmp_path / "replayed", OF_SERVING, "2017-03-18", "2017-03-24", "weekly")
    assert days_of(events, "run_failed") == {"2017-03-22"}
    assert days_of(events, "held") == set()
    watched = [event["text"] for event in events if event["kind"] == "caught_up"]
    assert watched == [f"watched 2017-03-{day}" for day in (20, 21, 22)]
    assert [event["text"] for event in events if event["kind"] == "rolled_back"] == ["version 2: change"]
    online = [event["text"] for event in events if "publications in random order" in event["text"]]
    assert [text.endswith("online values of 80 customers as they were") for text in online] == [True]


def test_a_season_is_trained_on_once_a_week(tmp_path: Path) -> None:
    """Fourteen days of drift: two trainings, a week apart, and the cool-down refuses the others."""
    shop = opened(tmp_path, date(2017, 4, 9), PIPELINE_MONITORING__RETRAIN_COOLDOWN_DAYS="7")
    events = replayed(shop, tmp_path / "replayed", OF_A_SEASON, "2017-03-18", "2017-04-02", "drift")
    assert days_of(events, "decision_retrain") == {"2017-03-24", "2017-03-31"}
    assert len(days_of(events, "decision_refuse")) == 12
    assert all("cool-down of 7 days" in event["text"] for event in events if event["kind"] == "decision_refuse")
    assert len([event for event in events if event["kind"] == "run_requested"]) == 2
