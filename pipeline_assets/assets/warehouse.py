"""Group `warehouse`: the dbt models. Belongs here: running dbt on a snapshot and publishing its marts. Does not: SQL (see dbt/models)."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets

from pipeline_assets.assets.common import DATA_TEAM
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.warehouse import Warehouse
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.settings import PROJECT_ROOT

GROUP = "warehouse"

project = DbtProject(project_dir=PROJECT_ROOT / "dbt", profiles_dir=PROJECT_ROOT / "dbt")


class _Translator(DagsterDbtTranslator):
    """Keys, group, owners and tags of the house for every model."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = {**manifest["nodes"], **manifest["sources"]}[unique_id]
        if node["resource_type"] != "model":
            return spec
        freshness = "Fresh within the hour of its validated day."
        return spec.replace_attributes(
            key=dg.AssetKey([GROUP, node["name"]]),
            group_name=GROUP,
            owners=DATA_TEAM,
            kinds={"dbt", "duckdb"},
            tags={"layer": GROUP},
            description=f"{node['description']} {freshness}",
        )


@dbt_assets(
    manifest=project.manifest_path,
    project=project,
    name="dbt_models",
    partitions_def=daily,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="warehouse",
    dagster_dbt_translator=_Translator(
        DagsterDbtTranslatorSettings(enable_asset_checks=True, enable_duplicate_source_asset_keys=True)
    ),
)
def dbt_models(
    context: dg.AssetExecutionContext, dbt: DbtCliResource, lake: Lake, warehouse: Warehouse
) -> Iterator[Any]:
    """One dbt build for all the days of the run, on days with passed verdicts only; the marts are then published to the lake."""
    days = days_of(context)
    lake.require_passed(list(FEEDS), days)
    warehouse.prepare(lake, min(days), max(days))
    build = dbt.cli(["build", "--exclude-resource-type", "unit_test"], context=context, raise_on_error=False)
    events = list(
        build.stream()
    )  # held back: a mart is announced after it is published, so that nobody reads an older one
    if (error := build.get_error()) is not None:
        yield from (event for event in events if isinstance(event, dg.AssetCheckResult))
        raise error
    for mart, (rows, digests) in warehouse.publish(lake, days, context.run.run_id).items():
        key = dg.AssetKey([GROUP, mart])
        if key in context.selected_asset_keys:
            for day in days:
                context.add_asset_metadata(
                    {"dagster/row_count": rows[day], "digest": digests[day]},
                    asset_key=key,
                    partition_key=day.isoformat(),
                )
    yield from events
