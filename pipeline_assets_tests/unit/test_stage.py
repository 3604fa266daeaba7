"""Features from the lake's marts to its feature tables: many buckets or one, many days or one, one commit a day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline_assets.recommender.stage import Stage
from pipeline_assets.resources import feature_build
from pipeline_assets.resources.feature_build import FEATURES, build_features, encoded_once
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.snapshots import _FEED_OF
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets_tests import scenario

EARLIER = scenario.AS_OF - timedelta(days=10)
ONE_EACH = 1  # a customer weighs 500 rows at least, so this makes a bucket of every customer
Digests = dict[tuple[date, str], str]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The marts of the scenario, its last day included."""
    found = Lake(root=str(tmp_path_factory.mktemp("lake")))
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, scenario.feeds())
        for mart in _FEED_OF:
            rows = con.sql(f"select * from {mart} order by all").to_arrow_table()
            found.replace_days(f"warehouse/{mart}", rows, sorted(set(rows["event_date"].to_pylist())), "run")
    passed = [Verdict(feed, scenario.FIRST_DAY, "passed", 1, 1, 0) for feed in set(_FEED_OF.values())]
    found.record_verdicts(passed, "run", datetime(2017, 3, 2, tzinfo=UTC))
    return found


def built(lake: Lake, days: list[date], **sizes: int) -> Digests:
    return {(day, name): found["digest"] for day, name, found in build_features(lake, days, "run", **sizes)}


def test_digests_do_not_depend_on_the_number_of_buckets(lake: Lake) -> None:
    """One bucket, two or three customers each, one customer each: the same digest of each table."""
    one = built(lake, [scenario.AS_OF])
    assert set(one) == {(scenario.AS_OF, name) for name in FEATURES}
    assert built(lake, [scenario.AS_OF], bucket_rows=1_100) == one
    assert built(lake, [scenario.AS_OF], bucket_rows=ONE_EACH) == one


def test_the_sizes_above_do_make_buckets(lake: Lake, tmp_path: Path) -> None:
    """The test above is not blind: six customers are one bucket, then three, then six."""
    with duckdb.connect(config={"threads": 1}) as con:
        scenario.register_marts(con, scenario.feeds())
        counts = []
        for at, size in enumerate((3_000_000, 1_100, ONE_EACH)):
            (tmp_path / str(at)).mkdir()
            counts.append(Stage(con, scenario.LAST_DAY, tmp_path / str(at), size).n_buckets)
    assert counts[0] == 1
    assert counts[1] == 3
    assert counts[2] == 6


@pytest.mark.parametrize("sizes", [{}, {"bucket_rows": ONE_EACH}], ids=["one bucket", "a bucket each"])
def test_days_of_one_run_are_those_of_runs_of_their_own(lake: Lake, sizes: dict[str, int]) -> None:
    """Encoded together with later days (fay and jam arrive, cola goes), an earlier day has the bits that it has alone."""
    together = built(lake, [scenario.AS_OF, EARLIER, scenario.LAST_DAY], **sizes)
    assert {key: found for key, found in together.items() if key[0] == EARLIER} == built(lake, [EARLIER])
    assert {key: found for key, found in together.items() if key[0] == scenario.AS_OF} == built(lake, [scenario.AS_OF])


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """The last day of each encoding that is made."""
    made: list[date] = []

    class Counted(Stage):
        def __init__(self, con: duckdb.DuckDBPyConnection, last: date, *rest: Any) -> None:
            made.append(last)
            super().__init__(con, last, *rest)

    monkeypatch.setattr(feature_build, "Stage", Counted)
    return made


def test_runs_of_single_days_share_an_encoding(lake: Lake, encodings: list[date]) -> None:
    """Two runs inside of `encoded_once` make none of their own, and give the bits that they give alone; a third after it makes one."""
    days = [EARLIER, scenario.AS_OF]
    alone = built(lake, days[:1]) | built(lake, days[1:])
    encodings.clear()
    with encoded_once(lake, days):
        together = built(lake, days[:1]) | built(lake, days[1:])
        assert encodings == [scenario.AS_OF]
    assert together == alone
    built(lake, days[:1])
    assert encodings == [scenario.AS_OF, EARLIER]


def test_encoding_is_made_again_where_it_does_not_serve(lake: Lake, encodings: list[date]) -> None:
    """A day outside of those it was made for; and any day after a verdict, which may have blocked one that it holds."""
    with encoded_once(lake, [scenario.AS_OF]):
        built(lake, [EARLIER])
        assert encodings == [scenario.AS_OF, EARLIER]
        lake.record_verdicts(
            [Verdict("purchases", EARLIER, "passed", 1, 1, 0)], "run", datetime(2017, 3, 3, tzinfo=UTC)
        )
        built(lake, [scenario.AS_OF])
        assert encodings == [scenario.AS_OF, EARLIER, scenario.AS_OF]


def test_another_day_has_another_digest(lake: Lake) -> None:
    """The tests above are not blind."""
    days = built(lake, [EARLIER, scenario.AS_OF])
    assert days[EARLIER, "customer_product"] != days[scenario.AS_OF, "customer_product"]


def test_a_day_in_buckets_is_one_commit_that_carries_its_digest(lake: Lake) -> None:
    """One version more, with the five customers of the day."""
    built(lake, [scenario.AS_OF])
    before = lake.version("features/customer_product")
    found = built(lake, [scenario.AS_OF], bucket_rows=ONE_EACH)
    commit = lake.commits("features/customer_product")[-1]
    assert (commit.version, commit.days[scenario.AS_OF].rows) == (before + 1, 5)
    assert commit.days[scenario.AS_OF].digest == found[scenario.AS_OF, "customer_product"]
    stored = lake.read("features/customer_product", scenario.AS_OF, scenario.AS_OF, ["customer_id"])
    assert sorted(stored["customer_id"].to_pylist()) == ["ann", "bob", "cleo", "dan", "eve"]
