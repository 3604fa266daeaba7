"""Answers from log files to the lake, and what became of them, on a lake of three days."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow

from pipeline_assets.resources.holdout import Door, holdout_reads
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import (
    IMPRESSIONS_TABLE,
    PREDICTION_LOG_TABLE,
    land_answers,
    land_impressions,
    land_prediction_log,
    newest_answers,
)
from pipeline_assets.resources.versions import log
from pipeline_assets_tests.unit.test_snapshots import SATURDAY, SUNDAY, lake_with_marts


def line(
    number: int, as_of: date = SATURDAY, customer: str | None = "c1", products: tuple[str, ...] = ("p1", "p9")
) -> str:
    """One line as the API writes it."""
    fields: dict[str, Any] = {
        "answer_id": f"a{number}",
        "ts": f"{SUNDAY}T02:00:00+00:00",
        "customer_id": customer,
        "arm": "stable",
    }
    fields |= {
        "as_of": as_of.isoformat(),
        "model_version": "1",
        "fallback_level": "none",
        "product_ids": list(products),
        "scores": [1.0] * len(products),
    }
    return json.dumps(fields) + "\n"


def write(folder: Path, text: str, day: date = SUNDAY) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / f"{day}.jsonl").open("a") as stream:
        stream.write(text)


def landed(lake: Lake, day: date = SATURDAY) -> list[str]:
    return sorted(lake.read(PREDICTION_LOG_TABLE, day, day, ["answer_id"])["answer_id"].to_pylist())


def test_a_landing_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    """Two answers, landed twice, then a third: 2, 0 and 1 new; an answer of another day is left to that day."""
    lake, folder = Lake(root=str(tmp_path / "lake")), tmp_path / "log"
    write(folder, line(1) + line(2) + line(3, SUNDAY))
    assert [land_prediction_log(lake, SATURDAY, folder, "run").new for _ in range(2)] == [2, 0]
    write(folder, line(4))
    assert land_prediction_log(lake, SATURDAY, folder, "run").new == 1
    assert landed(lake) == ["a1", "a2", "a4"]
    assert land_prediction_log(lake, SUNDAY, folder, "run").new == 1


def test_a_day_lands_what_was_answered_since_the_day_before(tmp_path: Path) -> None:
    """Saturday's run is over before its bundle answers anybody; Sunday's lands that answer, once, and adds no version when there is nothing new."""
    lake, folder = Lake(root=str(tmp_path / "lake")), tmp_path / "log"
    bundle = pyarrow.Table.from_pylist([{"path": "p", "event_date": SATURDAY}])
    lake.replace_days("deployment/bundle", bundle, [SATURDAY], "run")
    assert land_answers(lake, SATURDAY, folder, "run").new == 0
    write(folder, line(1))
    assert land_answers(lake, SUNDAY, folder, "run").new == 0, "none of its own"
    assert landed(lake) == ["a1"]
    assert newest_answers(lake, SUNDAY, ["answer_id"]) == (SATURDAY, [{"answer_id": "a1"}])
    land_answers(lake, SUNDAY, folder, "run")
    assert [entry.rows for entry in log(lake, PREDICTION_LOG_TABLE, SATURDAY, SATURDAY)].count(1) == 1


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    """The file's beginning is overwritten after it was landed: nobody notices, because it is not read any more."""
    lake, folder = Lake(root=str(tmp_path / "lake")), tmp_path / "log"
    write(folder, line(1))
    land_prediction_log(lake, SATURDAY, folder, "run")
    path = folder / f"{SUNDAY}.jsonl"
    path.write_text(path.read_text().replace("a1", "a7") + line(2))
    assert land_prediction_log(lake, SATURDAY, folder, "run").new == 1
    assert landed(lake) == ["a1", "a2"]


def test_a_cut_line_is_counted_and_the_next_one_lands(tmp_path: Path) -> None:
    """A process was killed in the middle of a write, and another went on in the same file."""
    lake, folder = Lake(root=str(tmp_path / "lake")), tmp_path / "log"
    cut = line(1)[:-10]
    write(folder, cut + "\n" + line(2))
    found = land_prediction_log(lake, SATURDAY, folder, "run")
    assert (found.new, found.unreadable) == (1, 1)


def test_a_line_without_its_end_waits(tmp_path: Path) -> None:
    """It is being written; the next landing has it."""
    lake, folder = Lake(root=str(tmp_path / "lake")), tmp_path / "log"
    text = line(1)
    write(folder, text[:-30])
    assert land_prediction_log(lake, SATURDAY, folder, "run").new == 0
    write(folder, text[-30:])
    assert land_prediction_log(lake, SATURDAY, folder, "run").new == 1


def test_answers_of_an_older_version_stay(tmp_path: Path) -> None:
    """The table of before had fewer columns: its rows are kept, the new columns are empty for them."""
    lake, folder = Lake(root=str(tmp_path / "lake")), tmp_path / "log"
    old = {"answer_id": "old", "customer_id": "c1", "product_ids": ["p1"], "event_date": SATURDAY}
    lake.replace_days(PREDICTION_LOG_TABLE, pyarrow.Table.from_pylist([old]), [SATURDAY], "run")
    write(folder, line(1))
    land_prediction_log(lake, SATURDAY, folder, "run")
    rows = lake.read(PREDICTION_LOG_TABLE, SATURDAY, SATURDAY).to_pylist()
    assert {row["answer_id"]: row["log_end"] is None for row in rows} == {"old": True, "a1": False}


def door(lake: Lake, start: date | None = None) -> Door:
    return Door(lake, "monitoring", "run", datetime(2017, 3, 6, tzinfo=UTC), start)


def test_impressions_say_what_was_bought_in_the_window(tmp_path: Path) -> None:
    """Saturday's answers, a window of one day: on Sunday c1 bought p1 and not p9; a visitor has no purchases to join."""
    lake, folder = lake_with_marts(tmp_path / "lake"), tmp_path / "log"
    bought = lake.read("warehouse/fct_purchases", SUNDAY, SUNDAY).to_pylist()[0]
    write(
        folder, line(1, customer=bought["customer_id"], products=(bought["product_id"], "p9")) + line(2, customer=None)
    )
    land_prediction_log(lake, SATURDAY, folder, "run")
    for _ in range(2):
        table = land_impressions(lake, SUNDAY, 1, "run", door(lake, SUNDAY))
    assert [(row["rank"], row["purchased"], row["as_of"]) for row in table.to_pylist()] == [
        (1, True, SATURDAY),
        (2, False, SATURDAY),
    ]
    assert len(lake.read(IMPRESSIONS_TABLE, SUNDAY, SUNDAY)) == 2
    assert [entry.reads for entry in holdout_reads(lake)] == [2]  # through the door


def test_labels_that_are_not_complete_are_unknown(tmp_path: Path) -> None:
    """Of a window of two days the second has no verdict: null, not "not bought"."""
    lake, folder = lake_with_marts(tmp_path / "lake"), tmp_path / "log"
    write(folder, line(1))
    land_prediction_log(lake, SATURDAY, folder, "run")
    monday = date.fromordinal(SUNDAY.toordinal() + 1)
    assert land_impressions(lake, monday, 2, "run", door(lake))["purchased"].to_pylist() == [None, None]
