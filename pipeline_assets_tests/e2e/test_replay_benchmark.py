"""The page of `benchmarks.replay`: its arithmetic, and what it says of faults and of a missed goal."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest

from benchmarks.replay import FAULTS, faults_of
from benchmarks.replay_page import Lane, page
from pipeline_assets.replay.story import SYSTEM_FAULTS, event
from pipeline_assets.sources.faulty import FAULTS as OF_DELIVERIES

FIRST = date(2017, 7, 3)  # a Monday
QUESTION: dict[str, Any] = {
    "first": "2017-07-03", "last": "2017-07-16", "values": {"training": {"label_weeks": 8}},
    "faults": [{"name": "prices_x100", "day": "2017-07-04"}, {"name": "corrupt_5", "day": "2017-07-05"}],
}  # fmt: skip
MEASURED: dict[str, Any] = {
    "commit": "abc", "machine": {"cores": 2, "load": [1.5, 0, 0]}, "load_before": [0.2, 0, 0], "wall_s": 120.0, "cpu_s": 140.0,
    "share": 0.25, "customers": 40, "policies": ["weekly"],
}  # fmt: skip


def lane(policy: str, ndcg: list[float]) -> Lane:
    days = pd.DatetimeIndex([FIRST + timedelta(days=n) for n in range(len(ndcg))], name="day")
    realised = pd.DataFrame({"ndcg": ndcg, "recall": 0.1, "revenue_hit": 1000.0}, index=days)
    events = [
        event(date(2017, 7, 4), "blocked", "the typical amount is 100 times that of the last weeks"),
        event(date(2017, 7, 9), "run_requested", "retraining: weekly"),
    ]
    return Lane(policy, events, realised, 60.0)


def test_policies_are_compared_by_week() -> None:
    """Two weeks: 0.22 against 0.20, then 0.19 against 0.20; on average 2.5 % better, one week better, one worse."""
    lanes = [lane("weekly", [0.2] * 14), lane("drift", [0.22] * 7 + [0.19] * 7)]
    assert "| NDCG@10 against the first, weeks better : worse | – | +2.50%, 1 : 1 |" in page(
        QUESTION, [MEASURED], lanes
    )


def test_a_remark_is_told() -> None:
    """Of a command that was held up: its minutes are no measurement."""
    text = page(
        QUESTION,
        [MEASURED, {**MEASURED, "policies": ["drift"], "remark": "held up by tests"}],
        [lane("weekly", [0.2] * 14)],
    )
    assert "drift: held up by tests." in text
    assert "weekly: " not in text.split("## What it cost")[1].split("| policies of")[1]


def test_each_fault_has_its_ending() -> None:
    """One is told of, one leaves no trace in the ledger."""
    text = page(QUESTION, [MEASURED], [lane("weekly", [0.2] * 14)])
    assert "| prices_x100 | 2017-07-04 | *blocked* the typical amount is 100 times that of the last weeks |" in text
    assert "| corrupt_5 | 2017-07-05 | nothing: the day went on |" in text


@pytest.mark.parametrize(
    ("wall", "verdict"),
    [
        (120.0, "| weekly | 2.0 | 140 | 10.0 | 26.3 (met) |"),
        (180.0, "| weekly | 3.0 | 140 | 10.0 | 39.4 (**missed**) |"),
    ],
)
def test_the_goal_is_for_six_months(wall: float, verdict: str) -> None:
    """Two minutes for 14 days are 26 for 184, three are 39; the goal is 30."""
    assert verdict in page(QUESTION, [{**MEASURED, "wall_s": wall}], [lane("weekly", [0.2] * 14)])


def test_replays_of_a_policy_each_have_one_page() -> None:
    """A line of costs for each command; the policies are compared all the same."""
    runs = [MEASURED, {**MEASURED, "policies": ["drift"], "wall_s": 180.0, "commit": "def"}]
    text = page(QUESTION, runs, [lane("weekly", [0.2] * 14), lane("drift", [0.22] * 14)])
    assert "| weekly | 2.0 |" in text
    assert "| drift | 3.0 |" in text
    assert "+10.00%, 2 : 0" in text


def test_faults_are_those_that_the_verb_knows_and_within_the_period() -> None:
    """A period of four weeks has those of its days."""
    assert set(FAULTS.values()) <= {*SYSTEM_FAULTS, *OF_DELIVERIES}
    assert [fault.name for fault in faults_of(FIRST, FIRST + timedelta(days=27))] == ["corrupt_5", "prices_x100"]
