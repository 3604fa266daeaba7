"""The generated world brought through the real pipeline: a folder of drops, a data folder, and the doors to both.

A `Shop` is used in two ways: `shop.command("run")` starts the command line as a user does, in a process of its own;
`with shop.opened() as pipeline` puts this process into the shop's settings and gives its definitions, instance and lake.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.settings import PROJECT_ROOT, Settings, get_settings, load_settings, tool_environment
from pipeline_assets_tests.world import FIRST_DAY, Fault, World

NEWEST = date(2017, 3, 18)  # the Saturday up to which the shop has been run; the week of cut-off 03-12 is not over
WORLD = World()
SMALL = {  # three training weeks, one to stop and two to judge are what 77 days have
    "PIPELINE_TRAINING__LABEL_WEEKS": "4",
    "PIPELINE_TRAINING__EVALUATION_WEEKS": "2",
    "PIPELINE_TRAINING__GATE_MIN_CUSTOMERS": "40",
    "PIPELINE_TRAINING__NEGATIVE_SHARE": "1",  # 150 products are few negatives
    "PIPELINE_TRAINING__THREADS": "1",
    "PIPELINE_MONITORING__DRIFT_MIN_ROWS": "50",
    "PIPELINE_MONITORING__RETRAIN_COOLDOWN_DAYS": "1",
    "PIPELINE_SERVING__POLL_SECONDS": "0.2",
}


@dataclass(frozen=True)
class Shop:
    """A folder with `drops` (what the shop delivered) and `data` (what the pipeline made of it)."""

    root: Path
    more: Mapping[str, str] = field(default_factory=dict)  # settings beside SMALL

    @property
    def drops(self) -> Path:
        return self.root / "drops"

    @property
    def data_dir(self) -> Path:
        return self.root / "data"

    @property
    def environment(self) -> dict[str, str]:
        """The shop's settings as environment variables."""
        places = {
            "PIPELINE_DATA_DIR": self.data_dir,
            "PIPELINE_SOURCE__KIND": "files",
            "PIPELINE_SOURCE__PATH": self.drops,
        }
        return {**SMALL, **{name: str(value) for name, value in places.items()}, **self.more}

    def deliver(self, first: date, last: date | None = None, faults: Mapping[date, Fault] | None = None) -> None:
        """The drops of the days from `first` to `last` arrive (of one day without `last`)."""
        WORLD.deliver(self.drops, first, last or first, faults)

    def command(self, *arguments: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
        """Run `python -m pipeline_assets.cli <arguments>` with these settings and no others."""
        command = [sys.executable, "-m", "pipeline_assets.cli", *arguments]
        return subprocess.run(
            command,
            cwd=PROJECT_ROOT,
            env=self.process_environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def process_environment(self) -> dict[str, str]:
        """This process's environment without its pipeline settings, and with the shop's."""
        ours = ("PIPELINE_", "DAGSTER_")
        return {**{name: value for name, value in os.environ.items() if not name.startswith(ours)}, **self.environment}

    def copied(self, to: Path) -> Shop:
        """A shop with the same past, free to have another future."""
        shutil.copytree(self.root, to)
        return Shop(to, self.more)

    @contextmanager
    def opened(self) -> Iterator[Pipeline]:
        """This process in the shop's settings, restored afterwards."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("PIPELINE_")]:
                patch.delenv(name)
            settings = load_settings(self.environment)
            for name, value in {**self.environment, **tool_environment(settings)}.items():
                patch.setenv(name, value)
            # the feature repository keeps the place of the lake from its import; it is imported again when it is next used
            for module in ("sources", "views", "services"):
                patch.delitem(sys.modules, f"feature_repo.{module}", raising=False)
                if "feature_repo" in sys.modules:
                    patch.delattr(sys.modules["feature_repo"], module, raising=False)
            get_settings.cache_clear()
            (self.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
            with dg.DagsterInstance.get() as instance:
                yield Pipeline(get_settings(), instance)
        get_settings.cache_clear()


@dataclass(frozen=True)
class Pipeline:
    """An opened shop."""

    settings: Settings
    instance: dg.DagsterInstance

    @cached_property
    def definitions(self) -> dg.Definitions:
        from pipeline_assets.definitions import build_defs

        return build_defs(self.settings)

    @property
    def lake(self) -> Lake:
        return local_lake(self.settings.data_dir)

    @property
    def features(self) -> FeatureStoreResource:
        return FeatureStoreResource()

    @property
    def resources(self) -> dict[str, Any]:
        return dict(self.definitions.resources or {})

    def execute(self, job: str, day: date, *assets: str, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        """One run of a job for a day, of all or some of its assets, as the UI and the sensors start it."""
        return self.definitions.resolve_job_def(job).execute_in_process(
            partition_key=day.isoformat(),
            instance=self.instance,
            asset_selection=[dg.AssetKey(name.split("/")) for name in assets] or None,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=raise_on_error,
        )

    def materialize(self, day: date, *assets: str, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        """One run of just these assets for a day, in Dagster's own unnamed job, as `Materialize` in the UI starts it."""
        return self.execute("__ASSET_JOB", day, *assets, raise_on_error=raise_on_error)

    def metadata(self, asset: str, day: date) -> dict[str, Any]:
        """Metadata values of the newest materialisation of an asset's partition."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset.split("/")), asset_partitions=[day.isoformat()]), limit=1
        ).records
        assert records, f"{asset} of {day} was never materialised"
        assert records[0].asset_materialization is not None
        return {name: entry.value for name, entry in records[0].asset_materialization.metadata.items()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run's first failed step says: the message of the error and of its cause."""
    assert not result.success
    (data, *_) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    parts = []
    error = data.error
    while error is not None:
        parts.append(error.message)
        error = error.cause
    return "\n".join(parts)


def new_shop(root: Path) -> Shop:
    """A shop whose drops up to `NEWEST` have arrived and were never looked at."""
    shop = Shop(root)
    shop.deliver(FIRST_DAY, NEWEST)
    return shop
