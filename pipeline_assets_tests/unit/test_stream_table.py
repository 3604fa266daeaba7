"""Messages and positions in one commit, in a lake in a temporary folder."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow
import pytest

from pipeline_assets.resources.lake import Lake
from pipeline_assets.sources import stream_table
from pipeline_assets.sources.stream_messages import ROWS
from pipeline_assets.sources.stream_table import Overtaken, Place, Position, StreamTable, table_of, watermark

TABLE = table_of("purchases")
SUNDAY, MONDAY = date(2017, 2, 12), date(2017, 2, 13)
NOON, LATER = datetime(2017, 2, 12, 12, tzinfo=UTC), datetime(2017, 2, 12, 13, 0, 0, 1, tzinfo=UTC)
FIRST, SECOND = ("sales", 0), ("sales", 1)  # places: two partitions of one topic


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path))


def opened(lake: Lake) -> StreamTable:
    return StreamTable(lake, TABLE, ROWS, "event_date")


def rows(offsets: list[int], day: date = SUNDAY) -> pyarrow.Table:
    """Messages of partition 0."""
    return pyarrow.Table.from_pylist(
        [{"topic": "sales", "partition": 0, "offset": n, "message": "{}", "event_date": day} for n in offsets], ROWS
    )


def commit(
    table: StreamTable,
    rows: pyarrow.Table,
    positions: Mapping[Place, Position],
    partitions: Mapping[str, int] | None = None,
    expected: Mapping[Place, Position | None] | None = None,
) -> None:
    """Commit from where the opened table is, unless the caller believes something else."""
    table.commit(rows, "", expected or {place: table.position("", place) for place in positions}, positions, partitions)


def landed(lake: Lake) -> list[int]:
    return sorted(lake.read(TABLE)["offset"].to_pylist())


def test_nothing_was_landed_yet(lake: Lake) -> None:
    """A new table knows no position: the consumer begins at the oldest message."""
    assert opened(lake).position("", FIRST) is None


def test_rows_and_positions_come_together(lake: Lake) -> None:
    """Who opens the table after the commit finds both, to the microsecond; other partitions are not known."""
    commit(opened(lake), rows([0, 1]), {FIRST: Position(2, LATER)})
    assert landed(lake) == [0, 1]
    assert opened(lake).position("", FIRST) == Position(2, LATER)
    assert opened(lake).position("", SECOND) is None


def test_positions_move_without_rows(lake: Lake) -> None:
    """A batch of dead letters alone, or a quiet partition: no row, but a position."""
    commit(opened(lake), rows([]), {FIRST: Position(5)})
    assert landed(lake) == []
    assert opened(lake).position("", FIRST) == Position(5, None)


def test_second_consumer_is_overtaken_and_lands_nothing(lake: Lake) -> None:
    """Both opened the table before either landed offset 0 of one partition: it is there once, and the loser sees where to go on."""
    mine, theirs = opened(lake), opened(lake)
    commit(theirs, rows([0]), {FIRST: Position(1)})
    with pytest.raises(Overtaken):
        commit(mine, rows([0]), {FIRST: Position(1)})
    assert landed(lake) == [0]
    assert mine.position("", FIRST) == Position(1)


def test_consumer_that_did_not_notice_is_overtaken_too(lake: Lake) -> None:
    """My table shows their commit already (a commit of mine re-opened it): what I believe counts, so offset 0 is not landed again."""
    theirs = opened(lake)
    commit(theirs, rows([0]), {FIRST: Position(1)})
    with pytest.raises(Overtaken):
        commit(opened(lake), rows([0]), {FIRST: Position(1)}, expected={FIRST: None})
    assert landed(lake) == [0]


def test_overtaken_on_one_partition_lands_nothing_of_the_others(lake: Lake) -> None:
    """A commit is all or nothing: partition 1 was free, but its rows came with those of partition 0."""
    mine, theirs = opened(lake), opened(lake)
    commit(theirs, rows([]), {FIRST: Position(1)})
    with pytest.raises(Overtaken):
        commit(mine, rows([0]), {FIRST: Position(1), SECOND: Position(1)})
    assert landed(lake) == []
    assert opened(lake).position("", SECOND) is None


def test_consumers_of_different_partitions_do_not_disturb_each_other(lake: Lake) -> None:
    """Both opened the same version; both land."""
    mine, theirs = opened(lake), opened(lake)
    commit(theirs, rows([0]), {FIRST: Position(1)})
    commit(mine, rows([7]), {SECOND: Position(8)})
    assert landed(lake) == [0, 7]


def test_joining_small_files_changes_nothing_else(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compacting at each third version: fewer files than commits, the same rows and position, and two days stay two."""
    monkeypatch.setattr(stream_table, "COMPACT_EVERY", 3)
    table = opened(lake)
    for n in range(9):
        commit(table, rows([n], MONDAY if n == 8 else SUNDAY), {FIRST: Position(n + 1, NOON)})
    assert landed(lake) == list(range(9))
    assert opened(lake).position("", FIRST) == Position(9, NOON)
    assert lake.rows_by_day(TABLE) == {SUNDAY: 8, MONDAY: 1}
    assert len(lake.files(TABLE)) < 9


def test_watermark_of_a_topic_is_its_slowest_partitions(lake: Lake) -> None:
    """12:00 and 13:00 make 12:00; a partition that has said nothing yet makes it unknown."""
    table = opened(lake)
    commit(table, rows([]), {FIRST: Position(1, LATER), SECOND: Position(0)}, {"sales": 2})
    assert watermark(lake, "purchases", "sales") is None
    commit(table, rows([]), {SECOND: Position(1, NOON)})
    assert watermark(lake, "purchases", "sales") == NOON
    assert watermark(lake, "purchases", "another topic") is None
