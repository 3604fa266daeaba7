"""Building a past training set again, from the versions of the tables that it was built from.

Belongs here: copies of old versions into a lake of their own, and the comparison. Does not: what a training set is (training_data.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.split import Weeks
from pipeline_assets.resources.content import DayContent
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Commit, Lake, local_lake
from pipeline_assets.resources.training_data import FEATURE_TABLES, TRAINING_SET, training_set_aside, training_weeks
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

    _require_files(lake, table, version, days)
    wanted = dataset.field("event_date").isin(sorted(days)) if days is not None else None
    try:
        opened = deltalake.DeltaTable(lake.uri(table), version=version)
        scanned = opened.to_pyarrow_dataset().scanner(filter=wanted)
        partitioned = ["event_date"] if opened.metadata().partition_columns else None
        deltalake.write_deltalake(to.uri(table), scanned.to_reader(), mode="overwrite", partition_by=partitioned)
    except deltalake.exceptions.DeltaError as error:
        raise NotEnoughData(
            f"version {version} of {table}",
            found=str(error).splitlines()[0],
            wanted="a version whose files are all there, and as they were written",
            fix="restore the lake from a backup; the pipeline itself never removes versions",
        ) from error


def _require_files(lake: Lake, table: str, version: int, days: Collection[date] | None) -> None:
    """Raises NotEnoughData, naming the erasure, where days of a version lost their files to one."""
    gone = [commit for commit in lake.commits(table) if commit.erased and commit.version > version]
    wanted = {f"event_date={day}" for day in days} if days is not None else None
    files = [Path(path) for path in lake.files(table, version=version)] if gone else []
    missing = [path for path in files if (wanted is None or path.parent.name in wanted) and not path.exists()]
    if missing:
        raise NotEnoughData(
            f"version {version} of {table}",
            found=f"no file of {len({path.parent for path in missing})} days: a customer was erased on {gone[0].committed_at:%Y-%m-%d} "
            f"({gone[0].run_id})",
            wanted="a version that was written after the last erasure",
            fix="nothing brings it back; what is trained from now on can be built again",
        )


def commit_of(lake: Lake, day: date, version: int | None = None) -> Commit:
    """The commit that wrote the training set of `day`: that of a version of the table, or the newest.

    Raises:
        NotEnoughData: there is none.
    """
    built = [c for c in lake.commits(TRAINING_SET) if day in c.days and day not in c.erased]
    found = [c for c in built if version is None or c.version <= version]
    if not found:
        raise NotEnoughData(
            f"{TRAINING_SET} of {day}" + (f" at version {version}" if version is not None else ""),
            found="no such version",
            wanted="a training set that was built",
            fix=f"see `pipeline-assets data log {TRAINING_SET}`",
        )
    return found[-1]


@dataclass(frozen=True)
class Restored:
    """A lake of its own with the inputs of a training set, and the settings that lead to it."""

    lake: Lake
    settings: Settings
    weeks: Weeks
    versions: dict[str, int]  # that were copied
    feature_days: tuple[date, ...]


def restore_inputs(
    settings: Settings,
    day: date,
    versions: Mapping[str, int],
    folder: Path,
    say: Callable[[str], object],
    also: Collection[date] = (),
) -> Restored:
    """Copy versions of the tables that a training set of `day` is built from into a lake in `folder`.

    The process's settings point at `folder` afterwards: Feast and the lake have no other door.

    Args:
        versions: table -> version. also: days of features besides those of the label weeks.
    """
    lake, there, copy = local_lake(settings.data_dir), with_data_dir(folder), local_lake(folder)
    for table in versions:
        if table not in FEATURE_TABLES:
            copy_version(lake, table, versions[table], copy)
    weeks = training_weeks(copy, day, there)
    say(f"label weeks {', '.join(map(str, (*weeks.training, *weeks.early_stopping)))}")
    days = tuple(sorted({*weeks.training, *weeks.early_stopping, *also}))
    for table in FEATURE_TABLES:
        copy_version(lake, table, versions[table], copy, days)
        say(f"{table} restored at version {versions[table]}")
    return Restored(copy, there, weeks, dict(versions), days)


def rebuild_training_set(
    settings: Settings, day: date, version: int | None, folder: Path, say: Callable[[str], object]
) -> Rebuilt:
    """Build the training set of `day` again in `folder`, from the versions that its commit names.

    The process's settings point at `folder` afterwards, as `restore_inputs` says. The training settings are those of the process; with
    other ones than at the time the result differs.
    """
    lake = local_lake(settings.data_dir)
    commit = commit_of(lake, day, version)
    restored = restore_inputs(settings, day, commit.inputs, folder, say)
    with built_again(lake, restored, day, settings.calendar.holdout_start, commit.run_id, say) as (_, rebuilt):
        return Rebuilt(commit.version, commit.inputs, content_at([commit])[day], rebuilt, newer_versions(lake, commit))


def built_again(
    lake: Lake, restored: Restored, day: date, holdout_start: date | None, run_id: str, say: Callable[[str], object]
) -> AbstractContextManager[tuple[str, DayContent]]:
    """The training set of `day` from what was restored, as `training_set_aside`. Labels of the holdout are counted in `lake`, where people
    look.
    """
    door = Door(lake, "rebuild", run_id, datetime.now(UTC), holdout_start)
    chosen = restored.settings.training
    return training_set_aside(restored.lake, FeatureStoreResource(), day, restored.weeks, chosen, say, door)


def newer_versions(lake: Lake, commit: Commit) -> dict[str, int]:
    """Inputs of a commit whose newest version is no longer the one that was used: table -> newest version."""
    now = lake.versions(commit.inputs)
    return {table: now[table] for table in commit.inputs if now[table] != commit.inputs[table]}
