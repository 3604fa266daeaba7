"""Features of as-of days, from the marts to the lake: one connection and one encoding of the purchases for all days of a run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.features import feature_parts
from pipeline_assets.recommender.stage import BUCKET_ROWS, Stage
from pipeline_assets.resources.content import DayContent
from pipeline_assets.resources.feature_store import stamped
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.snapshots import marts_as_of
from pipeline_assets.resources.warehouse import MARTS
from pipeline_assets.schemas.tables import FEATURE_TABLES

FEATURES = ("customer", "customer_product", "product")


def build_features(
    lake: Lake, days: Sequence[date], run_id: str, names: Sequence[str] = FEATURES, bucket_rows: int = BUCKET_ROWS
) -> Iterator[tuple[date, str, dict[str, Any]]]:
    """Replace `days` of features/<name>, each day of each table in one commit; yields day, name and the metadata of what was written.

    Memory is bounded by one bucket of customers (recommender/stage.py), whose number follows from the number of purchases.

    Raises:
        NotEnoughData: a mart has never been published, or no purchase is known on a day.
    """
    inputs = lake.versions(f"warehouse/{mart}" for mart in MARTS)
    with tempfile.TemporaryDirectory(prefix="features-") as name:
        folder = Path(name)
        for part in ("spill", "stage"):
            (folder / part).mkdir()
        with marts_as_of(lake, max(days), threads=1, first=min(days), folder=folder / "spill") as con:
            stage = Stage(con, max(days), folder / "stage", bucket_rows, min(days))
            for day in days:
                written = _one_day(lake, Snapshot(con, day, stage), names, run_id, inputs)
                for table, content in written.items():
                    yield day, table, _metadata(lake, table, content)


def _one_day(
    lake: Lake, snapshot: Snapshot, names: Sequence[str], run_id: str, inputs: Mapping[str, int]
) -> dict[str, DayContent]:
    day = snapshot.as_of
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(lake.day_file(f"features/{name}", FEATURE_TABLES[name], day)) for name in names
        }
        for part in feature_parts(snapshot, names):
            for name, rows in part.items():
                files[name].add(stamped(rows, day))
        return {name: lake.replace_day(f"features/{name}", file, run_id, inputs) for name, file in files.items()}


def _metadata(lake: Lake, name: str, content: DayContent) -> dict[str, Any]:
    return {
        "dagster/row_count": content.rows,
        "digest": content.digest,
        "table": lake.uri(f"features/{name}"),
        "delta_version": lake.version(f"features/{name}"),
    }
