"""Group `warehouse`: the dbt models. Belongs here: running dbt on a snapshot and publishing its marts. Does not: SQL (see dbt/models)."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject, dbt_assets

from pipeline_assets.assets.common import DATA_TEAM
from pipeline_assets.partitions import daily, days_of
from pipeline_assets.recommender.errors import BuildFailed
from pipeline_assets.resources.content import combined
from pipeline_assets.resources.dbt_runner import NodeResult
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.warehouse import MARTS, Published, Warehouse
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
def dbt_models(context: dg.AssetExecutionContext, lake: Lake, warehouse: Warehouse) -> Iterator[Any]:
    """dbt builds for all the days of the run, on days with passed verdicts only; the marts are then published to the lake."""
    days = days_of(context)
    lake.require_passed(list(FEEDS), days)
    marts = [mart for mart in MARTS if dg.AssetKey([GROUP, mart]) in context.selected_asset_keys]
    published = Published()
    try:
        warehouse.run(lake, days, marts, context.run.run_id, published)
    except BuildFailed:
        yield from _check_results(context, published.results)  # a failed check is seen in the UI, not only in the error
        raise
    for mart, content in published.content.items():
        key = dg.AssetKey([GROUP, mart])
        for day, found in content.items():
            metadata = {"dagster/row_count": found.rows, "digest": found.digest}
            context.add_asset_metadata(metadata, asset_key=key, partition_key=day.isoformat())
        version = dg.DataVersion(combined([content[day].digest for day in days]))
        yield dg.MaterializeResult(
            asset_key=key, metadata={"table": lake.uri(f"warehouse/{mart}")}, data_version=version
        )
    yield from _check_results(context, published.results)


def _check_results(
    context: dg.AssetExecutionContext, results: Mapping[str, list[NodeResult]]
) -> Iterator[dg.AssetCheckResult]:
    """One result for each selected data test: passed when it passed in every group of days."""
    for tried in results.values():
        builds = [build for build in tried if build.status != "skipped"]  # its model failed, and that is the error
        if not builds:
            continue
        key = dg.AssetCheckKey(dg.AssetKey([GROUP, builds[0].model]), builds[0].name)
        if key in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=all(build.is_passed for build in builds),
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={
                    "failed_rows": sum(build.failures for build in builds),
                    "seconds": round(sum(build.seconds for build in builds), 3),
                    "groups_of_days": len(builds),
                },
            )
