"""What is known of the scenario at the end of Sunday 2017-02-19, and that nothing later is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import duckdb
import pytest

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets_tests import scenario

NAMED = "join known_product using (product) join customer using (customer)"


@pytest.fixture(scope="module")
def shared() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, scenario.feeds())
        yield con


@pytest.fixture
def con(shared: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Marts of the whole world, snapshot as of AS_OF."""
    Snapshot(shared, scenario.AS_OF)
    return shared


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return con.sql(query).fetchall()


def pair(con: duckdb.DuckDBPyConnection, customer: str, product: str, columns: str) -> tuple[Any, ...]:
    where = f"customer_id = '{customer}' and product_id = '{product}'"
    return rows(con, f"select {columns} from pair {NAMED} where {where}")[0]


def test_products_are_those_that_are_known_and_sellable(con: duckdb.DuckDBPyConnection) -> None:
    """fuel never was, cola is no longer (02-01), jam is not known yet (02-20); milk's change of 02-21 is not seen."""
    known = rows(
        con,
        """select product_id, name from product join known_product using (product) join known_name on key = category_key
        order by product""",
    )
    assert [name for name, _ in known] == ["bread", "cheese", "lite", "milk", "rolls", "salt", "soap", "tea", "wine"]
    assert dict(known)["milk"] == "MILK"


def test_product_was_sellable_until_its_change(shared: duckdb.DuckDBPyConnection) -> None:
    """As of 01-31 cola is still there with ann's purchase; on 02-01 it is gone."""
    count = "select coalesce(sum(n_orders), 0) from pair join known_product using (product) where product_id = 'cola'"
    Snapshot(shared, date(2017, 1, 31))
    assert rows(shared, count) == [(1,)]
    Snapshot(shared, date(2017, 2, 1))
    assert rows(shared, count) == [(0,)]


def test_customers_are_those_of_the_feed_and_of_purchases(con: duckdb.DuckDBPyConnection) -> None:
    """dan (fuel only) and eve (no purchase) are known; fay arrives on 02-20."""
    assert rows(con, "select customer_id from customer order by customer") == [
        ("ann",), ("bob",), ("cleo",), ("dan",), ("eve",)
    ]  # fmt: skip


def test_buyer_without_a_customer_row_is_known() -> None:
    """A shop without a customer feed still has customers."""
    world = scenario.feeds() | {"customers": scenario.customers().iloc[:0]}
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, world)
        Snapshot(con, scenario.AS_OF)
        assert rows(con, "select customer_id from customer order by customer") == [
            ("ann",),
            ("bob",),
            ("cleo",),
            ("dan",),
        ]


def test_purchase_of_the_as_of_day_has_age_one(con: duckdb.DuckDBPyConnection) -> None:
    """bob's milk of 02-19 is 1 day old at T = 02-20, his first of 01-02 is 49 days old."""
    assert pair(con, "bob", "milk", "days_since_last, days_since_first") == (1, 49)


def test_decayed_counts_halve_every_half_life(con: duckdb.DuckDBPyConnection) -> None:
    """ann's milk has ages 49, 35, 21 and 7: slow 90 days, fast 21 days."""
    slow, fast = pair(con, "ann", "milk", "decayed_slow, decayed_fast")
    ages = (49, 35, 21, 7)
    assert slow == pytest.approx(sum(0.5 ** (age / 90) for age in ages), rel=1e-8)
    assert fast == pytest.approx(sum(0.5 ** (age / 21) for age in ages), rel=1e-7)  # a float32


def test_windows_of_28_and_91_days_include_their_last_day(con: duckdb.DuckDBPyConnection) -> None:
    """bob's wine has ages 28 and 49: one within 28 days, two within 91."""
    assert pair(con, "bob", "wine", "n_orders, n_orders_28d, n_orders_91d") == (2, 1, 2)


def test_lines_of_one_order_are_one_purchase(con: duckdb.DuckDBPyConnection) -> None:
    """cleo's soap: an order of 2 and one of 1, so 2 orders, mean quantity 1.5, mean amount (8 + 3) / 2."""
    assert pair(con, "cleo", "soap", "n_orders, quantity_mean, amount_mean") == (2, 1.5, 5.5)


def test_promotion_and_discount_shares(con: duckdb.DuckDBPyConnection) -> None:
    """One of cleo's two soap purchases was on display; 1.0 of 8 + 3 + 1 was taken off."""
    assert pair(con, "cleo", "soap", "promoted_share, discount_share") == pytest.approx((1 / 2, 1 / 12))


def test_type_affinity_counts_days_of_the_type(con: duckdb.DuckDBPyConnection) -> None:
    """bob bought the type BREAD on two days: bread at age 49, rolls at age 1; 48 days between."""
    query = """select type_days, type_decayed, type_days_since_last, type_gap_days from affinity
        join customer using (customer) join known_name on key = type_key
        where customer_id = 'bob' and name = 'BREAD'"""
    days, decayed, since, gap = rows(con, query)[0]
    assert (days, since, gap) == (2, 1, 48.0)
    assert decayed == pytest.approx(0.5 ** (49 / 90) + 0.5 ** (1 / 90), rel=1e-8)


def test_home_store_is_where_most_orders_were(con: duckdb.DuckDBPyConnection) -> None:
    """bob: two orders at s1, one at s2; later visits of cleo to s1 do not count."""
    found = rows(
        con,
        "select customer_id, store_id from home_store join customer using (customer) join known_store using (store) order by 1",
    )
    assert found == [("ann", "s1"), ("bob", "s1"), ("cleo", "s2")]


def test_plan_of_next_week_is_shown_and_last_week_is_remembered(con: duckdb.DuckDBPyConnection) -> None:
    """Columns: on display, in mailer, was in mailer. soap's week ended eight days before T: forgotten."""
    columns = "product_id, store_id, on_display, in_mailer, was_in_mailer"
    query = f"select {columns} from shown join known_product using (product) join known_store using (store) order by 1"
    assert rows(con, query) == [
        ("bread", "s1", 1, 1, 0), ("cheese", "s1", 0, 1, 0), ("milk", "s1", 0, 1, 1), ("tea", "s2", 0, 1, 0)
    ]  # fmt: skip


def test_coupons_are_those_of_mailings_that_are_valid_next_week(con: duckdb.DuckDBPyConnection) -> None:
    """k1 of bob starts on T; k2 of ann ended the day before; ann's k1 is known too late."""
    assert rows(con, "select customer_id, campaign_id from mailing join customer using (customer)") == [("bob", "k1")]
    assert rows(con, "select campaign_id, product_id from offer join known_product using (product)") == [
        ("k1", "cheese")
    ]


def test_item_prices_and_repeat_rate(con: duckdb.DuckDBPyConnection) -> None:
    """soap: 3.0 in 28 days (discounted), (8 + 3) / 3 ever, bought again by its one buyer; bread by ann, not by bob."""
    query = (
        "select price_28d, price_all, repeat_rate from item join known_product using (product) where product_id = '{}'"
    )
    assert rows(con, query.format("soap")) == [(3.0, pytest.approx(11 / 3), 1.0)]
    assert rows(con, query.format("bread")) == [(1.0, 1.0, 0.5)]


def test_snapshot_replaces_the_one_before(shared: duckdb.DuckDBPyConnection) -> None:
    """Going back in the same connection leaves nothing of the later day."""
    Snapshot(shared, scenario.AS_OF)
    snapshot = Snapshot(shared, date(2017, 1, 2))
    assert snapshot.as_of == date(2017, 1, 2)
    assert rows(shared, "select count(*), max(days_since_first) from pair") == [(5, 1)]  # ann 2 products, bob 3


def test_no_sellable_purchase_is_refused_naming_the_day(shared: duckdb.DuckDBPyConnection) -> None:
    """On 01-01 the catalogue is known but nobody bought anything."""
    with pytest.raises(NotEnoughData, match="features as of 2017-01-01"):
        Snapshot(shared, scenario.FIRST_DAY)


def test_every_table_is_the_same_without_the_future(con: duckdb.DuckDBPyConnection) -> None:
    """All nineteen tables, and the counts of pairs and types, from the whole world equal those from the world that ends on AS_OF."""
    with duckdb.connect(config={"threads": 1}) as past:
        scenario.register_marts(past, scenario.until(scenario.feeds(), scenario.AS_OF))
        Snapshot(past, scenario.AS_OF)
        tables = [name for (name,) in rows(past, "select table_name from duckdb_tables() where temporary")]
        assert len(tables) == 19
        for name in (*tables, "pair", "affinity"):
            query = f"select * from {name} order by all"
            assert rows(con, query) == rows(past, query), name


def test_next_day_sees_one_day_more(shared: duckdb.DuckDBPyConnection) -> None:
    """The test above is not blind: as of 02-20 fay, jam and every age move by one day."""
    Snapshot(shared, scenario.AS_OF + timedelta(days=1))
    assert pair(shared, "fay", "jam", "n_orders, days_since_last") == (1, 1)
    assert pair(shared, "ann", "milk", "days_since_last, days_since_first") == (8, 50)
