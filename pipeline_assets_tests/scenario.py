"""One tiny world: 6 customers, 12 products, 2 stores, 60 business days from Sunday 2017-01-01; every row has a purpose.

The tests stand at the end of `AS_OF`, Sunday 2017-02-19, so the recommendation day is T = Monday 02-20 and the window
is 02-20 .. 02-26. Ages are days at T: a purchase on 02-19 has age 1, one on 02-13 has age 7.

    ann   milk every 14 days at s1, sometimes bread: a rhythm (ages 49, 35, 21, 7) and a customer worth a guess
    bob   shares ann's taste and buys wine besides: what collaborative filtering takes to ann
    cleo  soap at s2, twice in one order: lines that become one purchase; bought once under promotion with a discount
    dan   buys only fuel, which may not be recommended: known, but without a history
    eve   is in the customer feed and never bought anything
    fay   arrives and buys after AS_OF: must leave no trace
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow

from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import PARSE_ERRORS

if TYPE_CHECKING:
    import duckdb

FIRST_DAY, LAST_DAY = date(2017, 1, 1), date(2017, 3, 1)
AS_OF = date(2017, 2, 19)
T = AS_OF + timedelta(days=1)
Feeds = dict[str, pd.DataFrame]

# product: (department, category, type, brand, price of one)
CATALOGUE = {
    "milk": ("DAIRY", "MILK", "MILK", "Private", 2.0),
    "lite": ("DAIRY", "MILK", "MILK", "National", 3.0),  # a second product of ann's favourite type
    "cheese": ("DAIRY", "CHEESE", "CHEESE", "National", 5.0),  # new in next week's mailer at s1
    "bread": ("BAKERY", "BREAD", "BREAD", "Private", 1.0),
    "rolls": ("BAKERY", "BREAD", "BREAD", "National", 1.5),  # same type as bread
    "soap": ("DRUG", "SOAP", "SOAP", "National", 4.0),  # sold on promotion once
    "wine": ("DRINKS", "WINE", "RED", "National", 8.0),
    "cola": ("DRINKS", "SOFT", "COLA", "National", 1.0),  # sold in January, delisted on 02-01
    "tea": ("DRINKS", "TEA", "TEA", "Private", 3.0),  # never sold, but in a mailer: has product features
    "salt": ("GROCERY", "SPICES", "SALT", "Private", 0.5),  # never sold, never promoted: has none
    "fuel": ("FUEL", "FUEL", "FUEL", "Private", 30.0),  # never sellable
    "jam": ("GROCERY", "SPREADS", "JAM", "Private", 2.5),  # arrives after AS_OF
}

# (customer, month-day, store, products of the order; a product written twice is on two lines of it)
ORDERS = [
    ("ann", "01-02", "s1", "milk bread"),  # age 49
    ("bob", "01-02", "s1", "milk bread wine"),  # with ann's basket: wine has something in common with milk and bread
    ("cleo", "01-09", "s2", "soap soap"),  # age 42: two lines, one purchase of quantity 2
    ("ann", "01-16", "s1", "milk cola"),  # age 35; cola may be recommended until 01-31 only
    ("bob", "01-23", "s2", "wine"),  # age 28: the oldest day of "28d", and bob's only visit to s2
    ("ann", "01-30", "s1", "milk"),  # age 21: one fast half-life
    ("dan", "02-10", "s1", "fuel"),  # no line of a sellable product
    ("cleo", "02-12", "s2", "soap lite cheese"),  # age 8: one day too old for "7d"; soap is on display there
    ("ann", "02-13", "s1", "milk bread"),  # age 7: the oldest day of "7d"
    ("bob", "02-19", "s1", "milk rolls"),  # age 1: AS_OF itself is known
    # after AS_OF: the targets of the window, and what must not be seen
    ("fay", "02-20", "s2", "jam milk"),  # first day of the window, new customer, new product
    ("ann", "02-21", "s1", "milk wine"),  # wine is new for ann
    ("bob", "02-22", "s1", "bread"),
    ("cleo", "02-26", "s2", "soap"),  # last day of the window
    ("ann", "02-27", "s1", "milk bread"),  # one day after the window
    ("cleo", "03-01", "s1", "soap"),  # LAST_DAY; would move nobody's home store but adds to s1
]
DISCOUNTS = {("cleo", "02-12", "soap"): 1.0}  # 4.0 asked, 3.0 paid

# (known from, product, channel, placement, customer, store, campaign, first day, last day)
EXPOSURES = [
    ("02-05", "soap", "display", "A", None, "s2", None, "02-06", "02-12"),  # cleo's promoted purchase; over by T - 8
    ("02-12", "milk", "mailer", "B", None, "s1", None, "02-13", "02-19"),  # last week's mailer ...
    ("02-19", "milk", "mailer", "B", None, "s1", None, "02-20", "02-26"),  # ... goes on: not new
    ("02-19", "cheese", "mailer", "C", None, "s1", None, "02-20", "02-26"),  # new in the mailer
    ("02-19", "tea", "mailer", "C", None, "s2", None, "02-20", "02-26"),  # promoted and never sold
    ("02-19", "bread", "display", "D", None, "s1", None, "02-20", "02-26"),
    ("02-19", "bread", "mailer", "D", None, "s1", None, "02-20", "02-26"),  # both channels of one place: one mart row
    ("02-13", None, "campaign", "TypeA", "bob", None, "k1", "02-20", "03-05"),  # bob's coupon for cheese is valid
    ("02-13", "cheese", "coupon", "1", None, None, "k1", "02-20", "03-05"),
    ("02-01", None, "campaign", "TypeB", "ann", None, "k2", "02-01", "02-19"),  # ended on AS_OF
    ("02-01", "wine", "coupon", "2", None, None, "k2", "02-01", "02-19"),
    # after AS_OF
    ("02-20", "wine", "mailer", "E", None, "s1", None, "02-20", "02-26"),  # a plan that was published too late
    ("02-20", "bread", "coupon", "3", None, None, "k1", "02-20", "03-05"),  # bob's campaign gets a coupon too late
    ("02-21", None, "campaign", "TypeA", "ann", None, "k1", "02-21", "03-05"),  # ann joins bob's campaign too late
    ("02-26", "soap", "display", "A", None, "s2", None, "02-27", "03-05"),
]

PRODUCT_ARRIVALS = {"jam": "02-20"}  # the others are known from the first day
PRODUCT_CHANGES = [
    ("02-01", "cola", {"is_sellable": False}),
    ("02-21", "milk", {"category": "UHT", "is_sellable": False}),  # after AS_OF
]
CUSTOMER_ARRIVALS = {"ann": "01-01", "bob": "01-01", "cleo": "01-01", "dan": "01-01", "eve": "01-15", "fay": "02-20"}
CUSTOMER_AGES = {"ann": "35-44", "bob": "35-44"}  # the others did not say


def day(month_day: str) -> date:
    """day("02-19") is 2017-02-19."""
    return date.fromisoformat(f"2017-{month_day}")


def purchases() -> pd.DataFrame:
    """Lines of orders, as the contract has them; a line is bought at noon UTC."""
    rows = []
    for at, (customer, when, store, basket) in enumerate(ORDERS):
        for line, product in enumerate(basket.split()):
            discount = DISCOUNTS.get((customer, when, product), 0.0)
            amount = CATALOGUE[product][4] - discount
            noon = pd.Timestamp(day(when), tz="UTC") + pd.Timedelta(hours=12)
            rows.append((f"e{at}-{line}", f"o{at}", customer, product, store, 1.0, amount, discount, noon, day(when)))
    return pd.DataFrame(rows, columns=FEEDS["purchases"].columns)


def exposures() -> pd.DataFrame:
    """Displays, mailers, coupons and mailings."""
    rows = [
        (f"x{at}", product, channel, placement, customer, store, campaign, day(start), day(end), day(known))
        for at, (known, product, channel, placement, customer, store, campaign, start, end) in enumerate(EXPOSURES)
    ]
    return pd.DataFrame(rows, columns=FEEDS["exposures"].columns)


def products() -> pd.DataFrame:
    """The catalogue on the day each product arrived, then its changes."""
    rows = [
        {"product_id": name, "department": department, "category": category, "type": kind, "brand": brand,
         "is_sellable": name != "fuel", "event_date": day(PRODUCT_ARRIVALS.get(name, "01-01"))}
        for name, (department, category, kind, brand, _) in CATALOGUE.items()
    ]  # fmt: skip
    known = {row["product_id"]: row for row in rows}
    rows += [{**known[name], **change, "event_date": day(when)} for when, name, change in PRODUCT_CHANGES]
    return pd.DataFrame(rows, columns=FEEDS["products"].columns)


def customers() -> pd.DataFrame:
    """Customers on the day they became known."""
    rows = [(name, CUSTOMER_AGES.get(name), None, None, None, day(when)) for name, when in CUSTOMER_ARRIVALS.items()]
    return pd.DataFrame(rows, columns=FEEDS["customers"].columns)


def feeds() -> Feeds:
    """The four feeds of the whole world, by name."""
    return {"purchases": purchases(), "exposures": exposures(), "products": products(), "customers": customers()}


def until(world: Mapping[str, pd.DataFrame], last: date) -> Feeds:
    """The world as it was known at the end of `last`."""
    return {name: frame[frame["event_date"] <= last].reset_index(drop=True) for name, frame in world.items()}


def delivered(feed: str, frame: pd.DataFrame) -> pyarrow.Table:
    """A frame as a source delivers it: the contract's Arrow types and `parse_errors` (nothing unreadable)."""
    table = pyarrow.Table.from_pandas(frame, schema=FEEDS[feed].arrow_schema, preserve_index=False)
    return table.append_column(PARSE_ERRORS, pyarrow.nulls(len(table), pyarrow.string()))


# dbt/models, shortened: lines of an order to purchases, display and mailer rows to one, channels to marts.
_MARTS = {
    "dim_products": "select product_id, department, category, type, brand, is_sellable, event_date from products",
    "dim_customers": "select customer_id, age_band, income_band, household_size, kids_count, event_date from customers",
    "fct_store_promotions": """
        select product_id, store_id, valid_from, valid_to, event_date,
            max(placement) filter (channel = 'display') as display_placement,
            max(placement) filter (channel = 'mailer') as mailer_placement
        from exposures where channel in ('display', 'mailer') group by all""",
    "fct_campaign_mailings": """
        select distinct campaign_id, customer_id, placement as campaign_type, valid_from, valid_to, event_date
        from exposures where channel = 'campaign'""",
    "fct_coupons": """
        select distinct campaign_id, product_id, valid_from, valid_to, event_date
        from exposures where channel = 'coupon'""",
    "fct_purchases": """
        with bought as (
            select order_id, customer_id, product_id, store_id, sum(quantity) as quantity, sum(amount) as amount,
                sum(discount) as discount, event_date
            from purchases group by all
        )
        select bought.* exclude event_date, (display_placement is not null)::int as is_on_display,
            (mailer_placement is not null)::int as is_in_mailer, bought.event_date
        from bought left join fct_store_promotions as shown on shown.product_id = bought.product_id
            and shown.store_id = bought.store_id and bought.event_date between valid_from and valid_to
        order by all""",
}  # fmt: skip


def register_marts(con: duckdb.DuckDBPyConnection, world: Mapping[str, pd.DataFrame]) -> None:
    """Build the six marts of `recommender.aggregates.Snapshot` in `con` from the feeds, replacing older ones."""
    for name in FEEDS:
        con.register(name, delivered(name, world[name]))
    for mart, query in _MARTS.items():
        con.execute(f"create or replace table {mart} as {query}")
    for name in FEEDS:
        con.unregister(name)
