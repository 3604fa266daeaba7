"""A business day is one partition, on the days when clocks change, in leap years and over the end of a year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from pipeline_assets.partitions import daily, daily_partitions
from pipeline_assets.resources.sources import newest_complete_day
from pipeline_assets.settings import CalendarSettings, Settings

SPRING, AUTUMN = date(2017, 3, 12), date(2017, 11, 5)  # 02:00 is 03:00, and 02:00 is 01:00 again, in New York


def calendar(first: str, last: str | None, zone: str = "America/New_York") -> CalendarSettings:
    return CalendarSettings.model_validate(
        {"first_day": first, "last_day": last, "time_zone": zone, "clock": "wall" if last is None else "replay"}
    )


def keys(first: str, last: str, zone: str = "America/New_York") -> list[str]:
    return list(daily_partitions(calendar(first, last, zone)).get_partition_keys())


def hours(day: date) -> float:
    """Length of a partition's window."""
    window = daily.time_window_for_partition_key(day.isoformat())
    return (window.end.timestamp() - window.start.timestamp()) / 3600


def test_the_year_is_365_days_in_order() -> None:
    """No key is missing or double on the days when clocks change."""
    found = list(daily.get_partition_keys())
    assert found == [str(date(2017, 1, 1) + timedelta(days=n)) for n in range(365)]


@pytest.mark.parametrize(("day", "expected"), [(SPRING, 23.0), (AUTUMN, 25.0), (date(2017, 7, 1), 24.0)])
def test_the_day_of_a_clock_change_is_one_partition(day: date, expected: float) -> None:
    """From midnight to midnight in the shop's time: 23 hours in spring, 25 in autumn."""
    assert hours(day) == expected


@pytest.mark.parametrize("day", [SPRING, AUTUMN])
@pytest.mark.parametrize("hour", [0, 1, 4, 23])
def test_every_hour_of_such_a_day_is_in_its_partition(day: date, hour: int) -> None:
    """The first hour of the day and the last, and those on both sides of the change."""
    moment = datetime(day.year, day.month, day.day, hour, 30, tzinfo=ZoneInfo("America/New_York"))
    window = daily.time_window_for_partition_key(day.isoformat())
    assert window.start <= moment < window.end


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Pacific/Apia", "Asia/Kathmandu", "UTC"])
@pytest.mark.parametrize("year", [2016, 2020])
def test_a_leap_day_is_one_partition(year: int, zone: str) -> None:
    """28 and 29 February, 1 March."""
    assert keys(f"{year}-02-28", f"{year}-03-01", zone) == [f"{year}-02-28", f"{year}-02-29", f"{year}-03-01"]


def test_a_common_year_has_no_leap_day() -> None:
    """2017, and 1900 as well, which is divisible by four."""
    assert keys("2017-02-28", "2017-03-01") == ["2017-02-28", "2017-03-01"]
    assert keys("1900-02-28", "1900-03-01") == ["1900-02-28", "1900-03-01"]


def test_the_end_of_a_year_is_a_day_like_any_other() -> None:
    """31 December and 1 January follow each other."""
    assert keys("2016-12-30", "2017-01-02") == ["2016-12-30", "2016-12-31", "2017-01-01", "2017-01-02"]


def test_a_closed_calendar_ends_with_its_last_day() -> None:
    """2018-01-01 is no key of the sample's year, whatever the wall clock says."""
    assert not daily.has_partition_key("2018-01-01")
    assert daily.has_partition_key("2017-12-31")


@pytest.mark.parametrize(
    ("utc", "expected"),
    [
        ("2017-03-13T03:59", "2017-03-11"),  # 23:59 in New York on the 12th, which has 23 hours: the 12th is not over
        ("2017-03-13T04:00", "2017-03-12"),
        ("2017-11-06T04:59", "2017-11-04"),  # 23:59 on the 5th, which has 25
        ("2017-11-06T05:00", "2017-11-05"),
        ("2020-03-01T05:00", "2020-02-29"),
        ("2018-01-01T04:59", "2017-12-30"),
        ("2018-01-01T05:00", "2017-12-31"),
    ],
)
def test_a_day_is_complete_at_midnight_of_the_shop(utc: str, expected: str) -> None:
    """Not at midnight UTC, and not 24 hours after it began."""
    settings = Settings(calendar=calendar("2016-01-01", None))
    now = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert newest_complete_day(settings, now) == date.fromisoformat(expected)


def test_partitions_by_utc_would_put_evening_purchases_on_the_next_day() -> None:
    """Negative control: 20:30 on the evening of 11 March is 12 March in UTC."""
    evening = datetime(2017, 3, 11, 20, 30, tzinfo=ZoneInfo("America/New_York"))
    by_utc = daily_partitions(calendar("2017-01-01", "2017-12-31", "UTC"))

    def holds(definition: dg.DailyPartitionsDefinition, key: str) -> bool:
        window = definition.time_window_for_partition_key(key)
        return bool(window.start <= evening < window.end)

    assert (holds(daily, "2017-03-11"), holds(by_utc, "2017-03-11"), holds(by_utc, "2017-03-12")) == (True, False, True)
