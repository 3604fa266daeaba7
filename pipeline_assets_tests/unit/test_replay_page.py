"""The page that a replay ends with."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pandas as pd

from pipeline_assets.replay.drive import Question, Replayed, summary
from pipeline_assets.replay.replay_page import page
from pipeline_assets.replay.story import Event, Injected, Policy

DAY = date(2017, 8, 1)
QUESTION = Question(DAY, DAY + timedelta(days=20), ("weekly", "never"), (Injected("bot", DAY),), 10, 7, {})


def replayed(policy: Policy, earned: float, days: int = 3) -> Replayed:
    """`days` judged days, each with the same named sales; one promotion on the first."""
    each = [DAY + timedelta(days=n) for n in range(days)]
    table = pd.DataFrame(
        {
            "day": each,
            "shown": each,
            "customers": 5,
            "ndcg": 0.2,
            "recall": 0.1,
            "revenue_hit": earned,
            "revenue_target": 900.0,
        }
    )
    return Replayed(policy, (Event(DAY, "gate_promote", "<better>"),), table, 12.3)


def shown(*replays: Replayed) -> str:
    return page(replays, summary(replays, QUESTION))


def test_policies_are_compared_with_the_first() -> None:
    """110 against 100: +10 %."""
    text = shown(replayed("weekly", 100.0), replayed("never", 110.0))
    assert "+10.0% against weekly" in text
    assert text.count("<img") == 2


def test_words_of_the_ledger_are_escaped() -> None:
    """They may hold what a shop delivered."""
    text = shown(replayed("weekly", 100.0))
    assert "&lt;better&gt;" in text
    assert "<better>" not in text


def test_a_period_without_a_whole_week_has_a_page_without_plots() -> None:
    """Nothing is judged: no picture, and dashes in the table."""
    text = shown(replayed("weekly", 100.0, days=0))
    assert "<img" not in text
    assert "<td>–</td>" in text


def test_whose_sales_they_are_is_said() -> None:
    """Of all customers, or of a share of them."""
    assert "all customers, faults" in shown(replayed("weekly", 100.0))
    some = replace(QUESTION, values={"source": {"customer_share": 0.2}})
    text = page([replayed("weekly", 100.0)], summary([replayed("weekly", 100.0)], some))
    assert "20% of the customers, whose sales these are" in text


def test_faults_are_named() -> None:
    """In the line under the title."""
    assert "faults: bot@2017-08-01" in shown(replayed("weekly", 100.0))
