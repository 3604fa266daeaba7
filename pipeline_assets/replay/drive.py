"""Runs a replay: the data lane a little ahead of the policies' lanes, day by day, and writes ledger, figures and page.

Belongs here: processes, their order, files. Does not: what a day does (lanes.py, policy_lane.py).
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.replay import lanes, policy_lane
from pipeline_assets.replay.outcome import realised
from pipeline_assets.replay.story import Event, Injected, Policy, counts, data_faults, ledger_digest
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.settings import Settings
from pipeline_assets.sources.faulty import LATE_DAYS, require_possible
from pipeline_assets.sources.landing import groups

AHEAD = 7  # days that the data lane may begin ahead: both cores stay busy while a model is trained
AT_ONCE = 7  # days that it lands in one run: a run of one day is mostly Dagster and dbt


@dataclass(frozen=True)
class Question:
    """What a replay is asked."""

    first: date
    last: date
    policies: tuple[Policy, ...]
    faults: tuple[Injected, ...]
    requests: int  # customers who ask the API each morning
    seed: int
    values: Mapping[str, Mapping[str, Any]]  # settings that differ from the process's, section -> key -> value


@dataclass(frozen=True, eq=False)
class Replayed:
    """What a policy's replay came to. `table` is of outcome.realised."""

    policy: Policy
    events: tuple[Event, ...]
    table: pd.DataFrame
    cpu_seconds: float  # of the policy's lane

    @property
    def digest(self) -> str:
        return ledger_digest(self.events)


def _lane(folder: Path, question: Question, stack: ExitStack) -> ProcessPoolExecutor:
    faults = {str(day): list(names) for day, names in data_faults(question.faults).items()}
    values = {
        **question.values,
        "source": {**question.values.get("source", {}), **({"faults": faults} if faults else {})},
    }
    pool = ProcessPoolExecutor(
        1,
        multiprocessing.get_context("spawn"),
        initializer=lanes.enter,
        initargs=(folder, values, question.first - timedelta(days=1)),
    )
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool


def _link_stream(shop: Path, data: Path) -> None:
    """What a stream delivered is in the shop's lake: source.kind = stream reads it there."""
    if (delivered := shop / "lake" / "stream").exists():
        (data / "lake").mkdir(parents=True)
        (data / "lake" / "stream").symlink_to(delivered, target_is_directory=True)


def _barriers(faults: Sequence[Injected]) -> set[date]:
    """Days on which the past changes: nobody may still be reading it, or the ledger would depend on who was faster."""
    return {fault.day + timedelta(days=LATE_DAYS) for fault in faults if fault.name == "late_day"}


def _deliveries(days: Sequence[date], alone: Collection[date]) -> list[list[date]]:
    """The days as they are landed: up to `AT_ONCE` in one run, those of `alone` each in its own."""
    parts = itertools.groupby(days, lambda day: day if day in alone else None)
    return [delivery for _, part in parts for delivery in groups(list(part), AT_ONCE)]


def replay(question: Question, folder: Path, settings: Settings, say: Callable[[str], None]) -> list[Replayed]:
    """Run the period under every policy; `folder` has a lake per policy afterwards, the ledgers and the figures.

    Raises:
        ConfigurationError: the folder has a replay already, the period is empty, or a fault cannot happen on its day.
    """
    if question.last < question.first:
        raise ConfigurationError(
            "--to", found=question.last, wanted=f"{question.first} or later", fix="choose a later day"
        )
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(
            "--out", found=f"{folder} is not empty", wanted="a new folder", fix="choose another, or remove it"
        )
    require_possible(data_faults(question.faults), settings.calendar.time_zone)
    before = question.first - timedelta(days=1)
    _link_stream(settings.data_dir, folder / lanes.DATA)
    told: dict[Policy, list[lanes.Told]] = {policy: [] for policy in question.policies}
    with ExitStack() as stack:
        data = _lane(folder / lanes.DATA, question, stack)
        preparing = data.submit(lanes.prepare, before)
        own = {policy: _lane(folder / policy, question, stack) for policy in question.policies}
        for policy, pool in own.items():  # while the data lane prepares: most of it is imports
            pool.submit(policy_lane.open_lane, policy, question.faults, question.requests, question.seed).result()
        say(f"everything up to {before} is landed and built: {preparing.result().wall_seconds:.0f} s")
        starting = {policy: pool.submit(policy_lane.first_model, before) for policy, pool in own.items()}
        landing: dict[date, Future[list[lanes.Told]]] = {}
        backfills: dict[date, Future[lanes.Told]] = {}
        days = [question.first + timedelta(days=n) for n in range((question.last - question.first).days + 1)]
        barriers = _barriers(question.faults)
        again = {fault.day for fault in question.faults if fault.name == "backfilled_twice"}
        deliveries = _deliveries(days, {*data_faults(question.faults), *barriers, *again})
        first_of = {day: delivery[0] for delivery in deliveries for day in delivery}
        waiting = list(deliveries)

        def go_ahead(day: date) -> None:
            """Let the data lane land what begins up to `AHEAD` days after `day`, and no day on which the past changes before it is that day."""
            while waiting and (
                waiting[0][0] == day or ((waiting[0][0] - day).days <= AHEAD and waiting[0][0] not in barriers)
            ):
                arriving = waiting.pop(0)
                landing[arriving[0]] = data.submit(lanes.land, arriving)
                if arriving[0] in again:
                    backfills[arriving[0]] = data.submit(lanes.backfill, arriving[0])

        go_ahead(before)
        for policy, future in starting.items():
            told[policy].append(future.result())
            say(f"{policy}: first model as of {before}: {told[policy][-1].wall_seconds:.0f} s")
        for day in days:
            go_ahead(day)
            landed = landing[first_of[day]].result()[(day - first_of[day]).days]
            if day in backfills:
                more = backfills[day].result()
                landed = lanes.Told(
                    (*landed.events, *more.events),
                    landed.cpu_seconds + more.cpu_seconds,
                    landed.wall_seconds + more.wall_seconds,
                )
            serving = {policy: pool.submit(policy_lane.serve, day) for policy, pool in own.items()}
            for policy, future in serving.items():
                done = future.result()
                told[policy].append(lanes.Told((*landed.events, *done.events), done.cpu_seconds, done.wall_seconds))
            _say_day(say, day, landed, {policy: told[policy][-1] for policy in own})
        for pool in own.values():
            pool.submit(policy_lane.close_lane).result()
    judged = [day for day in days if day + timedelta(days=settings.training.horizon_days) <= question.last]
    ledger, now, start = local_lake(settings.data_dir), datetime.now(UTC), settings.calendar.holdout_start
    door = Door(ledger, "backtest", f"replay-{now:%Y%m%dT%H%M%S}", now, start)  # counted where people look
    return [
        _replayed(policy, folder, told[policy], [before, *days], judged, settings.training.horizon_days, door)
        for policy in question.policies
    ]


def _say_day(say: Callable[[str], None], day: date, landed: lanes.Told, done: Mapping[Policy, lanes.Told]) -> None:
    costs = ", ".join(f"{policy} {told.wall_seconds:.0f} s" for policy, told in done.items())
    say(f"{day}: data {landed.wall_seconds:.0f} s, {costs}")
    for policy, told in done.items():
        for event in told.events:
            say(f"  {policy}: {event.kind}: {event.text[:150]}")


def _replayed(
    policy: Policy,
    folder: Path,
    told: Sequence[lanes.Told],
    days: Sequence[date],
    judged: Sequence[date],
    horizon: int,
    door: Door,
) -> Replayed:
    events = tuple(event for each in told for event in each.events)
    costs = pd.DataFrame(
        {
            "day": list(days),
            "cpu_seconds": [each.cpu_seconds for each in told],
            "wall_seconds": [each.wall_seconds for each in told],
        }
    )
    table = realised(local_lake(folder / policy), judged, horizon, door) if judged else pd.DataFrame()
    (folder / f"{policy}.ledger.jsonl").write_text("".join(event.line() + "\n" for event in events))
    table.to_csv(folder / f"{policy}.realised.csv", index=False)
    costs.to_csv(folder / f"{policy}.costs.csv", index=False)
    return Replayed(policy, events, table, float(costs["cpu_seconds"].sum()))


def summary(replays: Sequence[Replayed], question: Question) -> dict[str, Any]:
    """The figures of a replay, for `--json` and the page."""
    return {
        "from": str(question.first),
        "to": str(question.last),
        "seed": question.seed,
        "faults": [f"{fault.name}@{fault.day}" for fault in question.faults],
        "values": json.loads(json.dumps(question.values)),
        "policies": {each.policy: _figures(each) for each in replays},
    }


def _figures(each: Replayed) -> dict[str, Any]:
    table = each.table
    return {
        "ledger_digest": each.digest,
        "events": counts(each.events),
        "judged_days": len(table),
        **({name: float(table[name].mean()) for name in ("ndcg", "recall")} if len(table) else {}),
        "revenue_a_week": float(table["revenue_hit"].mean()) if len(table) else None,
        "cpu_seconds": round(each.cpu_seconds, 1),
    }


def question_json(question: Question) -> str:
    """The question as JSON, kept beside the answers."""
    return json.dumps(asdict(question), indent=1, default=str, sort_keys=True)
