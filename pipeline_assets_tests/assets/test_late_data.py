"""Sensor `late_data` by simulated ticks: what is landed again, what is computed again, what is left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow
import pytest

from pipeline_assets.automation import MAX_DAYS_A_TICK
from pipeline_assets.definitions import defs
from pipeline_assets.resources.alerts import Alerts
from pipeline_assets.resources.lake import BATCHES, Lake
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.sources.batch import LandedBatch
from pipeline_assets.sources.landing import landed_batches
from pipeline_assets_tests.ticks import requested, tick

NEWEST = date(2017, 4, 16)  # a Sunday
WEDNESDAY = date(2017, 4, 12)
NOON = datetime(2017, 4, 17, 12, tzinfo=UTC)


class Redelivering(SourceResource):
    """Says which days of purchases are others now."""

    changed: list[str] = []  # noqa: RUF012  # a pydantic field

    def arrived_days(self) -> list[date]:
        return [NEWEST]

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        return [day for day in landed if feed.name == "purchases" and str(day) in self.changed]


@dataclass
class Desk:
    """An instance, and a lake with a year of verdicts and the batches of four weeks."""

    instance: dg.DagsterInstance
    lake: Lake
    sent: list[Any] = field(default_factory=list)

    def landed(self, day: date, digest: str, at: datetime = NOON) -> None:
        row = {"feed": "purchases", "event_date": day, "batch_id": digest, "rows": 1, "digest": digest}
        self.lake.append(BATCHES, pyarrow.Table.from_pylist([{**row, "run_id": "r", "recorded_at": at}]))

    def write(self, table: str, day: date, value: int, *sources: str) -> None:
        rows = pyarrow.Table.from_pylist([{"value": value, "event_date": day}])
        self.lake.replace_days(table, rows, [day], "r", inputs=self.lake.versions(sources))

    def tick(self, *changed: date) -> Any:
        resources = {
            "source": Redelivering(changed=[str(day) for day in changed]),
            "lake": self.lake,
            "alerts": Alerts(webhook_url=""),
        }
        return tick(defs, "late_data", self.instance, resources)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with dg.DagsterInstance.ephemeral() as instance:
        desk = Desk(instance, Lake(root=str(tmp_path)))
        days = [date(2017, 1, 1) + timedelta(days=n) for n in range(106)]
        for feed in FEEDS:
            desk.lake.record_verdicts([Verdict(feed, day, "passed", 1, 1, 0) for day in days], "r", NOON)
        for day in days[-30:]:
            desk.landed(day, f"first-{day}")
        yield desk


def test_a_day_that_was_delivered_again_is_landed_again(desk: Desk) -> None:
    """One run of `ingest` for it; its key names what it supersedes, so the same correction asked for twice is one run."""
    found = desk.tick(WEDNESDAY)
    assert requested(found) == [("ingest", "2017-04-12")]
    assert found.run_requests[0].run_key == "late-2017-04-12-first-2017-0"
    assert found.run_requests[0].tags["started_by"] == "sensor late_data"
    assert desk.tick(WEDNESDAY).run_requests[0].run_key == found.run_requests[0].run_key
    desk.landed(WEDNESDAY, "second", NOON + timedelta(hours=1))
    assert desk.tick(WEDNESDAY).run_requests[0].run_key == "late-2017-04-12-second"


def test_a_late_day_is_an_alert(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """What changed, of which day, and where to read on."""
    with caplog.at_level("INFO", logger="pipeline_assets.alerts"):
        desk.tick(WEDNESDAY)
    assert "purchases of 2017-04-12 changed after the day was landed" in caplog.text
    assert "docs/runbook.md#late-data" in caplog.text


def test_a_correction_that_was_landed_and_never_judged_is_late(desk: Desk) -> None:
    """The run was killed between landing and validation: the verdict is of the batch before, and the key is another than that run's."""
    judged = Verdict("purchases", WEDNESDAY, "passed", 1, 1, 0, batch_id=f"first-{WEDNESDAY}")
    desk.lake.record_verdicts([judged], "r", NOON + timedelta(hours=1))
    assert requested(desk.tick()) == []
    desk.landed(WEDNESDAY, "second", NOON + timedelta(hours=2))
    found = desk.tick()
    assert requested(found) == [("ingest", "2017-04-12")]
    assert found.run_requests[0].run_key == "late-2017-04-12-second"


def test_nothing_changed_is_a_reason(desk: Desk) -> None:
    """No run."""
    found = desk.tick()
    assert (requested(found), "every landed day is as it was delivered" in found.skip_message) == ([], True)


def test_older_days_are_left_to_a_person(desk: Desk) -> None:
    """28 days back is the setting: 03-19 is looked at, 03-18 is not."""
    assert requested(desk.tick(date(2017, 3, 18))) == []
    assert requested(desk.tick(date(2017, 3, 19))) == [("ingest", "2017-03-19")]


def test_many_late_days_are_taken_in_turns(desk: Desk) -> None:
    """Ten days at once: the oldest seven now."""
    days = [NEWEST - timedelta(days=n) for n in range(10)]
    assert [day for _, day in requested(desk.tick(*days))] == [str(day) for day in sorted(days)[:MAX_DAYS_A_TICK]]


def test_features_that_training_reads_are_computed_again(desk: Desk) -> None:
    """Purchases of Wednesday changed after features as of Sunday and of Thursday were made: only the cut-off is asked for."""
    thursday = WEDNESDAY + timedelta(days=1)
    desk.write("warehouse/fct_purchases", WEDNESDAY, 1)
    for day in (thursday, NEWEST):
        desk.write("features/customer", day, 1, "warehouse/fct_purchases")
    assert requested(desk.tick()) == []
    desk.write("warehouse/fct_purchases", WEDNESDAY, 2)
    found = desk.tick()
    assert requested(found) == [("features", "2017-04-16")]
    assert found.run_requests[0].tags["reason"] == "warehouse/fct_purchases of 2017-04-12 changed"
    desk.write("features/customer", NEWEST, 2, "warehouse/fct_purchases")
    assert requested(desk.tick()) == []


def test_a_young_shop_has_nothing_to_compute_again(tmp_path: Path) -> None:
    """Too few weeks for any training: a reason, not an error."""
    with dg.DagsterInstance.ephemeral() as instance:
        found = Desk(instance, Lake(root=str(tmp_path))).tick()
    assert (requested(found), "no training reads features yet" in found.skip_message) == ([], True)


def test_the_newest_batch_of_a_day_counts(desk: Desk) -> None:
    """Landed twice: the second."""
    desk.landed(WEDNESDAY, "second", NOON + timedelta(hours=1))
    found = landed_batches(desk.lake, FEEDS["purchases"], WEDNESDAY, WEDNESDAY)
    assert found[WEDNESDAY].digest == "second"
    assert landed_batches(desk.lake, FEEDS["products"], WEDNESDAY, WEDNESDAY) == {}
