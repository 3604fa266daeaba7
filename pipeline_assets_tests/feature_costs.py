"""What each group of features costs: bytes that are kept for it, and the columns of the feeds that it hangs on: `python -m
pipeline_assets_tests.feature_costs [--write]`.

Bytes are counted in what the pipeline packs for the generated shop. Columns are found by changing each on the tiny world and looking which
features move: more certain than reading SQL. CPU seconds are of a machine, and stand in benchmarks/results (stage `features`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from pipeline_assets.recommender.ablation import feature_groups
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
from pipeline_assets.recommender.packing import PACKED, unpack
from pipeline_assets_tests import scenario

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/feature-costs.md"
CANDIDATES = 113  # a customer, mean of the sample as of 2017-11-12
# A customer's row is read with every answer: 20.8 kB now, of which timing has 8.1. Half as much again is the point to think again.
MOST_CUSTOMER_BYTES, MOST_GROUP_BYTES = 32_000, 12_000

Feeds = Mapping[str, pd.DataFrame]


def _set(feed: str, **values: object) -> Callable[[Feeds], Feeds]:
    """A change of columns of a feed: values, or functions of its rows."""
    return lambda world: {
        **world,
        feed: world[feed].assign(**{name: v(world[feed]) if callable(v) else v for name, v in values.items()}),
    }


def _without(channel: tuple[str, ...]) -> Callable[[Feeds], Feeds]:
    return lambda world: {**world, "exposures": world["exposures"][~world["exposures"]["channel"].isin(channel)]}


# What features may hang on besides who bought what on which day -> a world where it is another.
CHANGES: Mapping[str, Callable[[Feeds], Feeds]] = {
    "purchases.order_id": _set("purchases", order_id=lambda rows: rows["event_id"]),
    "purchases.store_id": _set("purchases", store_id="s2"),
    "purchases.quantity": _set("purchases", quantity=lambda rows: rows["quantity"] + np.arange(len(rows))),
    "purchases.amount": _set("purchases", amount=lambda rows: rows["amount"] + np.arange(len(rows))),
    "purchases.discount": _set("purchases", discount=lambda rows: rows["discount"] + np.arange(len(rows))),
    "exposures: displays": _without(("display",)),
    "exposures: mailers": _without(("mailer",)),
    "exposures: places in a mailer": _set("exposures", placement=lambda rows: rows["event_id"]),
    "exposures: campaigns, coupons": _without(("campaign", "coupon")),
    "products.category": _set("products", category="X"),
    "products.type": _set("products", type="X"),
}


def computed(world: Feeds) -> dict[str, dict[tuple[str, ...], float]]:
    """Feature -> its values by customer, product or both, of the tiny world."""
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, world)
        snapshot = Snapshot(con, scenario.AS_OF)
        customers, products, packed = (
            table(snapshot).to_pandas() for table in (customer_features, product_features, customer_product_features)
        )
    found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in MODEL_FEATURES}
    for key, frame, names in (
        ("customer_id", customers, CUSTOMER_FEATURES),
        ("product_id", products, PRODUCT_FEATURES),
    ):
        for name in names:
            found[name] = dict(zip([(row,) for row in frame[key]], frame[name], strict=True))
    for customer, ids, blob in packed[["customer_id", "candidate_ids", "pair_features"]].itertuples(index=False):
        matrix = unpack(blob, len(ids), len(PAIR_FEATURES))
        for column, name in enumerate(PAIR_FEATURES):
            found[name] |= {(customer, product): value for product, value in zip(ids, matrix[:, column], strict=True)}
    return found


def moved(change: Callable[[Feeds], Feeds], as_is: Mapping[str, Mapping[tuple[str, ...], float]]) -> set[str]:
    """The features of which a value is another in the changed world, of what is in both."""
    changed = computed(change(scenario.feeds()))
    return {
        name
        for name, values in as_is.items()
        if any(
            not np.array_equal(value, changed[name][key], equal_nan=True)
            for key, value in values.items()
            if key in changed[name]
        )
    }


def customer_bytes(names: tuple[str, ...]) -> dict[str, int]:
    """Group -> bytes of a customer's row of the online store: each pair feature for each candidate, each customer feature once."""
    found = {}
    for group, members in feature_groups(names).items():
        pairs = sum(name.startswith("pair_") for name in members)
        own = sum(name.startswith("customer_") for name in members)
        found[group] = (pairs * CANDIDATES + own) * PACKED.itemsize
    return found


def too_costly(names: tuple[str, ...]) -> list[str]:
    """What is above the limits, a sentence each."""
    costs = customer_bytes(names)
    found = [
        f"{group}: {size:,} bytes a customer, {MOST_GROUP_BYTES:,} are allowed"
        for group, size in costs.items()
        if size > MOST_GROUP_BYTES
    ]
    if (total := sum(costs.values())) > MOST_CUSTOMER_BYTES:
        found.append(f"together: {total:,} bytes a customer, {MOST_CUSTOMER_BYTES:,} are allowed")
    return found


def page() -> str:
    """docs/feature-costs.md."""
    as_is = computed(scenario.feeds())
    by_change = {what: moved(change, as_is) for what, change in CHANGES.items()}
    costs = customer_bytes(MODEL_FEATURES)
    lines = [
        "# What features cost",
        "",
        "By group (`recommender/ablation.py`). *Bytes a customer* are read from the online store with every answer: four for each pair feature and",
        f"each of {CANDIDATES} candidates (the sample's mean). *Bytes a product* are in each bundle, read once. *Hangs on* is what features need besides",
        "who bought which product on which day, found by changing it on a tiny world and looking which features move. What a group is worth is in",
        "[benchmarks/results/evaluation.md](../benchmarks/results/evaluation.md); all features of a day together cost 2.7 CPU s on the sample",
        "([ADR 19](adr/0019-what-the-ranker-knows.md)). Written by `.venv/bin/python -m pipeline_assets_tests.feature_costs --write`; a test compares,",
        f"and refuses a group above {MOST_GROUP_BYTES:,} bytes a customer or a row above {MOST_CUSTOMER_BYTES:,}.",
        "",
        "| group | features | bytes a customer | bytes a product | hangs on (features of the group) |",
        "|---|---:|---:|---:|---|",
    ]
    for group, members in feature_groups().items():
        products = sum(name.startswith("product_") for name in members) * PACKED.itemsize
        needs = [(what, len(names & set(members))) for what, names in by_change.items() if names & set(members)]
        told = ", ".join(f"{what} ({n})" for what, n in needs) or "nothing else"
        lines.append(f"| {group} | {len(members)} | {costs[group]:,} | {products:,} | {told} |")
    lines.append(
        f"| **all** | {len(MODEL_FEATURES)} | {sum(costs.values()):,} | {len(PRODUCT_FEATURES) * PACKED.itemsize:,} | |"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page; with --write write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    text = page()
    print(text)
    if parser.parse_args().write:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
