"""What people and the past do to a pipeline in a replay: rollbacks, backfills, a storm of alerts, a backup, an erasure.

Belongs here: doing it, and what came of it in words that are the same in an equal replay. Does not: faults of processes (injections.py), of
serving (serving_faults.py), of models and bundles (sabotage.py).
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_assets.recommender.errors import Busy, RunFailed
from pipeline_assets.settings import Settings, get_settings, with_data_dir

if TYPE_CHECKING:
    from pipeline_assets.loop import Task
    from pipeline_assets.replay.story import Event
    from pipeline_assets.resources.lake import Lake
    from pipeline_assets.serving.release_state import Release

ACTOR = "replay"
BACKFILLED_DAYS = 90
FEATURE_DAYS = 7  # of them, those whose features are made again and published
STORM = 1_000  # failures, one every three seconds
WAIT = 900.0  # seconds for a training to begin, and to end
Run = Callable[["Task"], "list[Event]"]


# Rollbacks


def rolled_back() -> str:
    """A person ends what is on trial; returns what was done."""
    from pipeline_assets.resources.rollout_run import roll_back
    from pipeline_assets.serving.release_state import open_state
    from pipeline_assets.serving.rollout_state import view

    settings = get_settings()
    trial = view(open_state(settings.release_url)).rollout
    if trial is None:
        return "nothing is on trial"
    live = roll_back(settings, "fault rollback_in_rollout", ACTOR, datetime.now(UTC))
    return f"version {trial.model_version} in {trial.state.stage}, version {live.model_version} stays"


def rolled_back_twice() -> str:
    """A person goes back to the release before, of another model where there was one, and back again; returns what was live when."""
    from pipeline_assets.resources.rollout_run import roll_back
    from pipeline_assets.serving.release_state import WAS_LIVE, history, open_state
    from pipeline_assets.serving.rollout_state import release_before, view

    settings = get_settings()
    engine = open_state(settings.release_url)
    live = view(engine).live
    assert live is not None, "a replay has a release from its first day on"
    before = release_before(engine, live) or next(
        (row for row in history(engine) if row.id < live.id and row.state in WAS_LIVE), None
    )
    if before is None:
        return "no release before this one"
    seen = [live]
    for target in (before, live):
        seen.append(roll_back(settings, "fault rollback_twice", ACTOR, datetime.now(UTC), target.id))
    return ", then ".join(map(_named, seen))


def _named(release: Release) -> str:
    return f"version {release.model_version} of {release.as_of}"


# Backfills


def landed_again(day: date, run: Run) -> tuple[list[Event], str]:
    """Land the last 90 days up to `day` again in random order, and features of the newest of them, twice; the events, and what changed."""
    from pipeline_assets.loop import Task
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.schemas.feeds import FEEDS
    from pipeline_assets.sources.landing import groups

    lake, dice = local_lake(get_settings().data_dir), random.Random(day.toordinal())
    first = day - timedelta(days=BACKFILLED_DAYS - 1)
    days = sorted({*lake.passed_days(FEEDS, first, day)} & lake.days("raw/purchases"))
    as_of = [each for each in days if each in lake.days("features/customer_product")][-FEATURE_DAYS:]
    before, events = _contents(lake, days), []
    for _ in range(2):
        parts = list(groups(days, FEATURE_DAYS))
        for part in dice.sample(parts, len(parts)):
            events += run(Task("ingest", f"again {part[0]} to {part[-1]}", tuple(part)))
        for each in dice.sample(as_of, len(as_of)):
            events += run(Task("features", f"again {each}", (each,)))
    after = _contents(lake, days)
    changed = sum(after.get(key) != content for key, content in before.items()) + len(after.keys() - before.keys())
    return (
        events,
        f"{len(days)} days landed again twice in random order, {changed} of {len(before)} days of tables changed",
    )


def _contents(lake: Lake, days: Sequence[date]) -> dict[tuple[str, date], str]:
    """The newest digest of each of `days` in each table of data and features."""
    from pipeline_assets.replay.lanes import DRIFT, SHARED
    from pipeline_assets.resources.erasure_lake import tables

    layers = tuple(name for name in SHARED if not name.startswith("ledger") and name != DRIFT)
    return {
        (table, day): content.digest
        for table in tables(lake)
        if table.startswith(layers)
        for commit in lake.commits(table)
        for day, content in commit.days.items()
        if days[0] <= day <= days[-1]
    }


def published_again(day: date, run: Run) -> tuple[list[Event], str]:
    """Publish the last days' features online in random order, twice; the events, and what became of the online values."""
    from pipeline_assets.loop import Task
    from pipeline_assets.resources.feature_store import FeatureStoreResource
    from pipeline_assets.resources.lake import local_lake

    lake, dice = local_lake(get_settings().data_dir), random.Random(day.toordinal())
    days = sorted(each for each in lake.days("features/customer_product") if each <= day)[-FEATURE_DAYS:]
    newest = days[-1]
    customers = sorted(set(lake.read("features/customer", newest, newest, ["customer_id"])["customer_id"].to_pylist()))
    features, events = FeatureStoreResource(), []
    before = features.read_online(features.open(), customers)
    for _ in range(2):
        for each in dice.sample(days, len(days)):
            events += run(Task("publish", f"online again {each}", (each,), ("features/online_store",)))
    is_same = features.read_online(features.open(), customers) == before
    values = "as they were" if is_same else "CHANGED"
    return events, f"{2 * len(days)} publications in random order, online values of {len(customers)} customers {values}"


# Alerts


@contextmanager
def _inbox() -> Iterator[tuple[str, list[bytes]]]:
    """A webhook on the loopback interface, and what it was sent."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="inbox", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def alert_storm(day: date, memory: Path) -> str:
    """A thousand failures go through the alerts' own door to a webhook of ours; how many of them arrive."""
    from pipeline_assets.resources.alerts import Alert, alerts_of

    begin = datetime.combine(day, datetime.min.time(), UTC)
    with _inbox() as (url, received):
        door = alerts_of(get_settings().alerts, memory.parent)
        alerts = door.model_copy(update={"webhook_url": url, "memory_path": str(memory)})
        for n in range(STORM):
            at, subject = begin + timedelta(seconds=3 * n), f"run {n}"
            alerts.send(
                Alert("run_failed", "critical", "fault alert_storm", "docs/runbook.md#run-failed", at, subject=subject)
            )
    return f"{STORM} failures in an hour, {len(received)} deliveries"


# A copy of the whole pipeline


def restored_backup(data: Path, own: Path, day: date, to: Path) -> str:
    """Take a backup of a lane and of the data lane, restore both at `to` as one folder, and look at it.

    Args:
        data, own: the folders of the data lane, whose tables `own` has links to, and of the policy.

    Raises:
        RunFailed: a table, the lists, the audit log or the bundle is not what it was.
    """
    from pipeline_assets.recommender.bundle import load_bundle
    from pipeline_assets.replay.lanes import SHARED
    from pipeline_assets.resources.backup import back_up, restore
    from pipeline_assets.resources.erasure_lake import tables
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.signing import trusted
    from pipeline_assets.serving import audit
    from pipeline_assets.serving.release_state import current_live, open_state

    settings = get_settings()
    for folder, name in ((data, "data"), (own, "own")):
        back_up(_at(settings, folder), to / f"{name}.backup", datetime.now(UTC), _silent)
        restore(_at(settings, to / name), to / f"{name}.backup", _silent)
    for name in SHARED:
        if (moved := to / "data" / "lake" / name).exists():
            (to / "own" / "lake" / name).parent.mkdir(parents=True, exist_ok=True)
            moved.rename(to / "own" / "lake" / name)
    shutil.rmtree(to / "data")
    there = _at(settings, to / "own")
    lake, copy, engine = local_lake(own), local_lake(there.data_dir), open_state(there.release_url)
    names, live = tables(lake), current_live(engine)
    differing = [name for name in names if copy.rows_by_day(name) != lake.rows_by_day(name)]
    lists = "recommendations/daily"
    if not copy.read(lists, day, day).equals(lake.read(lists, day, day)):
        differing.append(lists)
    log = audit.verify(engine)
    if differing or log.broken_at is not None or live is None:
        raise RunFailed(
            f"the backup restored at {to}",
            found=f"tables that differ: {differing}; audit log: {log.problem or 'whole'}; live: {live}",
            wanted="what was there",
            fix="look at both folders",
        )
    bundle = load_bundle(Path(live.bundle_path), trusted(there))
    return f"{len(names)} tables are the same, the audit log is whole, the bundle of {bundle.manifest.as_of} loads"


def erased_in_training(folder: Path, customer: str, day: date) -> str:
    """Erase a customer from a data folder while a model is trained there, each in a process of its own; what came of it.

    Raises:
        RunFailed: the training ended before the erasure was asked for.
    """
    from pipeline_assets.resources.lake_lock import alone

    lake, end = str(folder / "lake"), time.monotonic() + WAIT
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=_in_folder, initargs=(folder,)) as processes:
        training = processes.submit(_trained, day)
        while True:
            try:
                with alone(lake, 0):
                    pass
            except Busy:
                break  # the run is in the lake
            if training.done() or time.monotonic() > end:
                training.result()
                raise RunFailed(
                    "a training", found="it never was in the lake", wanted="one to wait for", fix="look at it"
                )
            time.sleep(0.05)
        left = processes.submit(_erased, customer).result()
        training.result()
    return f"after a training that was in progress, {len(left)} places still name her"


def _in_folder(folder: Path) -> None:
    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.lost_runs import end_with_parent

    end_with_parent()
    quiet()
    with_data_dir(folder)


def _trained(day: date) -> None:
    from pipeline_assets.loop import Task, execute

    execute(Task("training", f"as of {day}", (day,)))


def _erased(customer: str) -> list[str]:
    from pipeline_assets.resources.erasure import erase, verify

    receipt = erase(get_settings(), customer, _silent, WAIT)
    assert receipt is not None, "she was not erased before"
    return verify(get_settings(), customer, WAIT)


def _at(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"data_dir": folder})


def _silent(_: str) -> None:
    """Nobody listens."""
