"""Masks on Arrow: they answer as pandera does, and the rules that pandera has no word for, each seen passing and failing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pytest

from pipeline_assets.schemas import rows
from pipeline_assets.schemas.batches import History
from pipeline_assets.schemas.feeds import FEEDS, is_readable
from pipeline_assets.schemas.validation import Validated, ValidationPolicy, Verdict, validate
from pipeline_assets_tests import scenario

DAY = date(2017, 3, 12)  # clocks go forward in New York: 05:00 UTC to 04:00 UTC of the next day, 23 hours
ZONE = "America/New_York"
POLICY = ValidationPolicy(max_bad_share=1.0, max_unparsed_share=0.5, time_zone=ZONE)
TEXTS = [
    "",
    "a",
    "x" * 128,
    "x" * 129,
    "\u00e9" * 128,
    "\u00e9" * 129,
    "a\x00b",
    "\x7f",
    "\x85",
    "caf\ufffd",
    "caf\u00e9",
    "\u6771\u4eac",
    "tab\t",
    None,
]
NUMBERS = [-1.0, -0.0, 0.0, 1e-9, 1.0, float("inf"), float("-inf"), float("nan"), None]
CHECKS = [
    (pa.Check.str_length(1, 128), TEXTS), (pa.Check.str_length(max_value=128), TEXTS), (pa.Check.str_length(min_value=2), TEXTS),
    (pa.Check(is_readable), TEXTS), (pa.Check.isin(["a", ""]), TEXTS), (pa.Check.notin(["a"]), TEXTS),
    (pa.Check.gt(0), NUMBERS), (pa.Check.ge(0), NUMBERS), (pa.Check.lt(1), NUMBERS), (pa.Check.le(1), NUMBERS),
]  # fmt: skip


def column(values: Sequence[object]) -> pyarrow.ChunkedArray:
    """In two chunks, the second of them a slice: as rows of several files are."""
    kind = pyarrow.float64() if isinstance(values[0], float) else pyarrow.string()
    half = len(values) // 2
    second = pyarrow.array(values[half - 1 :], kind).slice(1)
    return pyarrow.chunked_array([pyarrow.array(values[:half], kind), second])


@pytest.mark.parametrize(("check", "values"), CHECKS, ids=lambda value: getattr(value, "name", ""))
def test_a_kernel_answers_as_pandera_does(check: pa.Check, values: Sequence[object]) -> None:
    """Value by value, but for missing ones, which `nullable` judges."""
    found = column(values)
    assert check._check_fn.__name__ in rows.KERNELS
    passed = check(rows.to_series(found)).check_output.reindex(range(len(values)), fill_value=True).to_numpy(dtype=bool)
    there = ~rows.missing(found)
    assert rows.keeps(check, found)[there].tolist() == passed[there].tolist()


def test_a_check_without_a_kernel_is_pandera_s() -> None:
    """A new rule needs its declaration only."""
    starts = pa.Check(lambda values: values.str.startswith("c"), name="starts")
    assert rows.keeps(starts, column(["cow", "hen", None, "cat"])).tolist() == [True, False, True, True]


def test_missing_is_null_or_not_a_number() -> None:
    """The last two numbers."""
    assert rows.missing(column(NUMBERS)).tolist() == [False] * 7 + [True] * 2


def lines(n: int = 4, **values: Sequence[object]) -> pyarrow.Table:
    """Purchases of `DAY` with keys of their own and these values, as delivered."""
    frame = pd.concat([scenario.purchases().iloc[:1]] * n, ignore_index=True)
    frame = frame.assign(
        event_id=[f"k{i}" for i in range(n)], event_date=DAY, event_ts=pd.Timestamp("2017-03-12 16:00", tz="UTC")
    )
    return scenario.delivered("purchases", frame.assign(**{name: list(found) for name, found in values.items()}))


def judged(table: pyarrow.Table, policy: ValidationPolicy = POLICY, history: History = History()) -> Validated:  # noqa: B008
    return validate(FEEDS["purchases"], table, [DAY], policy, history)


def verdict(table: pyarrow.Table, policy: ValidationPolicy = POLICY, history: History = History()) -> Verdict:  # noqa: B008
    return judged(table, policy, history).verdicts[0]


def at(*moments: str) -> list[pd.Timestamp]:
    return [pd.Timestamp(moment, tz="UTC") for moment in moments]


def test_a_moment_has_to_be_within_its_business_day_and_an_hour() -> None:
    """05:00 UTC to 04:00 UTC (23 hours), an hour more on both sides: the edges stay, one second beyond goes."""
    moments = at("2017-03-12 04:00", "2017-03-12 03:59:59", "2017-03-13 04:59:59", "2017-03-13 05:00")
    found = judged(lines(event_ts=moments))
    assert found.verdicts[0].rules == {"future_timestamp": 1, "wrong_day": 1}
    assert found.quarantined.select(["rule", "event_id"]).to_pylist() == [
        {"rule": "wrong_day", "event_id": "k1"}, {"rule": "future_timestamp", "event_id": "k3"}
    ]  # fmt: skip


def test_moments_are_not_judged_where_the_zone_is_not_known() -> None:
    """The same rows, and a year later besides."""
    assert verdict(lines(event_ts=at(*["2018-03-12 16:00"] * 4)), replace(POLICY, time_zone=None)).rules == {}


def test_two_days_have_midnights_of_their_own() -> None:
    """A row at noon of the first day is right there and wrong on the second."""
    table = lines(2, event_ts=at(*["2017-03-12 16:00"] * 2), event_date=[DAY, DAY + timedelta(days=1)])
    result = validate(FEEDS["purchases"], table, [DAY, DAY + timedelta(days=1)], POLICY)
    assert [found.rules for found in result.verdicts] == [{}, {"wrong_day": 1}]
    assert datetime(2017, 3, 13, tzinfo=ZoneInfo(ZONE)) > datetime(2017, 3, 12, 16, tzinfo=ZoneInfo("UTC"))


KNOWN = History(
    known={"product_id": pyarrow.table({"id": ["milk", "later"], "first_day": [DAY, DAY + timedelta(days=1)]})}
)


def test_an_unknown_product_is_flagged_and_stays() -> None:
    """Known today, known from tomorrow on, never known, known today: two of four."""
    found = verdict(lines(product_id=["milk", "later", "never", "milk"]), POLICY, KNOWN)
    assert (found.rows_valid, found.rules, found.flagged) == (4, {}, {"product_unknown": 2})


def test_an_unknown_product_is_quarantined_where_the_catalogue_is_authoritative() -> None:
    """The same two rows, with the product in the reason."""
    found = judged(
        lines(product_id=["milk", "later", "never", "milk"]), replace(POLICY, references="quarantine"), KNOWN
    )
    assert found.verdicts[0].rules == {"product_unknown": 2}
    assert (
        found.quarantined["reason"].to_pylist()[1]
        == "product_id was never in the feed products up to that day, found 'never'"
    )


@pytest.mark.parametrize("history", [KNOWN, History()])
def test_references_say_nothing_when_they_are_off_or_the_feed_is_not_known(history: History) -> None:
    """Off with a history, or flagged without one."""
    policy = replace(POLICY, references="off" if history is KNOWN else "flag")
    found = verdict(lines(product_id=["never"] * 4), policy, history)
    assert (found.rules, found.flagged) == ({}, {})


def test_a_bot_is_set_aside_and_the_day_goes_on() -> None:
    """11 rows of one customer where 10 are allowed, 10 of another: 11 of 21 are no bad rows, so 20 % is not exceeded."""
    policy = replace(POLICY, max_actor_rows=10, max_bad_share=0.2)
    found = judged(lines(21, customer_id=["bot"] * 11 + ["ann"] * 10), policy)
    assert (found.verdicts[0].status, found.verdicts[0].rules) == ("passed", {"bot": 11})
    assert set(found.valid["customer_id"].to_pylist()) == {"ann"}
    assert found.verdicts[0].profile is not None
    assert found.verdicts[0].profile.rows == 10


def test_rows_of_a_bot_do_not_hide_bad_ones() -> None:
    """3 of the 10 other rows are bad: 30 %, although they are 14 % of all 21."""
    policy = replace(POLICY, max_actor_rows=10, max_bad_share=0.2)
    table = lines(21, customer_id=["bot"] * 11 + ["ann"] * 10, quantity=[1.0] * 18 + [0.0] * 3)
    assert verdict(table, policy).blocked_by == ("bad_rows",)


def test_a_file_delivered_twice_makes_nobody_a_bot() -> None:
    """6 rows of one customer, twice: 12 rows where 10 are allowed, but 6 of them are repeats."""
    once = lines(6, customer_id=["ann"] * 6)
    found = verdict(pyarrow.concat_tables([once, once]), replace(POLICY, max_actor_rows=10))
    assert found.rules == {"duplicate": 6}


def test_equal_hashes_only_nominate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash that is always 7 the values themselves decide: one repeat among four."""
    monkeypatch.setattr(rows, "_hashes", lambda table, columns: np.full(len(table), 7, dtype=np.uint64))
    table = lines(event_id=["a", "b", "a", "c"])
    assert rows.repeated(table, ["event_date", "event_id"]).tolist() == [False, False, True, False]


def test_a_huge_field_is_kept_in_part() -> None:
    """5 MB of one id: 2,000 characters in quarantine, 80 in the reason."""
    (row,) = judged(lines(store_id=["x" * 5_000_000, "s1", "s1", "s1"])).quarantined.to_pylist()
    assert (row["rule"], len(row["store_id"])) == ("id_length", 2_000)
    assert row["reason"] == f"store_id breaks id_length, found '{'x' * 80}'"


def test_reasons_belong_to_their_rows() -> None:
    """Rules are evaluated one after the other; rows keep their order."""
    table = lines(quantity=[0.0, 1.0, -1.0, 1.0], customer_id=["a", "", "b", "c"])
    assert [(row["event_id"], row["rule"]) for row in judged(table).quarantined.to_pylist()] == [
        ("k0", "quantity_positive"), ("k1", "id_length"), ("k2", "quantity_positive")
    ]  # fmt: skip
    assert judged(table).quarantined["reason"].to_pylist()[2] == "quantity breaks quantity_positive, found '-1'"


def test_characters_that_a_terminal_obeys_are_not_in_a_reason() -> None:
    """An escape sequence in an id is shown as replacement characters."""
    (reason,) = judged(lines(store_id=["\x1b[2J", "s1", "s1", "s1"])).quarantined["reason"].to_pylist()
    assert reason == "store_id breaks id_readable, found '\ufffd[2J'"
