"""Every kind of bad delivery ends as an error or a verdict that names culprit, found, wanted and fix; nothing is half-written.

One copy of the shop gets a week of them, each landed in a run of its own; `damaged` in world.py says what is wrong with a day.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

import pytest

from pipeline_assets.resources.alerts import Alerts
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, WORLD, Pipeline, Shop, failure
from pipeline_assets_tests.ticks import failure_tick, webhook
from pipeline_assets_tests.world import Fault

if TYPE_CHECKING:
    import dagster as dg

SOUND = date(2017, 3, 19)
MISSING_COLUMN, RETYPED, EMPTY, ALL_BAD, SOME_BAD, NO_FILE, GARBAGE = (date(2017, 3, day) for day in range(20, 27))
FAULTS: dict[date, Fault] = {
    MISSING_COLUMN: "missing_column",
    RETYPED: "retyped_column",
    EMPTY: "empty",
    ALL_BAD: "all_bad",
    SOME_BAD: "some_bad",
}
ASSETS = ("raw/purchases", "validated/purchases")


@pytest.fixture(scope="module")
def shop(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = first_run.shop.copied(tmp_path_factory.mktemp("bad_input") / "shop")
    shop.deliver(SOUND, SOME_BAD, faults=FAULTS)
    (shop.drops / "purchases" / f"{GARBAGE}.parquet").write_bytes(b"PAR1 and then something else")
    return shop


@pytest.fixture(scope="module")
def pipeline(shop: Shop) -> Iterator[Pipeline]:
    with shop.opened() as pipeline:
        yield pipeline


def land(pipeline: Pipeline, day: date) -> dg.ExecuteInProcessResult:
    """Land and validate the purchases of a day."""
    return pipeline.execute("ingest", day, *ASSETS, raise_on_error=False)


def assert_untouched(pipeline: Pipeline, day: date) -> None:
    """No row, no batch, no verdict of the day; the newest day of the first run is as it was."""
    for table in ("raw/purchases", "validated/purchases", "quarantine/purchases"):
        assert day not in pipeline.lake.days(table), table
    assert pipeline.lake.verdicts("purchases", day, day) == {}
    assert len(pipeline.lake.read("ledger/batches", day, day)) == 0
    assert len(pipeline.lake.read("validated/purchases", NEWEST, NEWEST)) == len(WORLD.of("purchases", NEWEST))


def check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    """The evaluation of one check of a run."""
    (found,) = [evaluation for evaluation in result.get_asset_check_evaluations() if evaluation.check_name == name]
    return found


@pytest.mark.ml_test("I3", control=True)
def test_missing_column_is_named(pipeline: Pipeline) -> None:
    """Culprit: the column and the file; found: the columns there are; wanted: amount; fix: deliver or map it."""
    text = failure(land(pipeline, MISSING_COLUMN))
    assert "column amount of" in text
    assert f"{MISSING_COLUMN}.parquet" in text
    assert "found columns customer_id, discount, event_date" in text
    assert "wanted amount (DOUBLE)" in text
    assert "Fix: deliver the column again or map it" in text
    assert_untouched(pipeline, MISSING_COLUMN)


def test_retyped_column_is_named(pipeline: Pipeline) -> None:
    """`quantity` in words is refused as a whole column, not quarantined row by row."""
    rows = len(WORLD.of("purchases", RETYPED))
    text = failure(land(pipeline, RETYPED))
    assert "column quantity of" in text
    assert (
        f"found type VARCHAR, {rows} of {rows} values unreadable on {RETYPED}; wanted values that read as double"
        in text
    )
    assert "deliver it in its declared type" in text
    assert_untouched(pipeline, RETYPED)


def test_missing_file_is_named(pipeline: Pipeline) -> None:
    """A day that was asked for by hand and never came."""
    text = failure(land(pipeline, NO_FILE))
    assert f"purchases of {NO_FILE}: found no file" in text
    assert "Fix: deliver the day" in text
    assert_untouched(pipeline, NO_FILE)


def test_unreadable_file_is_named(pipeline: Pipeline) -> None:
    """A file that is no Parquet file."""
    text = failure(land(pipeline, GARBAGE))
    assert f"purchases of {GARBAGE}: found" in text
    assert "wanted a readable parquet file" in text
    assert_untouched(pipeline, GARBAGE)


def test_empty_file_blocks_the_day(pipeline: Pipeline) -> None:
    """It is landed as received, zero rows, and its verdict stops what depends on it."""
    verdict = check(land(pipeline, EMPTY), "day_is_passed")
    assert (verdict.passed, verdict.blocking) == (False, True)
    (found,) = pipeline.lake.verdicts("purchases", EMPTY, EMPTY).values()
    assert (found.status, found.rows_read) == ("blocked", 0)
    assert f"purchases of {EMPTY} is empty; wanted at least one row; deliver the day again" in found.reasons[0]


def test_all_bad_day_is_blocked_and_stays_whole_in_raw(pipeline: Pipeline) -> None:
    """Every quantity is 0: all rows in raw, and in quarantine for people; none in validated; reason and fix in the verdict."""
    rows = len(WORLD.of("purchases", ALL_BAD))
    result = land(pipeline, ALL_BAD)
    assert not check(result, "day_is_passed").passed
    assert check(result, "batch_is_whole").passed
    (found,) = pipeline.lake.verdicts("purchases", ALL_BAD, ALL_BAD).values()
    assert (found.status, found.rows_read, found.rules) == ("blocked", rows, {"quantity_positive": rows})
    assert (
        f"{rows} of {rows} rows of purchases on {ALL_BAD} (100.0%) break a rule, most of them quantity_positive"
        in found.reasons[0]
    )
    assert "mend the source and deliver the day again" in found.reasons[0]
    counts = [
        len(pipeline.lake.read(f"{layer}/purchases", ALL_BAD, ALL_BAD)) for layer in ("raw", "validated", "quarantine")
    ]
    assert counts == [rows, 0, rows]


def test_a_few_bad_rows_are_set_aside_with_their_reason(pipeline: Pipeline) -> None:
    """Every 20th line has quantity -1: the day passes, those lines are in quarantine with rule, reason and source."""
    rows = len(WORLD.of("purchases", SOME_BAD))
    bad = (rows + 19) // 20
    result = land(pipeline, SOME_BAD)
    assert result.success
    assert check(result, "every_row_is_accounted_for").passed
    aside = pipeline.lake.read("quarantine/purchases", SOME_BAD, SOME_BAD).to_pandas()
    assert len(aside) == bad
    assert len(pipeline.lake.read("validated/purchases", SOME_BAD, SOME_BAD)) == rows - bad
    assert set(aside["rule"]) == {"quantity_positive"}
    assert set(aside["reason"]) == {"quantity breaks quantity_positive, found '-1'"}
    assert set(aside["source"]) == {"raw/purchases"}


def test_rows_are_readmitted_after_the_source_is_mended(pipeline: Pipeline, shop: Shop) -> None:
    """As a person does it: list, deliver again, readmit. All rows of the day are valid then, in a run that Dagster knows."""
    listed = shop.command("quarantine", "list", "--feed", "purchases", "--from", str(SOME_BAD), "--json")
    (row,) = json.loads(listed.stdout)
    assert (row["day"], row["rule"], row["status"]) == (str(SOME_BAD), "quantity_positive", "passed")
    shop.deliver(SOME_BAD)
    done = shop.command("quarantine", "readmit", "--feed", "purchases", "--day", str(SOME_BAD), "--land")
    assert done.returncode == 0, done.stderr
    assert f"passed -> passed; {row['rows']} rows left quarantine (all rules), 0 remain" in done.stdout
    rows = len(WORLD.of("purchases", SOME_BAD))
    assert len(pipeline.lake.read("validated/purchases", SOME_BAD, SOME_BAD)) == rows
    assert pipeline.metadata("validated/purchases", SOME_BAD)["dagster/row_count"] == rows


def test_a_failed_run_is_an_alert(pipeline: Pipeline) -> None:
    """Sensor alert_on_failure posts run, job, partition, step and cause to a webhook that really listens."""
    result = land(pipeline, MISSING_COLUMN)
    with webhook() as inbox:
        failure_tick(pipeline.definitions, result, pipeline.instance, {"alerts": Alerts(webhook_url=inbox.url)})
    (alert,) = inbox.alerts
    assert (alert["name"], alert["severity"]) == ("run_failed", "critical")
    assert alert["details"]["run_id"] == result.run_id
    assert alert["details"]["job"] == "ingest"
    assert alert["details"]["partition"] == str(MISSING_COLUMN)
    assert alert["details"]["steps"] == ["raw__purchases"]
    assert "column amount of" in alert["details"]["cause"]
    assert alert["runbook"] == "docs/runbook.md#run-failed"


def test_a_mended_day_passes(pipeline: Pipeline, shop: Shop) -> None:
    """Delivered again without the fault, a refused and a blocked day are landed whole; nothing of the past was lost."""
    for day in (MISSING_COLUMN, ALL_BAD):
        shop.deliver(day)
        assert land(pipeline, day).success
        (verdict,) = pipeline.lake.verdicts("purchases", day, day).values()
        rows = len(WORLD.of("purchases", day))
        assert (verdict.status, verdict.rows_valid, verdict.rows_quarantined) == ("passed", rows, 0)


def test_the_same_delivery_twice_has_no_effect(pipeline: Pipeline) -> None:
    """The same file has the same batch id and leaves the same rows."""
    land(pipeline, SOUND)
    first = pipeline.metadata("raw/purchases", SOUND)
    land(pipeline, SOUND)
    assert pipeline.metadata("raw/purchases", SOUND)["batch_id"] == first["batch_id"]
    assert len(pipeline.lake.read("validated/purchases", SOUND, SOUND)) == len(WORLD.of("purchases", SOUND))
