"""The whole loop in one process: what `make run` does. It plans what is missing and runs the same jobs that the UI and the sensors run."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import dagster as dg

from pipeline_assets.recommender.errors import SourceError
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.resources.sources import build_source
from pipeline_assets.resources.training_data import training_weeks
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.settings import Settings
from pipeline_assets.sources.landing import groups

Say = Callable[[str], None]
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclass
class Loop:
    """One pass of the loop over the days that have arrived; safe to repeat, and to interrupt at any point."""

    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    say: Say

    def run(self) -> date:
        """Bring everything up to the newest complete day; returns that day.

        Raises:
            SourceError: no day has arrived.
            PipelineError, DagsterError: from the first step that failed; a later pass goes on there.
        """
        source = build_source(self.settings, datetime.now().astimezone())
        days = source.arrived_days()
        if not days:
            raise SourceError("source", found="no day has arrived", wanted="at least one business day", fix="check source.path and the clock")
        day, lake = days[-1], local_lake(self.settings.data_dir)
        self._ingest(days)
        weeks = training_weeks(lake, day, self.settings)
        self._features([*weeks.all, day])
        self._job("training", "train, evaluate and decide", day, ["training", "model"], ["evaluation", "promotion"])
        self._job("publish", "serve the day and watch it", day, ["deployment", "release"], ["monitoring", "drift_report"], ["monitoring", "quality_report"])
        return day

    def _missing(self, days: Sequence[date], *keys: list[str]) -> list[date]:
        done = [self.instance.get_materialized_partitions(dg.AssetKey(key)) for key in keys]
        return [day for day in days if not all(day.isoformat() in partitions for partitions in done)]

    def _ingest(self, days: Sequence[date]) -> None:
        missing = self._missing(days, ["validated", "purchases"], ["validated", "customers"], ["warehouse", "fct_purchases"])
        self.say(f"ingest, validate, marts: {len(days)} days, {len(missing)} to do")
        for group in groups(missing, len(missing) or 1):
            self._execute("ingest", f"{group[0]} to {group[-1]}", {_RANGE_START: str(group[0]), _RANGE_END: str(group[-1])}, None)

    def _features(self, days: Sequence[date]) -> None:
        missing = self._missing(days, ["features", "customer"], ["features", "product"], ["features", "customer_product"])
        self.say(f"features: {len(days)} as-of days (weekly cut-offs and the newest day), {len(missing)} to do")
        for number, day in enumerate(missing, 1):
            self._execute("features", f"{number}/{len(missing)}, as of {day}", {}, day)

    def _job(self, job: str, title: str, day: date, *keys: list[str]) -> None:
        if self._missing([day], *keys):
            self.say(f"{title}: as of {day}")
            self._execute(job, f"as of {day}", {}, day)
        else:
            self.say(f"{title}: up to date as of {day}")

    def _execute(self, job: str, what: str, tags: dict[str, str], day: date | None) -> None:
        started = time.monotonic()
        definition = self.definitions.resolve_job_def(job)
        definition.execute_in_process(
            run_config=_QUIET,
            instance=self.instance,
            partition_key=day.isoformat() if day else None,
            tags={**tags, "started_by": "command line"},
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        self.say(f"  {job}: {what} done in {time.monotonic() - started:.0f} s (peak memory {peak:.1f} GB)")


def feed_totals(lake: Lake, start: date, end: date) -> list[dict[str, object]]:
    """Days and rows per feed, from the verdicts."""
    rows = []
    for feed in FEEDS:
        verdicts = lake.verdicts(feed, start, end).values()
        rows.append(
            {
                "feed": feed,
                "days": len(verdicts),
                "blocked": sum(v.status != "passed" for v in verdicts),
                "read": sum(v.rows_read for v in verdicts),
                "valid": sum(v.rows_valid for v in verdicts),
                "quarantined": sum(v.rows_quarantined for v in verdicts),
            }
        )
    return rows

