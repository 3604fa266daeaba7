"""A generated small shop as a folder of daily drops, the input of the `files` source.

80 customers with stable habits, 150 products in 6 departments, 3 stores, 120 business days from Sunday 2017-01-01, about
250 purchase lines a day. It is large enough for a ranker to learn something that no counter knows, small enough to run
through the whole pipeline in a minute:

    habits      a customer shops on two fixed weekdays; each of 24 favourites has its own cadence of 1, 2 or 4 weeks, so
                what was bought a week ago says whether it is due (pair_overdue), which a popularity count does not know
    promotions  each store displays and mails 12 + 12 products a week; shown favourites are bought early, and shown products
                of a liked department are bought by people who never had them (pair_store_display, pair_store_mailer)
    campaigns   three, each mailed to 25 customers with coupons for 10 products
    the bag     is bought by everybody and may not be recommended (`is_sellable` false)

Everything follows from `seed`. Faults are a `Fault` per day; they change the delivered file, not the shop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from pipeline_assets.schemas.feeds import FEEDS

FIRST_DAY = date(2017, 1, 1)
N_DAYS, N_CUSTOMERS, N_PRODUCTS = 120, 80, 150
STORES = ("s1", "s2", "s3")
DEPARTMENTS = ("DAIRY", "BAKERY", "PRODUCE", "DRINKS", "DRUG", "GROCERY")
BAG = "p000"
ZONE = ZoneInfo("America/New_York")
CADENCES = (7, 14, 28)  # days between two purchases of a favourite

Fault = Literal["drifted", "repriced", "missing_column", "retyped_column", "empty", "all_bad", "some_bad"]


def day(n: int) -> date:
    """day(0) is the first business day, 2017-01-01."""
    return FIRST_DAY + timedelta(days=n)


@dataclass(frozen=True)
class World:
    """One shop; the same seed gives the same shop."""

    seed: int = 11

    @cached_property
    def products(self) -> pd.DataFrame:
        """The catalogue, known from the first day: contract columns and `price`."""
        random = np.random.default_rng([self.seed, 1])
        rows = []
        for n in range(N_PRODUCTS):
            department = DEPARTMENTS[n % len(DEPARTMENTS)]
            kind = n // len(DEPARTMENTS) % 6
            brand = "Private" if random.random() < 0.4 else "National"
            price = round(float(np.exp(random.normal(1.0, 0.5)))) + 0.99
            rows.append(
                (
                    f"p{n:03}",
                    department,
                    f"{department} {kind // 3}",
                    f"{department} {kind}",
                    brand,
                    n != 0,
                    FIRST_DAY,
                    price,
                )
            )
        return pd.DataFrame(rows, columns=[*FEEDS["products"].columns, "price"])

    @cached_property
    def customers(self) -> pd.DataFrame:
        """Everybody, known from the first day; half of them say their age."""
        rows = [(f"c{n:02}", "35-44" if n % 2 else None, None, None, None, FIRST_DAY) for n in range(N_CUSTOMERS)]
        return pd.DataFrame(rows, columns=FEEDS["customers"].columns)

    @cached_property
    def exposures(self) -> pd.DataFrame:
        """Weekly plans (known on the day before Monday), campaigns and their coupons (known a week before)."""
        random = np.random.default_rng([self.seed, 2])
        rows: list[tuple[object, ...]] = []
        for monday in range(1, N_DAYS + 7, 7):
            for store in STORES:
                shown = random.permutation(np.arange(1, N_PRODUCTS))[:24]
                for place, product in enumerate(shown):
                    channel = "display" if place < 12 else "mailer"
                    key = f"{channel}-{monday}-{store}-p{product:03}"
                    rows.append(
                        (
                            key,
                            f"p{product:03}",
                            channel,
                            "A",
                            None,
                            store,
                            None,
                            day(monday),
                            day(monday + 6),
                            day(monday - 1),
                        )
                    )
        for number, start in enumerate((29, 57, 85)):
            valid, known, campaign = (day(start), day(start + 20)), day(start - 7), f"k{number}"
            for customer in random.permutation(N_CUSTOMERS)[:25]:
                rows.append(
                    (
                        f"{campaign}-c{customer:02}",
                        None,
                        "campaign",
                        "TypeA",
                        f"c{customer:02}",
                        None,
                        campaign,
                        *valid,
                        known,
                    )
                )
            for product in 1 + random.permutation(N_PRODUCTS - 1)[:10]:
                rows.append(
                    (f"{campaign}-p{product:03}", f"p{product:03}", "coupon", "1", None, None, campaign, *valid, known)
                )
        return pd.DataFrame(rows, columns=FEEDS["exposures"].columns)

    @cached_property
    def purchases(self) -> pd.DataFrame:
        """Lines of orders of all days, as the contract has them."""
        random = np.random.default_rng([self.seed, 3])
        price = dict(zip(self.products["product_id"], self.products["price"], strict=True))
        department = dict(zip(self.products["product_id"], self.products["department"], strict=True))
        plan = self._plan()
        rows: list[tuple[object, ...]] = []
        for number, customer in enumerate(self.customers["customer_id"]):
            store = STORES[number % len(STORES)]
            weekdays = set(random.permutation(7)[:2].tolist())
            liked = set(random.permutation(DEPARTMENTS)[:3].tolist())
            ids = [p for p in self.products["product_id"][1:] if department[p] in liked]
            favourites = random.permutation(ids)[:24].tolist()
            cadence = {p: int(random.choice(CADENCES, p=(0.35, 0.4, 0.25))) for p in favourites}
            last = {p: -int(random.integers(1, 28)) for p in favourites}
            hour = int(random.integers(9, 20))
            for n in range(N_DAYS):
                if day(n).weekday() not in weekdays or random.random() < 0.05:
                    continue
                shown = plan[store, n]
                due = [p for p in favourites if n - last[p] >= cadence[p] - 1 and random.random() < 0.85]
                early = [p for p in favourites if p in shown and p not in due and random.random() < 0.5]
                tempted = [
                    p for p in sorted(shown) if department[p] in liked and p not in cadence and random.random() < 0.3
                ]
                chance = [p for p in random.choice(ids, 1).tolist() if random.random() < 0.3]
                bag = [BAG] if random.random() < 0.5 else []
                when = datetime(*day(n).timetuple()[:3], hour, int(random.integers(60)), tzinfo=ZONE)
                for line, product in enumerate(dict.fromkeys([*due, *early, *tempted, *chance, *bag])):
                    if product in last:
                        last[product] = n
                    quantity = float(1 + (random.random() < 0.15))
                    discount = round(0.2 * price[product] * quantity, 2) if product in shown else 0.0
                    amount = round(price[product] * quantity - discount, 2)
                    order = f"o-{customer}-{n}"
                    rows.append(
                        (f"{order}-{line}", order, customer, product, store, quantity, amount, discount, when, day(n))
                    )
        frame = pd.DataFrame(rows, columns=FEEDS["purchases"].columns)
        return frame.assign(event_ts=pd.to_datetime(frame["event_ts"], utc=True))

    def _plan(self) -> Mapping[tuple[str, int], set[str]]:
        """Products on display or in the mailer, by store and day number."""
        plan: dict[tuple[str, int], set[str]] = {(store, n): set() for store in STORES for n in range(N_DAYS)}
        shown = self.exposures[self.exposures["channel"].isin(["display", "mailer"])]
        for row in shown.itertuples():
            first = (row.valid_from - FIRST_DAY).days
            for n in range(first, min(first + 7, N_DAYS)):
                plan[row.store_id, n].add(row.product_id)
        return plan

    def of(self, feed: str, when: date) -> pd.DataFrame:
        """Rows of one feed and business day."""
        frame: pd.DataFrame = getattr(self, feed)
        return frame.loc[frame["event_date"] == when, FEEDS[feed].columns].reset_index(drop=True)

    def deliver(self, root: Path, first: date, last: date, faults: Mapping[date, Fault] | None = None) -> None:
        """Write the drops of the days from `first` to `last`, as a shop would: a feed without news has no file that day.

        Args:
            root: folder of the `files` source.
            faults: what is wrong with the purchases of a day.
        """
        for n in range((last - first).days + 1):
            when = first + timedelta(days=n)
            for feed in FEEDS:
                rows = self.of(feed, when)
                if feed == "purchases" and faults and when in faults:
                    rows = damaged(rows, faults[when], self.products.set_index("product_id")["price"])
                if len(rows) or feed == "purchases":
                    (root / feed).mkdir(parents=True, exist_ok=True)
                    rows.to_parquet(root / feed / f"{when}.parquet", index=False, coerce_timestamps="us")


def damaged(purchases: pd.DataFrame, fault: Fault, prices: pd.Series) -> pd.DataFrame:
    """The purchases of a day with a fault.

    drifted: four lines of five are now of one of 13 expensive drinks, at their own price: a season. repriced: everything costs x1.8: a
    broken source. missing_column: without `amount`.
    retyped_column: `quantity` in words. empty: no row. all_bad: every quantity 0. some_bad: every 20th quantity -1.
    """
    rows = purchases.copy()
    if fault == "drifted":
        drinks = (
            prices[prices.index.str[1:].astype(int) % 6 == 3].nlargest(13).index
        )  # product n is of department n % 6
        chosen = np.arange(len(rows)) % 5 > 0
        numbers = rows.loc[chosen, "product_id"].str[1:].astype(int)
        rows.loc[chosen, "product_id"] = [drinks[number % len(drinks)] for number in numbers]
        rebate = rows["discount"] / (rows["amount"] + rows["discount"])
        gross = rows.loc[chosen, "product_id"].map(prices) * rows.loc[chosen, "quantity"]
        rows.loc[chosen, "discount"] = (gross * rebate[chosen]).round(2)
        rows.loc[chosen, "amount"] = (gross - rows.loc[chosen, "discount"]).round(2)
        rows = rows.drop_duplicates(["order_id", "product_id"])
    elif fault == "repriced":
        rows["amount"] = (rows["amount"] * 1.8).round(2)
    elif fault == "missing_column":
        rows = rows.drop(columns="amount")
    elif fault == "retyped_column":
        rows["quantity"] = rows["quantity"].map({1.0: "one", 2.0: "two"})
    elif fault == "empty":
        rows = rows.iloc[:0]
    elif fault == "all_bad":
        rows["quantity"] = 0.0
    else:
        rows.loc[::20, "quantity"] = -1.0
    return rows.reset_index(drop=True)
