"""Features of the scenario as of 2017-02-19, as arithmetic, and that no later row changes a bit of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.features import (
    CUSTOMER_FEATURES,
    MODEL_FEATURES,
    PAIR_FEATURES,
    PRODUCT_FEATURES,
    customer_features,
    customer_product_features,
    product_features,
)
from pipeline_assets.recommender.packing import unpack
from pipeline_assets_tests import scenario

Tables = dict[str, pd.DataFrame]
Future = Callable[[scenario.Feeds], scenario.Feeds]
NAN = float("nan")


def computed(world: Mapping[str, pd.DataFrame], as_of: date = scenario.AS_OF) -> Tables:
    """The three feature tables of a world."""
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, world)
        snapshot = Snapshot(con, as_of)
        return {
            "customer": customer_features(snapshot).to_pandas(),
            "product": product_features(snapshot).to_pandas(),
            "customer_product": customer_product_features(snapshot).to_pandas(),
        }


@pytest.fixture(scope="module")
def tables() -> Tables:
    return computed(scenario.feeds())


def assert_same_bits(found: Tables, wanted: Tables) -> None:
    for name, frame in wanted.items():
        lists = {"candidate_ids": lambda f: f["candidate_ids"].map(list)} if name == "customer_product" else {}
        pd.testing.assert_frame_equal(found[name].assign(**lists), frame.assign(**lists), check_exact=True)


def pair(tables: Tables, customer: str, product: str) -> dict[str, float]:
    """The pair features of one candidate, by name."""
    row = tables["customer_product"].set_index("customer_id").loc[customer]
    ids = list(row["candidate_ids"])
    matrix = unpack(row["pair_features"], len(ids), len(PAIR_FEATURES))
    return dict(zip(PAIR_FEATURES, matrix[ids.index(product)].tolist(), strict=True))


def later(world: Mapping[str, pd.DataFrame], days: int) -> scenario.Feeds:
    """The world with everything after AS_OF moved by `days` (plans with their validity)."""
    moved = {}
    for name, frame in world.items():
        is_future = frame["event_date"] > scenario.AS_OF
        columns = [c for c in ("event_date", "valid_from", "valid_to", "event_ts") if c in frame]
        future = frame[is_future].copy()
        for column in columns:
            future[column] = future[column] + timedelta(days=days)
        moved[name] = pd.concat([frame[~is_future], future], ignore_index=True)
    return moved


def crowded(world: Mapping[str, pd.DataFrame]) -> scenario.Feeds:
    """The world where on T every customer buys every product, all is promoted, re-mapped and mailed with coupons."""
    t, names, shoppers = scenario.T, list(scenario.CATALOGUE), list(scenario.CUSTOMER_ARRIVALS)
    template = world["purchases"].iloc[0].to_dict()
    bought = [
        {**template, "event_id": f"f{at}", "order_id": f"f{customer}", "customer_id": customer, "product_id": product,
         "amount": 999.0, "event_date": t}
        for at, (customer, product) in enumerate(itertools.product(shoppers, names))
    ]  # fmt: skip
    plan = {"placement": "Z", "valid_from": t, "valid_to": t + timedelta(days=6), "event_date": t, "campaign_id": "k9"}
    shown = [
        {**plan, "event_id": f"f{channel}{store}{name}", "product_id": name, "channel": channel, "store_id": store}
        for channel, store, name in itertools.product(("display", "mailer"), ("s1", "s2"), names)
    ]
    shown += [{**plan, "event_id": f"fk{name}", "product_id": name, "channel": "coupon"} for name in names]
    shown += [{**plan, "event_id": f"fm{name}", "customer_id": name, "channel": "campaign"} for name in shoppers]
    moved = {"department": "X", "category": "X", "type": "X", "event_date": t}
    catalogue = world["products"].drop_duplicates("product_id").to_dict("records")
    changed = [{**row, **moved, "is_sellable": not row["is_sellable"]} for row in catalogue]
    changes = {"purchases": bought, "exposures": shown, "products": changed}
    return dict(world) | {name: pd.concat([world[name], pd.DataFrame(rows)]) for name, rows in changes.items()}


@pytest.mark.parametrize(
    "future",
    [
        pytest.param(lambda world: scenario.until(world, scenario.AS_OF), id="removed"),
        pytest.param(lambda world: later(world, 3), id="shifted by 3 days"),
        pytest.param(lambda world: later(world, 300), id="shifted by 300 days"),
        pytest.param(crowded, id="crowded"),
    ],
)
@pytest.mark.ml_test("D7")
def test_rows_after_as_of_change_no_bit(tables: Tables, future: Future) -> None:
    """Whatever happens after AS_OF, customer, product and packed pair features stay as they are."""
    assert_same_bits(computed(future(scenario.feeds())), tables)


@pytest.mark.ml_test("D7", control=True)
def test_a_row_on_as_of_does_change_features(tables: Tables) -> None:
    """The test above is not blind: the same crowd one day earlier is known."""
    world = crowded(scenario.feeds())
    early = {
        name: frame.assign(event_date=frame["event_date"].map(lambda d: min(d, scenario.AS_OF)))
        for name, frame in world.items()
    }
    with pytest.raises(AssertionError):
        assert_same_bits(computed({**world, "purchases": early["purchases"]}), tables)


def test_order_of_delivered_rows_changes_no_bit(tables: Tables) -> None:
    """The four feeds shuffled."""
    world = {name: frame.sample(frac=1, random_state=3) for name, frame in scenario.feeds().items()}
    assert_same_bits(computed(world), tables)


def test_model_columns_are_pair_customer_product_and_distinct() -> None:
    """The one order of the model matrix."""
    assert MODEL_FEATURES == PAIR_FEATURES + CUSTOMER_FEATURES + PRODUCT_FEATURES
    assert len(set(MODEL_FEATURES)) == len(MODEL_FEATURES)


def test_tables_have_the_declared_columns_as_float32(tables: Tables) -> None:
    """Names in the declared order; NaN is missing."""
    assert list(tables["customer"]) == ["customer_id", *CUSTOMER_FEATURES]
    assert list(tables["product"]) == ["product_id", "department", "category", "type", "brand", *PRODUCT_FEATURES]
    assert set(tables["customer"][list(CUSTOMER_FEATURES)].dtypes) == {np.dtype("float32")}
    assert set(tables["product"][list(PRODUCT_FEATURES)].dtypes) == {np.dtype("float32")}


def test_customer_features_of_ann(tables: Tables) -> None:
    """Orders at ages 49, 35, 21, 7: 14 days between; 6 purchases, 2 products, 10.0 paid; milk of age 7 promoted."""
    ann = tables["customer"].set_index("customer_id").loc["ann"]
    wanted = {"n_orders": 4, "n_orders_28d": 2, "days_since_last_order": 7, "days_since_first_order": 49,
              "order_gap_days": 14, "basket_size": 6 / 4, "basket_amount": 10 / 4, "n_products": 2,
              "repeat_share": 1 - 2 / 6, "promoted_share": 1 / 6, "discount_share": 0,
              "amount_28d": 2 + 2 + 1}  # fmt: skip
    assert ann.to_dict() == pytest.approx({f"customer_{name}": value for name, value in wanted.items()}, rel=1e-6)


@pytest.mark.parametrize("customer", ["dan", "eve"])
def test_customer_without_sellable_purchases_is_there_with_missing_values(tables: Tables, customer: str) -> None:
    """Fuel is no history, and neither is being known."""
    assert tables["customer"].set_index("customer_id").loc[customer].isna().all()


def test_product_features_of_milk(tables: Tables) -> None:
    """Ages 49, 35, 21, 7 (ann), 49, 1 (bob); in the mailer of one of the two stores with a plan, as last week.

    Last week's mailer sold two, those of ages 7 and 1; the other four in half a year were not mailed.
    """
    milk = tables["product"].set_index("product_id").loc["milk"]
    wanted = {"orders_7d": 2, "orders_28d": 3, "orders_91d": 6, "customers_91d": 2, "trend": 4 * 2 / 3,
              "days_since_last_sale": 1, "days_since_first_sale": 49, "price": 2, "price_ratio": 1,
              "promoted_share": 2 / 6, "n_buyers": 2, "repeat_rate": 1, "display_share": 0,
              "mailer_share": 1 / 2, "is_new_in_mailer": 0, "type_orders_28d": 3 + 1,
              "buyers_7d": 2, "buyers_14d": 0, "repeats_7d": 2, "repeat_ratio": 2 / (7 * 4 / (49 + 14) + 7 * 2 / (49 + 14)),
              "unmailed_rate": 4 / 26, "mailer_lift": 2 / (4 / 26), "mailer_sales": 2}  # fmt: skip
    assert milk[list(PRODUCT_FEATURES)].astype(float).to_dict() == pytest.approx(
        {f"product_{name}": value for name, value in wanted.items()}, rel=1e-6
    )
    assert milk[["department", "category", "type", "brand"]].tolist() == ["DAIRY", "MILK", "MILK", "Private"]


def test_products_are_those_sold_or_promoted(tables: Tables) -> None:
    """tea was never sold but is in a mailer; salt is neither; fuel, cola and jam are not sellable or not known."""
    assert tables["product"]["product_id"].tolist() == [
        "bread",
        "cheese",
        "lite",
        "milk",
        "rolls",
        "soap",
        "tea",
        "wine",
    ]
    tea = tables["product"].set_index("product_id").loc["tea"]
    assert (tea["product_mailer_share"], tea["product_is_new_in_mailer"]) == (0.5, 1)
    assert np.isnan(tea["product_orders_28d"])


def test_pair_features_of_a_habit(tables: Tables) -> None:
    """ann's milk, ages 49, 35, 21, 7: a gap of 14 days, so 7 / 14 of it has passed; the only product of its type."""
    found = pair(tables, "ann", "milk")
    slow, fast = (sum(0.5 ** (age / half_life) for age in (49, 35, 21, 7)) for half_life in (90, 21))
    like_bread = np.log1p(0.5 ** (49 / 90) + 0.5 ** (7 / 90)) * 2 / np.sqrt(2 * 2)  # both bought by ann and bob
    wanted = {"n_orders": 4, "n_orders_28d": 2, "n_orders_91d": 4, "decayed_slow": slow, "decayed_fast": fast,
              "order_share": 4 / 4, "days_since_last": 7, "days_since_first": 49, "gap_days": 14, "overdue": 7 / 14,
              "quantity_mean": 1, "amount_mean": 2, "promoted_share": 1 / 4, "discount_share": 0,
              "place": 1, "source": 0, "type_days": 4, "type_decayed": slow, "type_share": 1,
              "type_days_since_last": 7, "type_overdue": 7 / 14, "category_decayed": slow,
              "category_days_since_last": 7, "knn_score": like_bread,
              "store_display": 0, "store_mailer": 1, "has_coupon": 0,
              "decayed_share": slow / (slow + 0.5 ** (49 / 90) + 0.5 ** (7 / 90)), "place_fast": 1,
              "trip_rate": 4 / 4, "trip_gap": 1, "trip_overdue": 0, "trip_decayed": 1,
              "gap_min": 14, "gap_std": 0, "gap_median_overdue": 7 / 14, "gap_max_overdue": 7 / 14,
              "hazard": 0, "product_hazard": 0, "type_hazard": 0,  # no gap was over after 7 to 13 days
              "mailed_share": 1 / 4, "n_unmailed": 3, "type_mailed_share": 1,
              "mailer_pull": (2 + 20) / (1 / 3 + 20), "mailer_sales": 2, "price_ratio": 1}  # fmt: skip
    assert found == pytest.approx({f"pair_{name}": value for name, value in wanted.items()}, rel=1e-6)


def test_pair_features_of_a_product_never_bought(tables: Tables) -> None:
    """ann and lite: no counts of the pair, but those of the type MILK; her store's plan does not have it."""
    found = pair(tables, "ann", "lite")
    assert np.isnan([found["pair_n_orders"], found["pair_gap_days"], found["pair_type_share"]]).all()
    assert (found["pair_type_days"], found["pair_type_days_since_last"], found["pair_store_mailer"]) == (4, 7, 0)


def test_gap_of_one_purchase_is_missing(tables: Tables) -> None:
    """bob bought rolls once: no rhythm, and nothing is overdue."""
    found = pair(tables, "bob", "rolls")
    assert np.isnan([found["pair_gap_days"], found["pair_overdue"]]).all()


def test_promotions_are_those_of_the_home_store(tables: Tables) -> None:
    """bread is displayed at s1: for ann and bob 1; cleo's s2 has a plan without it: 0; eve has no store: missing."""
    found = [pair(tables, customer, "bread")["pair_store_display"] for customer in ("ann", "bob", "cleo", "eve")]
    np.testing.assert_equal(found, [1, 1, 0, NAN])


def test_coupon_belongs_to_the_customer_and_the_product(tables: Tables) -> None:
    """bob's campaign has one for cheese only; ann's coupon for wine ended on AS_OF."""
    assert (pair(tables, "bob", "cheese")["pair_has_coupon"], pair(tables, "bob", "milk")["pair_has_coupon"]) == (1, 0)
    assert (pair(tables, "ann", "cheese")["pair_has_coupon"], pair(tables, "ann", "wine")["pair_has_coupon"]) == (0, 0)
