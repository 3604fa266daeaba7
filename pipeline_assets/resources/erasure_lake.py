"""Taking one customer out of a table of the lake: its newest version, then the files and log entries of the older ones.

Belongs here: tables, their files and their logs. Does not: what else holds her (erasure_stores.py, erasure_files.py), the order of all (erasure.py).
Every step looks for what is left to do, so one that was killed is finished by doing it again. Of old versions only the files that hold her are
deleted: versions that never had her, and days that do not, stay readable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from pipeline_assets.recommender.columns import CUSTOMER_ID
from pipeline_assets.resources.content import to_json
from pipeline_assets.resources.durable import write_whole
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.mentions import Mentions
from pipeline_assets.resources.versions import content_at
from pipeline_assets.sources.landing import groups_of_rows

ROWS_AT_ONCE = 500_000
_STREAM = "stream/"  # tables of whole messages: the customer is inside
_IN_ORDER = "training/"  # rows of a customer are together, and read as they lie: Delta's own writer mixes batches where it has several cores
_ONE_GROUP = 1 << 20  # rows: a row group stays one


@dataclass(frozen=True)
class Removed:
    """What was removed from one place. `content`: day -> digests before and after, of a table of the lake."""

    place: str
    rows: int = 0
    files: tuple[str, ...] = ()
    content: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def is_anything(self) -> bool:
        return bool(self.rows or self.files or self.content)


def tables(lake: Lake) -> list[str]:
    """Every table that there is, from the folders: a list would go stale."""
    root = Path(lake.root)
    return sorted(str(log.parent.relative_to(root)) for log in root.rglob("_delta_log"))


def is_about_customers(lake: Lake, table: str) -> bool:
    """Whether a row of the table can be removed because of one customer; in others a text may name her, and the row is about something else."""
    return table.startswith(_STREAM) or CUSTOMER_ID in lake.schema(table).names


def erase_table(lake: Lake, table: str, her: Mentions, run_id: str) -> Removed:
    """Remove her from a table; `run_id` is what its new versions say of themselves."""
    rows, content = 0, dict[str, tuple[str, str]]()
    if is_about_customers(lake, table):
        rows, content = _newest_version(lake, table, her, run_id)
    live = set(lake.files(table))
    dead = [path for path in _data_files(lake, table) if str(path) not in live and _holds(path, her)]
    for path in dead:
        path.unlink()
    changed = _redact_log(lake, table, her)
    root = Path(lake.root)
    return Removed(f"lake {table}", rows, tuple(str(path.relative_to(root)) for path in (*dead, *changed)), content)


def look_at_table(lake: Lake, table: str, her: Mentions) -> list[str]:
    """What of a table still holds her: data files, whether a version names them or not, and log entries."""
    root = Path(lake.root)
    found = [f"data file {path.relative_to(root)}" for path in _data_files(lake, table) if _holds(path, her)]
    return [
        *found,
        *(f"log entry {path.relative_to(root)}" for path in _log_files(lake, table) if _is_named(path, her)),
    ]


def removed_by(lake: Lake, table: str, run_id: str) -> Removed:
    """What an erasure's commits removed, also those before it was killed."""
    commits = [commit for commit in lake.commits(table) if commit.run_id == run_id and commit.erased]
    before = {day: content for commit in commits for day, content in commit.erased.items()}
    after = content_at(commits)
    rows = sum(content.rows - after[day].rows for day, content in before.items())
    return Removed(
        f"lake {table}", rows, (), {str(day): (before[day].digest, after[day].digest) for day in sorted(before)}
    )


def _newest_version(lake: Lake, table: str, her: Mentions, run_id: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Replace the days that hold her, each day whole, in commits of about `ROWS_AT_ONCE` rows."""
    import deltalake

    if deltalake.DeltaTable(lake.uri(table)).metadata().partition_columns != ["event_date"]:
        return _whole(lake, table, her), {}
    held = sorted({_day(path) for path in lake.files(table) if _holds(Path(path), her)})
    recorded, rows_of = content_at(lake.commits(table)), lake.rows_by_day(table)
    removed, content = 0, dict[str, tuple[str, str]]()
    for days in groups_of_rows(held, rows_of, ROWS_AT_ONCE):
        before = {day: recorded[day] for day in days if day in recorded}
        notes = {"erased": to_json(before)}
        if table.startswith(_IN_ORDER) or any(pyarrow.types.is_binary(each.type) for each in lake.schema(table)):
            after = {day: _day_in_pieces(lake, table, day, her, run_id, notes) for day in days}
        else:
            after = lake.replace_days(table, _without(lake.read_days(table, days), her), days, run_id, notes=notes)
        removed += sum(rows_of[day] - after[day].rows for day in days)
        content |= {str(day): (before[day].digest if day in before else "", after[day].digest) for day in days}
    return removed, content


def _without(rows: pyarrow.Table, her: Mentions) -> pyarrow.Table:
    held = her.rows(rows)
    return as_declared(rows if held is None else rows.filter(pc.invert(held)))


def as_declared(rows: pyarrow.Table) -> pyarrow.Table:
    """Lists call their values `item` as the tables are declared and `element` as they are read: digests are of the former."""
    fields = [
        pyarrow.field(f.name, pyarrow.list_(f.type.value_type)) if pyarrow.types.is_list(f.type) else f
        for f in rows.schema
    ]
    return rows.cast(pyarrow.schema(fields))


def _day_in_pieces(lake: Lake, table: str, day: date, her: Mentions, run_id: str, notes: Mapping[str, str]) -> Any:
    """A day that may not fit into memory, or whose order counts, a row group at a time."""
    schema = as_declared(lake.schema(table).empty_table()).schema
    with lake.day_file(table, schema, day, _ONE_GROUP) as file:
        for path in lake.files(table, day, day):
            stored = pyarrow.parquet.ParquetFile(path)
            for group in range(stored.num_row_groups):
                rows = stored.read_row_group(group)
                rows = rows.append_column("event_date", pyarrow.array([day] * len(rows), pyarrow.date32()))
                file.add(_without(rows.select(schema.names), her))
        of_day = {str(each): value for each, value in json.loads(notes["erased"]).items() if each == str(day)}
        return lake.replace_day(table, file, run_id, notes={"erased": json.dumps(of_day)})


def _whole(lake: Lake, table: str, her: Mentions) -> int:
    """A table without days: few rows, such as dead letters."""
    import deltalake

    if not any(_holds(Path(path), her) for path in lake.files(table)):
        return 0
    rows = lake.read(table)
    kept = _without(rows, her)
    deltalake.write_deltalake(lake.uri(table), kept, mode="overwrite")
    return len(rows) - len(kept)


def _day(path: str) -> date:
    return date.fromisoformat(Path(path).parent.name.removeprefix("event_date="))


def _data_files(lake: Lake, table: str) -> Iterator[Path]:
    """Every data file in the table's folder: of any version, and those that no commit names."""
    yield from (path for path in sorted(Path(lake.uri(table)).rglob("*.parquet")) if path.parent.name != "_delta_log")


def _holds(path: Path, her: Mentions) -> bool:
    """Whether a Parquet file has a row that is about her, or names her; only columns that could are read, a row group at a time."""
    file = pyarrow.parquet.ParquetFile(path)
    columns = her.columns(file.schema_arrow)
    return bool(columns) and any(
        her.rows(file.read_row_group(n, columns)) is not None for n in range(file.num_row_groups)
    )


def _log_files(lake: Lake, table: str) -> Sequence[Path]:
    return sorted(
        path for path in Path(lake.uri(table), "_delta_log").iterdir() if path.suffix in (".json", ".parquet")
    )


def _redact_log(lake: Lake, table: str, her: Mentions) -> list[Path]:
    """Take her out of what the log says of smallest and largest values. Commits stay, also their digests of days; checkpoints are made anew."""
    import deltalake

    changed = [path for path in _log_files(lake, table) if _is_named(path, her)]
    for path in changed:
        if path.suffix == ".json":
            lines = path.read_text().splitlines()
            write_whole(path, "".join(_without_statistics(line, her) + "\n" for line in lines).encode())
    if any(path.suffix == ".parquet" for path in changed):
        deltalake.DeltaTable(lake.uri(table)).create_checkpoint()
        newest = json.loads(Path(lake.uri(table), "_delta_log", "_last_checkpoint").read_text())["version"]
        for path in changed:
            if path.suffix == ".parquet" and int(path.name.split(".")[0]) != newest:
                path.unlink()
    return changed


def _without_statistics(line: str, her: Mentions) -> str:
    entry = json.loads(line)
    for action in ("add", "remove"):
        if entry.get(action) and entry[action].get("stats"):
            statistics = json.loads(entry[action]["stats"])
            if _says(statistics, her):
                entry[action]["stats"] = json.dumps({"numRecords": statistics["numRecords"]})
                return json.dumps(entry)
    return line


def _says(value: Any, her: Mentions) -> bool:
    """Whether a value of a JSON document is her id."""
    if isinstance(value, dict):
        return any(_says(each, her) for each in value.values())
    if isinstance(value, str):
        return value == her.customer_id or her.named_in(value.encode())
    return False


def _is_named(path: Path, her: Mentions) -> bool:
    """Whether statistics in a commit or a checkpoint are hers."""
    if path.suffix == ".json":
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        stats = [each[name].get("stats") for each in actions for name in ("add", "remove") if each.get(name)]
    else:
        table = pyarrow.parquet.read_table(path)
        parts = [table[name].combine_chunks() for name in ("add", "remove") if name in table.schema.names]
        stats = [row.get("stats") for part in parts for row in part.to_pylist() if row]
    return any(_says(json.loads(text), her) for text in stats if text)
