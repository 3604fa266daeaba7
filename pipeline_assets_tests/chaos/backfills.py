"""Days backfilled in random order, twice: the same tables to the last digest, and online values that never go back.

Part of `make chaos` with 90 days of the generated shop. The reference is one range in order. Then, in an empty folder, the same
days in random order: ranges of random length for landing, validation and marts, single days for features and for
publishing online; and once more in another order on top of that.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pipeline_assets.loop import Task, execute
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.chaos.looking import Seen, contents, differences, orphans
from pipeline_assets_tests.chaos.story import span
from pipeline_assets_tests.shop import WORLD, Shop
from pipeline_assets_tests.world import FIRST_DAY, day

HOUR = 3600.0  # seconds: hundreds of runs
LONGEST = 12  # days in one range of a random order
ONLINE = "features/online_store"


def layer(name: str) -> tuple[str, ...]:
    """The feeds' assets of a layer."""
    return tuple(f"{name}/{feed}" for feed in FEEDS)


def random_ranges(days: Sequence[date], dice: random.Random) -> list[tuple[date, ...]]:
    """`days` cut into consecutive ranges of random length, shuffled."""
    cut, start = [], 0
    while start < len(days):
        end = min(start + dice.randint(1, LONGEST), len(days))
        cut.append(tuple(days[start:end]))
        start = end
    dice.shuffle(cut)
    return cut


def in_random_order(days: Sequence[date], as_of: Sequence[date], seed: int) -> list[Task]:
    """Runs that bring up all `days`, and features of the days `as_of`, in an order of chance.

    Each stage is backfilled in an order of its own; a stage begins when the one before it has all its days.
    """
    dice = random.Random(seed)
    shuffled = dice.sample(list(as_of), len(as_of))
    return [
        *(Task("ingest", "land", part, layer("raw")) for part in random_ranges(days, dice)),
        *(Task("ingest", "validate", part, layer("validated")) for part in random_ranges(days, dice)),
        *(Task("marts", "build", part) for part in random_ranges(days, dice)),
        *(Task("features", "as of", (one,)) for one in shuffled),
    ]


@dataclass
class Outcome:
    """What the orders led to; `wrong` is empty when all held."""

    days: int
    runs: int
    tables: int  # compared table-days
    published: list[str] = field(default_factory=list)  # days whose features went online, in that order
    wrong: list[str] = field(default_factory=list)


def digests(shop: Shop) -> Seen:
    """Contents of every table, and the digest that Dagster keeps with every materialised day of the lake's tables."""
    import dagster as dg

    found = contents(local_lake(shop.data_dir))
    with dg.DagsterInstance.get() as instance:
        for key in instance.all_asset_keys():
            # oldest first, so that the newest of a day counts
            for record in instance.fetch_materializations(key, limit=5_000, ascending=True).records:
                event = record.asset_materialization
                if event is not None and "digest" in event.metadata:
                    found[f"digest of {key.to_user_string()} {event.partition}"] = str(event.metadata["digest"].value)
    return found


def publish_in_random_order(shop: Shop, as_of: Sequence[date], seed: int, said: Path) -> None:
    """Publish days online, one run each, and write what every customer's online row was after each: one JSON line a run."""
    from pipeline_assets.resources.feature_store import FeatureStoreResource

    features = FeatureStoreResource()
    customers = sorted(WORLD.customers["customer_id"])
    for one in random.Random(seed).sample(list(as_of), len(as_of)):
        execute(Task("publish", "online", (one,), (ONLINE,)))
        store = features.open()
        known = {c: str(at) for c, at in features.online_timestamps(store, customers).items()}
        values = json.dumps(features.read_online(store, customers), sort_keys=True, default=str)
        with said.open("a") as lines:
            print(json.dumps({"day": str(one), "known": known, "values": values}), file=lines)


def moved_back(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Publications that made a customer's row older, or changed a value although a newer day was online."""
    wrong, newest = [], ""
    for before, after in itertools.pairwise(lines):
        newest = max(newest, before["day"])
        older = [c for c, at in after["known"].items() if before["known"][c] != "None" and at < before["known"][c]]
        if older:
            wrong.append(f"publishing {after['day']} moved {len(older)} customers back")
        if after["day"] < newest and after["values"] != before["values"]:
            wrong.append(f"publishing {after['day']} changed values although {newest} was online")
    return wrong


def backfill_twice(root: Path, n_days: int, every: int, seeds: tuple[int, int]) -> Outcome:
    """The whole experiment in an empty folder.

    Args:
        n_days: days from the shop's first.
        every: features are made as of every so many days.
        seeds: of the two orders.
    """
    days = span(FIRST_DAY, day(n_days - 1))
    as_of = days[every - 1 :: every]
    drops = Shop(root / "reference")
    drops.deliver(days[0], days[-1])
    in_order = [
        Task("ingest", "all", days),
        *(Task("features", "as of", (one,)) for one in as_of),
    ]
    reference = _digests_after(drops, in_order, root, "reference")
    shuffled = Shop(root / "shuffled")
    shuffled.root.mkdir()
    shuffled.drops.symlink_to(drops.drops)
    outcome = Outcome(n_days, 0, len(reference))
    for seed in seeds:
        tasks = in_random_order(days, as_of, seed)
        found = _digests_after(shuffled, tasks, root, f"order-{seed}")
        outcome.runs += len(tasks)
        outcome.wrong += [f"order {seed}: {line}" for line in differences(found, reference)]
        outcome.wrong += [f"order {seed}: missing {key}" for key in sorted(set(reference) - set(found))]
    said = root / "online.jsonl"
    for seed in seeds:
        ended = forge.run(
            shuffled,
            lambda seed=seed: publish_in_random_order(shuffled, as_of, seed, said),
            root / "online.log",
            patience=HOUR,
        )
        assert ended.succeeded, ended.said[-3000:]
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    outcome.published = [line["day"] for line in lines]
    outcome.wrong += moved_back(lines)
    outcome.wrong += [f"orphan: {path}" for path in orphans(shuffled.data_dir / "lake")]
    return outcome


def _digests_after(shop: Shop, tasks: list[Task], root: Path, name: str) -> Seen:
    def work() -> None:
        for task in tasks:
            execute(task)

    ended = forge.run(shop, work, root / f"{name}.log", patience=HOUR)
    assert ended.succeeded, ended.said[-6000:]
    return forge.told(shop, lambda: digests(shop), root / f"{name}.json")


def table(outcome: Outcome, seeds: tuple[int, int]) -> str:
    """The result as Markdown."""
    ending = "; ".join(outcome.wrong)[:2000] or "all as wanted"
    return f"""{outcome.days} days in order as one range, then twice in random order (seeds {seeds[0]} and {seeds[1]}; {outcome.runs} runs),
the second time on top of the first. Compared: {outcome.tables} contents and digests of table-days (raw, validated, quarantine, marts,
features, newest verdicts and batches). Online: {len(outcome.published)} publications in random order; no customer's row became older, and none changed while a
newer day was online.

Outcome: {ending}
"""
