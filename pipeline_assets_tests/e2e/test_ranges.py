"""A range of days is one run, for every asset of the graph."""

from __future__ import annotations

from datetime import date

import pytest

from pipeline_assets_tests.e2e.first_run import FirstRun

FRIDAY, SATURDAY = date(2017, 3, 17), date(2017, 3, 18)
RANGE = {"dagster/asset_partition_range_start": str(FRIDAY), "dagster/asset_partition_range_end": str(SATURDAY)}


@pytest.fixture(scope="module")
def materialised(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    """Asset -> (run id, partition) of each materialisation, after one run of `every_day` and one of `training` over two days."""
    shop = first_run.shop.copied(tmp_path_factory.mktemp("ranges") / "shop")
    found: dict[str, list[tuple[str, str]]] = {}
    models: set[str] = set()
    with shop.opened() as pipeline:
        for job in ("every_day", "training"):
            result = pipeline.definitions.resolve_job_def(job).execute_in_process(
                instance=pipeline.instance,
                tags=RANGE,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            for event in result.all_events:
                if event.is_step_materialization:
                    materialization = event.step_materialization_data.materialization
                    name = materialization.asset_key.to_user_string()
                    found.setdefault(name, []).append((result.run_id, str(materialization.partition)))
        models = {str(pipeline.metadata("training/model", day)["mlflow_run_id"]) for day in (FRIDAY, SATURDAY)}
        keys = pipeline.definitions.resolve_asset_graph().get_all_asset_keys()
    for key in keys:
        found.setdefault(key.to_user_string(), [])
    assert len(models) == 2, "one MLflow run a day, although dagster-mlflow opens one per Dagster run"
    return found


def test_every_asset_is_materialised_for_both_days(materialised: dict[str, list[tuple[str, str]]]) -> None:
    """No asset of the graph refuses a range, and each day is its own partition."""
    wanted = [str(FRIDAY), str(SATURDAY)]
    other = {name: events for name, events in materialised.items() if sorted(day for _, day in events) != wanted}
    assert other == {}


def test_each_asset_needed_one_run(materialised: dict[str, list[tuple[str, str]]]) -> None:
    """Two days, one run id: imports, connections and models are paid once."""
    assert {name for name, events in materialised.items() if len({run for run, _ in events}) != 1} == set()
