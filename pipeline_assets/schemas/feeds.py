"""The contract: what a user maps their own tables to. One model per feed; checks, docs and UI columns derive from it.

Each column check is a *row rule*: `validation.py` evaluates it on every row and quarantines the rows that break it under
the name of the check. Types are the contract's, after mapping: ids are strings, timestamps UTC with microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import pandera.pandas as pa
import pyarrow
from pandera.engines import pandas_engine

_TEXT = pd.StringDtype("pyarrow")
_DAY = pandas_engine.DateTime(unit="us")  # type: ignore[call-arg]  # a dataclass field that mypy does not see
_TS = pd.DatetimeTZDtype("us", "UTC")

# Control characters, and what a decoder leaves of bytes that it cannot read: signs of a broken encoding or a broken export.
UNREADABLE = "[\\x00-\\x1f\\x7f-\\x9f\ufffd]"


def is_readable(values: pd.Series) -> pd.Series:
    """Text without a character of `UNREADABLE`."""
    return ~values.str.contains(UNREADABLE, regex=True)


_ID = [pa.Check.str_length(1, 128, name="id_length"), pa.Check(is_readable, name="id_readable")]


def _id(description: str, nullable: bool = False, unique: bool = False) -> pa.Column:
    return pa.Column(_TEXT, checks=_ID, nullable=nullable, unique=unique, description=description)


def _text(description: str) -> pa.Column:
    checks = [pa.Check.str_length(max_value=1024, name="text_length"), pa.Check(is_readable, name="text_readable")]
    return pa.Column(_TEXT, checks=checks, nullable=True, description=description)


def _number(description: str, check: pa.Check) -> pa.Column:
    return pa.Column("float64", checks=[check], nullable=False, description=description)


_EVENT_DATE = pa.Column(_DAY, nullable=False, description="business day on which the row arrived or happened")

PURCHASES = pa.DataFrameSchema(
    {
        "event_id": _id("one line of one order", unique=True),
        "order_id": _id("the order (basket) it belongs to"),
        "customer_id": _id("who bought"),
        "product_id": _id("what was bought"),
        "store_id": _id("where; absent for a web shop", nullable=True),
        "quantity": _number(
            "units sold; zero and below are returns or errors", pa.Check.gt(0, name="quantity_positive")
        ),
        "amount": _number("paid for the line, in the shop's currency", pa.Check.ge(0, name="amount_not_negative")),
        "discount": _number("taken off the line, same currency", pa.Check.ge(0, name="discount_not_negative")),
        "event_ts": pa.Column(_TS, nullable=False, description="when, UTC"),
        "event_date": _EVENT_DATE,
    },
    name="purchases",
    description="One row: one line of one order.",
)

EXPOSURES = pa.DataFrameSchema(
    {
        "event_id": _id("one product shown in one place, or one mailing to one customer", unique=True),
        "product_id": _id("what was shown; absent for a whole campaign", nullable=True),
        "channel": pa.Column(
            _TEXT,
            checks=[
                pa.Check.isin(["display", "mailer", "coupon", "campaign", "web", "impression"], name="channel_known")
            ],
            nullable=False,
            description="where it was shown",
        ),
        "placement": _text("position within the channel, as the shop codes it"),
        "customer_id": _id("to whom, when it is known", nullable=True),
        "store_id": _id("in which store, when it is one", nullable=True),
        "campaign_id": _id("links a campaign's mailings to its coupons", nullable=True),
        "valid_from": pa.Column(_DAY, nullable=False, description="first business day it is shown"),
        "valid_to": pa.Column(_DAY, nullable=False, description="last business day it is shown"),
        "event_date": _EVENT_DATE,
    },
    checks=[
        pa.Check(
            lambda df: df["valid_from"] <= df["valid_to"],
            name="valid_range",
            statistics={"columns": ["valid_from", "valid_to"]},  # the columns that it reads: only these are converted
        )
    ],
    name="exposures",
    description="One row: one product shown to shoppers of a store or to a customer, known from `event_date` on.",
)

PRODUCTS = pa.DataFrameSchema(
    {
        "product_id": _id("the product", unique=True),
        "department": _text("top of the hierarchy"),
        "category": _text("middle of the hierarchy"),
        "type": _text("bottom of the hierarchy"),
        "brand": _text("brand, or national / private label"),
        "is_sellable": pa.Column("bool", nullable=False, description="may it be recommended and count as a target"),
        "event_date": _EVENT_DATE,
    },
    name="products",
    description="One row: one product that is new or has changed, as known that day.",
)

CUSTOMERS = pa.DataFrameSchema(
    {
        "customer_id": _id("the customer", unique=True),
        "age_band": _text("declared age band"),
        "income_band": _text("declared income band"),
        "household_size": _text("declared number of people"),
        "kids_count": _text("declared number of children"),
        "event_date": _EVENT_DATE,
    },
    name="customers",
    description="One row: one customer who is new or has changed, as known that day.",
)


@dataclass(frozen=True)
class Feed:
    """One daily input.

    Args:
        schema: the declaration of its columns and row rules; `schema.name` is the feed's name.
        key: the column that identifies a row within a day; exact repeats of it have no effect.
        may_be_empty: change feeds have quiet days; a day without purchases is a broken upstream and is blocked.
        timestamp: the column with the moment, which has to lie within the business day.
        actor: the column that says who did it; one actor with thousands of rows a day is a machine.
        references: column -> the feed whose key it has to be known in, up to that day.
        measures: positive numbers whose typical size is compared with the days before (batch rule `shift`).
        has_volume: the number of rows is compared with the same weekdays before (batch rule `volume`). Change feeds and
            exposures come in bursts: 2017's exposures have 0 rows on most days and 450,000 on Sundays.
    """

    schema: pa.DataFrameSchema
    key: str
    may_be_empty: bool
    timestamp: str | None = None
    actor: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    has_volume: bool = False

    @property
    def name(self) -> str:
        return str(self.schema.name)

    @property
    def is_compared(self) -> bool:
        """Whether any batch rule compares a day of it with earlier days."""
        return self.has_volume or bool(self.measures)

    @property
    def columns(self) -> list[str]:
        return list(self.schema.columns)

    @property
    def arrow_schema(self) -> pyarrow.Schema:
        """Declared columns as Arrow types; the day is a date because it is the partition column."""
        fields = []
        for name, column in self.schema.columns.items():
            dtype = column.dtype.type
            if isinstance(dtype, pd.DatetimeTZDtype):
                arrow = pyarrow.timestamp("us", "UTC")
            elif str(dtype).startswith("datetime64"):  # without a zone: a business day
                arrow = pyarrow.date32()
            elif isinstance(dtype, pd.StringDtype):
                arrow = pyarrow.string()
            else:
                arrow = pyarrow.from_numpy_dtype(dtype)
            fields.append(pyarrow.field(name, arrow))
        return pyarrow.schema(fields)


FEEDS: dict[str, Feed] = {
    feed.name: feed
    for feed in (
        Feed(
            PURCHASES,
            key="event_id",
            may_be_empty=False,
            timestamp="event_ts",
            actor="customer_id",
            references={"product_id": "products"},
            measures=("amount", "quantity"),
            has_volume=True,
        ),
        Feed(EXPOSURES, key="event_id", may_be_empty=True, actor="customer_id"),
        Feed(PRODUCTS, key="product_id", may_be_empty=True),
        Feed(CUSTOMERS, key="customer_id", may_be_empty=True),
    )
}
