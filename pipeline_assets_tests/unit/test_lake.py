"""The lake in a temporary folder: digests, atomic replacement of days, verdicts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow
import pytest

from pipeline_assets.recommender.errors import BlockedPartition, NotEnoughData
from pipeline_assets.resources.content import digest, in_days
from pipeline_assets.resources.day_file import DayFile
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.schemas.validation import Verdict

D1, D2, D3, D4 = (date(2017, 2, n) for n in (6, 7, 8, 9))
NOON = datetime(2017, 2, 10, 12, tzinfo=UTC)
TABLE = "raw/purchases"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return local_lake(tmp_path)


def day_rows(day: date, *values: int) -> pyarrow.Table:
    """One row per value on a day."""
    columns = {
        "value": pyarrow.array(values, pyarrow.int64()),
        "event_date": pyarrow.array([day] * len(values), pyarrow.date32()),
    }
    return pyarrow.table(columns)


def content(lake: Lake, **bounds: date) -> dict[date, list[int]]:
    rows = sorted((row["event_date"], row["value"]) for row in lake.read(TABLE, **bounds).to_pylist())
    return {day: [value for at, value in rows if at == day] for day, _ in rows}


def mixed() -> pyarrow.Table:
    """Ten rows of the types that the pipeline stores, nulls among them."""
    return pyarrow.table(
        {
            "n": [1, None, 3, 4, 5] * 2, "x": [0.5, None] * 5, "text": ["a", None, "ccc", "", "e"] * 2, "is": [True, None] * 5,
            "ids": [["a"], None, ["b", "c"], [], ["d"]] * 2, "blob": [b"ab", b"", None, b"c", b"d"] * 2, "day": [D1, D2] * 5,
        }
    )  # fmt: skip


@pytest.mark.parametrize("cut", range(1, 10))
def test_digest_does_not_depend_on_chunks(cut: int) -> None:
    """Ten rows in one piece or cut in two: the same content, the same digest."""
    table = mixed()
    assert digest(pyarrow.concat_tables([table.slice(0, cut), table.slice(cut)])) == digest(table)


def test_digest_of_a_slice_is_that_of_its_rows() -> None:
    """Rows 3 to 6 of a table, as a view of it and written on their own: what lies beside them in memory is not content."""
    table = mixed()
    assert digest(table.slice(3, 4)) == digest(pyarrow.Table.from_pylist(table.to_pylist()[3:7], schema=table.schema))


def test_digest_does_not_see_what_lies_under_a_null() -> None:
    """1, null, 3 with 2.0 or 99.0 in the memory of the null."""
    is_valid = pyarrow.py_buffer(bytes([0b101]))
    hidden = [
        pyarrow.Array.from_buffers(pyarrow.float64(), 3, [is_valid, pyarrow.py_buffer(np.array([1.0, under, 3.0]))])
        for under in (2.0, 99.0)
    ]
    assert digest(pyarrow.table({"x": hidden[0]})) == digest(pyarrow.table({"x": hidden[1]}))


def test_digest_of_many_rows_does_not_depend_on_chunks() -> None:
    """More rows than one written batch (65,536) has."""
    table = pyarrow.table({"n": np.arange(100_000)})
    assert digest(pyarrow.concat_tables([table.slice(0, 70_001), table.slice(70_001)])) == digest(table)


@pytest.mark.parametrize("column", ["n", "x", "text", "is", "ids", "blob", "day"])
def test_digest_is_sensitive_to_one_value(column: str) -> None:
    """The last row's value becomes that of the first."""
    rows = mixed().to_pylist()
    rows[9][column] = rows[0][column]
    assert digest(pyarrow.Table.from_pylist(rows, schema=mixed().schema)) != digest(mixed())


def test_digest_is_sensitive_to_names_types_nulls_and_order() -> None:
    """1, 2 as "a" is neither "b", nor int32, nor 2, 1, nor 1, null; metadata is not content."""
    plain = pyarrow.table({"a": [1, 2]})
    others = [
        pyarrow.table({"b": [1, 2]}), pyarrow.table({"a": pyarrow.array([1, 2], pyarrow.int32())}),
        pyarrow.table({"a": [2, 1]}), pyarrow.table({"a": [1, None]}), pyarrow.table({"a": [1]}),
    ]  # fmt: skip
    assert digest(plain) not in {digest(other) for other in others}
    assert digest(plain.replace_schema_metadata({"written_by": "x"})) == digest(plain)


def test_sorted_digest_does_not_depend_on_the_order_of_rows() -> None:
    """With a key the order is canonical."""
    table = pyarrow.table({"key": ["a", "b", "c"], "x": [1, 2, 3]})
    turned = table.take([2, 0, 1])
    assert digest(turned) != digest(table)
    assert digest(turned, sort_by="key") == digest(table, sort_by="key")


def test_replacing_days_replaces_exactly_those(lake: Lake) -> None:
    """Three days, the middle one again with other rows: the first and the last keep theirs."""
    lake.replace_days(
        TABLE, pyarrow.concat_tables([day_rows(D1, 1), day_rows(D2, 2, 22), day_rows(D3, 3)]), [D1, D2, D3], "r1"
    )
    lake.replace_days(TABLE, day_rows(D2, 7), [D2], "r2")
    assert content(lake) == {D1: [1], D2: [7], D3: [3]}


def test_day_of_the_range_without_new_rows_becomes_empty(lake: Lake) -> None:
    """D1 to D3 are replaced by rows of D2 alone; D4 is not asked for."""
    lake.replace_days(
        TABLE, pyarrow.concat_tables([day_rows(day, 1) for day in (D1, D2, D3, D4)]), [D1, D2, D3, D4], "r1"
    )
    lake.replace_days(TABLE, day_rows(D2, 2), [D1, D2, D3], "r2")
    assert content(lake) == {D2: [2], D4: [1]}
    assert lake.days(TABLE) == {D2, D4}


def test_no_rows_empty_the_day_and_make_the_table(lake: Lake) -> None:
    """A blocked day leaves nothing; a table that never had rows can be read."""
    assert lake.replace_days(TABLE, day_rows(D1), [D1], "r1")[D1].rows == 0
    assert len(lake.read(TABLE)) == 0
    lake.replace_days(TABLE, day_rows(D1, 1), [D1], "r2")
    lake.replace_days(TABLE, day_rows(D1), [D1], "r3")
    assert (len(lake.read(TABLE)), lake.days(TABLE)) == (0, set())


def test_same_rows_again_change_no_content(lake: Lake) -> None:
    """A retried run writes a new version with the same digest, in whatever order the rows came."""
    first = lake.replace_days(TABLE, day_rows(D1, 1, 2), [D1], "r1", key="value")
    version = lake.version(TABLE)
    assert lake.replace_days(TABLE, day_rows(D1, 2, 1), [D1], "r2", key="value") == first
    assert lake.version(TABLE) == version + 1
    assert content(lake) == {D1: [1, 2]}


def test_rows_of_another_day_are_refused_and_nothing_is_written(lake: Lake) -> None:
    """A row of D3 in the replacement of D2: the commit fails as a whole."""
    lake.replace_days(TABLE, pyarrow.concat_tables([day_rows(D2, 2), day_rows(D3, 3)]), [D2, D3], "r1")
    version = lake.version(TABLE)
    with pytest.raises(deltalake.exceptions.DeltaError):
        lake.replace_days(TABLE, pyarrow.concat_tables([day_rows(D2, 7), day_rows(D3, 8)]), [D2], "r2")
    assert lake.version(TABLE) == version
    assert content(lake) == {D2: [2], D3: [3]}


def test_failed_write_leaves_the_day_as_it_was(lake: Lake) -> None:
    """A table that does not fit (text for numbers) changes no row and makes no version: replacement is one commit."""
    lake.replace_days(TABLE, day_rows(D1, 1), [D1], "r1")
    version = lake.version(TABLE)
    wrong = pyarrow.table({"value": ["one"], "event_date": [D1]})
    with pytest.raises(Exception, match=r"(?i)cast|schema|type"):
        lake.replace_days(TABLE, wrong, [D1], "r2")
    assert (lake.version(TABLE), content(lake)) == (version, {D1: [1]})


def test_older_versions_stay_readable(lake: Lake) -> None:
    """What a model was trained on can be read after the day was replaced."""
    lake.replace_days(TABLE, day_rows(D1, 1), [D1], "r1")
    version = lake.version(TABLE)
    lake.replace_days(TABLE, day_rows(D1, 2), [D1], "r2")
    assert lake.read(TABLE, version=version)["value"].to_pylist() == [1]


def test_conflicting_writer_is_retried(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt loses against another writer, the second wins; then the days are as asked for."""
    write, attempts = deltalake.write_deltalake, []

    def losing_once(*args: Any, **kwargs: Any) -> None:
        attempts.append(kwargs["predicate"])
        if len(attempts) == 1:
            raise deltalake.exceptions.CommitFailedError("another writer was first")
        write(*args, **kwargs)

    monkeypatch.setattr(deltalake, "write_deltalake", losing_once)
    lake.replace_days(TABLE, day_rows(D1, 1), [D1], "r1")
    assert (len(attempts), content(lake)) == (2, {D1: [1]})


def as_file(lake: Lake, day: date, *values: int) -> DayFile:
    """The rows in a file, two at a time; nothing is committed."""
    file = lake.day_file(TABLE, day_rows(day).schema, day)
    for start in range(0, len(values), 2):
        file.add(day_rows(day, *values[start : start + 2]))
    return file


def test_a_day_from_a_file_is_the_day_from_a_table(lake: Lake) -> None:
    """Five values in three pieces: one version more, the same rows and digest, counted from the log; other days stay."""
    in_memory = lake.replace_days(
        TABLE, pyarrow.concat_tables([day_rows(D1, *range(5)), day_rows(D2, 9)]), [D1, D2], "r1"
    )
    version = lake.version(TABLE)
    assert lake.replace_day(TABLE, as_file(lake, D1, *range(5)), "r2", {"a": 3}) == in_memory[D1]
    assert content(lake) == {D1: [0, 1, 2, 3, 4], D2: [9]}
    assert lake.rows_by_day(TABLE) == {D1: 5, D2: 1}
    commit = lake.commits(TABLE)[-1]
    assert (commit.version, commit.run_id, commit.days, commit.inputs) == (
        version + 1,
        "r2",
        {D1: in_memory[D1]},
        {"a": 3},
    )


@pytest.mark.parametrize("known", [[], [D1], [D2]], ids=["no day yet", "the day is replaced", "another day is there"])
def test_of_two_writers_of_a_day_the_last_one_wins(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, known: list[date]
) -> None:
    """Another writer commits between the opening of the table and the commit: the first attempt fails, the second replaces its rows."""
    for day in known:
        lake.replace_days(TABLE, day_rows(day, 1), [day], "r0")
    file, opened = as_file(lake, D1, 7), Lake._write
    attempts = []

    def open_and_be_late(self: Lake, table: str) -> Any:
        found = opened(self, table)
        if not attempts:
            attempts.append(found.version())
            deltalake.write_deltalake(
                self.uri(TABLE), day_rows(D1, 5), mode="overwrite", predicate=f"event_date = '{D1}'"
            )
        return found

    monkeypatch.setattr(Lake, "_write", open_and_be_late)
    lake.replace_day(TABLE, file, "r1")
    monkeypatch.undo()
    assert content(lake)[D1] == [7]
    assert lake.version(TABLE) == attempts[0] + 2


def test_a_file_that_is_not_finished_leaves_nothing(lake: Lake, tmp_path: Path) -> None:
    """The second piece does not fit: no version, no row, no file."""
    lake.replace_days(TABLE, day_rows(D1, 1), [D1], "r0")
    version, files = lake.version(TABLE), sorted(tmp_path.rglob("*.parquet"))
    with pytest.raises(pyarrow.ArrowInvalid), as_file(lake, D1, 2, 3) as file:
        file.add(day_rows(D1, 4).set_column(0, "value", pyarrow.array(["no number"])))
    assert (lake.version(TABLE), content(lake)) == (version, {D1: [1]})
    assert sorted(tmp_path.rglob("*.parquet")) == files


def test_bounds_of_a_read_are_both_included(lake: Lake) -> None:
    """D2 to D3 of four days; days, files and rows agree."""
    lake.replace_days(
        TABLE, pyarrow.concat_tables([day_rows(day, 1) for day in (D1, D2, D3, D4)]), [D1, D2, D3, D4], "r1"
    )
    assert content(lake, start=D2, end=D3) == {D2: [1], D3: [1]}
    assert [uri.split("event_date=")[1][:10] for uri in lake.files(TABLE, D2, D3)] == ["2017-02-07", "2017-02-08"]
    assert in_days(lake.read(TABLE), D2).num_rows == 1


def test_files_are_those_of_the_current_version_only(lake: Lake) -> None:
    """The replaced file is still on disk, but not in the list."""
    lake.replace_days(TABLE, day_rows(D1, 1), [D1], "r1")
    before = lake.files(TABLE)
    lake.replace_days(TABLE, day_rows(D1, 2), [D1], "r2")
    after = lake.files(TABLE)
    assert len(before) == len(after) == 1
    assert before != after


def test_days_apart_are_replaced_without_those_between(lake: Lake) -> None:
    """D1 and D3 in one commit: D2 keeps its row."""
    lake.replace_days(TABLE, pyarrow.concat_tables([day_rows(day, 1) for day in (D1, D2, D3)]), [D1, D2, D3], "r1")
    lake.replace_days(TABLE, pyarrow.concat_tables([day_rows(D1, 7), day_rows(D3, 8)]), [D1, D3], "r2")
    assert content(lake) == {D1: [7], D2: [1], D3: [8]}


def test_commit_carries_run_content_and_inputs(lake: Lake) -> None:
    """Oldest first; a day without rows is part of it; what made no days (creation) is not listed."""
    found = lake.replace_days(TABLE, day_rows(D1, 1), [D1, D2], "run-7", inputs={"raw/x": 3})
    lake.replace_days(TABLE, day_rows(D1, 2), [D1], "run-8")
    first, second = lake.commits(TABLE)
    assert (first.run_id, first.days, first.inputs, first.version) == ("run-7", found, {"raw/x": 3}, 1)
    assert [content.rows for content in first.days.values()] == [1, 0]
    assert (second.run_id, list(second.days), second.inputs) == ("run-8", [D1], {})


def test_who_wrote_a_row_is_not_content(lake: Lake) -> None:
    """Two runs that write the same rows with their own run_id agree on the digest."""
    mine, yours = (
        day_rows(D1, 1).append_column("run_id", pyarrow.array([run], pyarrow.string())) for run in ("mine", "yours")
    )
    assert lake.replace_days(TABLE, mine, [D1], "mine") == lake.replace_days(TABLE, yours, [D1], "yours")


def test_rows_by_day_are_counted_from_the_log(lake: Lake) -> None:
    """Two and one; the replaced row does not count."""
    assert lake.rows_by_day(TABLE) == {}
    lake.replace_days(TABLE, pyarrow.concat_tables([day_rows(D1, 1, 2), day_rows(D2, 3)]), [D1, D2], "r1")
    lake.replace_days(TABLE, day_rows(D2, 4), [D2], "r2")
    assert lake.rows_by_day(TABLE) == {D1: 2, D2: 1}


def test_only_the_days_asked_for_are_read(lake: Lake) -> None:
    """D1 and D3 of three, of the newest and of an older version."""
    lake.replace_days(TABLE, pyarrow.concat_tables([day_rows(day, 1) for day in (D1, D2, D3)]), [D1, D2, D3], "r1")
    version = lake.version(TABLE)
    lake.replace_days(TABLE, day_rows(D3, 9), [D3], "r2")
    assert sorted(lake.read_days(TABLE, [D1, D3])["value"].to_pylist()) == [1, 9]
    assert lake.read_days(TABLE, [D1, D3], version)["value"].to_pylist() == [1, 1]


def test_a_ledger_stays_few_files(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten appends, compacted at every fourth version: all rows, fewer files than appends."""
    monkeypatch.setattr("pipeline_assets.resources.lake.COMPACT_EVERY", 4)
    for value in range(10):
        lake.append("ledger/x", pyarrow.table({"value": [value]}))
    assert sorted(lake.read("ledger/x")["value"].to_pylist()) == list(range(10))
    assert len(lake.files("ledger/x")) < 5


def test_history_is_kept_for_good(lake: Lake) -> None:
    """delta-rs would delete commits that are older than 30 days by the wall clock."""
    lake.replace_days(TABLE, day_rows(D1, 1), [D1], "r1")
    settings = deltalake.DeltaTable(lake.uri(TABLE)).metadata().configuration
    assert settings["delta.enableExpiredLogCleanup"] == "false"
    assert settings["delta.logRetentionDuration"] == "interval 36500 days"


def test_table_that_does_not_exist(lake: Lake) -> None:
    """Nothing was written: no days, no files, no verdicts, and a read says what to do."""
    assert (lake.exists(TABLE), lake.days(TABLE), lake.files(TABLE), lake.verdicts("purchases", D1, D4)) == (
        False,
        set(),
        [],
        {},
    )
    with pytest.raises(NotEnoughData, match=f"{TABLE}.*materialise"):
        lake.read(TABLE)


def record(
    lake: Lake, day: date, status: str, hours: int = 0, feed: str = "purchases", reasons: tuple[str, ...] = ()
) -> None:
    verdict = Verdict(feed, day, status, 10, 9, 1, reasons, {"quantity_positive": 1})
    lake.record_verdicts([verdict], "r1", NOON + timedelta(hours=hours))


def test_verdict_survives_the_round_trip(lake: Lake) -> None:
    """All that validation said comes back."""
    verdict = Verdict(
        "purchases", D1, "blocked", 10, 0, 10, ("too bad", "no row"), {"quantity_positive": 4, "duplicate": 6}
    )
    lake.record_verdicts([verdict], "r1", NOON)
    assert lake.verdicts("purchases", D1, D1) == {D1: verdict}


@pytest.mark.parametrize("hours", [(0, 1), (1, 0)], ids=["written in order", "written out of order"])
def test_newest_verdict_of_a_day_wins(lake: Lake, hours: tuple[int, int]) -> None:
    """Blocked first, passed after a new delivery: the time of recording decides, not the order of writing."""
    statuses = {0: "blocked", 1: "passed"}
    for hour in hours:
        record(lake, D1, statuses[hour], hour)
    assert lake.verdicts("purchases", D1, D1)[D1].status == "passed"
    assert (lake.passed_days(["purchases"], D1, D1), lake.blocked_days("purchases", D1, D1)) == ([D1], [])


def test_verdicts_are_of_one_feed_and_of_the_days_asked_for(lake: Lake) -> None:
    """D1 and D2 of purchases; products has its own."""
    for day in (D1, D2, D3):
        record(lake, day, "passed")
    record(lake, D2, "blocked", feed="products")
    assert set(lake.verdicts("purchases", D1, D2)) == {D1, D2}
    assert lake.verdicts("products", D1, D3)[D2].status == "blocked"


def test_passed_days_are_those_on_which_every_feed_passed(lake: Lake) -> None:
    """Purchases passed on D1, D2, D3; products on D1 and D3, with D3 blocked later; no verdict is no pass."""
    for day in (D3, D2, D1):
        record(lake, day, "passed")
    for day, status, hour in ((D1, "passed", 0), (D3, "passed", 0), (D3, "blocked", 1)):
        record(lake, day, status, hour, feed="products")
    assert lake.passed_days(["purchases"], D1, D4) == [D1, D2, D3]
    assert lake.passed_days(["purchases", "products"], D1, D4) == [D1]


def test_guard_lets_passed_days_through(lake: Lake) -> None:
    """No error means go."""
    record(lake, D1, "passed")
    lake.require_passed(["purchases"], [D1])


def test_guard_names_the_blocked_feed_day_reason_and_fix(lake: Lake) -> None:
    """D2 is blocked for two reasons: both are said."""
    record(lake, D1, "passed")
    record(lake, D2, "blocked", reasons=("60% break a rule", "no row is valid"))
    with pytest.raises(BlockedPartition) as error:
        lake.require_passed(["purchases"], [D1, D2])
    assert (error.value.culprit, error.value.found) == ("purchases of 2017-02-07", "60% break a rule; no row is valid")
    assert error.value.wanted == "a passed verdict"
    assert "validated/purchases for 2017-02-07" in error.value.fix


def test_guard_refuses_a_day_without_a_verdict(lake: Lake) -> None:
    """Nobody looked at products of D1: that is not a pass."""
    record(lake, D1, "passed")
    with pytest.raises(BlockedPartition, match="products of 2017-02-06: found no verdict"):
        lake.require_passed(["purchases", "products"], [D1])
