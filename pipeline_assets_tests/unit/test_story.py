"""What a replay is asked, and the ledger that it tells."""

from __future__ import annotations

import json
from datetime import date

import pytest

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.replay.story import (
    Event,
    Injected,
    counts,
    data_faults,
    days_of,
    event,
    ledger_digest,
    parse_fault,
)

DAY = date(2017, 8, 1)


def test_a_fault_is_a_name_at_a_day() -> None:
    """Of the data or of the system."""
    assert parse_fault("prices_x100@2017-08-01") == Injected("prices_x100", DAY)
    assert parse_fault("online_store_down@2017-08-01") == Injected("online_store_down", DAY)


@pytest.mark.parametrize("text", ["prices_x10@2017-08-01", "prices_x100", "prices_x100@2017-08-32", "@2017-08-01"])
def test_another_form_is_refused_with_the_names_there_are(text: str) -> None:
    """An unknown name, no day, a day that no calendar has, no name."""
    with pytest.raises(ConfigurationError, match=r"missing_day.*gate_bypassed"):
        parse_fault(text)


def test_the_source_makes_the_faults_of_the_data_only() -> None:
    """Two of one day are kept in the order given; the system's are left out."""
    faults = [Injected("bot", DAY), Injected("corrupt_5", DAY), Injected("gate_bypassed", DAY)]
    assert data_faults(faults) == {DAY: ("bot", "corrupt_5")}


def test_a_label_stream_that_stops_is_three_missing_days() -> None:
    """The source makes it; a day in the middle can have another fault, too."""
    faults = [Injected("label_stream_stops", DAY), Injected("bot", date(2017, 8, 2))]
    assert data_faults(faults) == {
        DAY: ("missing_day",), date(2017, 8, 2): ("missing_day", "bot"), date(2017, 8, 3): ("missing_day",),
    }  # fmt: skip


def test_a_retrain_loop_is_two_weeks_of_a_season() -> None:
    """The source makes each of them."""
    found = data_faults([Injected("retrain_loop", DAY)])
    assert (set(found.values()), min(found), max(found), len(found)) == ({("season",)}, DAY, date(2017, 8, 14), 14)


def test_a_daemon_is_down_for_three_days_and_a_store_for_one() -> None:
    """The days on which a fault acts."""
    assert days_of(Injected("daemon_down", DAY)) == (DAY, date(2017, 8, 2), date(2017, 8, 3))
    assert days_of(Injected("online_store_down", DAY)) == (DAY,)


def test_equal_ledgers_have_one_digest_and_others_have_another() -> None:
    """The digest follows words, order and figures."""
    first, second = Event(DAY, "blocked", "no purchases"), Event(DAY, "alert", "critical", {"n": 1})
    assert ledger_digest([first, second]) == ledger_digest([Event(DAY, "blocked", "no purchases"), second])
    others = [[second, first], [first], [first, Event(DAY, "alert", "critical", {"n": 2})]]
    assert len({ledger_digest(events) for events in [[first, second], *others]}) == 4


def test_a_line_of_the_ledger_is_json() -> None:
    """With the day as text."""
    assert json.loads(Event(DAY, "late", "é", {"n": 2}).line()) == {
        "day": "2017-08-01",
        "kind": "late",
        "text": "é",
        "facts": {"n": 2},
    }


def test_kinds_are_counted() -> None:
    """Two alerts and one late day."""
    assert counts([Event(DAY, "late", ""), Event(DAY, "alert", "a"), Event(DAY, "alert", "b")]) == {
        "alert": 2,
        "late": 1,
    }


def test_words_hold_nothing_that_chance_or_a_place_gives() -> None:
    """The id of a run, a digest, a folder and a time of this machine go; a date, a number and a name stay."""
    said = "run 3f2b8c1d-0e1f-4a2b-9c3d-5e6f7a8b9c0d\n of v2-2017-03-18-fe2a4c05 in /tmp/a-1/bundles/model.txt: found 358529 bytes on 2017-03-18"
    wanted = "run # of v2-2017-03-18-# in model.txt: found 358529 bytes on 2017-03-18"
    assert event(DAY, "run_failed", said).text == wanted
    slow = event(DAY, "run_failed", "found 1174.3 ms CPU; wanted at most 60 ms").text
    assert slow == "found # ms CPU; wanted at most 60 ms"
