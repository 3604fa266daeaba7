"""Building a past training set again, from the versions of the tables that it was built from.

Belongs here: copies of old versions into a lake of their own, and the comparison. Does not: what a training set is (training_data.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.content import DayContent, contents
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Commit, Lake, local_lake
from pipeline_assets.resources.training_data import FEATURE_TABLES, TRAINING_SET, build_training_set, training_weeks
from pipeline_assets.resources.versions import content_at
from pipeline_assets.settings import Settings, with_data_dir


@dataclass(frozen=True)
class Rebuilt:
    """What was recorded of a training set, and what came out when it was built again from the same versions."""

    version: int
    inputs: dict[str, int]
    recorded: DayContent
    rebuilt: DayContent
    changed_inputs: dict[str, int]  # table -> newest version, where it is no longer the one that was used

    @property
    def is_equal(self) -> bool:
        return self.recorded == self.rebuilt


def copy_version(lake: Lake, table: str, version: int, to: Lake, days: Collection[date] | None = None) -> None:
    """Copy the rows of a version, of all days or of some, into another lake; in bounded memory.

    Raises:
        NotEnoughData: that version cannot be read any more.
    """
    import deltalake
    from pyarrow import dataset

    try:
        opened = deltalake.DeltaTable(lake.uri(table), version=version)
    except deltalake.exceptions.DeltaError as error:
        raise NotEnoughData(
            f"version {version} of {table}",
            found=str(error).splitlines()[0],
            wanted="a version that is still there",
            fix="restore the lake from a backup; the pipeline itself never removes versions",
        ) from error
    wanted = dataset.field("event_date").isin(sorted(days)) if days is not None else None
    scanned = opened.to_pyarrow_dataset().scanner(filter=wanted)
    partitioned = ["event_date"] if opened.metadata().partition_columns else None
    deltalake.write_deltalake(to.uri(table), scanned.to_reader(), mode="overwrite", partition_by=partitioned)


def _commit_of(lake: Lake, day: date, version: int | None) -> Commit:
    found = [c for c in lake.commits(TRAINING_SET) if day in c.days and (version is None or c.version == version)]
    if not found:
        raise NotEnoughData(
            f"{TRAINING_SET} of {day}",
            found="no such version",
            wanted="a training set that was built",
            fix=f"see `pipeline-assets data log {TRAINING_SET}`",
        )
    return found[-1]


def rebuild_training_set(
    settings: Settings, day: date, version: int | None, folder: Path, say: Callable[[str], object]
) -> Rebuilt:
    """Build the training set of `day` again in `folder`, from the versions that its commit names.

    The process's settings point at `folder` afterwards: Feast and the lake have no other door. The training settings are those of
    the process; with other ones than at the time the result differs.
    """
    lake = local_lake(settings.data_dir)
    commit = _commit_of(lake, day, version)
    there = with_data_dir(folder)
    copy = local_lake(folder)
    tables = [table for table in commit.inputs if table not in FEATURE_TABLES]
    for table in tables:
        copy_version(lake, table, commit.inputs[table], copy)
    weeks = training_weeks(copy, day, there)
    say(f"label weeks {', '.join(map(str, (*weeks.training, *weeks.early_stopping)))}")
    for table in FEATURE_TABLES:
        copy_version(lake, table, commit.inputs[table], copy, {*weeks.training, *weeks.early_stopping})
        say(f"{table} restored at version {commit.inputs[table]}")
    door = Door(lake, "rebuild", commit.run_id, datetime.now(UTC), settings.calendar.holdout_start)
    rows = build_training_set(copy, FeatureStoreResource(), day, weeks, there.training, say, door)
    now: Mapping[str, int] = lake.versions(commit.inputs)
    return Rebuilt(
        commit.version,
        commit.inputs,
        content_at([commit])[day],
        contents(rows, [day])[day],
        {table: now[table] for table in commit.inputs if now[table] != commit.inputs[table]},
    )
