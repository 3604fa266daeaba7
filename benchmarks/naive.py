"""The naive way: whole tables in pandas, pandera as it comes, a groupby per cut-off. The peer that scale figures stand beside.

It is what a notebook does, written without malice: vectorised, no row loops, columns chosen on reading. It makes the same outputs
(valid rows, marts, pair, customer and product aggregates as of each cut-off) without days, versions, quarantine by rule, restarts,
candidates, nearest neighbours or packing, so it does less. `python -m benchmarks.naive`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measured import Meter

_SHOWN = ["product_id", "store_id", "valid_from", "valid_to", "event_date"]


def _weeks(week: pd.Series) -> tuple[pd.Series, pd.Series]:
    """First and last day of the sample's weeks: week 1 is Sunday 2017-01-01 alone."""
    monday = pd.Timestamp("2017-01-02") + pd.to_timedelta((week - 2) * 7, unit="D")
    start = monday.where(week > 1, pd.Timestamp("2017-01-01"))
    end = (monday + pd.Timedelta(days=6)).where(week > 1, pd.Timestamp("2017-01-01"))
    return start, end


def land(folder: Path, out: Path, last: date) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sample's tables with the contract's columns, written as one file each."""
    sold = pd.read_parquet(folder / "transactions.parquet")
    when = pd.to_datetime(sold["transaction_timestamp"]).dt.tz_localize(None).dt.tz_localize("UTC")
    basket, product = sold["basket_id"].astype(str), sold["product_id"].astype(str)
    purchases = pd.DataFrame(
        {
            "event_id": basket + "-" + product,
            "order_id": basket,
            "customer_id": sold["household_id"].astype(str),
            "product_id": product,
            "store_id": sold["store_id"].astype(str),
            "quantity": sold["quantity"].astype(float),
            "amount": sold["sales_value"],
            "discount": sold["retail_disc"] + sold["coupon_disc"] + sold["coupon_match_disc"],
            "event_ts": when.astype("datetime64[us, UTC]"),
            "event_date": when.dt.tz_convert("America/New_York").dt.tz_localize(None).dt.normalize(),
        }
    )
    purchases = purchases[purchases["event_date"] <= pd.Timestamp(last)]
    plans = pd.read_parquet(folder / "promotions.parquet")
    start, end = _weeks(plans["week"])
    known = (start - pd.Timedelta(days=1)).clip(lower=pd.Timestamp("2017-01-01"))
    parts = []
    for channel in ("display", "mailer"):
        shown = (plans[f"{channel}_location"] != "0") & (known <= pd.Timestamp(last))
        part = plans[shown]
        ids = part["week"].astype(str) + "-" + part["store_id"].astype(str) + "-" + part["product_id"].astype(str)
        parts.append(
            pd.DataFrame(
                {
                    "event_id": f"{channel}-" + ids,
                    "product_id": part["product_id"].astype(str),
                    "channel": channel,
                    "placement": part[f"{channel}_location"],
                    "customer_id": None,
                    "store_id": part["store_id"].astype(str),
                    "campaign_id": None,
                    "valid_from": start[shown],
                    "valid_to": end[shown],
                    "event_date": known[shown],
                }
            )
        )
    exposures = pd.concat(parts, ignore_index=True)
    purchases.to_parquet(out / "purchases.parquet")
    exposures.to_parquet(out / "exposures.parquet")
    return purchases, exposures


def validated(feed: str, rows: pd.DataFrame, out: Path) -> pd.DataFrame:
    """`schema.validate(lazy=True)`; rows that it names are dropped and written aside.

    What goes on is the frame with Python strings: a groupby over Arrow strings did not end in two CPU minutes on 4 M rows.
    """
    import pandera.errors

    from pipeline_assets.schemas.feeds import FEEDS

    schema = FEEDS[feed].schema
    # pandera names every row of a repeated key, the first as well: repeats go before it looks
    rows = rows.drop_duplicates(FEEDS[feed].key).reset_index(drop=True)
    try:
        schema.validate(rows.astype({name: column.dtype.type for name, column in schema.columns.items()}), lazy=True)
        bad, valid = rows.iloc[:0], rows
    except pandera.errors.SchemaErrors as errors:
        named = pd.to_numeric(errors.failure_cases["index"], errors="coerce").dropna().astype(int).unique()
        bad, valid = rows.loc[named], rows.drop(index=named)
    bad.to_parquet(out / f"{feed}_bad.parquet")
    valid.to_parquet(out / f"{feed}_valid.parquet")
    return valid


def marts(purchases: pd.DataFrame, exposures: pd.DataFrame, out: Path) -> pd.DataFrame:
    """One row per product, store and promotion; one per product in an order, with what was promoted that day."""
    shown = exposures[exposures["channel"].isin(["display", "mailer"])]
    # max of strings in a groupby is a Python loop in pandas (minutes); sorting and keeping the last is the same, vectorised
    sides = [
        shown[shown["channel"] == channel]
        .sort_values("placement")
        .drop_duplicates(_SHOWN, keep="last")[[*_SHOWN, "placement"]]
        .rename(columns={"placement": f"{channel}_placement"})
        for channel in ("display", "mailer")
    ]
    promotions = sides[0].merge(sides[1], on=_SHOWN, how="outer")
    promotions.to_parquet(out / "fct_store_promotions.parquet")
    orders = purchases.groupby(["order_id", "product_id", "event_date"], as_index=False).agg(
        customer_id=("customer_id", "first"),
        store_id=("store_id", "first"),
        quantity=("quantity", "sum"),
        amount=("amount", "sum"),
        discount=("discount", "sum"),
    )
    # the plan's week of each purchase makes the range join an equality join, as in the sample's own documentation
    day = orders["event_date"]
    orders["valid_from"] = (day - pd.to_timedelta(day.dt.weekday, unit="D")).where(
        day > pd.Timestamp("2017-01-01"), pd.Timestamp("2017-01-01")
    )
    joined = orders.merge(
        promotions.drop(columns=["valid_to", "event_date"]), on=["product_id", "store_id", "valid_from"], how="left"
    )
    joined["is_on_display"] = joined.pop("display_placement").notna().astype(int)
    joined["is_in_mailer"] = joined.pop("mailer_placement").notna().astype(int)
    joined.to_parquet(out / "fct_purchases.parquet")
    return joined


def features(lines: pd.DataFrame, products: pd.DataFrame, as_of: date, out: Path) -> dict[str, float]:
    """Pair, affinity, customer and product aggregates of what is known at the end of `as_of`; returns sums to compare."""
    known = lines[lines["event_date"] <= pd.Timestamp(as_of)]
    known = known.merge(products, on="product_id")  # sellable products only
    age = (pd.Timestamp(as_of) - known["event_date"]).dt.days + 1
    known = known.assign(
        age=age,
        fast=np.exp(-age * np.log(2) / 21),
        slow=np.exp(-age * np.log(2) / 90),
        in_28=(age <= 28).astype(int),
        in_91=(age <= 91).astype(int),
        in_7=(age <= 7).astype(int),
        promoted=known[["is_on_display", "is_in_mailer"]].max(axis=1),
        amount_28=known["amount"].where(age <= 28),
    )
    pair = known.groupby(["customer_id", "product_id"]).agg(
        n_orders=("age", "size"),
        n_orders_28d=("in_28", "sum"),
        n_orders_91d=("in_91", "sum"),
        decayed_fast=("fast", "sum"),
        decayed_slow=("slow", "sum"),
        days_since_last=("age", "min"),
        days_since_first=("age", "max"),
        quantity_mean=("quantity", "mean"),
        amount_mean=("amount", "mean"),
        promoted_share=("promoted", "mean"),
        discount=("discount", "sum"),
        amount=("amount", "sum"),
    )
    affinity = known.groupby(["customer_id", "type"]).agg(
        decayed=("slow", "sum"), days=("age", "nunique"), last=("age", "min"), first=("age", "max")
    )
    category = known.groupby(["customer_id", "category"]).agg(decayed=("slow", "sum"), last=("age", "min"))
    shopper = known.groupby("customer_id").agg(
        n_orders=("order_id", "nunique"),
        last=("age", "min"),
        first=("age", "max"),
        days=("age", "nunique"),
        lines=("age", "size"),
        n_products=("product_id", "nunique"),
        amount=("amount", "sum"),
        discount=("discount", "sum"),
        promoted=("promoted", "mean"),
        amount_28d=("amount_28", "sum"),
    )
    item = known.groupby("product_id").agg(
        orders_7d=("in_7", "sum"),
        orders_28d=("in_28", "sum"),
        orders_91d=("in_91", "sum"),
        customers=("customer_id", "nunique"),
        last=("age", "min"),
        first=("age", "max"),
        amount=("amount", "sum"),
        quantity=("quantity", "sum"),
        promoted=("promoted", "mean"),
    )
    for name, table in (("pair", pair), ("affinity", affinity), ("category", category), ("shopper", shopper), ("item", item)):  # fmt: skip
        table.reset_index().to_parquet(out / f"{name}-{as_of}.parquet")
    return {
        "pairs": len(pair),
        "n_orders": int(pair["n_orders"].sum()),
        "decayed_slow": float(pair["decayed_slow"].sum()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the naive pipeline in this process, part by part."""
    from pipeline_assets.sources.sample import _data_folder

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--last", type=date.fromisoformat, required=True)
    parser.add_argument("--days", type=date.fromisoformat, nargs="*", default=[], help="cut-offs")
    options = parser.parse_args(arguments)
    meter = Meter(Path(os.environ["BENCH_METER"]) if "BENCH_METER" in os.environ else None)
    options.out.mkdir(parents=True, exist_ok=True)
    with meter.part("ingest") as noted:
        purchases, exposures = land(_data_folder(), options.out, options.last)
        noted["rows"] = len(purchases) + len(exposures)
    with meter.part("validate purchases") as noted:
        noted["rows"] = len(purchases)
        purchases = validated("purchases", purchases, options.out)
    with meter.part("validate exposures") as noted:
        noted["rows"] = len(exposures)
        exposures = validated("exposures", exposures, options.out)
    meter.facts |= {"valid.purchases": len(purchases), "valid.exposures": len(exposures)}
    with meter.part("marts") as noted:
        lines = marts(purchases, exposures, options.out)
        noted["rows"] = len(lines)
    meter.facts["rows.fct_purchases"] = len(lines)
    meter.facts["promoted"] = [int(lines["is_on_display"].sum()), int(lines["is_in_mailer"].sum())]
    del purchases, exposures
    products = sellable(_data_folder())
    for day in options.days:
        with meter.part(f"as of {day}") as noted:
            found = features(lines, products, day, options.out)
            noted["rows"] = int(found["pairs"])
        meter.facts[f"pairs.{day}"] = found
    meter.write()
    return 0


def sellable(folder: Path) -> pd.DataFrame:
    """product_id, category and type of what may be recommended, by the rule of sources/sample.py."""
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.sources.sample import FIRST_DAY, SampleSource

    rows = SampleSource(FIRST_DAY, 1.0).read(FEEDS["products"], [FIRST_DAY]).to_pandas()
    rows = rows.fillna({"category": "unknown", "type": "unknown"})
    return rows.loc[rows["is_sellable"], ["product_id", "category", "type"]]


if __name__ == "__main__":
    sys.exit(main())
