"""The benchmark harness, on one day and two copies of the customers: it runs the real stages, and its figures add up."""

from __future__ import annotations

import os
from collections import Counter
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.measured import Run, measure
from benchmarks.replicated import ReplicatedSource
from benchmarks.report import exponent, scale_section
from benchmarks.scale import environment, run_stage
from benchmarks.stages import weekly_cutoffs
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets_tests import scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow

    from pipeline_assets.schemas.feeds import Feed

FRIDAY = date(2017, 1, 6)


class Scenario:
    """The tiny world as a source."""

    def arrived_days(self) -> list[date]:
        return [scenario.AS_OF]

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        frame = scenario.feeds()[feed.name]
        return scenario.delivered(feed.name, frame[frame["event_date"].isin(list(days))])


def ids(feed: str, column: str, copies: int, day: date) -> Counter[str | None]:
    return Counter(ReplicatedSource(Scenario(), copies).read(FEEDS[feed], [day])[column].to_pylist())


def test_a_copy_of_a_customer_has_ids_of_its_own() -> None:
    """On 02-12 cleo buys soap, lite and cheese in order o7; the third copy is another customer with another order."""
    day = scenario.day("02-12")
    assert ids("purchases", "customer_id", 3, day) == {"cleo": 3, "cleo~1": 3, "cleo~2": 3}
    assert ids("purchases", "order_id", 3, day) == {"o7": 3, "o7~1": 3, "o7~2": 3}
    assert ids("purchases", "product_id", 3, day) == {"soap": 3, "lite": 3, "cheese": 3}
    assert set(ids("purchases", "event_id", 3, day).values()) == {1}


def test_plans_of_the_shop_are_not_copied_but_mailings_are() -> None:
    """On 02-13 bob gets a mailing and its campaign a coupon; twice the customers are two mailings and one coupon."""
    assert ids("exposures", "customer_id", 2, scenario.day("02-13")) == {"bob": 1, "bob~1": 1, None: 1}
    assert ids("products", "product_id", 2, scenario.FIRST_DAY) == ids("products", "product_id", 1, scenario.FIRST_DAY)


def test_one_copy_is_the_source_itself() -> None:
    """Scale 1 measures the sample, not a copy of it."""
    source = Scenario()
    for feed in FEEDS.values():
        assert ReplicatedSource(source, 1).read(feed, [scenario.AS_OF]).equals(source.read(feed, [scenario.AS_OF]))


def test_the_year_has_52_weekly_cutoffs() -> None:
    """Sundays from 01-08, the first with a week before it, to 12-31."""
    found = weekly_cutoffs(date(2017, 1, 1), date(2017, 12, 31))
    assert (len(found), found[0], found[-1]) == (52, date(2017, 1, 8), date(2017, 12, 31))


def test_exponent_of_linear_and_constant_cost() -> None:
    """Ten times the cost at ten times the size is 1; the same cost is 0; 100 times at ten times the size is 2."""
    assert [round(exponent(2.0, cost, 10), 9) for cost in (20.0, 2.0, 200.0)] == [1.0, 0.0, 2.0]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Run]]:
    """Ingest and validation of one day of the sample, with twice its customers, as processes."""
    folder = tmp_path_factory.mktemp("bench")
    found = {stage: run_stage(stage, folder, 2, FRIDAY, FRIDAY, [], core=None) for stage in ("ingest", "validate")}
    return folder, found


def test_stages_land_and_admit_the_replicated_day(stages: tuple[Path, dict[str, Run]]) -> None:
    """Every purchase comes twice; the lake has as many rows as the process says, and half of them once."""
    folder, found = stages
    assert [run.returncode for run in found.values()] == [0, 0]
    rows = local_lake(folder).read("validated/purchases")
    customers = rows["customer_id"].to_pylist()
    assert len(rows) == found["validate"].facts["valid.purchases"] == 2 * sum("~" not in name for name in customers)


def test_parts_are_within_the_whole(stages: tuple[Path, dict[str, Run]]) -> None:
    """What the process says about its feeds is less than what the kernel counted for the tree."""
    for run in stages[1].values():
        assert {part["name"] for part in run.parts} == set(FEEDS)
        assert 0 < sum(part["cpu_s"] for part in run.parts) < run.cpu_s
        assert 20 < run.peak_process_mb <= run.peak_mb


def test_cpu_of_children_counts() -> None:
    """A process that only waits for its child costs what the child costs; one that sleeps costs nothing."""
    spin = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass"
    busy = measure(
        ["timeit", "-n1", "-r1", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"]
    )
    idle = measure(["timeit", "-n1", "-r1", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'])"])
    assert busy.cpu_s - idle.cpu_s > 0.2


def test_a_process_above_its_cap_is_stopped() -> None:
    """One CPU second is given to a loop without end."""
    run = measure(["timeit", "-n1", "-r1", "while True: pass"], cpu_cap_s=1)
    assert run.returncode < 0
    assert run.cpu_s < 3


def test_the_report_names_every_stage_that_was_measured(stages: tuple[Path, dict[str, Run]]) -> None:
    """The page has a row per stage; one that was not run is a dash, not a zero."""
    run = stages[1]["ingest"]
    entry = {"stages": {"ingest": {**vars(run), "disk_mb": 1}}}
    page = "\n".join(scale_section("tiny", {(2, 1): entry}))
    assert "| ingest |" in page
    assert "| validate | – | – |" in page


def test_children_do_not_see_other_data(tmp_path: Path) -> None:
    """The environment of a stage names its own folder for every store."""
    given = environment(tmp_path)
    folders = ("PIPELINE_DATA_DIR", "PIPELINE_DAGSTER_STORAGE", "PIPELINE_WAREHOUSE_PATH")
    assert all(given[name].startswith(str(tmp_path)) for name in folders)
    assert not any(os.environ["PIPELINE_DATA_DIR"] in value for value in given.values())
