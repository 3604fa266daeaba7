"""Rules and verdicts on ten lines of one day (and of the next): each rule seen passing and failing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest

from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import (
    DUPLICATE,
    PARSE_ERRORS,
    Validated,
    ValidationPolicy,
    Verdict,
    to_pandas,
    validate,
)
from pipeline_assets_tests import scenario

DAY, NEXT = date(2017, 2, 6), date(2017, 2, 7)
POLICY = ValidationPolicy(max_bad_share=0.20, max_unparsed_share=0.50)
ROWS = 10


def good(feed: str, day: date = DAY) -> pd.DataFrame:
    """Ten rows without a fault: the feed's first row of the scenario with ten keys."""
    row = scenario.feeds()[feed].iloc[:1].assign(event_date=day)
    return pd.concat([row] * ROWS, ignore_index=True).assign(**{FEEDS[feed].key: [f"k{n}" for n in range(ROWS)]})


def with_values(feed: str, column: str, *values: object) -> pd.DataFrame:
    """Good rows, the first ones with these values."""
    frame = good(feed).astype({column: object})
    frame.loc[: len(values) - 1, column] = pd.Series(values, dtype=object)
    return frame


def checked(
    feed: str, frame: pd.DataFrame, days: Sequence[date] = (DAY,), policy: ValidationPolicy = POLICY
) -> Validated:
    return validate(FEEDS[feed], scenario.delivered(feed, frame), days, policy)


def verdict(feed: str, frame: pd.DataFrame, policy: ValidationPolicy = POLICY) -> Verdict:
    return checked(feed, frame, policy=policy).verdicts[0]


LONG_ID, LONG_TEXT = "x" * 129, "x" * 1025
# feed, column, value that breaks the rule, value at the edge that keeps it, rule
VALUES: list[tuple[str, str, Any, Any, str]] = [
    ("purchases", "quantity", 0.0, 0.001, "quantity_positive"),
    ("purchases", "quantity", -1.0, 1.0, "quantity_positive"),
    ("purchases", "quantity", np.inf, 1e9, "quantity_finite"),
    ("purchases", "amount", -0.01, 0.0, "amount_not_negative"),
    ("purchases", "amount", np.inf, 1e9, "amount_finite"),
    ("purchases", "amount", -np.inf, 0.0, "amount_finite"),
    ("purchases", "discount", -0.01, 0.0, "discount_not_negative"),
    ("purchases", "discount", np.inf, 0.0, "discount_finite"),
    ("exposures", "channel", "radio", "web", "channel_known"),
    ("exposures", "valid_to", date(2017, 2, 5), date(2017, 2, 6), "valid_range"),  # valid_from is 02-06
    ("exposures", "placement", LONG_TEXT, "x" * 1024, "text_length"),
    ("exposures", "placement", "\x9f", "\u6771", "text_readable"),
]
IDS = [
    *(("purchases", name) for name in ("event_id", "order_id", "customer_id", "product_id", "store_id")),
    *(("exposures", name) for name in ("event_id", "product_id", "customer_id", "store_id", "campaign_id")),
    ("products", "product_id"), ("customers", "customer_id"),
]  # fmt: skip
TEXTS = [
    *(("products", name) for name in ("department", "category", "type", "brand")),
    *(("customers", name) for name in ("age_band", "income_band", "household_size", "kids_count")),
]  # fmt: skip
VALUES += [(feed, name, LONG_ID, "x" * 128, "id_length") for feed, name in IDS]
VALUES += [(feed, name, "a\x00b", "a b", "id_readable") for feed, name in IDS]
VALUES += [(feed, name, "caf\ufffd", "caf\u00e9", "text_readable") for feed, name in TEXTS]
VALUES += [(feed, name, "", "x", "id_length") for feed, name in IDS]
VALUES += [(feed, name, LONG_TEXT, "", "text_length") for feed, name in TEXTS]
COLUMNS = [
    (feed.name, name, column.nullable) for feed in FEEDS.values() for name, column in feed.schema.columns.items()
]
REQUIRED = [(feed, name) for feed, name, nullable in COLUMNS if not nullable and name != "event_date"]
OPTIONAL = [(feed, name) for feed, name, nullable in COLUMNS if nullable]


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.ml_test("Mo2")
def test_good_rows_pass_unchanged(feed: str) -> None:
    """Ten of ten rows are valid and the very same; nothing is quarantined."""
    result = checked(feed, good(feed))
    assert result.verdicts == (Verdict(feed, DAY, "passed", ROWS, ROWS, 0),)
    assert result.valid.equals(scenario.delivered(feed, good(feed)).select(FEEDS[feed].columns))
    assert len(result.quarantined) == 0


@pytest.mark.parametrize(("feed", "column", "bad", "edge", "rule"), VALUES)
def test_rule_quarantines_the_row_that_breaks_it_and_no_other(
    feed: str, column: str, bad: object, edge: object, rule: str
) -> None:
    """Row 0 breaks the rule, row 1 is at the allowed edge; 1 of 10 is below 20 %, so the day passes."""
    result = checked(feed, with_values(feed, column, bad, edge))
    assert result.verdicts[0].rules == {rule: 1}
    assert (result.verdicts[0].status, len(result.valid)) == ("passed", ROWS - 1)
    (row,) = result.quarantined.to_pylist()
    assert row["rule"] == rule
    assert rule in row["reason"] or column in row["reason"]
    assert row[column] == bad


@pytest.mark.parametrize(("feed", "column"), REQUIRED)
def test_missing_required_value_is_quarantined_under_its_column(feed: str, column: str) -> None:
    """The rule is named after the column, whatever other checks the column has."""
    assert verdict(feed, with_values(feed, column, None)).rules == {f"{column}_missing": 1}


@pytest.mark.parametrize(("feed", "column"), OPTIONAL)
def test_missing_optional_value_passes(feed: str, column: str) -> None:
    """Null breaks no rule of a nullable column, neither in one row nor in all."""
    assert verdict(feed, with_values(feed, column, *[None] * ROWS)).rules == {}


def test_every_declared_rule_is_tested() -> None:
    """The lists above grow with the schemas."""
    declared = {
        (feed.name, name, check.name) for feed in FEEDS.values() for name, column in feed.schema.columns.items() for check in column.checks
    }  # fmt: skip
    declared |= {(feed.name, "valid_to", check.name) for feed in FEEDS.values() for check in feed.schema.checks}
    assert declared == {(feed, column, rule) for feed, column, _, _, rule in VALUES if not rule.endswith("_finite")}


def test_row_is_quarantined_once_under_the_first_rule_it_breaks() -> None:
    """No customer (declared third) and a negative amount (seventh): one row, one rule."""
    frame = with_values("purchases", "customer_id", None)
    frame.loc[0, "amount"] = -1.0
    assert verdict("purchases", frame).rules == {"customer_id_missing": 1}


def test_reason_names_the_value_found_and_cuts_a_long_one() -> None:
    """80 characters are enough to recognise it."""
    (row,) = checked("purchases", with_values("purchases", "order_id", LONG_ID)).quarantined.to_pylist()
    assert row["reason"] == f"order_id breaks id_length, found '{'x' * 80}'"


def test_unreadable_value_is_quarantined_with_its_text() -> None:
    """The source could not read one quantity: the row goes under "unreadable", not under "missing"."""
    table = scenario.delivered("purchases", with_values("purchases", "quantity", None))
    texts = pyarrow.array(["quantity=two", *[None] * (ROWS - 1)], pyarrow.string())
    table = table.set_column(table.schema.get_field_index(PARSE_ERRORS), PARSE_ERRORS, texts)
    result = validate(FEEDS["purchases"], table, [DAY], POLICY)
    (row,) = result.quarantined.to_pylist()
    assert (row["rule"], row[PARSE_ERRORS]) == ("unreadable", "quantity=two")
    assert result.verdicts[0].rules == {"unreadable": 1}


def test_exact_repeats_have_no_effect() -> None:
    """Every row delivered three times: the valid rows and the verdict's status are those of one delivery."""
    once, frame = checked("purchases", good("purchases")), good("purchases")
    thrice = checked("purchases", pd.concat([frame] * 3))
    assert thrice.valid.equals(once.valid)
    found = thrice.verdicts[0]
    assert (found.status, found.rows_read, found.rows_valid, found.rules) == ("passed", 30, 10, {DUPLICATE: 20})


def test_repeats_are_not_bad_rows() -> None:
    """2 of 10 rows break a rule and come twice: 4 of 20 = 20 % is still allowed, however many repeats there are."""
    frame = with_values("purchases", "quantity", 0.0, 0.0)
    found = verdict("purchases", pd.concat([frame, frame]))
    assert (found.status, found.rules) == ("passed", {"quantity_positive": 4, DUPLICATE: 8})


def test_same_key_on_another_day_is_not_a_repeat() -> None:
    """A product that changes again keeps its id."""
    both = pd.concat([good("products"), good("products", NEXT)])
    result = checked("products", both, days=[DAY, NEXT])
    assert [found.rules for found in result.verdicts] == [{}, {}]


@pytest.mark.parametrize(("bad", "status"), [(2, "passed"), (3, "blocked")])
@pytest.mark.ml_test("Mo2", control=True)
def test_day_is_blocked_above_the_allowed_share(bad: int, status: str) -> None:
    """2 of 10 are 20 %, which is allowed; 3 are not."""
    assert verdict("purchases", with_values("purchases", "quantity", *[0.0] * bad)).status == status


def test_reason_of_a_blocked_day_names_the_worst_rule_the_share_and_the_fix() -> None:
    """3 rows without quantity, 2 with a negative amount: 5 of 10 = 50 %."""
    frame = with_values("purchases", "quantity", 0.0, 0.0, 0.0)
    frame.loc[3:4, "amount"] = -1.0
    (reason,) = verdict("purchases", frame).reasons
    for part in (
        "5 of 10 rows of purchases on 2017-02-06",
        "50.0%",
        "most of them quantity_positive",
        "at most 20%",
        "deliver",
    ):
        assert part in reason


def test_blocked_day_has_no_valid_row_and_leaves_other_days_alone() -> None:
    """02-06 is bad in all rows, 02-07 in one: people see all eleven in quarantine, readers nothing of 02-06."""
    frame = pd.concat(
        [good("purchases").assign(quantity=0.0), with_values("purchases", "quantity", 0.0).assign(event_date=NEXT)]
    )
    result = checked("purchases", frame.astype({"quantity": float}), days=[DAY, NEXT])
    assert [(found.event_date, found.status, found.rows_valid) for found in result.verdicts] == [
        (DAY, "blocked", 0), (NEXT, "passed", 9)
    ]  # fmt: skip
    assert result.valid["event_date"].to_pylist() == [NEXT] * 9
    assert result.quarantined["event_date"].to_pylist() == [DAY] * 10 + [NEXT]


def test_no_valid_purchase_blocks_even_when_any_share_is_allowed() -> None:
    """A policy of 100 % does not make an empty day plausible."""
    found = verdict("purchases", good("purchases").assign(quantity=0.0), ValidationPolicy(1.0, 1.0))
    assert (found.status, found.reasons) == ("blocked", ("no row of purchases on 2017-02-06 is valid",))


@pytest.mark.parametrize("feed", FEEDS)
def test_empty_day_blocks_purchases_and_passes_change_feeds(feed: str) -> None:
    """Nobody bought anything: broken. Nothing changed: a quiet day. Both have a verdict."""
    found = verdict(feed, good(feed).iloc[:0])
    assert (found.rows_read, found.rows_valid) == (0, 0)
    assert found.status == ("passed" if FEEDS[feed].may_be_empty else "blocked")
    assert all("is empty" in reason for reason in found.reasons)


def test_every_day_that_was_asked_for_has_a_verdict() -> None:
    """Three days, rows on the second only."""
    days = [date(2017, 2, 5), DAY, NEXT]
    assert [found.rows_read for found in checked("products", good("products"), days).verdicts] == [0, ROWS, 0]


def test_mass_failure_is_fast_and_blocks() -> None:
    """200,000 rows that are all bad: one mask a rule, far below the 10 CPU s allowed here (one case per cell never ended)."""
    frame = pd.concat([good("purchases")] * 20_000, ignore_index=True).assign(quantity=-1.0)
    frame["event_id"] = np.arange(len(frame)).astype(str)
    table = scenario.delivered("purchases", frame)
    before = time.process_time()
    result = validate(FEEDS["purchases"], table, [DAY], POLICY)
    assert time.process_time() - before < 10
    assert (result.verdicts[0].status, result.verdicts[0].rows_quarantined) == ("blocked", 200_000)
    assert (len(result.valid), len(result.quarantined)) == (0, 200_000)


def test_whole_scenario_is_valid() -> None:
    """The world of the other tests keeps its own contract on each of its 60 days (purchases on 15 of them)."""
    for name, frame in scenario.feeds().items():
        days = sorted(set(frame["event_date"]))
        assert {found.status for found in checked(name, frame, days).verdicts} == {"passed"}, name


def test_to_pandas_has_the_declared_types() -> None:
    """The pandera declaration itself accepts the frame, types included."""
    for name, frame in scenario.feeds().items():
        first = frame.drop_duplicates(FEEDS[name].key)
        FEEDS[name].schema.validate(to_pandas(FEEDS[name], scenario.delivered(name, first)))
