"""Baselines on a shop of a few orders, one letter a product."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import baselines, known
from pipeline_assets.recommender.errors import ConfigurationError, NotEnoughData, SchemaError

AS_OF = date(2017, 6, 30)
Method = Callable[..., pd.DataFrame]
METHODS: tuple[Method, ...] = tuple(baselines.ALL.values())


def purchases(*orders: tuple[str, str, str]) -> pd.DataFrame:
    """purchases(("ann", "2017-06-01", "ab")): one order of Ann with a and b."""
    rows = [
        (customer, product, f"o{at}", pd.Timestamp(day), 1, 1.0)
        for at, (customer, day, basket) in enumerate(orders)
        for product in basket
    ]
    names = ["customer_id", "product_id", "order_id", "event_date", "quantity", "amount"]
    return pd.DataFrame(rows, columns=names)


SHOP = purchases(
    ("ann", "2017-06-01", "ab"), ("ann", "2017-06-10", "b"), ("ann", "2017-06-20", "c"),
    ("bob", "2017-06-05", "ad"), ("bob", "2017-06-25", "de"), ("cleo", "2017-06-28", "ae"),
)  # fmt: skip


def listed(slates: pd.DataFrame, customer: str) -> str:
    return "".join(slates[slates["customer_id"] == customer].sort_values("rank")["product_id"])


def score(slates: pd.DataFrame, customer: str, product: str) -> float:
    row = slates[(slates["customer_id"] == customer) & (slates["product_id"] == product)]
    return float(row["score"].iloc[0])


@pytest.mark.parametrize("method", METHODS)
def test_every_customer_gets_top_distinct_products_best_first(method: Method) -> None:
    """Ranks 1 to 4, scores that never rise, no product twice; a customer who never bought is no exception."""
    slates = method(SHOP, ["zoe", "ann"], AS_OF, top=4)
    assert slates["customer_id"].tolist() == ["zoe"] * 4 + ["ann"] * 4
    assert slates["rank"].tolist() == [1, 2, 3, 4] * 2
    assert not slates.duplicated(["customer_id", "product_id"]).any()
    assert (slates.groupby("customer_id")["score"].diff().dropna() <= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_later_purchases_change_nothing(method: Method) -> None:
    """A day after as_of is the future: rows from there on are not seen."""
    future = purchases(("ann", "2017-07-01", "eee"), ("zoe", "2017-07-02", "xyz"), ("bob", "2017-12-01", "x"))
    with_future = pd.concat([SHOP, future.assign(order_id="later")])
    expected = method(SHOP, ["ann", "bob", "zoe"], AS_OF, top=4)
    pd.testing.assert_frame_equal(method(with_future, ["ann", "bob", "zoe"], AS_OF, top=4), expected)


@pytest.mark.parametrize("method", METHODS)
def test_purchases_of_the_day_itself_count(method: Method) -> None:
    """Ann's only purchase, e on the last known day, is in her list of one."""
    slates = method(purchases(("ann", "2017-06-30", "e")), ["ann"], AS_OF, top=1)
    assert listed(slates, "ann") == "e"


@pytest.mark.parametrize("method", METHODS)
def test_row_order_and_date_type_change_nothing(method: Method) -> None:
    """Shuffled rows with python dates give the same slates."""
    shuffled = SHOP.sample(frac=1, random_state=4)
    shuffled["event_date"] = shuffled["event_date"].dt.date
    expected = method(SHOP, ["ann", "bob", "cleo"], AS_OF, top=5)
    pd.testing.assert_frame_equal(method(shuffled, ["ann", "bob", "cleo"], AS_OF, top=5), expected)


@pytest.mark.parametrize("method", METHODS)
def test_too_few_products_is_refused(method: Method) -> None:
    """Five products cannot fill a list of six."""
    with pytest.raises(NotEnoughData, match="lower `top`"):
        method(SHOP, ["ann"], AS_OF, top=6)


@pytest.mark.parametrize("method", METHODS)
def test_no_known_purchase_is_refused(method: Method) -> None:
    """Before the first day nothing is known."""
    with pytest.raises(NotEnoughData, match="2016-12-31"):
        method(SHOP, ["ann"], date(2016, 12, 31), top=1)


@pytest.mark.parametrize("method", METHODS)
def test_repeated_customer_is_refused(method: Method) -> None:
    """Two lists for one customer would be judged twice."""
    with pytest.raises(SchemaError):
        method(SHOP, ["ann", "ann"], AS_OF, top=1)


def test_popularity_counts_orders_and_breaks_ties_by_product_id() -> None:
    """From 3 to 30 June: a 2, d 2, e 2 orders, b 1, c 1; of all time a 3, b 2; then d before e by name."""
    assert listed(baselines.popularity(SHOP, ["zoe"], AS_OF, top=5), "zoe") == "adebc"


def test_popularity_prefers_recent_days_then_all_time() -> None:
    """In the last 6 days (25 to 30 June) e sold twice, a and d once each; of all time a sold 3 and d 2."""
    assert listed(baselines.popularity(SHOP, ["zoe"], AS_OF, days=6, top=5), "zoe") == "eadbc"


def test_window_of_days_includes_its_first_day_only() -> None:
    """2 days are 29 and 30 June: a on the 29th counts, b and b on the 28th do not."""
    shop = purchases(("ann", "2017-06-28", "b"), ("bob", "2017-06-28", "b"), ("ann", "2017-06-29", "a"))
    assert listed(baselines.popularity(shop, ["ann"], AS_OF, days=2, top=2), "ann") == "ab"


def test_personal_frequency_counts_own_orders_then_fills_with_popularity() -> None:
    """Ann: b 2 orders; a and c 1, a is more popular; then the popular ones she never bought, d before e."""
    slates = baselines.personal_frequency(SHOP, ["ann"], AS_OF, top=5)
    assert listed(slates, "ann") == "bacde"
    assert score(slates, "ann", "b") == 2.0
    assert score(slates, "ann", "d") == -2.0  # second in popularity


def test_decay_halves_the_weight_every_half_life() -> None:
    """a 20 days ago twice = 2 x 1/4 with a half-life of 10 days; b today = 1."""
    shop = purchases(("ann", "2017-06-10", "a"), ("ann", "2017-06-10", "a"), ("ann", "2017-06-30", "b"))
    slates = baselines.decayed_frequency(shop, ["ann"], AS_OF, half_life_days=10, top=2)
    assert listed(slates, "ann") == "ba"
    assert score(slates, "ann", "a") == pytest.approx(2 * 0.25)
    assert score(slates, "ann", "b") == pytest.approx(1.0)


def test_very_old_purchases_still_rank_before_popular_products() -> None:
    """60 half-lives are a weight of 1e-18, which is still a personal purchase: z before the popular a."""
    shop = purchases(("ann", "2017-05-01", "z"), ("bob", "2017-06-30", "a"))
    assert listed(baselines.decayed_frequency(shop, ["ann"], AS_OF, half_life_days=1, top=2), "ann") == "za"


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (baselines.popularity, {"days": 0}),
        (baselines.decayed_frequency, {"half_life_days": 0}),
        (baselines.tifu_knn, {"m": 0}),
        (baselines.tifu_knn, {"k": 0}),
        (baselines.tifu_knn, {"r_b": 0.0}),
        (baselines.tifu_knn, {"alpha": 1.1}),
        (baselines.up_cf, {"r": 0}),
        (baselines.up_cf, {"q": 0}),
        (baselines.item_knn, {"k": 0}),
        (baselines.ease, {"l2": 0}),
        (baselines.als, {"factors": 0}),
    ],
)
def test_impossible_parameters_are_refused(method: Method, wrong: dict[str, float]) -> None:
    """Each parameter has a range, and the error says which value was met."""
    with pytest.raises(ConfigurationError):
        method(SHOP, ["ann"], AS_OF, top=1, **wrong)


def test_tifu_own_vector_decays_by_basket_and_by_group() -> None:
    """m = 2, three baskets a, b, c: groups (a) and (b, c), n = 2.

    a: r_g / 1 / 2, b: r_b / 2 / 2, c: 1 / 2 / 2; with alpha = 1 the score is the own vector.
    """
    shop = purchases(("ann", "2017-06-01", "a"), ("ann", "2017-06-02", "b"), ("ann", "2017-06-03", "c"))
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, m=2, r_b=0.5, r_g=0.8, alpha=1.0, top=3)
    assert score(slates, "ann", "a") == pytest.approx(0.8 / 1 / 2)
    assert score(slates, "ann", "b") == pytest.approx(0.5 / 2 / 2)
    assert score(slates, "ann", "c") == pytest.approx(1.0 / 2 / 2)


def test_tifu_adds_the_mean_of_the_nearest_customers() -> None:
    """One basket each: Ann a, Bob a + b, Dan x + y. Ann's nearest is Bob: b scores 0.5 x 1, a 0.5 x 1 + 0.5 x 1."""
    shop = purchases(("ann", "2017-06-01", "a"), ("bob", "2017-06-01", "ab"), ("dan", "2017-06-01", "xy"))
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, alpha=0.5, k=1, top=2)
    assert listed(slates, "ann") == "ab"
    assert score(slates, "ann", "a") == pytest.approx(0.5 + 0.5)
    assert score(slates, "ann", "b") == pytest.approx(0.5)


def test_tifu_takes_the_mean_of_its_neighbours() -> None:
    """Ann's two nearest are Bob (a, b) and Cleo (a, c): b scores 0.5 x (1 + 0) / 2."""
    shop = purchases(
        ("ann", "2017-06-01", "a"), ("bob", "2017-06-01", "ab"), ("cleo", "2017-06-01", "ac"),
        ("dan", "2017-06-01", "xy"),
    )  # fmt: skip
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, alpha=0.5, k=2, top=3)
    assert listed(slates, "ann") == "abc"
    assert score(slates, "ann", "a") == pytest.approx(0.5 + 0.5 * (1 + 1) / 2)
    assert score(slates, "ann", "b") == pytest.approx(0.5 * (1 + 0) / 2)


def test_tifu_distance_ties_go_to_the_smaller_customer_id() -> None:
    """Bob (a, b) and Cleo (a, c) are equally far from Ann (a); with one neighbour it is Bob."""
    shop = purchases(("cleo", "2017-06-01", "ac"), ("bob", "2017-06-01", "ab"), ("ann", "2017-06-01", "a"))
    slates = baselines.tifu_knn(shop, ["ann"], AS_OF, alpha=0.5, k=1, top=2)
    assert listed(slates, "ann") == "ab"


def test_tifu_same_order_id_of_two_customers_is_two_baskets() -> None:
    """Ids may repeat between customers: with r_b = 0.5 Ann's older a weighs 0.5 / 2, whatever Bob's order o0 is."""
    shop = purchases(("ann", "2017-06-01", "a"), ("ann", "2017-06-02", "b"))
    other = purchases(("bob", "2017-06-20", "b"))
    slates = baselines.tifu_knn(pd.concat([shop, other]), ["ann"], AS_OF, r_b=0.5, alpha=1.0, top=2)
    assert score(slates, "ann", "a") == pytest.approx(0.5 / 2)


def test_tifu_blocks_give_the_same_slates(monkeypatch: pytest.MonkeyPatch) -> None:
    """One customer at a time or all at once: the block size only bounds memory."""
    rng = np.random.default_rng(2)
    shop = purchases(
        *((f"c{c:02}", f"2017-06-{d:02}", "".join(rng.choice(list("abcdefghij"), 3, replace=False)))
          for c in range(15) for d in (3, 9, 17, 24))
    )  # fmt: skip
    customers = sorted(shop["customer_id"].unique())
    at_once = baselines.tifu_knn(shop, customers, AS_OF, k=4, top=6)
    monkeypatch.setattr(known, "BLOCK_CELLS", 1)
    pd.testing.assert_frame_equal(baselines.tifu_knn(shop, customers, AS_OF, k=4, top=6), at_once)


def test_tifu_list_for_one_customer_equals_his_list_among_all() -> None:
    """Who else is asked for does not matter; neighbours come from all purchases."""
    together = baselines.tifu_knn(SHOP, ["ann", "bob", "cleo"], AS_OF, k=1, top=4)
    alone = baselines.tifu_knn(SHOP, ["bob"], AS_OF, k=1, top=4)
    assert listed(alone, "bob") == listed(together, "bob")


def test_up_cf_is_own_popularity_in_the_last_baskets_where_nobody_is_similar() -> None:
    """Ann alone, r = 2 of her three baskets: b is in 2 of 2, c in 1 of 2, a in none of them and so not personal."""
    shop = purchases(("ann", "2017-06-01", "ab"), ("ann", "2017-06-10", "b"), ("ann", "2017-06-20", "bc"))
    slates = baselines.up_cf(shop, ["ann"], AS_OF, r=2, top=3)
    assert listed(slates, "ann") == "bca"
    assert score(slates, "ann", "b") == pytest.approx(2 / 2)
    assert score(slates, "ann", "c") == pytest.approx(1 / 2)
    assert score(slates, "ann", "a") < 0


def test_up_cf_adds_similar_customers_by_the_asymmetric_cosine() -> None:
    """Ann has a, Bob a to d: 1 in common / (1 ** 0.25 * 4 ** 0.75) = 0.3536, squared 0.125; a is own 1 + 0.125, b 0.125."""
    shop = purchases(("ann", "2017-06-01", "a"), ("bob", "2017-06-01", "abcd"), ("dan", "2017-06-01", "xy"))
    slates = baselines.up_cf(shop, ["ann"], AS_OF, alpha=0.25, q=2, k=2, top=2)
    assert score(slates, "ann", "a") == pytest.approx(1 + 4**-1.5)
    assert score(slates, "ann", "b") == pytest.approx(4**-1.5)


def test_item_knn_scores_by_cosine_of_buyers() -> None:
    """Today Ann bought a, Bob a and b: cosine(a, b) = 1 / sqrt(2 * 1), and Ann's a weighs log(1 + 1)."""
    shop = purchases(("ann", "2017-06-30", "a"), ("bob", "2017-06-30", "ab"))
    slates = baselines.item_knn(shop, ["ann"], AS_OF, top=2)
    assert listed(slates, "ann") == "ba"
    assert score(slates, "ann", "b") == pytest.approx(np.log(2) / np.sqrt(2), abs=1e-4)


def test_ease_is_the_ridge_regression_of_each_product_on_the_others() -> None:
    """Column b of the weights solves (X_a'X_a + l2) w = X_a'X_b for the only other product a: w = g_ab / (g_aa + l2)."""
    shop = purchases(("ann", "2017-06-30", "a"), ("bob", "2017-06-30", "ab"))
    slates = baselines.ease(shop, ["ann"], AS_OF, l2=2.0, top=2)
    unit = np.log(2) ** 2  # of one purchase today, squared
    assert score(slates, "ann", "b") == pytest.approx(np.log(2) * unit / (2 * unit + 2.0), abs=1e-4)


def test_als_finds_the_group_that_a_customer_belongs_to() -> None:
    """Six customers buy a to d, six w to z; Ann has a, b, c: with two factors d is worth more to her than w to z."""
    shop = purchases(
        *((f"left{n}", "2017-06-30", "abcd") for n in range(6)),
        *((f"right{n}", "2017-06-30", "wxyz") for n in range(6)),
        ("ann", "2017-06-30", "abc"),
    )
    slates = baselines.als(shop, ["ann"], AS_OF, factors=2, l2=0.1, top=4)
    assert set(listed(slates, "ann")) == set("abcd")


@pytest.mark.parametrize("method", [baselines.up_cf, baselines.item_knn, baselines.ease])
def test_block_size_changes_nothing(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """One customer at a time or all at once: the block only bounds memory."""
    at_once = method(SHOP, ["ann", "bob", "cleo"], AS_OF, top=5)
    monkeypatch.setattr(known, "BLOCK_CELLS", 1)
    pd.testing.assert_frame_equal(method(SHOP, ["ann", "bob", "cleo"], AS_OF, top=5), at_once)


def test_purchases_are_encoded_once_for_several_methods() -> None:
    """All methods by name, the same slates as each on its own."""
    found = baselines.baseline_slates(list(baselines.ALL), SHOP, ["ann", "zoe"], AS_OF, top=3)
    assert list(found) == list(baselines.ALL)
    for name, slates in found.items():
        pd.testing.assert_frame_equal(slates, baselines.ALL[name](SHOP, ["ann", "zoe"], AS_OF, top=3))


def test_unknown_method_is_refused() -> None:
    """The error lists the names that exist."""
    with pytest.raises(ConfigurationError, match="TIFU-KNN"):
        baselines.baseline_slates(["TIFU"], SHOP, ["ann"], AS_OF, top=3)


def test_codes_of_another_day_are_refused() -> None:
    """Purchases encoded as of 30 June know too much for 1 June."""
    with pytest.raises(ConfigurationError, match="2017-06-30"):
        baselines.popularity(known.known_on(SHOP, AS_OF), ["ann"], date(2017, 6, 1), top=1)
