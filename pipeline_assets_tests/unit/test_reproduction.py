"""What a reproduction says: the first thing that differs and decides, in the order of cause and effect; inputs are compared by content."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow
import pytest

from pipeline_assets.recommender.errors import FeatureMismatch, NotEnoughData
from pipeline_assets.resources.lake import Commit, Lake
from pipeline_assets.resources.rebuild import Restored, commit_of, copy_version
from pipeline_assets.resources.reproduction import (
    Compared,
    Reproduction,
    _inputs,
    compared_settings,
    require_feature_columns,
)
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets.settings import load_settings
from pipeline_assets_tests.unit.test_versions import D1, D2, write

MART, TRAINING = "warehouse/fct_purchases", "training/training_set"
TOLD = Compared("code (commit)", "a", "b", decides=False)
EQUAL, OTHER, LATER = (
    Compared("settings", "x", "x"),
    Compared("training set", "x", "y"),
    Compared("trees", "x", "z"),
)


@pytest.mark.parametrize(
    ("parts", "first"),
    [
        pytest.param([EQUAL], None, id="all equal"),
        pytest.param([TOLD, EQUAL], None, id="another commit is told and is no difference"),
        pytest.param([TOLD, EQUAL, OTHER, LATER], OTHER, id="the first of two"),
    ],
)
def test_first_difference_is_the_first_that_decides(parts: list[Compared], first: Compared | None) -> None:
    """Trees that differ because the training set does are not the thing to look at."""
    found = Reproduction("1", "run", date(2017, 2, 8), tuple(parts))
    assert found.first_difference == first
    assert found.is_equal == (first is None)


def test_settings_are_compared_key_by_key() -> None:
    """label_weeks was 4; a key that the record does not have is told and decides nothing; a stopped clock is no setting of the model."""
    here = load_settings({"PIPELINE_CALENDAR__UNTIL": "2017-03-01"})
    same = {"training": {"seed": here.training.seed}, "calendar": {}, "validation": {}}
    equal, came = compared_settings(same, here, "digest")
    assert (equal.name, equal.is_equal) == ("settings", True)
    assert not came.decides
    assert "training.label_weeks" in came.here
    assert "until" not in came.here
    other, _ = compared_settings({**same, "training": {"label_weeks": 4}}, here, "digest")
    assert (other.name, other.recorded, other.is_equal) == ("setting training.label_weeks", "4", False)
    (digests,) = compared_settings(None, here, "digest")
    assert (digests.recorded, digests.here) == ("digest", here.digest)


def restored(lake: Lake, root: Path, version: int) -> Restored:
    copy = Lake(root=str(root))
    copy_version(lake, MART, version, copy)
    return Restored(copy, None, None, {MART: version}, ())  # type: ignore[arg-type]


def commit(lake: Lake) -> Commit:
    """The training set of D2, built from the newest version of the mart."""
    write(lake, TRAINING, {D2: [1]}, MART)
    return commit_of(lake, D2)


def test_restored_inputs_are_equal(tmp_path: Path) -> None:
    """Two days, copied at the version that the commit names, while a newer one differs."""
    lake = Lake(root=str(tmp_path / "lake"))
    write(lake, MART, {D1: [1], D2: [2]})
    built = commit(lake)
    write(lake, MART, {D1: [9]})
    (part,) = _inputs(lake, built, restored(lake, tmp_path / "copy", built.inputs[MART]), D2)
    assert part.is_equal
    assert part.recorded.startswith("2 days")


def test_a_newer_input_is_named_with_its_first_day(tmp_path: Path) -> None:
    """D1 has one row more than the training set was built from, D2 is another too; D1 is named, with both numbers of rows."""
    lake = Lake(root=str(tmp_path / "lake"))
    write(lake, MART, {D1: [1], D2: [2]})
    built = commit(lake)
    write(lake, MART, {D1: [1, 7], D2: [3]})
    (part,) = _inputs(lake, built, restored(lake, tmp_path / "copy", lake.version(MART)), D2)
    assert part.name == f"{MART} of {D1}"
    assert (part.recorded[:6], part.here[:6]) == ("1 rows", "2 rows")


def test_a_file_that_was_changed_behind_the_log_is_named(tmp_path: Path) -> None:
    """The version is the recorded one, and one number in its file is another: digests are computed from rows, not read from the commit."""
    lake, number = Lake(root=str(tmp_path / "lake")), 1234567890123
    write(lake, MART, {D1: [number], D2: [2]})
    built = commit(lake)
    file = Path(lake.files(MART, D1, D1)[0])
    content, old, new = file.read_bytes(), *((number + more).to_bytes(8, "little") for more in (0, 1))
    assert old in content
    file.write_bytes(content.replace(old, new))
    (part,) = _inputs(lake, built, restored(lake, tmp_path / "copy", built.inputs[MART]), D2)
    assert (part.name, part.is_equal) == (f"{MART} of {D1}", False)


def test_a_damaged_file_is_an_error_that_names_table_and_version(tmp_path: Path) -> None:
    """A file that was cut cannot be restored, and nothing is compared with it."""
    lake = Lake(root=str(tmp_path / "lake"))
    write(lake, MART, {D1: [1]})
    file = Path(lake.files(MART, D1, D1)[0])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(NotEnoughData, match=f"version 1 of {MART}"):
        restored(lake, tmp_path / "copy", 1)


def test_features_of_another_list_are_refused_with_the_commit(tmp_path: Path) -> None:
    """A customer table with one feature that this code does not have: the column is named, and where the code is that has it."""
    lake = Lake(root=str(tmp_path))
    for name, schema in FEATURE_TABLES.items():
        lake.create(f"features/{name}", schema)
    require_feature_columns(lake, "abc+changes")
    other = FEATURE_TABLES["customer"].append(pyarrow.field("customer_shoe_size", pyarrow.float32()))
    older = Lake(root=str(tmp_path / "older"))
    for name, schema in {**FEATURE_TABLES, "customer": other}.items():
        older.create(f"features/{name}", schema)
    with pytest.raises(FeatureMismatch, match=r"features/customer.*customer_shoe_size.*commit abc and"):
        require_feature_columns(older, "abc+changes")


def test_the_commit_of_a_training_set_is_the_one_in_force_at_a_version(tmp_path: Path) -> None:
    """D2 was written in versions 1 and 3, D1 in 2: at version 2 the first of D2 counts, without a version the last."""
    lake = Lake(root=str(tmp_path / "lake"))
    for day, value in ((D2, 1), (D1, 5), (D2, 2)):
        write(lake, TRAINING, {day: [value]})
    assert [commit_of(lake, D2, version).version for version in (1, 2, 3, None)] == [1, 1, 3, 3]
