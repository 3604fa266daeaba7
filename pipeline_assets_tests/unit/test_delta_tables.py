"""Handles of Delta tables are kept while nothing was committed, and never longer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pipeline_assets.resources import delta_tables
from pipeline_assets.resources.lake import Lake

DAY = date(2017, 3, 1)
TABLE = "validated/purchases"
HOUR_NS = 3_600_000_000_000


def rows(*values: int) -> pyarrow.Table:
    days = pyarrow.array([DAY] * len(values), pyarrow.date32())
    return pyarrow.table({"event_date": days, "value": pyarrow.array(values, pyarrow.int64())})


def values(lake: Lake) -> list[int]:
    return sorted(lake.read(TABLE, DAY, DAY)["value"].to_pylist())


def settle(lake: Lake) -> None:
    """The last commit was an hour ago, as far as the file system tells."""
    log = Path(lake.uri(TABLE)) / "_delta_log"
    then = log.stat().st_mtime_ns - HOUR_NS
    os.utime(log, ns=(then, then))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(root=str(tmp_path / "lake"))
    lake.replace_days(TABLE, rows(1), [DAY], "a run")
    return lake


def test_a_table_that_did_not_change_is_opened_once(lake: Lake) -> None:
    settle(lake)
    first = delta_tables.opened(lake.uri(TABLE))
    assert delta_tables.opened(lake.uri(TABLE)) is first


def test_a_table_that_has_just_changed_is_opened_each_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next commit may come under the same time of change."""
    monkeypatch.setattr(delta_tables, "SETTLED_NS", HOUR_NS)
    assert delta_tables.opened(lake.uri(TABLE)) is not delta_tables.opened(lake.uri(TABLE))


def test_whole_seconds_settle_later(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time of change without a fraction is of a file system that has none: another commit of that second has the same."""
    monkeypatch.setattr(delta_tables, "SETTLED_WHOLE_SECONDS_NS", 2 * HOUR_NS)
    log = Path(lake.uri(TABLE)) / "_delta_log"
    whole = (log.stat().st_mtime_ns - HOUR_NS) // 1_000_000_000 * 1_000_000_000
    os.utime(log, ns=(whole, whole))
    assert delta_tables.opened(lake.uri(TABLE)) is not delta_tables.opened(lake.uri(TABLE))
    os.utime(log, ns=(whole, whole + 1))
    assert delta_tables.opened(lake.uri(TABLE)) is delta_tables.opened(lake.uri(TABLE))


def test_own_commits_are_read(lake: Lake) -> None:
    settle(lake)
    assert values(lake) == [1]
    lake.replace_days(TABLE, rows(2, 3), [DAY], "a run")
    assert values(lake) == [2, 3]
    assert lake.version(TABLE) == 2
    settle(lake)
    assert values(lake) == [2, 3]


def test_commits_of_another_process_are_read(lake: Lake) -> None:
    settle(lake)
    assert values(lake) == [1]
    code = (
        "from pipeline_assets_tests.unit.test_delta_tables import *; "
        f"Lake(root={lake.root!r}).replace_days(TABLE, rows(7), [DAY], 'another run')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert values(lake) == [7]


def test_a_table_made_anew_at_the_same_place_is_read(lake: Lake) -> None:
    settle(lake)
    assert values(lake) == [1]
    shutil.rmtree(lake.uri(TABLE))
    lake.replace_days(TABLE, rows(9), [DAY], "a run")
    assert values(lake) == [9]


def test_a_restored_table_with_its_old_times_is_read(lake: Lake, tmp_path: Path) -> None:
    """A copy that keeps times of change, in the place of the table it was copied from."""
    settle(lake)
    shutil.copytree(lake.uri(TABLE), tmp_path / "copy")
    lake.replace_days(TABLE, rows(4), [DAY], "a run")
    settle(lake)
    assert values(lake) == [4]
    shutil.rmtree(lake.uri(TABLE))
    shutil.move(tmp_path / "copy", lake.uri(TABLE))
    assert values(lake) == [1]


def test_a_folder_that_is_gone_is_no_table(lake: Lake) -> None:
    settle(lake)
    assert values(lake) == [1]
    shutil.rmtree(lake.uri(TABLE))
    assert not lake.exists(TABLE)
    assert lake.days(TABLE) == set()


def test_the_control_that_ignores_the_log_reads_old_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above would see if handles were kept whatever happens."""
    monkeypatch.setattr(delta_tables, "_log", lambda uri: (0, 0, 0))
    assert values(lake) == [1]
    lake.replace_days(TABLE, rows(2, 3), [DAY], "a run")
    assert values(lake) == [1]


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    """The table that was opened longest ago is opened anew after as many others as are kept; the newest is not."""
    lakes = [Lake(root=str(tmp_path / "0"))]
    lakes[0].replace_days(TABLE, rows(1), [DAY], "a run")
    settle(lakes[0])
    for n in range(1, delta_tables.KEPT + 1):
        shutil.copytree(lakes[0].uri(TABLE), tmp_path / str(n) / TABLE)
        lakes.append(Lake(root=str(tmp_path / str(n))))
        settle(lakes[n])
    handles = [delta_tables.opened(lake.uri(TABLE)) for lake in lakes]
    assert delta_tables.opened(lakes[-1].uri(TABLE)) is handles[-1]
    assert delta_tables.opened(lakes[0].uri(TABLE)) is not handles[0]


@pytest.mark.parametrize("folder", ["lake", "a folder ü", "event_date=2016-01-01"])
def test_rows_are_those_of_deltas_own_dataset(tmp_path: Path, folder: str) -> None:
    """Whatever the folder is called, and where a later day has another column."""
    lake, next_day = Lake(root=str(tmp_path / folder / "lake")), date(2017, 3, 2)
    lake.replace_days(TABLE, rows(1, 2), [DAY], "a run")
    more = rows(3).set_column(0, "event_date", pyarrow.array([next_day], pyarrow.date32()))
    lake.replace_days(TABLE, more.append_column("more", pyarrow.array(["x"])), [next_day], "a run", evolves=True)
    table = delta_tables.opened(lake.uri(TABLE))
    for filters in (
        [],
        delta_tables.between(DAY, DAY),
        delta_tables.between(date(2018, 1, 1), None),
        [("value", "=", 3)],
    ):
        found = delta_tables.rows_of(table, filters)
        expected = table.to_pyarrow_dataset().to_table(
            filter=pyarrow.parquet.filters_to_expression(filters) if filters else None
        )
        assert found.equals(expected)
        assert found.schema == expected.schema
