"""Daily drops in a folder: two days of the scenario as CSV and as Parquet."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest

from pipeline_assets.recommender.errors import SchemaError, SourceError
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import PARSE_ERRORS
from pipeline_assets.sources.base import SourceCalendar
from pipeline_assets.sources.files import FilesSource
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
from pipeline_assets_tests import scenario
from pipeline_assets_tests.chaos.small_disk import small_disk

SUNDAY, MONDAY = date(2017, 2, 12), date(2017, 2, 13)
PURCHASES, PRODUCTS = FEEDS["purchases"], FEEDS["products"]


def source(root: Path, columns: dict[str, str] | None = None) -> FilesSource:
    calendar = SourceCalendar("America/New_York", scenario.FIRST_DAY, scenario.LAST_DAY)
    mapping = SourceMapping(None, {"purchases": FeedMapping(columns=columns)} if columns else {})
    return FilesSource(str(root), mapping, calendar, max_unparsed_share=0.5, spool=root / "spool")


def lines(day: date) -> pd.DataFrame:
    """What was bought on a day, without the business day: the file's name says it."""
    frame = scenario.purchases()
    return frame[frame["event_date"] == day].drop(columns="event_date")


def drop(root: Path, frame: pd.DataFrame, day: date, suffix: str, feed: str = "purchases") -> Path:
    """Write one day's file."""
    path = root / feed / f"{day}.{suffix}"
    path.parent.mkdir(exist_ok=True)
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_file_becomes_the_contract(tmp_path: Path, suffix: str) -> None:
    """CSV text and Parquet values give the same rows, with the day of the file's name."""
    drop(tmp_path, lines(SUNDAY), SUNDAY, suffix)
    wanted = scenario.purchases()
    expected = scenario.delivered("purchases", wanted[wanted["event_date"] == SUNDAY])
    assert source(tmp_path).read(PURCHASES, [SUNDAY]).equals(expected)


def test_days_of_both_kinds_are_read_together(tmp_path: Path) -> None:
    """Sunday came as CSV, Monday as Parquet: 3 and 2 lines, in the order of the days."""
    drop(tmp_path, lines(SUNDAY), SUNDAY, "csv")
    drop(tmp_path, lines(MONDAY), MONDAY, "parquet")
    found = source(tmp_path).read(PURCHASES, [SUNDAY, MONDAY])
    assert found["event_date"].to_pylist() == [SUNDAY] * 3 + [MONDAY] * 2


def test_only_finished_files_with_a_day_are_deliveries(tmp_path: Path) -> None:
    """Products alone make no day; a half-written file, notes and a file of another name are none."""
    for day in (MONDAY, SUNDAY):
        drop(tmp_path, lines(day), day, "csv")
    drop(tmp_path, scenario.products(), date(2017, 2, 14), "csv", feed="products")
    for name in ("notes.txt", "2017-02-15.csv.part", "february.csv", "2017-02-30.csv"):
        (tmp_path / "purchases" / name).write_text("half-written")
    assert source(tmp_path).arrived_days() == [SUNDAY, MONDAY]


def test_empty_folder_has_no_days(tmp_path: Path) -> None:
    """Nothing has arrived, which is no error."""
    assert source(tmp_path).arrived_days() == []


def test_missing_purchases_name_the_day_and_the_wanted_file(tmp_path: Path) -> None:
    """Monday has not come."""
    drop(tmp_path, lines(SUNDAY), SUNDAY, "csv")
    with pytest.raises(SourceError) as error:
        source(tmp_path).read(PURCHASES, [SUNDAY, MONDAY])
    assert (error.value.culprit, error.value.found, error.value.fix) == (
        "purchases of 2017-02-13",
        "no file",
        "deliver the day",
    )
    assert str(error.value.wanted).startswith(str(tmp_path / "purchases" / "2017-02-13"))


def test_missing_change_feed_is_an_empty_table(tmp_path: Path) -> None:
    """No product changed: no file of that day, no row, the contract's types."""
    drop(tmp_path, scenario.products(), date(2017, 2, 14), "csv", feed="products")
    found = source(tmp_path).read(PRODUCTS, [SUNDAY])
    assert len(found) == 0
    assert found.schema.names == [*PRODUCTS.columns, PARSE_ERRORS]


def test_day_delivered_twice_is_refused(tmp_path: Path) -> None:
    """A CSV and a Parquet file of one day: which one is right is not ours to guess."""
    drop(tmp_path, lines(SUNDAY), SUNDAY, "csv")
    drop(tmp_path, lines(SUNDAY), SUNDAY, "parquet")
    with pytest.raises(SourceError, match=r"2017-02-12\.csv and 2017-02-12\.parquet"):
        source(tmp_path).read(PURCHASES, [SUNDAY])


@pytest.mark.parametrize(
    ("suffix", "content"),
    [("parquet", b"PAR1 and then the connection broke"), ("csv", b'event_id,order_id\n"e1\xff\xfe,o1\n'), ("csv", b"")],
    ids=["cut parquet", "broken encoding", "empty file"],
)
def test_unreadable_file_names_feed_day_and_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    """The error is one of ours, whatever the reader says; nothing is made of half a file."""
    path = drop(tmp_path, lines(SUNDAY), SUNDAY, suffix)
    path.write_bytes(content)
    with pytest.raises((SourceError, SchemaError)) as error:
        source(tmp_path).read(PURCHASES, [SUNDAY])
    assert "2017-02-12" in error.value.culprit
    assert error.value.fix


def test_cut_parquet_file_is_not_read_in_part(tmp_path: Path) -> None:
    """A whole file without its last 100 bytes has no footer."""
    path = drop(tmp_path, lines(SUNDAY), SUNDAY, "parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="purchases of 2017-02-12"):
        source(tmp_path).read(PURCHASES, [SUNDAY])


def test_own_business_day_in_the_file_does_not_count(tmp_path: Path) -> None:
    """The day of delivery is the batch's day, even if the file says another."""
    drop(tmp_path, lines(SUNDAY).assign(event_date="2016-01-01"), SUNDAY, "csv")
    assert set(source(tmp_path).read(PURCHASES, [SUNDAY])["event_date"].to_pylist()) == {SUNDAY}


def test_one_bad_value_in_a_csv_costs_one_row(tmp_path: Path) -> None:
    """The other two lines keep their values."""
    frame = lines(SUNDAY).astype({"amount": str})
    frame.iloc[1, frame.columns.get_loc("amount")] = "free"
    drop(tmp_path, frame, SUNDAY, "csv")
    found = source(tmp_path).read(PURCHASES, [SUNDAY])
    assert found[PARSE_ERRORS].to_pylist() == [None, "amount=free", None]
    assert found["amount"].to_pylist() == [3.0, None, 5.0]


def test_mapping_of_text_columns_casts_where_it_calculates(tmp_path: Path) -> None:
    """A CSV's columns are text: `try_cast` makes a price that cannot be read a missing amount of one row."""
    expression = "try_cast(preis as double) * try_cast(menge as double)"
    frame = lines(SUNDAY).drop(columns="amount").assign(menge=[2, 1, 3], preis=["1.5", "free", "2.0"])
    drop(tmp_path, frame, SUNDAY, "csv")
    found = source(tmp_path, {"amount": expression}).read(PURCHASES, [SUNDAY])
    assert found["amount"].to_pylist() == [3.0, None, 6.0]


@pytest.mark.parametrize(
    "expression",
    ["preiss", "amount +", "cast(product_id as double)"],
    ids=["unknown column", "no SQL", "fails on a value"],
)
def test_mapping_that_cannot_be_used_names_column_and_file(tmp_path: Path, expression: str) -> None:
    """Whether the expression is wrong or fails on a value, the error says which column of which file."""
    path = drop(tmp_path, lines(SUNDAY), SUNDAY, "csv")
    with pytest.raises(SchemaError) as error:
        source(tmp_path, {"amount": expression}).read(PURCHASES, [SUNDAY])
    assert error.value.culprit == f"column amount of {path}"
    assert "mapping" in error.value.fix


def test_parquet_written_by_the_contract_is_read_as_it_is(tmp_path: Path) -> None:
    """Exposures with nullable ids and days survive the round trip."""
    frame = scenario.exposures()
    frame = frame[frame["event_date"] == scenario.AS_OF]
    path = tmp_path / "exposures" / f"{scenario.AS_OF}.parquet"
    path.parent.mkdir()
    table = scenario.delivered("exposures", frame)
    pyarrow.parquet.write_table(table.drop_columns([PARSE_ERRORS]), path)
    assert source(tmp_path).read(FEEDS["exposures"], [scenario.AS_OF]).equals(table)


def test_rare_key_of_json_lines_is_not_lost(tmp_path: Path) -> None:
    """store_id is only on the last of 30,000 lines: no sample of the first ones would know it."""
    path = tmp_path / "purchases" / f"{SUNDAY}.jsonl"
    path.parent.mkdir()
    common = '"order_id":"o","customer_id":"c","product_id":"p","quantity":1,"amount":1,"discount":0,"event_ts":"2017-02-12T12:00:00Z"'
    lines = [f'{{"event_id":"e{n}",{common}}}' for n in range(30_000)]
    path.write_text("\n".join([*lines, f'{{"event_id":"last","store_id":"s1",{common}}}']))
    found = source(tmp_path).read(PURCHASES, [SUNDAY])
    assert found.to_pandas().set_index("event_id").loc["last", "store_id"] == "s1"


def test_broken_line_of_json_lines_is_named(tmp_path: Path) -> None:
    """A line that was cut off: the file is refused, nothing is made of half of it."""
    path = tmp_path / "purchases" / f"{SUNDAY}.jsonl"
    path.parent.mkdir()
    path.write_text('{"event_id":"e1","order_id":"o1"}\n{"event_id":"e2","ord')
    with pytest.raises(SourceError, match="2017-02-12"):
        source(tmp_path).read(PURCHASES, [SUNDAY])


def test_spool_is_made_once_for_each_version(tmp_path: Path) -> None:
    """One file for all days is sorted once; reading each day, and asking again, writes nothing; a longer file replaces its spool."""
    frame = scenario.purchases()
    frame.to_csv(tmp_path / "purchases.csv", index=False)
    found = source(tmp_path)
    days = found.arrived_days()
    (spool,) = (tmp_path / "spool").iterdir()
    written = spool.stat().st_mtime_ns
    for day in days:
        assert len(found.read(PURCHASES, [day])) == (frame["event_date"] == day).sum()
    assert source(tmp_path).arrived_days() == days
    assert spool.stat().st_mtime_ns == written
    pd.concat([frame, frame.tail(1).assign(event_date=date(2017, 2, 28))]).to_csv(
        tmp_path / "purchases.csv", index=False
    )
    assert date(2017, 2, 28) in source(tmp_path).arrived_days()
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".parquet"]
    assert not spool.exists()


def test_folder_of_files_for_all_days_skips_what_is_not_asked_for(tmp_path: Path) -> None:
    """January's file is broken in a column that only its own days need: February is read, January is refused."""
    frame = scenario.purchases()
    (tmp_path / "purchases").mkdir()
    is_january = frame["event_date"] < date(2017, 2, 1)
    frame[is_january].drop(columns="amount").to_csv(tmp_path / "purchases" / "january.csv", index=False)
    frame[~is_january].to_csv(tmp_path / "purchases" / "february.csv", index=False)
    assert len(source(tmp_path).read(PURCHASES, [SUNDAY])) == 3
    with pytest.raises(SchemaError, match="column amount of"):
        source(tmp_path).read(PURCHASES, [date(2017, 1, 2)])


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """Half a spool of a process that is gone goes with the next spool; that of one that still writes stays."""
    gone, alive = (tmp_path / "spool" / f"purchases-x.{pid}.part" for pid in (2**22 + 1, os.getppid()))
    for work in (gone, alive):
        work.mkdir(parents=True)
        (work / "sorted.parquet").write_bytes(b"PAR1")
    scenario.purchases().to_csv(tmp_path / "purchases.csv", index=False)
    assert SUNDAY in source(tmp_path).arrived_days()
    assert (gone.exists(), alive.exists()) == (False, True)


def test_full_disk_leaves_no_half_spool(tmp_path: Path) -> None:
    """A disk with 64 kB left is full before the spool is written: the error says so, nothing is left, and with room it is made."""
    small = tmp_path / "small"
    small.mkdir()
    lines = scenario.purchases()
    pd.concat([lines.assign(event_id=lines["event_id"] + f"-{n * 7919}") for n in range(2_000)]).to_csv(
        tmp_path / "purchases.csv", index=False
    )
    calendar = SourceCalendar("America/New_York", scenario.FIRST_DAY, scenario.LAST_DAY)
    found = FilesSource(str(tmp_path), SourceMapping(), calendar, 0.5, spool=small / "spool")
    with small_disk(small) as disk:
        disk.leave(1 << 16)
        with pytest.raises(SourceError, match="room for a sorted copy"):
            found.arrived_days()
        assert list((small / "spool").iterdir()) == []
        disk.free()
        assert SUNDAY in found.arrived_days()
