"""Baselines on a shop of a few orders, one letter a product."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

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
