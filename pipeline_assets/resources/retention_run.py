"""What has been kept long enough, and removing it: logs of runs, pages of reports, files of the API, bundles nobody can need.

Belongs here: what is expired, and why what looks alike is not. Does not: when that is looked at (automation).
Never expired, whatever its age: what is live, on trial, or where a rollback goes; a file that is not in the lake yet; what the audit trail
stands on: tables of the lake and all their versions, the events that say what was materialised, MLflow, the release database.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import PREDICTION_LOG_TABLE
from pipeline_assets.resources.versions import orphans
from pipeline_assets.serving.prediction_log import SHADOW
from pipeline_assets.serving.release_state import open_state
from pipeline_assets.serving.rollout_state import release_before, view
from pipeline_assets.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

DAILY_REPORTS = ("drift", "evidently", "quality", "skew", "slo")  # evaluation pages go with a model, and stay
KILLED_WRITERS = timedelta(hours=24)  # a file that no commit names after this time is nobody's any more
KINDS = ("run_logs", "reports", "prediction_log", "bundles", "recommendations", "compiled", "orphans")
_PAGE = 500  # runs that are asked for at a time


@dataclass(frozen=True)
class Expired:
    """A file or folder that may go, its kind and its size on disk."""

    kind: str
    path: Path
    size: int


def expired(settings: Settings, lake: Lake, instance: dg.DagsterInstance, now: datetime) -> list[Expired]:
    """Everything that may go at `now`, by `settings.retention`; nothing is touched."""
    kept, data = settings.retention, settings.data_dir
    engine = open_state(settings.release_url)
    try:
        seen = view(engine)
        needed = [seen.live, seen.candidate, release_before(engine, seen.live) if seen.live else None]
        since = seen.rollout.started_at if seen.rollout else now
    finally:
        engine.dispose()
    paths = {Path(path) for release in needed if release for path in (release.bundle_path, release.recommendations_path) if path}  # fmt: skip
    logs = now - timedelta(days=kept.prediction_log_days)
    bundles = now - timedelta(days=kept.bundle_days)
    found = {
        "run_logs": _run_logs(instance, data / "dagster", now - timedelta(days=kept.run_log_days)),
        "reports": _reports(data / "reports", now - timedelta(days=kept.report_days)),
        "prediction_log": _answers(lake, data / "prediction_log", min(logs, since)),
        "bundles": _older(data / "bundles", bundles, paths),
        "recommendations": _older(data / "recommendations", bundles, paths),
        "compiled": _older(data / "compiled", bundles, set()),  # a cache: what is missed is compiled again
        "orphans": [] if "://" in lake.root else map(Path, orphans(lake, now - KILLED_WRITERS)),
    }
    return [Expired(kind, path, _size(path)) for kind in KINDS for path in sorted(found[kind])]


def remove(found: Iterable[Expired]) -> dict[str, tuple[int, int]]:
    """Remove what `expired` found; returns kind -> (files and folders, bytes). What is gone already is no error: removing twice is one effect."""
    done = dict.fromkeys(KINDS, (0, 0))
    for each in found:
        if each.path.is_dir():
            shutil.rmtree(each.path, ignore_errors=True)
        else:
            each.path.unlink(missing_ok=True)
        count, size = done[each.kind]
        done[each.kind] = (count + 1, size + each.size)
    return done


def _run_logs(instance: dg.DagsterInstance, storage: Path, before: datetime) -> Iterator[Path]:
    """A database of events and a folder of output per run. The newest runs of each job stay: metrics and people look there.

    What a run materialised is in Dagster's index, which stays: deleting the run itself would make its days look as if they had never come.
    """
    import dagster as dg

    ended = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    )
    newest: set[tuple[str, dg.DagsterRunStatus]] = set()
    cursor = None
    while records := instance.get_run_records(ended, limit=_PAGE, cursor=cursor):  # newest first
        cursor = records[-1].dagster_run.run_id
        for record in records:
            run = record.dagster_run
            is_newest = (run.job_name, run.status) not in newest
            newest.add((run.job_name, run.status))
            if is_newest or record.end_time is None or record.end_time >= before.timestamp():
                continue
            parts = [storage / run.run_id, *(storage / f"{run.run_id}.db{end}" for end in ("", "-wal", "-shm"))]
            yield from (part for part in parts if part.exists())


def _reports(folder: Path, before: datetime) -> Iterator[Path]:
    """Pages that were written before, but the newest of each report."""
    for report in DAILY_REPORTS:
        pages = sorted((folder / report).glob("*"), key=_written)
        yield from (page for page in pages[:-1] if _written(page) < before.timestamp())


def _answers(lake: Lake, folder: Path, before: datetime) -> Iterator[Path]:
    """Files of UTC days that were over before. Answers must be in the lake: a landing has read a file of that day or of a later one."""
    last = before.date().isoformat()
    files = lake.read(PREDICTION_LOG_TABLE, columns=["log_file"]) if lake.exists(PREDICTION_LOG_TABLE) else None
    landed = max((name for name in files["log_file"].to_pylist() if name), default="") if files is not None else ""
    yield from (path for path in folder.glob("*.jsonl") if path.stem < last and path.name <= landed)
    yield from (path for path in (folder / SHADOW).glob("*.jsonl") if path.stem < last)  # no table has these


def _older(folder: Path, before: datetime, needed: set[Path]) -> Iterator[Path]:
    """What lies in a folder and was written before, but what is needed."""
    for path in folder.glob("*"):
        if path not in needed and _written(path) < before.timestamp():
            yield path


def _written(path: Path) -> float:
    return path.lstat().st_mtime


def _size(path: Path) -> int:
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.lstat().st_size for part in parts if part.is_file())
