"""The job that looks after the pipeline itself. No asset: it makes nothing that a business day could have.

Belongs here: the shell of the job. Does not: what is removed (resources/retention_run.py), when (automation.py).
"""

from datetime import UTC, datetime

import dagster as dg

from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.retention_run import expired, remove
from pipeline_assets.settings import get_settings


@dg.op
def remove_what_was_kept_long_enough(context: dg.OpExecutionContext, lake: Lake) -> None:
    """By kind: how many files and folders went, and their megabytes, in the log and in the step's metadata."""
    removed = remove(expired(get_settings(), lake, context.instance, datetime.now(UTC)))
    figures = {kind: f"{count} removed, {size / 2**20:.1f} MB" for kind, (count, size) in removed.items()}
    context.add_output_metadata(figures)
    context.log.info("; ".join(f"{kind}: {text}" for kind, text in figures.items()))


@dg.job(
    description="Remove what was kept long enough: logs of runs, pages, files of the API, old bundles (docs/runbook.md#disk)."
)
def retention() -> None:
    """One step."""
    remove_what_was_kept_long_enough()
