"""Features of as-of days, from the marts to the lake: one connection and one encoding of the purchases for all days of a run, or of several
runs of one process (`encoded_once`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_assets.recommender.aggregates import Snapshot
from pipeline_assets.recommender.features import feature_parts
from pipeline_assets.recommender.stage import BUCKET_ROWS, Stage
from pipeline_assets.resources.content import DayContent
from pipeline_assets.resources.feature_store import stamped
from pipeline_assets.resources.lake import VERDICTS, Lake
from pipeline_assets.resources.snapshots import marts_as_of
from pipeline_assets.resources.warehouse import MARTS
from pipeline_assets.schemas.tables import FEATURE_TABLES

if TYPE_CHECKING:
    import duckdb

FEATURES = ("customer", "customer_product", "product")
_MARTS = tuple(f"warehouse/{mart}" for mart in MARTS)


def build_features(
    lake: Lake, days: Sequence[date], run_id: str, names: Sequence[str] = FEATURES, bucket_rows: int = BUCKET_ROWS
) -> Iterator[tuple[date, str, dict[str, Any]]]:
    """Replace `days` of features/<name>, each day of each table in one commit; yields day, name and the metadata of what was written.

    Memory is bounded by one bucket of customers (recommender/stage.py), whose number follows from the number of purchases.

    Raises:
        NotEnoughData: a mart has never been published, or no purchase is known on a day.
    """
    inputs = lake.versions(_MARTS)
    with encoded_once(lake, days, bucket_rows) as encoded:
        for day in days:
            written = _one_day(lake, Snapshot(encoded.con, day, encoded.stage), names, run_id, inputs)
            for table, content in written.items():
                yield day, table, _metadata(lake, table, content)


@dataclass(frozen=True, eq=False)
class Encoded:
    """The purchases as known at some versions of the tables, encoded for the as-of days `first` to `last`."""

    con: duckdb.DuckDBPyConnection
    stage: Stage
    first: date
    last: date
    bucket_rows: int
    versions: dict[str, int]
    root: str

    def serves(self, lake: Lake, days: Sequence[date], bucket_rows: int) -> bool:
        """Whether it is what would be encoded for `days` now: no mart and no verdict was written since."""
        is_inside = self.first <= min(days) and max(days) <= self.last and bucket_rows == self.bucket_rows
        return is_inside and lake.root == self.root and lake.versions((*_MARTS, VERDICTS)) == self.versions


# Of this process: runs of single days have no other way to hand it on. 35 runs that encode a year each spend 100 CPU s on that alone.
_OPEN: list[Encoded] = []


@contextmanager
def encoded_once(lake: Lake, days: Sequence[date], bucket_rows: int = BUCKET_ROWS) -> Iterator[Encoded]:
    """What features as of `days` are computed from: the one that is open around this, where it serves, or a new one until the end.

    Args:
        days: all that will be asked for inside.
    """
    if _OPEN and _OPEN[-1].serves(lake, days, bucket_rows):
        yield _OPEN[-1]
        return
    first, last, versions = min(days), max(days), lake.versions((*_MARTS, VERDICTS))
    with tempfile.TemporaryDirectory(prefix="features-") as name:
        folder = Path(name)
        for part in ("spill", "stage"):
            (folder / part).mkdir()
        with marts_as_of(lake, last, threads=1, first=first, folder=folder / "spill") as con:
            stage = Stage(con, last, folder / "stage", bucket_rows, first)
            encoded = Encoded(con, stage, first, last, bucket_rows, versions, lake.root)
            _OPEN.append(encoded)
            try:
                yield encoded
            finally:
                _OPEN.remove(encoded)


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
