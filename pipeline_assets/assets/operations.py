"""Group `operations`: the pipeline looking after itself. Not part of a business day; a schedule starts it."""

from datetime import UTC, datetime

import dagster as dg

from pipeline_assets.assets.common import DATA_TEAM
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.retention_run import expired, remove
from pipeline_assets.settings import get_settings

GROUP = "operations"


@dg.asset(
    key=[GROUP, "retention"],
    group_name=GROUP,
    owners=DATA_TEAM,
    kinds={"python"},
    tags={"layer": GROUP},
    code_version="1",
    description="No rows: what has been kept long enough (section `retention` of the settings) is removed; files and megabytes by kind are in the metadata. "
    "What is live or on trial, what is not in the lake yet, and the audit trail stay. Daily, by the schedule `retention`; read by nobody.",
)
def retention(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult:
    removed = remove(expired(get_settings(), lake, context.instance, datetime.now(UTC)))
    figures = {f"{kind}_{name}": value for kind, (files, size) in removed.items() for name, value in (("removed", files), ("mb", size / 2**20))}  # fmt: skip
    return dg.MaterializeResult(metadata=figures)
