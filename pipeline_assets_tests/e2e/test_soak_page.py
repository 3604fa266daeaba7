"""What the soak's page concludes from its samples: idle CPU, processes that stay, growth, disk a day."""

from __future__ import annotations

import pytest

from benchmarks import soak_page

HOUR = 3600.0


def sample(t: float, cpu: float = 0.0, rss: float = 100.0, going: int = 0, ended: int = 0, workers: int = 0) -> dict:
    """Of a daemon and a code server of the same figures, and as many runs' workers as asked."""
    usage = {"processes": 1, "rss_mb": rss, "cpu_s": cpu, "files": 9, "threads": 2}
    roles = {"daemon": usage, "code_server": usage} | ({"run": {**usage, "processes": workers}} if workers else {})
    return {"t": t, "roles": roles, "in_progress": going, "succeeded": ended, "failed": 0, "events": 0}


def test_idle_cpu_leaves_out_what_belongs_to_a_run() -> None:
    """0 to 10 s is quiet: 0.2 s of each in 10 s is 2 %. A day arrives at 15 s; until 40 s its run is on; 40 to 50 s is quiet again, 0.4 s."""
    samples = [sample(0, 0), sample(10, 0.2), sample(20, 5), sample(30, 9, going=1), sample(40, 9.5, ended=1)]
    found = {"samples": [*samples, sample(50, 9.9, ended=1)], "arrivals": [[15, "2017-03-19"]]}
    shares = soak_page.idle_cpu(found)
    assert shares["seconds"] == 20
    assert shares["daemon"] == pytest.approx((0.2 + 0.4) / 20)
    assert soak_page.sensors_share(shares) == pytest.approx(2 * 0.6 / 20)
    assert soak_page.idle_cpu({**found, "samples": samples[2:4]})["seconds"] == 0


def test_a_worker_that_stays_is_found() -> None:
    """Two processes at first. At 60 s, 50 s after the run, a third is still there; while the run is on, it may be."""
    quiet = [sample(-60), sample(-30), sample(0, going=1, workers=1), sample(10, ended=1, workers=1)]
    assert soak_page.not_back({"samples": [*quiet, sample(60, ended=1)]}) == []
    assert soak_page.not_back({"samples": [*quiet, sample(60, ended=1, workers=1)]}) == [60]


def test_trend_is_of_the_second_half() -> None:
    """100 MB at first, then 300, 310, 320, 330 and 340 MB an hour apart: 10 MB an hour, and not the rise at the start. Steady is 0."""
    samples = [sample(0), *(sample(n * HOUR, rss=290 + 10 * n) for n in (1, 2, 3, 4, 5))]
    found = {"samples": samples, "arrivals": []}
    assert soak_page.trend(found, "daemon", "rss_mb") == pytest.approx(10)
    steady = {**found, "samples": [sample(n * HOUR) for n in range(6)]}
    assert soak_page.trend(steady, "daemon", "rss_mb") == pytest.approx(0, abs=1e-9)


def test_disk_a_day() -> None:
    """Two days arrived between the looks and the lake grew by 6 MB: 3 a day; a new folder counts from nothing."""
    looks = [{"t": 0, "mb": {"lake": 10.0}}, {"t": 100, "mb": {"lake": 16.0, "reports": 1.0}}]
    found = {"disk": looks, "arrivals": [[10, "a"], [60, "b"], [200, "c"]]}
    assert soak_page.disk_a_day(found) == {"lake": 3.0, "reports": 0.5}
