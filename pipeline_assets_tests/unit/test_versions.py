"""Versions of tables: log, differences, staleness by content, orphans. A lake of two or three days, every commit with a purpose."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow
import pytest

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.rebuild import copy_version
from pipeline_assets.resources.versions import diff, log, orphans, row_difference, stale_days, sweep
from pipeline_assets.schemas.validation import Verdict

D1, D2, D3 = (date(2017, 2, n) for n in (6, 7, 8))
RAW, VALID, MART, FEATURES = "raw/purchases", "validated/purchases", "warehouse/fct_purchases", "features/customer"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path))


def write(lake: Lake, table: str, values: Mapping[date, list[int]], *sources: str) -> None:
    """Make `values` the content of the days, computed from the newest versions of `sources`."""
    rows = [(value, day) for day, of_day in values.items() for value in of_day]
    columns = {"value": [value for value, _ in rows], "event_date": [day for _, day in rows]}
    schema = pyarrow.schema([("value", pyarrow.int64()), ("event_date", pyarrow.date32())])
    inputs = lake.versions(sources)
    lake.replace_days(table, pyarrow.table(columns, schema=schema), list(values), "run", key="value", inputs=inputs)


def build(lake: Lake, day: date) -> None:
    """A day from raw to features, as the assets do it."""
    write(lake, RAW, {day: [1]})
    write(lake, VALID, {day: [1]}, RAW)
    write(lake, MART, {day: [1]}, VALID)
    write(lake, FEATURES, {day: [1]}, MART)


def test_log_has_every_version_of_a_day(lake: Lake) -> None:
    """Written with one row, again the same, then with two: the second did not change it; D2 is not asked for."""
    for values in ([1], [1], [1, 2]):
        write(lake, RAW, {D1: values, D2: [9]})
    entries = log(lake, RAW, D1, D1)
    assert [(entry.version, entry.rows, entry.is_changed) for entry in entries] == [
        (1, 1, True),
        (2, 1, False),
        (3, 2, True),
    ]
    assert entries[0].digest == entries[1].digest != entries[2].digest
    assert log(lake, "raw/unknown", D1, D1) == []


def test_diff_names_the_days_that_differ(lake: Lake) -> None:
    """From version 1 to 3 D1 changed and D3 came; D2 was written again with the same rows."""
    write(lake, RAW, {D1: [1], D2: [2]})
    write(lake, RAW, {D1: [1, 7], D2: [2]})
    write(lake, RAW, {D3: [3]})
    changes = diff(lake, RAW, 1)
    assert [(change.event_date, change.before and change.before.rows) for change in changes] == [(D1, 1), (D3, None)]
    assert [change.after and change.after.rows for change in changes] == [2, 1]
    assert diff(lake, RAW, 2, 2) == []


@pytest.mark.parametrize("version", [-1, 2])
def test_a_version_that_does_not_exist_is_named(lake: Lake, version: int) -> None:
    """There are 0 (empty) and 1."""
    write(lake, RAW, {D1: [1]})
    with pytest.raises(NotEnoughData, match=f"found version {version}; wanted a version from 0 to 1"):
        diff(lake, RAW, version)


def test_rows_that_only_one_version_has(lake: Lake) -> None:
    """[1, 1, 2] became [1, 3]: one 1 and the 2 are gone, the 3 is new."""
    write(lake, RAW, {D1: [1, 1, 2], D2: [5]})
    write(lake, RAW, {D1: [1, 3]})
    found = row_difference(lake, RAW, D1, 1, 2)
    assert found.only_before["value"].to_pylist() == [1, 2]
    assert found.only_after["value"].to_pylist() == [3]


def test_what_was_built_in_order_is_not_stale(lake: Lake) -> None:
    """Every new day makes new versions of all tables; the days before do not depend on it."""
    for day in (D1, D2, D3):
        build(lake, day)
    assert stale_days(lake) == {}


def test_the_same_rows_again_make_nothing_stale(lake: Lake) -> None:
    """A file delivered twice: a new version of raw, the same content."""
    build(lake, D1)
    write(lake, RAW, {D1: [1]})
    assert stale_days(lake) == {}


def test_a_corrected_day_makes_its_own_table_stale_first(lake: Lake) -> None:
    """Raw of D1 changed; what is validated was read from the raw before."""
    build(lake, D1)
    write(lake, RAW, {D1: [1, 2]})
    assert stale_days(lake) == {VALID: {D1: ["raw/purchases of 2017-02-06 changed"]}}


def test_a_late_day_makes_the_features_of_later_days_stale(lake: Lake) -> None:
    """D2 comes after D3 was built: the marts of D1 and D3 are as they were, features as of D3 lack D2's purchases, those of D1 do not."""
    for day in (D1, D3, D2):
        build(lake, day)
    assert stale_days(lake) == {FEATURES: {D3: ["warehouse/fct_purchases of 2017-02-07 changed"]}}
    write(lake, FEATURES, {D3: [2]}, MART)
    assert stale_days(lake) == {}


def test_exposures_reach_into_the_purchases_of_three_weeks(lake: Lake) -> None:
    """A mart that read exposures depends on the plans of the 21 days before its own, not on older ones."""
    old, new = D1 - timedelta(days=22), D1 - timedelta(days=21)
    write(lake, "validated/exposures", {old: [1], new: [1]})
    write(lake, MART, {D1: [1]}, "validated/exposures")
    write(lake, "validated/exposures", {old: [2]})
    assert stale_days(lake) == {}
    write(lake, "validated/exposures", {new: [2]})
    assert stale_days(lake) == {MART: {D1: ["validated/exposures of 2017-01-16 changed"]}}


def test_a_day_that_is_blocked_now_makes_features_stale(lake: Lake) -> None:
    """D1 passed, features as of D2 counted it, then D1 was delivered again and is blocked: they would be others today."""
    early, late = datetime(2017, 2, 8, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)
    lake.record_verdicts([Verdict("purchases", D1, "passed", 1, 1, 0)], "run", early)
    build(lake, D1)
    build(lake, D2)
    lake.record_verdicts([Verdict("purchases", D1, "blocked", 1, 0, 1, ("bad",))], "run", late)
    reason = ["the verdict on purchases of 2017-02-06 changed"]
    assert stale_days(lake) == {FEATURES: {D1: reason, D2: reason}}


def test_a_plan_that_is_blocked_now_makes_the_marts_of_its_weeks_stale(lake: Lake) -> None:
    """Purchases of D1 took promotions from a plan of three weeks before; of a plan a day older they did not."""
    early, late = datetime(2017, 2, 8, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)
    old, new = D1 - timedelta(days=22), D1 - timedelta(days=21)
    lake.record_verdicts([Verdict("exposures", day, "passed", 1, 1, 0) for day in (old, new)], "run", early)
    write(lake, "validated/exposures", {old: [1], new: [1]})
    write(lake, MART, {D1: [1]}, "validated/exposures")
    lake.record_verdicts([Verdict("exposures", old, "blocked", 1, 0, 1, ("bad",))], "run", late)
    assert stale_days(lake) == {}
    lake.record_verdicts([Verdict("exposures", new, "blocked", 1, 0, 1, ("bad",))], "run", late)
    assert stale_days(lake) == {MART: {D1: ["the verdict on exposures of 2017-01-16 changed"]}}


def test_orphans_are_files_that_no_commit_names(lake: Lake) -> None:
    """A replaced file belongs to an older version and stays; a killed writer's file and its unfinished commit go."""
    write(lake, RAW, {D1: [1]})
    write(lake, RAW, {D1: [2]})
    folder = Path(lake.uri(RAW))
    in_log = [folder / "_delta_log" / name for name in ("00000000000000000002.json#1", "_commit_dead.json.tmp")]
    left = [*in_log, folder / f"event_date={D1}" / "part-00000-dead.parquet"]
    for path in left:
        path.write_bytes(b"PAR1")
    now = datetime.now(UTC)
    assert orphans(lake, now - timedelta(hours=1)) == []  # younger than an hour: somebody may be writing them
    assert sweep(lake, now + timedelta(seconds=5)) == sorted(map(str, left))
    assert not any(path.exists() for path in left)
    assert lake.read(RAW, version=1)["value"].to_pylist() == [1]
    assert lake.read(RAW)["value"].to_pylist() == [2]


def test_a_version_is_copied_with_some_of_its_days(lake: Lake, tmp_path: Path) -> None:
    """Version 1 of D1, although D1 was replaced; D2 is not asked for."""
    other = Lake(root=str(tmp_path / "other"))
    write(lake, RAW, {D1: [1], D2: [2]})
    write(lake, RAW, {D1: [7]})
    copy_version(lake, RAW, 1, other, {D1})
    assert other.read(RAW)["value"].to_pylist() == [1]
    assert other.days(RAW) == {D1}
    with pytest.raises(NotEnoughData, match="version 9 of raw/purchases"):
        copy_version(lake, RAW, 9, other)
