"""What recent behaviour does to scores: the closest likeness, its weight and its name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from pipeline_assets.serving.behaviour import (
    BASKET,
    BOUGHT_BY_NEW,
    CLICK,
    VIEW,
    Event,
    Kind,
    days_since_events,
    of_interest,
    shifts,
)
from pipeline_assets_tests.unit.test_rules import Shelf

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
# product -> department, category, type
ROWS = {
    "milk": ("dairy", "MILK", "whole"),
    "skimmed": ("dairy", "MILK", "lean"),
    "whole2": ("dairy", "MILK", "whole"),
    "butter": ("dairy", "FAT", "butter"),
    "soap": ("drug", "SOAP", "bar"),
    "thing": (None, None, None),
}
SHELF = Shelf(
    {product: row for row, product in enumerate(ROWS)},
    {name: [value[at] for value in ROWS.values()] for at, name in enumerate(("department", "category", "type"))},
)
PRODUCTS = list(ROWS)


def event(product: str, kind: Kind = "view", age: timedelta = timedelta(minutes=1), number: int = 0) -> Event:
    return Event(f"{kind}-{product}-{number}", kind, "c1", product, NOW - age)


def moved(*recent: Event, basket: tuple[str, ...] = (), is_new: bool = False) -> dict[str, tuple[float, str]]:
    return shifts(PRODUCTS, SHELF, basket, recent, NOW, is_new)


def test_nothing_happened_nothing_moves() -> None:
    """No basket, no events: no shifts at all."""
    assert moved() == {}


def test_basket_moves_by_the_closest_likeness() -> None:
    """Milk lies in the basket: the same type, the same category, the same department; soap is left where it is, milk itself too."""
    assert moved(basket=("milk",)) == {
        "whole2": (BASKET.type, "type of what was put into the basket"),
        "skimmed": (BASKET.category, "category of what was put into the basket"),
        "butter": (BASKET.department, "department of what was put into the basket"),
    }


def test_viewed_product_comes_before_its_like() -> None:
    """The product itself has a weight, unlike in the basket: it was looked at, not taken."""
    found = moved(event("milk"))
    assert found["milk"] == (VIEW.product, "viewed")
    assert found["whole2"] == (VIEW.type, "type of what was viewed")
    assert "soap" not in found


def test_views_and_clicks_add_up_and_many_views_count_once() -> None:
    """Milk was viewed twice and clicked: one view and one click."""
    found = moved(event("milk"), event("milk", number=1), event("milk", "click"))
    assert found["milk"] == (VIEW.product + CLICK.product, "viewed, clicked")


def test_interest_ends_after_a_day() -> None:
    """A view of 24 hours ago says nothing, one of a second less does."""
    day = timedelta(days=1)
    assert moved(event("milk", age=day)) == {}
    assert moved(event("milk", age=day - timedelta(seconds=1)))


def test_purchase_of_a_known_customer_moves_nothing() -> None:
    """Measured: what was bought today says nothing that the score does not."""
    assert moved(event("milk", "purchase")) == {}


def test_purchase_of_a_new_customer_is_all_that_is_known() -> None:
    """The product itself, for days."""
    assert moved(event("milk", "purchase", timedelta(days=5)), is_new=True) == {
        "milk": (BOUGHT_BY_NEW.product, "bought")
    }


def test_product_outside_the_catalogue_moves_nothing() -> None:
    """A view of something that is not sold here, or of which nothing is known."""
    assert moved(event("elsewhere")) == {}
    assert moved(event("thing")) == {"thing": (VIEW.product, "viewed")}


def test_days_since_events_by_level() -> None:
    """Milk two days ago and whole2 today: 2 and 0 as products, 0 as a type; butter is of another category, a view is no purchase."""
    recent = [event("milk", "purchase", timedelta(days=2)), event("whole2", "purchase"), event("soap", "view")]
    today = date(2027, 3, 1)
    assert days_since_events(recent, PRODUCTS, "product", today, SHELF) == {"milk": 2.0, "whole2": 0.0}
    assert days_since_events(recent, PRODUCTS, "type", today, SHELF) == {"milk": 0.0, "whole2": 0.0}
    assert days_since_events(recent, PRODUCTS, "category", today, SHELF)["skimmed"] == 0.0


def test_candidates_of_a_new_customer_are_the_newest_first() -> None:
    """Once each, without those that are there and those that nobody sells."""
    recent = [event("milk"), event("elsewhere"), event("soap"), event("milk", number=1), event("butter")]
    assert of_interest(recent, SHELF, {"soap": 1.0}) == ["butter", "milk"]
