"""Checks on the model, its evaluation, the release and the monitors: each seen passing and failing, on rows written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow
import pytest

from pipeline_assets.checks import models as checks
from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.tracking import Tracking, Version
from pipeline_assets.schemas.tables import RECOMMENDATIONS
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.serving.release_state import open_state, record_live
from pipeline_assets.settings import get_settings
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.checking import run_check, values

DAY = date(2017, 11, 5)
NOON = datetime(2017, 11, 6, 12, tzinfo=UTC)
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def put(lake: Lake, table: str, *rows: dict[str, Any], schema: pyarrow.Schema | None = None) -> None:
    """Make `rows` the content of `DAY`."""
    lake.replace_days(
        table, pyarrow.Table.from_pylist([{**row, "event_date": DAY} for row in rows], schema), [DAY], "run"
    )


def outcome(check: dg.AssetChecksDefinition, lake: Lake, **resources: Any) -> tuple[bool, bool, dg.AssetCheckSeverity]:
    """passed, blocking, severity."""
    found = run_check(check, {"lake": lake, **resources}, DAY)
    return found.passed, found.blocking, found.severity


PASSES_AND_BLOCKS, FAILS_AND_BLOCKS = (True, True, ERROR), (False, True, ERROR)
PASSES, WARNS = (True, False, WARN), (False, False, WARN)


def test_no_evaluation_week_is_trained_on(lake: Lake) -> None:
    """The label weeks as the split gives them pass; with the first evaluation week among them they do not."""
    first = get_settings().calendar.first_day
    days = [first + timedelta(days=n) for n in range((DAY - first).days + 1)]
    lake.record_verdicts([Verdict("purchases", day, "passed", 1, 1, 0) for day in days], "run", NOON)
    weeks = checks.training_weeks(lake, DAY, get_settings())
    allowed = (*weeks.training, *weeks.early_stopping)
    put(lake, "training/training_set", *({"week": week} for week in allowed))
    assert outcome(checks.no_evaluation_week_is_trained_on, lake) == PASSES_AND_BLOCKS
    put(lake, "training/training_set", *({"week": week} for week in (*allowed, weeks.evaluation[0])))
    failed = run_check(checks.no_evaluation_week_is_trained_on, {"lake": lake}, DAY)
    assert not failed.passed
    assert values(failed)["wrong"] == [str(weeks.evaluation[0])]


def test_positives_are_plausible(lake: Lake) -> None:
    """1 of 10 bought is plausible, 5 of 10 is not: a warning."""
    put(lake, "training/training_set", *({"label": int(n < 1)} for n in range(10)))
    assert outcome(checks.positives_are_plausible, lake) == PASSES
    put(lake, "training/training_set", *({"label": int(n < 5)} for n in range(10)))
    assert outcome(checks.positives_are_plausible, lake) == WARNS


class Registry(Tracking):
    """MLflow as far as the checks ask it; the real one is in e2e."""

    tracking_uri: str = ""
    artifact_root: str = ""
    features: list[str]  # of the stored model
    alias: str = ""  # version that is champion, none when empty
    alias_outcome: str = "promote"

    def model_text(self, run_id: str) -> str:
        import lightgbm

        matrix = np.random.default_rng(0).random((60, len(self.features)))
        data = lightgbm.Dataset(matrix, label=matrix[:, 0], feature_name=self.features)
        parameters = {"num_leaves": 3, "min_data_in_leaf": 5, "num_threads": 1, "verbosity": -1}
        return str(lightgbm.train(parameters, data, num_boost_round=2).model_to_string())

    def champion(self) -> Version | None:
        return Version(self.alias, "run", {"outcome": self.alias_outcome}) if self.alias else None


def test_model_has_this_codes_features(lake: Lake) -> None:
    """A model with the declared features in order passes; with two of them exchanged it does not."""
    put(lake, checks.MODEL_TABLE, {"run_id": "r"})
    declared = list(MODEL_FEATURES)
    exchanged = [declared[1], declared[0], *declared[2:]]
    check = checks.model_has_this_codes_features
    assert outcome(check, lake, tracking=Registry(features=declared)) == PASSES_AND_BLOCKS
    assert outcome(check, lake, tracking=Registry(features=exchanged)) == FAILS_AND_BLOCKS


def test_gate_is_passed(lake: Lake) -> None:
    """A refusal is a warning, with its reasons."""
    put(lake, checks.EVALUATION_TABLE, {"outcome": "promote", "reasons": ["better"]})
    assert outcome(checks.gate_is_passed, lake) == PASSES
    put(lake, checks.EVALUATION_TABLE, {"outcome": "reject", "reasons": ["worse than popularity"]})
    assert outcome(checks.gate_is_passed, lake) == WARNS
    assert values(run_check(checks.gate_is_passed, {"lake": lake}, DAY))["reasons"] == ["worse than popularity"]


@pytest.mark.parametrize(
    ("decided", "champion", "champion_outcome", "expected"),
    [
        ("promote", "2", "promote", PASSES_AND_BLOCKS),
        ("reject", "1", "promote", PASSES_AND_BLOCKS),
        ("promote", "1", "promote", FAILS_AND_BLOCKS),  # the alias did not move
        ("reject", "2", "reject", FAILS_AND_BLOCKS),  # it moved to a model that the gate refused
    ],
)
def test_champion_follows_the_gate(
    lake: Lake, decided: str, champion: str, champion_outcome: str, expected: tuple[bool, bool, Any]
) -> None:
    """Version 2 was judged; who is champion must be what the gate said."""
    put(lake, checks.PROMOTION_TABLE, {"outcome": decided, "version": "2"})
    registry = Registry(features=[], alias=champion, alias_outcome=champion_outcome)
    assert outcome(checks.champion_follows_the_gate, lake, tracking=registry) == expected


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A data folder, so a release table, of its own, that trusts the key of tiny bundles."""
    monkeypatch.setenv("PIPELINE_DATA_DIR", str(tmp_path))
    tiny.trust(tmp_path)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def bundled(lake: Lake, root: Path, **changes: Any) -> Path:
    """A tiny bundle that is the bundle of `DAY`."""
    path, _ = tiny.write(root, **changes)
    put(lake, checks.BUNDLE_TABLE, {"path": str(path)})
    return path


def damage(bundle: Path) -> None:
    """Change one byte of the model."""
    content = bytearray((bundle / "model.txt").read_bytes())
    content[200] ^= 1
    (bundle / "model.txt").write_bytes(content)


def test_bundle_is_whole(lake: Lake, tmp_path: Path) -> None:
    """One changed byte fails, and the file is named."""
    path = bundled(lake, tmp_path)
    assert outcome(checks.bundle_is_whole, lake) == PASSES_AND_BLOCKS
    damage(path)
    failed = run_check(checks.bundle_is_whole, {"lake": lake}, DAY)
    assert (failed.passed, failed.blocking) == (False, True)
    assert "model.txt" in values(failed)["error"]


def slates(lake: Lake, *rows: tuple[str, int, str, float], table: str = checks.RECOMMENDATION_TABLE) -> None:
    """customer, rank, product, score."""
    named = ({"customer_id": c, "rank": r, "product_id": p, "score": s, "as_of": DAY} for c, r, p, s in rows)
    put(lake, table, *named, schema=RECOMMENDATIONS)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([("a", 1, "p1", 2.0), ("a", 2, "p2", 1.0)], None),
        ([("a", 1, "p1", 2.0), ("a", 3, "p2", 1.0)], "gaps"),
        ([("a", 1, "p1", 2.0), ("a", 2, "p1", 1.0)], "repeated"),
        ([("a", 1, "p1", 2.0), ("a", 2, "p9", 1.0)], "not_in_catalogue"),
        ([("a", 1, "p1", float("inf")), ("a", 2, "p2", 1.0)], "not_finite"),
    ],
)
def test_slates_are_well_formed(
    lake: Lake, tmp_path: Path, rows: list[tuple[str, int, str, float]], fault: str | None
) -> None:
    """One fault each, counted under its name."""
    bundled(lake, tmp_path)
    slates(lake, *rows)
    found = run_check(checks.slates_are_well_formed, {"lake": lake}, DAY)
    assert (found.passed, found.blocking) == (fault is None, True)
    counted = {name for name, count in values(found).items() if name != "rows" and count}
    assert counted == ({fault} if fault else set())


def test_discover_slates_are_judged_in_their_own_table(lake: Lake, tmp_path: Path) -> None:
    """The daily ones are well formed and the others are not; then they are."""
    bundled(lake, tmp_path)
    slates(lake, ("a", 1, "p1", 2.0))
    slates(lake, ("a", 2, "p1", 2.0), table=checks.DISCOVER_TABLE)
    failed = run_check(checks.discover_slates_are_well_formed, {"lake": lake}, DAY)
    assert (failed.passed, failed.blocking, values(failed)["gaps"]) == (False, True, 1)
    slates(lake, ("a", 1, "p1", 2.0), table=checks.DISCOVER_TABLE)
    assert outcome(checks.discover_slates_are_well_formed, lake) == PASSES_AND_BLOCKS


def test_coverage_is_not_collapsed(lake: Lake, tmp_path: Path) -> None:
    """One of 100 products is 1 %: a warning; two are 2 %."""
    columns = {name: [None] * 100 for name in ("department", "category", "type", "brand")}
    products = pd.DataFrame(
        {"product_id": [f"p{n}" for n in range(1, 101)], **columns, "product_price": 1.0, "product_orders": 1}
    )
    bundled(lake, tmp_path, products=products)
    slates(lake, ("a", 1, "p1", 2.0), ("b", 1, "p1", 1.0))
    assert outcome(checks.coverage_is_not_collapsed, lake) == WARNS
    slates(lake, ("a", 1, "p1", 2.0), ("b", 1, "p2", 1.0))
    assert outcome(checks.coverage_is_not_collapsed, lake) == PASSES


def test_a_whole_bundle_is_live(lake: Lake, tmp_path: Path) -> None:
    """Nothing live fails, a whole bundle passes, the same one damaged fails."""
    path, _ = tiny.write(tmp_path / "bundles")
    assert outcome(checks.a_whole_bundle_is_live, lake) == FAILS_AND_BLOCKS
    live = {"bundle_path": str(path), "model_version": "m1", "as_of": str(DAY)}
    record_live(open_state(get_settings().release_url), **live, recommendations_path=None, recorded_at=NOON)
    assert outcome(checks.a_whole_bundle_is_live, lake) == PASSES_AND_BLOCKS
    damage(path)
    assert outcome(checks.a_whole_bundle_is_live, lake) == FAILS_AND_BLOCKS
