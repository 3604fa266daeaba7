"""What checks share: one result for a run over several days.

Belongs here: how days are put together. Does not: what is checked.
"""

from collections.abc import Callable
from datetime import date
from typing import Any

import dagster as dg

from pipeline_assets.partitions import days_of

OneDay = Callable[[date], tuple[bool, dict[str, Any]]]


def each_day(
    context: dg.AssetCheckExecutionContext,
    one_day: OneDay,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """Check every day of the run: passed when all are; the metadata is the day's, or by day for the days that failed."""
    results = {day: one_day(day) for day in days_of(context)}
    failed = {str(day): metadata for day, (passed, metadata) in results.items() if not passed}
    if len(results) == 1:
        (_, metadata), *_ = results.values()
    else:
        readable = {
            day: {name: getattr(value, "value", value) for name, value in values.items()}
            for day, values in failed.items()
        }
        metadata = {"days": len(results), "failed": len(failed), "failures": dg.MetadataValue.json(readable)}
    return dg.AssetCheckResult(passed=not failed, severity=severity, metadata=metadata)
