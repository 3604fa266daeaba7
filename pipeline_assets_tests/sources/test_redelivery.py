"""What files and databases say of a correction that keeps the number of rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from pipeline_assets.resources.content import contents, in_order
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.sources.base import Source, SourceCalendar
from pipeline_assets.sources.batch import LandedBatch
from pipeline_assets.sources.files import FilesSource
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
from pipeline_assets.sources.sql import SqlSource
from pipeline_assets_tests import scenario
from pipeline_assets_tests.postgres import Postgres

SUNDAY, MONDAY = date(2017, 2, 12), date(2017, 2, 13)
PURCHASES = FEEDS["purchases"]
CALENDAR = SourceCalendar("UTC", date(2017, 1, 1), date(2017, 12, 31))


def lines(day: date) -> pd.DataFrame:
    frame = scenario.purchases()
    return frame[frame["event_date"] == day].drop(columns="event_date")


def landed(source: Source, at: datetime) -> dict[date, LandedBatch]:
    days = [SUNDAY, MONDAY]
    found = contents(in_order(source.read(PURCHASES, days), PURCHASES.key), days)
    return {day: LandedBatch("purchases", day, "b", one.rows, one.digest, at) for day, one in found.items()}


def test_a_file_that_was_written_again_has_changed_when_its_rows_have(tmp_path: Path) -> None:
    """Monday's file is written again: with the same rows nothing has changed, with another amount the day has."""
    path = tmp_path / "drops" / "purchases"
    path.mkdir(parents=True)
    for day in (SUNDAY, MONDAY):
        lines(day).to_csv(path / f"{day}.csv", index=False)
    source = FilesSource(str(tmp_path / "drops"), SourceMapping(), CALENDAR, 0.5, tmp_path / "spool")
    before = landed(source, datetime.now(UTC) - timedelta(seconds=1))
    lines(MONDAY).to_csv(path / f"{MONDAY}.csv", index=False)
    assert source.changed_days(PURCHASES, before) == []
    lines(MONDAY).assign(amount=99.0).to_csv(path / f"{MONDAY}.csv", index=False)
    assert source.changed_days(PURCHASES, before) == [MONDAY]
    after = landed(source, datetime.now(UTC) + timedelta(seconds=1))
    assert source.changed_days(PURCHASES, after) == []


def test_a_row_corrected_in_place_is_seen_where_the_table_says_when(postgres: Postgres) -> None:
    """Same number of rows: without `changed` the day looks as before, with it the day has changed."""
    postgres.database("redelivery")
    url = postgres.url("redelivery")
    engine = sa.create_engine(url)
    frame = pd.concat([lines(SUNDAY), lines(MONDAY)]).assign(changed=datetime(2017, 2, 14, tzinfo=UTC))
    frame.to_sql("purchases", engine, index=False)
    blind, seeing = (
        SqlSource(url, {}, SourceMapping(None, {"purchases": FeedMapping(changed=changed)}), CALENDAR, 0.5)
        for changed in ("", "changed")
    )
    before = landed(seeing, datetime(2017, 2, 15, tzinfo=UTC))
    assert seeing.changed_days(PURCHASES, before) == []
    with engine.begin() as connection:
        update = "update purchases set amount = amount + 1, changed = '2017-02-16 00:00+00' where event_ts >= '2017-02-13 00:00+00'"
        assert connection.execute(sa.text(update)).rowcount == before[MONDAY].rows > 0
    engine.dispose()
    assert blind.changed_days(PURCHASES, before) == []
    assert seeing.changed_days(PURCHASES, before) == [MONDAY]
