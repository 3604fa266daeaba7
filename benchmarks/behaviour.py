"""What a basket, or today's purchase, says about what is bought next: the weights of pipeline_assets/serving/behaviour.py.

`python -m benchmarks.behaviour --data DIR --out benchmarks/results/behaviour.md` on a folder that `make run UNTIL=2017-11-12` has filled. Weeks are
evaluation weeks of its model, which was not trained on them: weights are chosen on the first two and measured on the last two. No window of the
holdout is read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline_assets.recommender.bundle import Bundle, load_bundle
from pipeline_assets.recommender.packing import assemble, unpack

CHOOSE, MEASURE = ("2017-10-15", "2017-10-22"), ("2017-10-29", "2017-11-05")
LEVELS = ("type", "category", "department")
STEPS = (-1.0, -0.6, -0.3, -0.15, 0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 2.0, 4.0)
K, CUSTOMERS, SEED = 10, 1_300, 7
DISCOUNT = 1 / np.log2(np.arange(2, K + 2))
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One list: scores [n], bought afterwards [n], likeness [product, type, category, department][n], how much was bought afterwards."""

    score: Array
    hit: npt.NDArray[np.bool_]
    like: npt.NDArray[np.bool_]
    n_targets: int


def likeness(
    codes: Sequence[npt.NDArray[np.intp]], rows: npt.NDArray[np.intp], of: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_]:
    """Closest likeness of rows to `of`, as [4, n]: at most one level holds for a row."""
    found = [np.isin(rows, of)]
    for code in codes:
        found.append(np.isin(code[rows], code[of]) & (code[rows] >= 0) & ~np.any(found, axis=0))
    return np.array(found)


def ndcg(cases: Sequence[Case], weights: Sequence[float], only: npt.NDArray[np.bool_] | None = None) -> Array:
    """NDCG@10 of each case with the weights added; `only` marks levels that are left out."""
    found = []
    for case in cases:
        score = case.score + np.asarray(weights) @ case.like
        if only is not None:
            score = np.where(case.like[only].any(axis=0), -np.inf, score)
        top = case.hit[np.argsort(-score, kind="stable")[:K]]
        found.append(top @ DISCOUNT[: len(top)] / DISCOUNT[: min(K, case.n_targets)].sum())
    return np.array(found)


def chosen(cases: Sequence[Case], levels: Sequence[int]) -> list[float]:
    """Weights that are best on `cases`: two rounds over the levels, one at a time."""
    weights, best = [0.0] * 4, ndcg(cases, [0.0] * 4).mean()
    for level in [*levels, *levels]:
        for step in STEPS:
            tried = [step if at == level else weight for at, weight in enumerate(weights)]
            if (value := ndcg(cases, tried).mean()) > best + 1e-9:
                weights, best = tried, value
    return weights


def difference(name: str, weights: str, before: Array, after: Array) -> str:
    """A row of the report."""
    change, base = after - before, before.mean()
    half = 1.96 * change.std(ddof=1) / len(change) ** 0.5
    return f"| {name} | {weights} | {base:.4f} | {after.mean():.4f} | {change.mean() / base:+.1%} ± {half / base:.1%} | {len(change):,} |"


class World:
    """The lake of a finished run, and its bundle."""

    def __init__(self, data: Path) -> None:
        import duckdb

        self._lake, self._con = data / "lake", duckdb.connect()
        self.bundle: Bundle = load_bundle(next(iter(sorted((data / "bundles").iterdir()))))
        self.codes = [pd.factorize(pd.Series(self.bundle.attributes[level], dtype=object))[0] for level in LEVELS]
        self._rng = np.random.default_rng(SEED)

    def _day(self, table: str, day: str) -> pd.DataFrame:
        return self._con.sql(f"select * from '{self._lake}/{table}/event_date={day}/*.parquet'").df()

    def _purchases(self, first: date, last: date) -> pd.DataFrame:
        assert last < date(2017, 11, 13), "the holdout"
        rows = self._con.sql(
            f"select customer_id, order_id, product_id, event_date from '{self._lake}/warehouse/fct_purchases/*/*.parquet' "
            f"where event_date between date '{first}' and date '{last}' order by all"
        ).df()
        rows["row"] = rows["product_id"].map(self.bundle.rows)
        return rows.dropna(subset="row").astype({"row": np.intp})

    def cases(self, day: str) -> dict[str, list[Case]]:
        """Cases of one week: `basket`, `known` (with features), `new` (as if there were none)."""
        found: dict[str, list[Case]] = {"basket": [], "known": [], "new": []}
        as_of = date.fromisoformat(day)
        window = dict(iter(self._purchases(as_of + timedelta(1), as_of + timedelta(7)).groupby("customer_id")))
        past = self._purchases(as_of - timedelta(27), as_of).drop_duplicates(["order_id", "row"])["row"].value_counts()
        popular = past.sort_index().sort_values(ascending=False, kind="stable").index.to_numpy()[:100]
        for customer, rows, score in self._scored(day, set(window)):
            orders = window[customer]
            order = orders[orders["order_id"] == self._rng.choice(orders["order_id"].unique())]["row"].unique()
            if len(order) >= 4:
                shuffled = self._rng.permutation(order)
                half = len(order) // 2
                left = ~np.isin(rows, shuffled[:half])
                found["basket"] += self._case(rows[left], score[left], shuffled[:half], shuffled[half:])
            found["known"] += self._first_day(rows, score, orders)
        for orders in window.values():
            first = orders[orders["event_date"] == orders["event_date"].min()]["row"].unique()
            rows = np.concatenate([popular, first[~np.isin(first, popular)]])
            place = np.minimum(np.arange(1, len(rows) + 1), len(popular) + 1)
            found["new"] += self._first_day(rows, -np.log(place), orders, drop_hopeless=False)
        return found

    def _scored(self, day: str, customers: set[str]):  # type: ignore[no-untyped-def]
        """Customer, rows of the candidates, and their scores."""
        bundle = self.bundle
        products = self._day("features/product", day).set_index("product_id")
        products = products.loc[products.index.isin(bundle.rows), list(bundle.features.product)]
        matrix = np.full_like(bundle.product_matrix, np.nan)
        matrix[[bundle.rows[product] for product in products.index]] = products.to_numpy(np.float32)
        customer_features = self._day("features/customer", day).set_index("customer_id")[list(bundle.features.customer)]
        packs = self._day("features/customer_product", day).sort_values("customer_id")
        packs = packs[packs["customer_id"].isin(customers)]
        for pack in packs.sample(min(CUSTOMERS, len(packs)), random_state=SEED).itertuples():
            rows = np.array([bundle.rows.get(product, -1) for product in pack.candidate_ids])
            pair = unpack(pack.pair_features, len(rows), len(bundle.features.pair))[rows >= 0]
            mine = customer_features.loc[pack.customer_id].to_numpy(np.float32)
            score = bundle.booster.predict(assemble(pair, mine, matrix[rows[rows >= 0]]), num_threads=1)
            yield pack.customer_id, rows[rows >= 0], np.asarray(score)

    def _first_day(self, rows, score, orders: pd.DataFrame, drop_hopeless: bool = True) -> list[Case]:  # type: ignore[no-untyped-def]
        """What was bought on the first day is known, the rest of the week is predicted."""
        first = orders["event_date"] == orders["event_date"].min()
        return self._case(rows, score, orders[first]["row"].unique(), orders[~first]["row"].unique(), drop_hopeless)

    def _case(self, rows, score, known, targets, drop_hopeless: bool = True) -> list[Case]:  # type: ignore[no-untyped-def]
        """One case, or none if nothing can be hit: such lists are 0 whatever the weights."""
        hit = np.isin(rows, targets)
        n = int(hit.sum()) if drop_hopeless else len(targets)
        return [Case(score, hit, likeness(self.codes, rows, known), n)] if n else []


def report(world: World) -> str:
    """The page of figures."""
    weeks = {day: world.cases(day) for day in (*CHOOSE, *MEASURE)}
    lines = []
    for kind, levels in (("basket", (1, 2, 3)), ("known", (0, 1, 2, 3)), ("new", (0, 1, 2, 3))):
        choosing = [case for day in CHOOSE for case in weeks[day][kind]]
        measuring = [case for day in MEASURE for case in weeks[day][kind]]
        before, weights = ndcg(measuring, [0.0] * 4), chosen(choosing, levels)
        lines.append(difference(f"{kind}: chosen weights", str(weights), before, ndcg(measuring, weights)))
        if kind == "new":
            lines.append(
                difference("new: the product alone", "[4.0, 0, 0, 0]", before, ndcg(measuring, [4.0, 0, 0, 0]))
            )
        if kind == "known":
            for name, out in (("the product", [0]), ("its type", [0, 1])):
                mask = np.isin(np.arange(4), out)
                lines.append(difference(f"known: {name} left out", "", before, ndcg(measuring, [0.0] * 4, mask)))
    head = f"""# What recent behaviour says

`python -m benchmarks.behaviour`: weights of product, type, category and department, chosen on the as-of days {", ".join(CHOOSE)}, NDCG@{K} on
{", ".join(MEASURE)} with 95 % intervals. *basket*: half of an order of four or more is in the basket, the other half is to be found. *known*: what a customer
bought on the first day of the week is known, the rest of the week is to be found among the candidates. *new*: the same without features, popular products
and those of the first day; targets that are neither count as missed.

| case | weights | before | after | change | lists |
|---|---|---|---|---|---|
"""
    return head + "\n".join(lines) + "\n"


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.behaviour", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    page = report(World(options.data))
    print(page)
    if options.out:
        options.out.write_text(page)


if __name__ == "__main__":
    main()
