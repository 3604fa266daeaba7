"""Landing and admitting days of the scenario, from a source in memory into a lake in a temporary folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pytest

from pipeline_assets.recommender.errors import BlockedPartition, SourceError
from pipeline_assets.resources.content import combined, digest, in_days
from pipeline_assets.resources.lake import BATCHES, Lake
from pipeline_assets.schemas.feeds import FEEDS, Feed
from pipeline_assets.schemas.validation import PARSE_ERRORS, ValidationPolicy, Verdict
from pipeline_assets.sources.landing import admit_days, groups, groups_of_rows, land_days, unjudged
from pipeline_assets_tests import scenario

PURCHASES, PRODUCTS = FEEDS["purchases"], FEEDS["products"]
SUNDAY, MONDAY, TUESDAY = (date(2017, 2, n) for n in (12, 13, 14))  # 3 lines, 2 lines, none
POLICY = ValidationPolicy(max_bad_share=0.2, max_unparsed_share=0.5)
NOON = datetime(2017, 2, 15, 12, tzinfo=UTC)


class Memory:
    """A source that delivers frames; a day in `broken` cannot be read."""

    def __init__(self, world: scenario.Feeds, broken: Sequence[date] = ()) -> None:
        self.world, self.broken, self.asked = world, broken, list[list[date]]()

    def arrived_days(self) -> list[date]:
        return []

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        self.asked.append(list(days))
        for day in days:
            if day in self.broken:
                raise SourceError(f"{feed.name} of {day}", found="no file", wanted="a file", fix="deliver the day")
        frame = self.world[feed.name]
        return scenario.delivered(feed.name, frame[frame["event_date"].isin(days)])


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path))


def land(lake: Lake, days: Sequence[date], feed: Feed = PURCHASES, source: Memory | None = None) -> list[str]:
    """Land days of the scenario; the batch ids."""
    return [batch.batch_id for batch in land_days(source or Memory(scenario.feeds()), lake, feed, days, "r1", NOON)]


def with_bad(day: date, rows: int) -> Memory:
    """The scenario with a quantity of 0 in the first lines of a day."""
    frame = scenario.purchases()
    frame.loc[frame.index[frame["event_date"] == day][:rows], "quantity"] = 0.0
    return Memory({**scenario.feeds(), "purchases": frame})


def admit(lake: Lake, days: Sequence[date], hours: int = 0, feed: Feed = PURCHASES) -> tuple[list[str], list[str]]:
    """Statuses and digests of the days."""
    verdicts, digests = admit_days(lake, feed, days, POLICY, "r1", NOON + timedelta(hours=hours))
    return [verdict.status for verdict in verdicts], digests


def rows_of(lake: Lake, table: str) -> list[date]:
    return sorted(lake.read(table)["event_date"].to_pylist())


def test_groups_are_consecutive_and_bounded() -> None:
    """12, 13, 14 in twos; the gap before 17 starts a new group; order does not matter."""
    days = [date(2017, 2, n) for n in (17, 12, 14, 13)]
    assert list(groups(days, 2)) == [[SUNDAY, MONDAY], [TUESDAY], [date(2017, 2, 17)]]
    assert list(groups([], 2)) == []


def test_digest_of_a_range_is_that_of_its_day_or_of_all() -> None:
    """One day keeps its own digest; of two the order counts."""
    assert combined(["a"]) == "a"
    assert combined(["a", "b"]) != combined(["b", "a"])
    assert len(combined(["a", "b"])) == 64


def test_landed_days_are_the_rows_as_received(lake: Lake) -> None:
    """Sunday 3 lines and Monday 2, with the column of unreadable texts."""
    land(lake, [SUNDAY, MONDAY])
    assert rows_of(lake, "raw/purchases") == [SUNDAY] * 3 + [MONDAY] * 2
    assert lake.read("raw/purchases").column_names == [*PURCHASES.columns, PARSE_ERRORS]


def test_batch_id_is_the_content(lake: Lake) -> None:
    """The same rows land under the same id, other rows under another; feed and day are part of it."""
    (first,), (again,), (other,) = (
        land(lake, [SUNDAY]),
        land(lake, [SUNDAY]),
        land(lake, [SUNDAY], source=with_bad(SUNDAY, 1)),
    )
    assert first == again != other
    assert first.startswith("purchases-2017-02-12-")


def test_every_batch_is_in_the_ledger(lake: Lake) -> None:
    """Two days landed, one of them again: three entries with their number of rows."""
    land(lake, [SUNDAY, MONDAY])
    land(lake, [MONDAY])
    ledger = lake.read(BATCHES).to_pandas().sort_values("event_date")
    assert ledger[["feed", "event_date", "rows", "run_id"]].to_numpy().tolist() == [
        ["purchases", SUNDAY, 3, "r1"], ["purchases", MONDAY, 2, "r1"], ["purchases", MONDAY, 2, "r1"]
    ]  # fmt: skip


def test_days_are_read_in_groups_of_rows(lake: Lake) -> None:
    """Seven days are asked for first, which had 3 rows; of 1 row at once that makes 7 x 1 / 3 = 2 days next, and 9 x 1 / 3 = 3 after
    none in these: a quiet stretch does not make the next one large."""
    days = [date(2017, 2, 7) + timedelta(days=n) for n in range(14)]
    frame = scenario.purchases()
    source = Memory({**scenario.feeds(), "purchases": frame[frame["event_date"] == SUNDAY]})
    land_days(source, lake, PURCHASES, days, "r1", NOON, rows_at_once=1)
    assert source.asked == [days[:7], days[7:9], days[9:12], days[12:]]


def test_groups_hold_a_number_of_rows_and_a_larger_day_is_alone() -> None:
    """2 + 3 rows of at most 5; then 9 alone; then 1 and a day without rows."""
    days = [date(2017, 2, n) for n in (1, 2, 3, 4, 5)]
    rows = dict(zip(days, (2, 3, 9, 1, 0), strict=True))
    assert list(groups_of_rows(reversed(days), rows, 5)) == [days[:2], days[2:3], days[3:]]


def test_the_order_of_a_delivery_does_not_matter(lake: Lake) -> None:
    """The same lines turned around, two of them with the same id: same batch, same digest, and the same one of the two is kept."""
    frame = scenario.purchases()
    sunday = frame[frame["event_date"] == SUNDAY]
    sunday = pd.concat([sunday, sunday.iloc[:1].assign(amount=99.0)])
    found = []
    for rows in (sunday, sunday.iloc[::-1]):
        batch = land(lake, [SUNDAY], source=Memory({**scenario.feeds(), "purchases": rows.reset_index(drop=True)}))
        found.append((batch, admit(lake, [SUNDAY])[1], sorted(lake.read("validated/purchases")["amount"].to_pylist())))
    assert found[0] == found[1]


def test_source_that_fails_leaves_landed_days_as_they_were(lake: Lake) -> None:
    """Sunday and Monday are asked for again, Monday cannot be read: neither changes and no batch is recorded."""
    land(lake, [SUNDAY, MONDAY])
    version, entries = lake.version("raw/purchases"), len(lake.read(BATCHES))
    with pytest.raises(SourceError):
        land(lake, [SUNDAY, MONDAY], source=Memory(with_bad(SUNDAY, 3).world, broken=[MONDAY]))
    assert (lake.version("raw/purchases"), len(lake.read(BATCHES))) == (version, entries)


def test_good_days_are_admitted_whole(lake: Lake) -> None:
    """Both days pass; the digest of a day is that of its rows, in the order of the key."""
    land(lake, [SUNDAY, MONDAY])
    statuses, digests = admit(lake, [SUNDAY, MONDAY])
    assert statuses == ["passed", "passed"]
    assert rows_of(lake, "validated/purchases") == [SUNDAY] * 3 + [MONDAY] * 2
    assert len(lake.read("quarantine/purchases")) == 0
    stored = in_days(lake.read("validated/purchases"), MONDAY)
    assert digests[1] == digest(stored.select(PURCHASES.columns), sort_by="event_id")


def test_bad_row_goes_to_quarantine_with_rule_reason_and_origin(lake: Lake) -> None:
    """Of six lines one has no quantity: 1 / 6 is below 20 %."""
    frame = scenario.purchases()
    six = frame[frame["event_date"] == SUNDAY]
    six = pd.concat([six, six.assign(event_id=six["event_id"] + "b")]).reset_index(drop=True)
    six.loc[0, "quantity"] = 0.0
    land(lake, [SUNDAY], source=Memory({**scenario.feeds(), "purchases": six}))
    assert admit(lake, [SUNDAY])[0] == ["passed"]
    assert len(lake.read("validated/purchases")) == 5
    (row,) = lake.read("quarantine/purchases").to_pylist()
    assert (row["rule"], row["source"], row["run_id"], row["quantity"]) == (
        "quantity_positive",
        "raw/purchases",
        "r1",
        0.0,
    )


def test_blocked_day_is_visible_nowhere_but_in_raw(lake: Lake) -> None:
    """Sunday's 3 lines are all bad, Monday is good: the guard stops Sunday only."""
    land(lake, [SUNDAY, MONDAY], source=with_bad(SUNDAY, 3))
    assert admit(lake, [SUNDAY, MONDAY])[0] == ["blocked", "passed"]
    assert rows_of(lake, "validated/purchases") == [MONDAY] * 2
    assert rows_of(lake, "quarantine/purchases") == [SUNDAY] * 3  # for people: why the day is blocked
    assert rows_of(lake, "raw/purchases") == [SUNDAY] * 3 + [MONDAY] * 2
    lake.require_passed(["purchases"], [MONDAY])
    with pytest.raises(BlockedPartition, match="purchases of 2017-02-12"):
        lake.require_passed(["purchases"], [SUNDAY])


def test_redelivered_day_replaces_the_bad_one_and_back(lake: Lake) -> None:
    """Bad, then good, then bad again: the verdict follows the newest delivery, and no bad row is ever validated."""
    for hours, (bad, kept) in enumerate(
        ((3, 0), (0, 3), (3, 3))
    ):  # the last good rows stay, under a verdict that hides them
        land(lake, [SUNDAY], source=with_bad(SUNDAY, bad))
        status = admit(lake, [SUNDAY], hours)[0]
        assert status == ["blocked" if bad else "passed"]
        assert len(lake.read("validated/purchases")) == kept
        assert min(lake.read("validated/purchases")["quantity"].to_pylist(), default=1) > 0
        assert lake.verdicts("purchases", SUNDAY, SUNDAY)[SUNDAY].status == status[0]


def test_day_without_purchases_is_blocked_and_without_changes_is_not(lake: Lake) -> None:
    """On Tuesday nobody bought anything and no product changed."""
    land(lake, [TUESDAY])
    land(lake, [TUESDAY], PRODUCTS)
    assert admit(lake, [TUESDAY])[0] == ["blocked"]
    assert admit(lake, [TUESDAY], feed=PRODUCTS)[0] == ["passed"]


def test_same_days_again_give_the_same_digests(lake: Lake) -> None:
    """Alone or in a range, landed once or twice."""
    land(lake, [SUNDAY, MONDAY])
    _, together = admit(lake, [SUNDAY, MONDAY])
    land(lake, [MONDAY])
    assert admit(lake, [MONDAY])[1] == together[1:]


def test_the_blocked_verdict_is_there_before_anything_is_replaced(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good day is delivered again and is bad; killed at the first table that is written, it is hidden already and its rows are whole."""
    land(lake, [SUNDAY])
    admit(lake, [SUNDAY])
    land(lake, [SUNDAY], source=with_bad(SUNDAY, 3))

    def crash(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lake, "replace_days", crash)
    with pytest.raises(KeyboardInterrupt):
        admit(lake, [SUNDAY], hours=1)
    assert lake.verdicts("purchases", SUNDAY, SUNDAY)[SUNDAY].status == "blocked"
    assert len(lake.read("validated/purchases")) == 3


def test_a_correction_is_seen_whole_or_not_at_all(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the rows and the verdict of a correction, the old verdict stands over the new rows: both are good."""
    land(lake, [SUNDAY])
    admit(lake, [SUNDAY])
    frame = scenario.purchases()
    frame.loc[frame["event_date"] == SUNDAY, "amount"] += 1.0
    land(lake, [SUNDAY], source=Memory({**scenario.feeds(), "purchases": frame}))
    record = Lake.record_verdicts

    def crash(self: Lake, verdicts: Sequence[Verdict], *args: Any) -> None:
        record(self, verdicts, *args)
        if not verdicts:  # the call for blocked days; the next one is after the rows
            monkeypatch.setattr(Lake, "record_verdicts", die)

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lake, "record_verdicts", crash)
    with pytest.raises(KeyboardInterrupt):
        admit(lake, [SUNDAY], hours=1)
    lake.require_passed(["purchases"], [SUNDAY])
    wanted = sorted(frame.loc[frame["event_date"] == SUNDAY, "amount"])
    assert sorted(lake.read("validated/purchases")["amount"].to_pylist()) == wanted


def test_crash_before_the_verdict_leaves_a_day_that_nobody_reads(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict is written last: rows may be there, but without one the guard stops."""
    land(lake, [SUNDAY])

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lake, "record_verdicts", crash)
    with pytest.raises(KeyboardInterrupt):
        admit(lake, [SUNDAY])
    with pytest.raises(BlockedPartition, match="no verdict"):
        lake.require_passed(["purchases"], [SUNDAY])


def test_a_correction_that_was_landed_and_not_judged_is_known(lake: Lake) -> None:
    """Killed after landing: the day has the old verdict, and its source and `raw` agree, so that nothing else would show it."""
    land(lake, [SUNDAY, MONDAY])
    admit(lake, [SUNDAY, MONDAY])
    assert unjudged(lake, PURCHASES, SUNDAY, MONDAY) == []
    land_days(with_bad(SUNDAY, 1), lake, PURCHASES, [SUNDAY], "r2", NOON + timedelta(hours=1))
    assert unjudged(lake, PURCHASES, SUNDAY, MONDAY) == [SUNDAY]
    admit(lake, [SUNDAY], hours=2)
    assert unjudged(lake, PURCHASES, SUNDAY, MONDAY) == []


def test_days_in_random_order_and_twice_give_the_same_content(tmp_path: Path) -> None:
    """Five days in one range; then day by day in two random orders, the second on top of the first. `make chaos` does it with 90 days,
    all feeds, marts and features."""
    days, feed = [date(2017, 2, n) for n in range(12, 17)], PURCHASES

    def content(name: str, orders: Sequence[Sequence[Sequence[date]]]) -> dict[str, object]:
        lake = Lake(root=str(tmp_path / name))
        for ranges in orders:
            for part in ranges:
                land(lake, part, feed)
            for part in ranges:
                admit(lake, part, feed=feed)
        tables = [f"{layer}/{feed.name}" for layer in ("raw", "validated", "quarantine")]
        newest = {
            table: {day: found for commit in lake.commits(table) for day, found in commit.days.items()}
            for table in tables
        }
        return {"digests": newest, "verdicts": lake.verdicts(feed.name, days[0], days[-1])}

    shuffled = [[[day] for day in random.Random(seed).sample(days, len(days))] for seed in (1, 2)]
    assert content("shuffled", shuffled) == content("in order", [[days]])
