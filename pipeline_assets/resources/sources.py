"""The source resource: which connector the settings ask for, and which business day the clock says it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg

from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.settings import Settings, get_settings
from pipeline_assets.sources.base import Source, SourceCalendar
from pipeline_assets.sources.batch import LandedBatch, ReopeningSource


def newest_complete_day(settings: Settings, now: datetime) -> date:
    """The last business day that is over: by the wall clock yesterday in the shop's zone, on replay `until`."""
    calendar = settings.calendar
    if calendar.clock == "wall":
        yesterday = now.astimezone(ZoneInfo(calendar.time_zone)).date() - timedelta(days=1)
        return min(yesterday, calendar.last_day) if calendar.last_day else yesterday
    last = calendar.until or calendar.last_day
    assert last is not None, "a replay clock has an end"
    return min(last, calendar.last_day) if calendar.last_day else last


def build_source(settings: Settings, now: datetime, spool: Path | None = None) -> Source:
    """The connector of `settings.source.kind`, with the faults of `settings.source.faults`.

    Args:
        spool: where files of many days are kept sorted (sources/spool.py); in the data folder if not given.

    Raises:
        ConfigurationError: the mapping file cannot be used, or a fault is not known.
    """
    source = _connector(settings, now, spool)
    if not settings.source.faults:
        return source
    from pipeline_assets.sources.faulty import FaultySource

    newest, limit = newest_complete_day(settings, now), settings.validation.max_unparsed_share
    return FaultySource(source, settings.source.faults, newest, limit, settings.calendar.time_zone)


def _connector(settings: Settings, now: datetime, spool: Path | None) -> Source:
    newest = newest_complete_day(settings, now)
    limit = settings.validation.max_unparsed_share
    if settings.source.kind == "sample":
        from pipeline_assets.sources.sample import SampleSource

        return SampleSource(newest, limit)
    from pipeline_assets.sources.mapping import read_mapping

    mapping, calendar = read_mapping(settings.source.mapping), settings.calendar
    days = SourceCalendar(calendar.time_zone, calendar.first_day, newest, frozenset(calendar.closed_days))
    if settings.source.kind == "sql":
        from pipeline_assets.sources.sql import SqlSource

        return SqlSource(settings.source.database_url(), settings.source.connect_args, mapping, days, limit)
    if settings.source.kind == "stream":
        from pipeline_assets.resources.lake import local_lake
        from pipeline_assets.sources.stream import StreamSource

        lateness = timedelta(minutes=settings.stream.lateness_minutes)
        return StreamSource(local_lake(settings.data_dir), mapping, days, lateness, limit)
    from pipeline_assets.sources.files import FilesSource

    assert settings.source.path is not None, "checked by Settings"
    return FilesSource(settings.source.path, mapping, days, limit, spool or settings.data_dir / "spool")


class SourceResource(dg.ConfigurableResource):
    """The configured source. Its settings are the process's, so that a run's config cannot point at other data."""

    def _source(self) -> Source:
        return build_source(get_settings(), datetime.now().astimezone())

    def arrived_days(self) -> list[date]:
        return self._source().arrived_days()

    def changed_days(self, feed: Feed, landed: Mapping[date, LandedBatch]) -> list[date]:
        """Landed days whose delivery is another now; none where the source never changes."""
        source = self._source()
        return source.changed_days(feed, landed) if isinstance(source, ReopeningSource) else []

    def read(self, feed: Feed, days: list[date]):  # type: ignore[no-untyped-def]  # pyarrow.Table; see Source.read
        return self._source().read(feed, days)
