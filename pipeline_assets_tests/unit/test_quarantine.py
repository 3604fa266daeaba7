"""Quarantine as people see it: the listing, examples, and what a readmission says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline_assets.recommender.errors import BlockedPartition, ConfigurationError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import ValidationPolicy, Verdict
from pipeline_assets.sources.landing import admit_days, land_days
from pipeline_assets.sources.quarantine import Moved, Quarantined, examples_by_rule, judged, listing, render
from pipeline_assets_tests import scenario
from pipeline_assets_tests.unit.test_landing import Memory, with_bad

NOON = datetime(2017, 2, 15, 12, tzinfo=UTC)
SUNDAY, MONDAY = scenario.day("02-12"), scenario.day("02-13")  # 3 lines and 2
PURCHASES = FEEDS["purchases"]
GENEROUS, STRICT = ValidationPolicy(0.5, 0.5), ValidationPolicy(0.2, 0.5)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Sunday with one quantity of 0 of three (passed), Monday without a fault."""
    lake = Lake(root=str(tmp_path))
    land_days(with_bad(SUNDAY, 1), lake, PURCHASES, [SUNDAY, MONDAY], "r1", NOON)
    admit_days(lake, PURCHASES, [SUNDAY, MONDAY], GENEROUS, "r1", NOON)
    return lake


def test_listing_counts_by_feed_day_and_rule(lake: Lake) -> None:
    """One row, with the reason, the run and the day's verdict."""
    reason = "quantity breaks quantity_positive, found '0'"
    assert listing(lake, list(FEEDS)) == [
        Quarantined("purchases", SUNDAY, "quantity_positive", 1, "passed", "r1", reason)
    ]


def test_listing_can_be_narrowed(lake: Lake) -> None:
    """By rule and by day."""
    assert listing(lake, ["purchases"], rule="bot") == listing(lake, ["purchases"], MONDAY, MONDAY) == []
    assert listing(lake, ["exposures"]) == []
    assert len(listing(lake, ["purchases"], SUNDAY, SUNDAY, "quantity_positive")) == 1


def test_rows_of_a_blocked_day_are_listed(lake: Lake) -> None:
    """33 % is more than 20 %: the day is blocked, and the row says why."""
    admit_days(lake, PURCHASES, [SUNDAY], STRICT, "r2", NOON + timedelta(hours=1))
    (row,) = listing(lake, ["purchases"])
    assert (row.status, row.rows, row.run_id) == ("blocked", 1, "r2")


def test_listing_as_text(lake: Lake) -> None:
    """A line a row and a sum; nothing at all is said in words."""
    text = render(listing(lake, ["purchases"]))
    for part in ("2017-02-12", "quantity_positive", "found '0'", "1 rows in all"):
        assert part in text
    assert render([]) == "nothing is in quarantine"


def test_examples_are_a_markdown_table_of_two_rows_a_rule(lake: Lake) -> None:
    """Three rows broke the rule, two are shown; nothing in a value breaks the table."""
    frame = scenario.purchases()
    frame.loc[frame["event_date"] == SUNDAY, ["quantity", "store_id"]] = [0.0, "a|b\n<b>"]
    land_days(Memory({**scenario.feeds(), "purchases": frame}), lake, PURCHASES, [SUNDAY], "r2", NOON)
    admit_days(lake, PURCHASES, [SUNDAY], STRICT, "r2", NOON + timedelta(hours=1))
    found = examples_by_rule(lake, PURCHASES, {SUNDAY: 3, MONDAY: 0})
    assert list(found) == [SUNDAY]
    header, line, *rows = found[SUNDAY].split("\n")
    assert header.startswith("| rule | reason |")
    assert line == "|" + "---|" * (header.count("|") - 1)
    assert len(rows) == 2
    assert "a\\|b &lt;b>" in rows[0]


def test_readmission_says_what_moved_and_a_second_one_moves_nothing(lake: Lake) -> None:
    """The source was mended: the row leaves quarantine, and the day has three valid rows."""
    before = judged(lake, "purchases", SUNDAY, "quantity_positive")
    land_days(Memory(scenario.feeds()), lake, PURCHASES, [SUNDAY], "r2", NOON)
    for hours, (moved, valid) in enumerate(((1, 2), (0, 3)), 1):
        admit_days(lake, PURCHASES, [SUNDAY], STRICT, "r2", NOON + timedelta(hours=hours))
        after = judged(lake, "purchases", SUNDAY)
        result = Moved("purchases", SUNDAY, before, after)
        assert (result.rows(None), result.rows("quantity_positive"), before.rows_valid) == (moved, moved, valid)
        before = after
    assert result.summary() == (
        "purchases of 2017-02-12: passed -> passed; 0 rows left quarantine (all rules), 0 remain; 3 -> 3 valid rows"
    )


def test_summary_of_a_day_that_is_blocked_still_gives_the_reason() -> None:
    """A person reads on one screen why nothing was gained."""
    before = Verdict("purchases", SUNDAY, "blocked", 3, 0, 3, ("all bad",), {"bot": 1, "quantity_positive": 2})
    text = Moved("purchases", SUNDAY, before, before).summary("quantity_positive")
    assert "0 rows left quarantine (rule quantity_positive), 2 remain" in text
    assert text.endswith("\n  all bad")


def test_a_day_without_a_verdict_cannot_be_readmitted(lake: Lake) -> None:
    """It was never validated."""
    with pytest.raises(BlockedPartition, match="exposures of 2017-02-12"):
        judged(lake, "exposures", SUNDAY)


def test_a_rule_that_the_day_does_not_have_is_refused(lake: Lake) -> None:
    """The message names those it has."""
    with pytest.raises(ConfigurationError, match="quantity_positive"):
        judged(lake, "purchases", SUNDAY, "quantity_positiv")
