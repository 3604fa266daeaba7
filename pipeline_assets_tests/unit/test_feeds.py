"""The contract of the four feeds: names, types, keys; that the scenario keeps it."""

from __future__ import annotations

import pyarrow
import pytest

from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets_tests import scenario

ALL = [pytest.param(feed, id=name) for name, feed in FEEDS.items()]
TEXT, NUMBER, DAY, TIME = pyarrow.string(), pyarrow.float64(), pyarrow.date32(), pyarrow.timestamp("us", "UTC")


def test_there_are_four_feeds_under_their_own_names() -> None:
    """A feed is found by the name of its schema."""
    assert list(FEEDS) == ["purchases", "exposures", "products", "customers"]
    assert all(feed.name == name for name, feed in FEEDS.items())


def test_only_purchases_must_come_every_day() -> None:
    """A day without purchases is a broken upstream; change feeds have quiet days."""
    assert [name for name, feed in FEEDS.items() if not feed.may_be_empty] == ["purchases"]


def test_purchases_have_the_contracts_types() -> None:
    """Ids are strings, amounts are numbers, the moment is UTC in microseconds, the day is a date."""
    types = dict(zip(FEEDS["purchases"].columns, FEEDS["purchases"].arrow_schema.types, strict=True))
    assert types == {
        "event_id": TEXT, "order_id": TEXT, "customer_id": TEXT, "product_id": TEXT, "store_id": TEXT,
        "quantity": NUMBER, "amount": NUMBER, "discount": NUMBER, "event_ts": TIME, "event_date": DAY,
    }  # fmt: skip


def test_validity_of_an_exposure_is_in_days() -> None:
    """A plan holds for whole business days."""
    schema = FEEDS["exposures"].arrow_schema
    assert [schema.field(name).type for name in ("valid_from", "valid_to", "event_date")] == [DAY] * 3


def test_sellable_is_a_boolean() -> None:
    """Not a text and not a number."""
    assert FEEDS["products"].arrow_schema.field("is_sellable").type == pyarrow.bool_()


@pytest.mark.parametrize("feed", ALL)
def test_key_is_a_required_and_unique_column(feed: Feed) -> None:
    """Without a key repeats cannot be told from new rows."""
    column = feed.schema.columns[feed.key]
    assert column.unique
    assert not column.nullable


@pytest.mark.parametrize("feed", ALL)
def test_every_feed_has_its_business_day_last(feed: Feed) -> None:
    """event_date is the partition column of every table."""
    assert feed.columns[-1] == "event_date"
    assert not feed.schema.columns["event_date"].nullable


@pytest.mark.parametrize("feed", ALL)
def test_every_column_and_feed_is_described(feed: Feed) -> None:
    """The descriptions are the documentation and the pages in the UI."""
    assert str(feed.schema.description).startswith("One row: ")
    assert all(column.description for column in feed.schema.columns.values())


@pytest.mark.parametrize("feed", ALL)
def test_every_rule_has_a_name(feed: Feed) -> None:
    """A quarantined row carries the name of the rule that it breaks."""
    checks = [check for column in feed.schema.columns.values() for check in column.checks] + list(feed.schema.checks)
    assert all(check.name and check.name.isidentifier() for check in checks)


@pytest.mark.parametrize("feed", ALL)
def test_arrow_schema_has_the_declared_columns_in_order(feed: Feed) -> None:
    """And the scenario's frame fits it, with a column too few it does not."""
    assert feed.arrow_schema.names == feed.columns
    frame = scenario.feeds()[feed.name]
    assert scenario.delivered(feed.name, frame).select(feed.columns).schema.equals(feed.arrow_schema)
    with pytest.raises(KeyError):
        scenario.delivered(feed.name, frame.drop(columns=feed.key))
