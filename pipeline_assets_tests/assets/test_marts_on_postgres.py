"""The marts asset on a real PostgreSQL: only the dbt target changes, and the lake's marts are those of DuckDB, to the digest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from pipeline_assets.assets.warehouse import dbt_models
from pipeline_assets.recommender.errors import BuildFailed, ConfigurationError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.warehouse import MARTS, Published, Warehouse
from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets_tests.postgres import SUPERUSER, Postgres
from pipeline_assets_tests.small_lake import DAYS, MONDAY, SUNDAY, lines, small_lake, validated
from pipeline_assets_tests.unit.test_warehouse import newest_digests


@pytest.fixture(scope="module")
def on_postgres(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A warehouse whose target is a database of its own."""
    postgres.database("marts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_PG_HOST", str(postgres.socket))
        patch.setenv("PIPELINE_PG_USER", SUPERUSER)
        patch.setenv("PIPELINE_PG_DATABASE", "marts")
        yield Warehouse(
            project=str(PROJECT_ROOT / "dbt"), scratch=str(tmp_path_factory.mktemp("pg")), target="postgres"
        )


@pytest.fixture(scope="module")
def on_duckdb(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The default target."""
    scratch = tmp_path_factory.mktemp("duckdb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_WAREHOUSE_PATH", str(scratch / "marts.duckdb"))
        yield Warehouse(project=str(PROJECT_ROOT / "dbt"), scratch=str(scratch))


def materialize(lake: Lake, warehouse: Warehouse, days: Sequence[date]) -> dg.ExecuteInProcessResult:
    """One run of the marts asset for a range of days."""
    tags = {
        "dagster/asset_partition_range_start": days[0].isoformat(),
        "dagster/asset_partition_range_end": days[-1].isoformat(),
    }
    return dg.materialize(
        [dbt_models],
        resources={"lake": lake, "warehouse": warehouse},
        tags=tags,
        instance=dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )


def test_the_asset_gives_the_same_marts_on_both(on_duckdb: Warehouse, on_postgres: Warehouse, tmp_path: Path) -> None:
    """Every mart, day and byte: digests are equal, with nulls, empty texts, quotes, commas and line ends in them; every check passed.

    On PostgreSQL in groups of days, and the last days a second time, so that rows that are there already are replaced.
    """
    lakes = [small_lake(tmp_path / name) for name in ("duckdb", "postgres")]
    runs = [
        materialize(lakes[0], on_duckdb, DAYS),
        materialize(lakes[1], on_postgres.model_copy(update={"build_rows": 30}), DAYS),
        materialize(lakes[1], on_postgres, DAYS[7:]),
    ]
    for run in runs:
        assert run.success
        assert len(run.get_asset_materialization_events()) == len(MARTS) * (2 if run is runs[2] else len(DAYS))
        assert [e.check_name for e in run.get_asset_check_evaluations() if not e.passed] == []
        assert len(run.get_asset_check_evaluations()) == 20
    assert newest_digests(lakes[0]) == newest_digests(lakes[1])
    assert lakes[1].read("warehouse/dim_products").to_pylist()[0]["category"] == ""


def test_postgres_keeps_the_marts_and_nothing_else(on_postgres: Warehouse, postgres: Postgres, tmp_path: Path) -> None:
    """An emptied Sunday loses its rows there too; the copies of the lake's rows are gone after the run."""
    import sqlalchemy

    lake = small_lake(tmp_path)
    on_postgres.run(lake, [SUNDAY], list(MARTS), "run", Published())
    validated(lake, [SUNDAY], {"exposures": []})
    on_postgres.run(lake, [SUNDAY], list(MARTS), "run", Published())
    with sqlalchemy.create_engine(postgres.url("marts")).connect() as connection:
        count = lambda what: connection.scalar(sqlalchemy.text(f"select count(*) from {what}"))  # noqa: E731
        assert count(f"warehouse.fct_store_promotions where event_date = '{SUNDAY}'") == 0
        assert count(f"warehouse.fct_purchases where event_date = '{SUNDAY}'") == 3
        assert count("lake.purchases") == 0


def test_a_data_test_fails_on_postgres_too(on_postgres: Warehouse, tmp_path: Path) -> None:
    """Negative control of the checks: a negative quantity of the run's day is found; the run's failed check is in the UI."""
    lake = small_lake(tmp_path)
    validated(lake, [MONDAY], {"purchases": [{**row, "quantity": -1.0} for row in lines(MONDAY)]})
    run = materialize(lake, on_postgres, [MONDAY])
    assert not run.success
    failed = {e.check_name: e.metadata["failed_rows"].value for e in run.get_asset_check_evaluations() if not e.passed}
    assert failed == {"not_negative_fct_purchases_quantity": 3}
    assert not lake.exists("warehouse/fct_purchases")


def test_a_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which target and address, and which variables to correct."""
    monkeypatch.setenv("PIPELINE_PG_HOST", str(tmp_path))
    warehouse = Warehouse(project=str(PROJECT_ROOT / "dbt"), scratch=str(tmp_path / "dbt"), target="postgres")
    with pytest.raises((ConfigurationError, BuildFailed), match=f"postgres at {tmp_path}.*PIPELINE_PG_HOST"):
        warehouse.run(small_lake(tmp_path), [MONDAY], list(MARTS), "run", Published())
