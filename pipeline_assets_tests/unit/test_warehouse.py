"""Marts of a small lake, built by the real dbt on the real DuckDB: right, the same in any order of days, and never half."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import duckdb
import pytest
import yaml

from pipeline_assets.recommender.errors import BuildFailed
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.warehouse import MARTS, Published, Warehouse
from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets_tests.small_lake import DAYS, MONDAY, SUNDAY, judge, lines, small_lake, validated


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """One for the module: it keeps nothing from build to build, and parsing the project takes 2 CPU s."""
    scratch = tmp_path_factory.mktemp("dbt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_WAREHOUSE_PATH", str(scratch / "marts.duckdb"))
        yield Warehouse(project=str(PROJECT_ROOT / "dbt"), scratch=str(scratch))


@pytest.fixture(scope="module")
def built(warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Published]:
    """The small lake with all its marts from one run; tests that write take a `copy`."""
    lake = small_lake(tmp_path_factory.mktemp("built"))
    return lake, build(warehouse, lake, *DAYS)


def copy(lake: Lake, root: Path) -> Lake:
    """The same lake elsewhere."""
    shutil.copytree(lake.root, root / "lake")
    return Lake(root=str(root / "lake"))


def build(warehouse: Warehouse, lake: Lake, *days: date) -> Published:
    """Build and publish all marts of `days` in one run."""
    published = Published()
    warehouse.run(lake, days, list(MARTS), "run", published)
    return published


def newest_digests(lake: Lake) -> dict[str, dict[date, str]]:
    """Mart -> day -> digest of its newest commit, of days that have rows."""
    return {
        mart: {
            day: content.digest
            for commit in lake.commits(f"warehouse/{mart}")
            for day, content in commit.days.items()
            if content.rows
        }
        for mart in MARTS
    }


def shown(lake: Lake, day: date) -> dict[tuple[str, str], int]:
    """(order's letter, product) -> is_on_display, of one day."""
    rows = lake.read("warehouse/fct_purchases", day, day).to_pylist()
    return {(row["order_id"][-1], row["product_id"]): row["is_on_display"] for row in rows}


def test_marts_of_the_small_lake(built: tuple[Lake, Published]) -> None:
    """Per day three purchases of four lines; p1 of store s1 is on display from the second day on, p2 and store s2 never."""
    lake, published = built
    assert {mart: [published.content[mart][day].rows for day in DAYS] for mart in MARTS} == {
        "fct_purchases": [3] * 9,
        "fct_store_promotions": [1, 0, 0, 0, 0, 0, 0, 1, 0],
        "fct_campaign_mailings": [1, 0, 0, 0, 0, 0, 0, 1, 0],
        "fct_coupons": [1, 0, 0, 0, 0, 0, 0, 1, 0],
        "dim_products": [2, 0, 0, 0, 0, 0, 0, 0, 0],
        "dim_customers": [2, 0, 0, 0, 0, 0, 0, 0, 0],
    }
    assert shown(lake, DAYS[0]) == {("a", "p1"): 0, ("a", "p2"): 0, ("b", "p1"): 0}
    for day in DAYS[1:]:
        assert shown(lake, day) == {("a", "p1"): 1, ("a", "p2"): 0, ("b", "p1"): 0}


def test_any_order_of_days_gives_the_same_digests(
    warehouse: Warehouse, built: tuple[Lake, Published], tmp_path: Path
) -> None:
    """Saturday to Monday in two groups, or day by day backwards and Monday twice: its display is known from Sunday's plan."""
    days = DAYS[6:9]
    grouped, backwards = (small_lake(tmp_path / name) for name in ("grouped", "backwards"))
    build(warehouse.model_copy(update={"build_rows": 11}), grouped, *days)
    assert len(grouped.commits("warehouse/fct_purchases")) == 2
    for day in [*reversed(days), MONDAY]:
        build(warehouse, backwards, day)
    together = {
        mart: {d: found for d, found in of.items() if d in days} for mart, of in newest_digests(built[0]).items()
    }
    assert together == newest_digests(grouped) == newest_digests(backwards)


def test_a_day_without_its_plan_differs(warehouse: Warehouse, built: tuple[Lake, Published], tmp_path: Path) -> None:
    """Negative control of the comparison: when Sunday's plan is blocked, Monday's purchases are not on display."""
    lake = copy(built[0], tmp_path)
    judge(lake, "blocked", [SUNDAY], ["exposures"])
    build(warehouse, lake, MONDAY)
    assert shown(lake, MONDAY)["a", "p1"] == 0
    assert newest_digests(lake) != newest_digests(built[0])


def test_a_day_that_lost_its_rows_loses_them_in_the_marts(
    warehouse: Warehouse, built: tuple[Lake, Published], tmp_path: Path
) -> None:
    """Sunday's exposures come again and are none: the mart's row of the day is gone."""
    lake = copy(built[0], tmp_path)
    assert lake.read("warehouse/fct_store_promotions", SUNDAY, SUNDAY).num_rows == 1
    validated(lake, [SUNDAY], {"exposures": []})
    build(warehouse, lake, SUNDAY)
    assert lake.read("warehouse/fct_store_promotions", SUNDAY, SUNDAY).num_rows == 0


def test_a_failed_data_test_publishes_nothing(
    warehouse: Warehouse, built: tuple[Lake, Published], tmp_path: Path
) -> None:
    """A negative quantity, which validation would have stopped, fails dbt's test; the mart keeps the rows of the run before."""
    lake = copy(built[0], tmp_path)
    validated(lake, [MONDAY], {"purchases": [{**row, "quantity": -1.0} for row in lines(MONDAY)]})
    with pytest.raises(BuildFailed, match=r"not_negative_fct_purchases_quantity on 2017-01-09 .*Got 3 results"):
        build(warehouse, lake, MONDAY)
    assert newest_digests(lake) == newest_digests(built[0])


def test_a_mart_alone_is_built_with_what_it_needs(warehouse: Warehouse, tmp_path: Path) -> None:
    """Only fct_purchases was asked for: nothing else is published, and its display flag is right all the same."""
    lake = small_lake(tmp_path)
    published = Published()
    warehouse.run(lake, [MONDAY], ["fct_purchases"], "run", published)
    assert list(published.content) == ["fct_purchases"]
    assert shown(lake, MONDAY)["a", "p1"] == 1
    assert not lake.exists("warehouse/dim_products")


def test_a_killed_build_is_in_nobodys_way(warehouse: Warehouse, tmp_path: Path) -> None:
    """A file that another build left half, with its spill folder, is thrown away; afterwards no file of the build remains."""
    path = Path(warehouse.scratch, "marts.duckdb")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half")
    (path.parent / "marts.duckdb.tmp").mkdir()
    lake = small_lake(tmp_path)
    build(warehouse, lake, MONDAY)
    assert not list(path.parent.glob("marts.duckdb*"))


def test_rows_in_the_lake_are_in_the_order_of_their_grain(built: tuple[Lake, Published]) -> None:
    """A day's file holds order a before order b, p1 before p2: the digest is of rows in this order."""
    lake, _ = built
    (file,) = lake.files("warehouse/fct_purchases", MONDAY, MONDAY)
    rows = duckdb.sql(f"select order_id, product_id from read_parquet('{file}')").fetchall()
    assert rows == [(f"{MONDAY}-a", "p1"), (f"{MONDAY}-a", "p2"), (f"{MONDAY}-b", "p1")]


def test_dbts_own_unit_tests_pass(warehouse: Warehouse) -> None:
    """The unit tests beside the models, as many as their files declare."""
    declared = [name for path in (PROJECT_ROOT / "dbt/models").rglob("*.yml") for name in unit_tests_in(path)]
    assert sorted(result.name for result in warehouse.unit_tests() if result.is_passed) == sorted(declared)


def unit_tests_in(path: Path) -> list[str]:
    """Names under `unit_tests` of one file."""
    return [test["name"] for test in yaml.safe_load(path.read_text()).get("unit_tests", [])]


def test_a_share_of_the_customers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half: c1, as its hash says, is in every mart and c2 in none; products and plans, which are of nobody, are whole. Validated rows stay."""
    monkeypatch.setenv("PIPELINE_WAREHOUSE_PATH", str(tmp_path / "marts.duckdb"))
    half = Warehouse(project=str(PROJECT_ROOT / "dbt"), scratch=str(tmp_path), customer_share=0.5)
    lake = small_lake(tmp_path / "small")
    published = build(half, lake, *DAYS)
    customers = {
        mart: set(lake.read(f"warehouse/{mart}", columns=["customer_id"])["customer_id"].to_pylist())
        for mart in ("fct_purchases", "dim_customers", "fct_campaign_mailings")
    }
    assert customers == {"fct_purchases": {"c1"}, "dim_customers": {"c1"}, "fct_campaign_mailings": {"c1"}}
    assert sum(content.rows for content in published.content["dim_products"].values()) == 2
    assert sum(content.rows for content in published.content["fct_store_promotions"].values()) == 2
    assert len(lake.read("validated/purchases")) == 4 * len(DAYS)
