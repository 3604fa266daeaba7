"""One customer out of a table: c1 of the small lake, who shops every day; c2 is the other one."""

from __future__ import annotations

import json
from pathlib import Path

import deltalake
import pyarrow
import pytest

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.erasure_lake import erase_table, look_at_table, removed_by, tables
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.mentions import Mentions
from pipeline_assets.resources.rebuild import copy_version
from pipeline_assets.resources.versions import stale_days
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets_tests.small_lake import DAYS, lines, small_lake

HER, RUN, TABLE = Mentions("c1"), "erasure-1", "validated/purchases"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return small_lake(tmp_path)


def rows_of(lake: Lake, table: str, customer: str) -> list[dict[str, object]]:
    found = [row for row in lake.read(table).to_pylist() if row["customer_id"] == customer]
    return sorted(found, key=lambda row: str(row["event_id"]))


def test_her_rows_are_gone_and_no_others(lake: Lake) -> None:
    """Three lines of nine days; those of c2 are what they were."""
    before = rows_of(lake, TABLE, "c2")
    done = erase_table(lake, TABLE, HER, RUN)
    assert (done.rows, len(done.content)) == (27, 9)
    assert rows_of(lake, TABLE, "c1") == []
    assert rows_of(lake, TABLE, "c2") == before


def test_the_files_that_held_her_are_gone(lake: Lake) -> None:
    """Looked for as bytes of files and values of the log: ids are min and max of every file. Found before, and not after."""
    before = look_at_table(lake, TABLE, HER)
    assert len([each for each in before if each.startswith("data file")]) == 9
    assert len([each for each in before if each.startswith("log entry")]) == 1
    erase_table(lake, TABLE, HER, RUN)
    assert look_at_table(lake, TABLE, HER) == []
    assert len(look_at_table(lake, TABLE, Mentions("c2"))) == 9 + 1, (
        "control: who was not erased is found, in files and log"
    )


def test_a_day_that_she_is_not_in_keeps_its_file_in_every_version(lake: Lake) -> None:
    """A first version of the last day without her: it can be read for as long as the table is there. The one with her cannot."""
    others = [row for row in lines(DAYS[8]) if row["customer_id"] == "c2"]
    schema = FEEDS["purchases"].arrow_schema
    lake.replace_days(TABLE, pyarrow.Table.from_pylist(others, schema), [DAYS[8]], "run")
    without, digest = lake.version(TABLE), lake.commits(TABLE)[-1].days[DAYS[8]].digest
    lake.replace_days(TABLE, pyarrow.Table.from_pylist(lines(DAYS[8]), schema), [DAYS[8]], "run")
    erase_table(lake, TABLE, HER, RUN)
    assert len(lake.read_days(TABLE, [DAYS[8]], without)) == 1
    assert lake.commits(TABLE)[-1].days[DAYS[8]].digest == digest, "the rows of others, as if she had never been there"
    with pytest.raises(NotEnoughData, match=r"a customer was erased on .* \(erasure-1\)"):
        copy_version(lake, TABLE, without + 1, Lake(root=f"{lake.root}-copy"), [DAYS[8]])


def test_a_checkpoint_that_names_her_is_made_anew(lake: Lake) -> None:
    """The newest version is read from it, older commits from their files."""
    deltalake.DeltaTable(lake.uri(TABLE)).create_checkpoint()
    old = Path(lake.uri(TABLE), "_delta_log", "00000000000000000001.checkpoint.parquet")
    assert old.exists()
    erase_table(lake, TABLE, HER, RUN)
    assert not old.exists()
    assert json.loads(old.with_name("_last_checkpoint").read_text())["version"] == 2
    assert len(lake.read(TABLE)) == 9
    assert look_at_table(lake, TABLE, HER) == []


def test_again_has_no_effect(lake: Lake) -> None:
    """No version, no file; what was removed is still known from the commits."""
    done = erase_table(lake, TABLE, HER, RUN)
    version = lake.version(TABLE)
    again = erase_table(lake, TABLE, HER, RUN)
    assert (again.is_anything, lake.version(TABLE)) == (False, version)
    assert removed_by(lake, TABLE, RUN).content == done.content
    assert removed_by(lake, TABLE, RUN).rows == 27


@pytest.mark.parametrize("is_erasure", [True, False], ids=["erased", "control: changed"])
def test_nothing_is_stale(lake: Lake, is_erasure: bool) -> None:
    """What was computed from her rows is not computed again because they are gone; because of any other change it is."""
    mart = "warehouse/fct_purchases"
    lake.replace_days(mart, lake.read(TABLE), DAYS, "run", inputs=lake.versions([TABLE]))
    if is_erasure:
        for table in (TABLE, mart):
            erase_table(lake, table, HER, RUN)
    else:
        rows = [row for row in lines(DAYS[8]) if row["customer_id"] == "c2"]
        rest = pyarrow.Table.from_pylist(rows, FEEDS["purchases"].arrow_schema)
        lake.replace_days(TABLE, rest, [DAYS[8]], "run")
    assert list(stale_days(lake, [mart]).get(mart, {})) == ([] if is_erasure else [DAYS[8]])


def test_a_later_change_is_stale_all_the_same(lake: Lake) -> None:
    """The erasure does not hide what was changed before it."""
    mart = "warehouse/fct_purchases"
    lake.replace_days(mart, lake.read(TABLE), DAYS, "run", inputs=lake.versions([TABLE]))
    doubled = pyarrow.Table.from_pylist([*lines(DAYS[8]), *lines(DAYS[8])], FEEDS["purchases"].arrow_schema)
    lake.replace_days(TABLE, doubled, [DAYS[8]], "run")
    for table in (TABLE, mart):
        erase_table(lake, table, HER, RUN)
    assert list(stale_days(lake, [mart])[mart]) == [DAYS[8]]


def test_packed_features_are_written_in_pieces(lake: Lake) -> None:
    """A table with bytes goes through a file of its own; the digest of the others' rows is that of the declared types."""
    table, schema = "features/customer_product", FEATURE_TABLES["customer_product"]
    stamp = {"feature_ts": None, "event_date": DAYS[0], "candidate_ids": ["p1"], "pair_features": b"\x00" * 8}
    both = pyarrow.Table.from_pylist([{"customer_id": c, **stamp} for c in ("c1", "c2")], schema)
    alone = lake.replace_days("features/other", both.slice(1), [DAYS[0]], "run")
    with lake.day_file(table, schema, DAYS[0]) as file:
        file.add(both)
        lake.replace_day(table, file, "run")
    done = erase_table(lake, table, HER, RUN)
    assert (done.rows, lake.read(table)["customer_id"].to_pylist()) == (1, ["c2"])
    assert done.content[str(DAYS[0])][1] == alone[DAYS[0]].digest
    assert look_at_table(lake, table, HER) == []


def test_messages_of_a_stream_are_looked_into(lake: Lake) -> None:
    """The customer is inside of the message; the table of dead letters has no days."""
    rows = [{"message": json.dumps({"customer_id": c}), "event_date": DAYS[0]} for c in ("c1", "c2")]
    lake.replace_days("stream/purchases", pyarrow.Table.from_pylist(rows), [DAYS[0]], "run")
    lake.append("stream/dead_letters", pyarrow.table({"payload": [b'{"customer_id": "c1"', b"{}"]}))
    for table in ("stream/purchases", "stream/dead_letters"):
        assert erase_table(lake, table, HER, RUN).rows == 1
        assert look_at_table(lake, table, HER) == []
        assert len(lake.read(table)) == 1


def test_a_file_that_no_version_names_is_found(lake: Lake) -> None:
    """A killed writer may have left her: found, and deleted."""
    left = Path(lake.uri(TABLE), "event_date=2017-01-01", "left.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lines(DAYS[0])).drop_columns(["event_date"]), left)
    erase_table(lake, TABLE, HER, RUN)
    assert not left.exists()


def test_every_table_is_known(lake: Lake) -> None:
    """From the folders: a table that nobody thought of is one of them."""
    lake.append("new/table", pyarrow.table({"customer_id": ["c1"]}))
    assert tables(lake) == ["ledger/verdicts", "new/table", *sorted(f"validated/{feed}" for feed in FEEDS)]
    assert erase_table(lake, "new/table", HER, RUN).rows == 1
