"""One asset check, run as Dagster runs it, on tables that a test wrote by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg

from pipeline_assets.partitions import daily


def run_check(
    definition: dg.AssetChecksDefinition, resources: Mapping[str, Any], first: date, last: date | None = None
) -> dg.AssetCheckEvaluation:
    """Evaluate a check for one day, or for the range of days up to `last` in one run."""
    (key,) = definition.check_keys

    @dg.asset(key=key.asset_key, partitions_def=daily, backfill_policy=dg.BackfillPolicy.single_run())
    def checked() -> dg.MaterializeResult:
        return dg.MaterializeResult()

    job = dg.define_asset_job("check", dg.AssetSelection.assets(key.asset_key))
    definitions = dg.Definitions(assets=[checked], asset_checks=[definition], jobs=[job], resources=resources)
    span = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("check").execute_in_process(
            instance=instance,
            partition_key=None if last else str(first),
            tags=span if last else None,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,  # a blocking check that says no fails its run
        )
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    evaluations = result.get_asset_check_evaluations()
    assert evaluations, errors
    return evaluations[0]


def values(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """The metadata of an evaluation as plain values."""
    return {name: entry.value for name, entry in evaluation.metadata.items()}
