"""The shell of validation as the UI shows it, days that settle, and the checks that warn: each seen passing and failing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow
import pytest

from pipeline_assets.assets.validated import purchases, validation_policy
from pipeline_assets.checks.data import feed_checks, rule_jumps
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.settings import get_settings
from pipeline_assets.sources.landing import land_days
from pipeline_assets_tests import scenario
from pipeline_assets_tests.checking import run_check, values

FIRST = date(2017, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(8)]
NOON = datetime(2017, 2, 1, 12, tzinfo=UTC)
KEY = dg.AssetKey(["validated", "purchases"])


class Lines:
    """100 lines a day at a price of 2; on the last day at 200, on the second three of them without quantity."""

    def arrived_days(self) -> list[date]:
        return DAYS

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        one = pd.concat([scenario.purchases().iloc[:1]] * 100, ignore_index=True)
        frames = [
            one.assign(
                event_id=[f"{day}-{n:03}" for n in range(100)],
                event_date=day,
                event_ts=pd.Timestamp(day, tz="UTC") + pd.Timedelta(hours=16),
                amount=200.0 if day == DAYS[-1] else 2.0,
                quantity=[0.0] * 3 + [1.0] * 97 if day == DAYS[1] else 1.0,
            )
            for day in days
        ]
        return scenario.delivered("purchases", pd.concat(frames))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(root=str(tmp_path / "lake"))
    land_days(Lines(), lake, FEEDS["purchases"], DAYS, "run", NOON)
    return lake


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def admit(lake: Lake, instance: dg.DagsterInstance, first: date, last: date) -> dg.ExecuteInProcessResult:
    """One run of validated/purchases over a range of days."""
    job = dg.define_asset_job("admit", dg.AssetSelection.assets(KEY))
    definitions = dg.Definitions(assets=[purchases], jobs=[job], resources={"lake": lake})
    span = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return definitions.resolve_job_def("admit").execute_in_process(instance=instance, tags=span, run_config=quiet)


def newest(instance: dg.DagsterInstance, day: date) -> tuple[dg.AssetMaterialization, dict[str, Any]]:
    """The newest materialisation of a day, and its metadata as plain values."""
    wanted = dg.AssetRecordsFilter(asset_key=KEY, asset_partitions=[str(day)])
    found = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert found is not None
    return found, {name: entry.value for name, entry in found.metadata.items()}


def test_a_person_sees_rules_examples_and_reasons_of_a_day(lake: Lake, instance: dg.DagsterInstance) -> None:
    """Three of 100 rows broke a rule: a table row with count and share, two of them as examples, and nothing on a quiet day."""
    admit(lake, instance, DAYS[0], DAYS[1])
    _, metadata = newest(instance, DAYS[1])
    (record,) = metadata["rules"].records if hasattr(metadata["rules"], "records") else metadata["rules"]
    assert record.data == {"rule": "quantity_positive", "rows": 3, "share": 0.03, "becomes": "quarantined"}
    assert metadata["examples"].count("quantity breaks quantity_positive, found '0'") == 2
    assert metadata["why"] == "- nothing to say"
    assert newest(instance, DAYS[0])[1]["rules"] == "every row keeps every rule"


def test_a_day_that_settles_gets_a_new_data_version(lake: Lake, instance: dg.DagsterInstance) -> None:
    """The dear day is validated first and passes; with the days before it is blocked, and its partition says so."""
    admit(lake, instance, DAYS[-1], DAYS[-1])
    before, metadata = newest(instance, DAYS[-1])
    assert metadata["verdict"] == "passed"
    run = admit(lake, instance, DAYS[0], DAYS[-2])
    after, metadata = newest(instance, DAYS[-1])
    assert metadata["verdict"] == "blocked"
    assert (after.tags or {})["dagster/data_version"] == "blocked" != (before.tags or {})["dagster/data_version"]
    totals = run.asset_materializations_for_node("validated__purchases")[-1].metadata
    assert totals["judged_again"].value == [f"{DAYS[-1]} blocked"]


def check_of(name: str) -> dg.AssetChecksDefinition:
    (found,) = (check for check in feed_checks for key in check.check_keys if (key.asset_key, key.name) == (KEY, name))
    return found


def record(lake: Lake, day: date, rows: int, rules: Mapping[str, int], warnings: Sequence[str] = ()) -> None:
    """A verdict on a day of `rows` rows."""
    broken = sum(rules.values())
    verdict = Verdict("purchases", day, "passed", rows, rows - broken, broken, (), rules, (), tuple(warnings))
    lake.record_verdicts([verdict], "run", NOON)


def test_a_rule_that_jumps_is_a_warning(tmp_path: Path) -> None:
    """0.3 % of the rows on three days, then 0.6 % (usual), then 3 % (ten times as many, and above 1 %)."""
    lake, check = Lake(root=str(tmp_path)), check_of("quarantine_is_usual")
    for day, bad in zip(DAYS, (3, 3, 3, 6, 30), strict=False):
        record(lake, day, 1000, {"quantity_positive": bad})
    assert run_check(check, {"lake": lake}, DAYS[3]).passed
    failed = run_check(check, {"lake": lake}, DAYS[4])
    assert (failed.passed, failed.blocking, failed.severity) == (False, False, dg.AssetCheckSeverity.WARN)
    assert values(failed)["jumps"] == {
        str(DAYS[4]): {"quantity_positive": "30 of 1000 rows (3.0%), usually 0.30%"}
    }  # fmt: skip


def test_a_rule_that_is_new_jumps_above_one_percent() -> None:
    """Nothing like it before: 1 % is not told, more is; an empty day has no shares."""
    before = Verdict("purchases", DAYS[0], "passed", 1000, 1000, 0)
    for rows, bad, told in ((1000, 10, False), (1000, 11, True), (0, 0, False)):
        today = Verdict("purchases", DAYS[1], "passed", rows, rows - bad, bad, rules={"bot": bad})
        assert bool(rule_jumps(DAYS[1], {DAYS[0]: before, DAYS[1]: today})) == told


def test_what_a_verdict_tells_is_a_warning(tmp_path: Path) -> None:
    """A day with nothing to tell, and one with a new column."""
    lake, check = Lake(root=str(tmp_path)), check_of("batch_is_usual")
    record(lake, DAYS[0], 10, {})
    record(lake, DAYS[1], 10, {}, ["a column that the contract does not have: weight"])
    assert run_check(check, {"lake": lake}, DAYS[0]).passed
    failed = run_check(check, {"lake": lake}, DAYS[1])
    assert (failed.passed, failed.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "weight" in values(failed)["warnings"][str(DAYS[1])][0]


def test_a_budget_for_a_column_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the settings is named before anything is judged by it; a right name is a budget."""
    for name, is_right in (("purchases.shop_id", False), ("purchases.store_id", True)):
        monkeypatch.setenv("PIPELINE_VALIDATION__NULL_BUDGETS", f'{{"{name}": [0.1, 0.5]}}')
        get_settings.cache_clear()
        if is_right:
            assert validation_policy().batch.null_budgets[name].error == 0.5
        else:
            with pytest.raises(ConfigurationError, match=name):
                validation_policy()
    get_settings.cache_clear()
