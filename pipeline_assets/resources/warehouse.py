"""The marts: built by dbt from a snapshot of the lake, published back to it, in groups of days that fit into memory.

A build knows nothing of the builds before it: it reads validated rows of its own days, and exposures of the days before that may
still be valid. So days can be built in any order, again, or after a crash, with the same result (docs/adr/0017-marts-by-groups-of-days.md).
dbt runs one build at a time, in pool `warehouse` of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow

from pipeline_assets.recommender.errors import BuildFailed
from pipeline_assets.resources.content import DayContent
from pipeline_assets.resources.dbt_runner import DbtProjectRunner, NodeResult, failed
from pipeline_assets.resources.engines import Engine, Snapshot, engine_of
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.sources.landing import groups, groups_of_rows


@dataclass(frozen=True)
class Mart:
    """A dbt model that is published.

    Args:
        grain: columns that no two rows of a day share; they order the rows of a day.
        feeds: what it is computed from, for the versions that a commit names.
    """

    grain: tuple[str, ...]
    feeds: tuple[str, ...]


# Published in this order: a day that is in fct_purchases is in all.
MARTS: dict[str, Mart] = {
    "fct_store_promotions": Mart(("product_id", "store_id", "valid_from", "valid_to"), ("exposures",)),
    "fct_campaign_mailings": Mart(
        ("campaign_id", "customer_id", "campaign_type", "valid_from", "valid_to"), ("exposures",)
    ),
    "fct_coupons": Mart(("campaign_id", "product_id", "valid_from", "valid_to"), ("exposures",)),
    "dim_products": Mart(("product_id",), ("products",)),
    "dim_customers": Mart(("customer_id",), ("customers",)),
    "fct_purchases": Mart(("order_id", "customer_id", "product_id"), ("purchases", "exposures")),
}
PROMOTION_DAYS = (
    21  # a promotion counts for so long after it became known; also in dbt_project.yml and for the features
)
# Rows of a build: 1 GB; a quarter of them takes 0.2 GB less and 17 % more CPU time, most of it dbt's own 1 s a build (benchmarks/small.py).
BUILD_ROWS = 8_000_000
PUBLISH_ROWS = 600_000  # rows on their way to the lake: 0.05 GB, several times while they are sorted and written


@dataclass
class Published:
    """What one run did to the marts: content of each day, and what dbt said of each model and test."""

    content: dict[str, dict[date, DayContent]] = field(default_factory=dict)
    results: dict[str, list[NodeResult]] = field(default_factory=dict)

    def add(self, results: Sequence[NodeResult]) -> None:
        for result in results:
            self.results.setdefault(result.unique_id, []).append(result)


class Warehouse(dg.ConfigurableResource):
    """The dbt project and its target. `customer_share`: of the customers, those that marts, and all that follows from them, are made of."""

    project: str
    scratch: str
    target: str = "duckdb"
    build_rows: int = BUILD_ROWS
    customer_share: float = 1.0

    def _runner(self) -> DbtProjectRunner:
        return DbtProjectRunner(Path(self.project), Path(self.scratch), self.target)

    def run(self, lake: Lake, days: Sequence[date], marts: Sequence[str], run_id: str, published: Published) -> None:
        """Build `marts`, and what they need, for `days`, and publish them; `published` is filled as it goes.

        Days are taken in groups of about `build_rows` rows. A group is published when all its data tests have passed; its marts
        are replaced one after the other, `fct_purchases` last.

        Raises:
            BuildFailed: naming the first model or test that failed; the groups before it are published, this one is as it was.
            ConfigurationError: the target's database cannot be used.
        """
        runner = self._runner()
        engine = engine_of(runner.credentials(), runner.project)
        selection = () if set(marts) == set(MARTS) else ("--select", *(f"+{mart}" for mart in marts))
        versions = lake.versions(f"validated/{feed}" for feed in FEEDS)
        try:
            for group in _groups(days, _rows(lake), self.build_rows):
                engine.prepare(snapshot(lake, group[0], group[-1], versions, self.customer_share))
                results = runner.build("--exclude-resource-type", "unit_test", *selection)
                published.add(results)
                if bad := failed(results):
                    raise _failure(bad, group)
                for mart in (name for name in MARTS if name in marts):
                    read = {f"validated/{feed}" for feed in MARTS[mart].feeds}
                    inputs = {table: version for table, version in versions.items() if table in read}
                    content = published.content.setdefault(mart, {})
                    for part, rows in _parts(engine, mart, group):
                        content |= lake.replace_days(f"warehouse/{mart}", rows, part, run_id, inputs=inputs)
        finally:
            engine.close()

    def unit_tests(self) -> list[NodeResult]:
        """Run dbt's unit tests of the models; they take the columns of their inputs from schema `lake`, and no row."""
        runner = self._runner()
        engine = engine_of(runner.credentials(), runner.project)
        engine.prepare(Snapshot(date.min, date.min, {feed: [] for feed in FEEDS}, {feed: [] for feed in FEEDS}))
        try:
            return runner.test("--select", "test_type:unit")
        finally:
            engine.close()


def snapshot(lake: Lake, first: date, last: date, versions: dict[str, int], share: float = 1.0) -> Snapshot:
    """Files and passed days of each feed: the window's, and for exposures also those that may still be valid in it."""
    early = {"exposures": first - timedelta(days=PROMOTION_DAYS)}
    start = {feed: early.get(feed, first) for feed in FEEDS}
    return Snapshot(
        first,
        last,
        {feed: lake.files(f"validated/{feed}", start[feed], last, versions.get(f"validated/{feed}")) for feed in FEEDS},
        {feed: lake.passed_days([feed], start[feed], last) for feed in FEEDS},
        share,
    )


def _rows(lake: Lake) -> dict[date, int]:
    """Rows of each validated day, of all feeds together."""
    total: dict[date, int] = {}
    for feed in FEEDS:
        for day, rows in lake.rows_by_day(f"validated/{feed}").items():
            total[day] = total.get(day, 0) + rows
    return total


def _groups(days: Sequence[date], rows: Mapping[date, int], at_once: int) -> Iterator[list[date]]:
    """Consecutive days, because a build has one window, of about `at_once` rows together."""
    for stretch in groups(days, len(days)):
        yield from groups_of_rows(stretch, rows, at_once)


def _parts(engine: Engine, mart: str, days: Sequence[date]) -> Iterator[tuple[list[date], pyarrow.Table]]:
    for part in groups_of_rows(days, engine.count(mart, days), PUBLISH_ROWS):
        yield part, engine.rows(mart, part, MARTS[mart].grain)


def _failure(bad: Sequence[NodeResult], days: Sequence[date]) -> BuildFailed:
    first = bad[0]
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    return BuildFailed(
        f"dbt {first.name} on {days[0]} to {days[-1]}{more}",
        found=" ".join(first.message.split()),
        wanted="a built model" if not first.is_test else "no row that breaks the test",
        fix="look at the rows with the compiled SQL that dbt names, correct the feed or the model, and run the days again",
    )
