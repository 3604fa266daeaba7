"""Faults of serving that a replay brings about on a morning, and takes back: stores, releases, a crowd, strange requests, killed processes.

Belongs here: what is broken or asked, and what came back in words that are the same in an equal replay. Does not: the API itself (traffic.py).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import sqlalchemy as sa

from pipeline_assets.recommender.errors import RunFailed
from pipeline_assets.replay.traffic import STORE_FAULTS, path_of
from pipeline_assets.settings import PROJECT_ROOT, get_settings

if TYPE_CHECKING:
    from pipeline_assets.replay.traffic import Api

OF_CUSTOMERS = ("cold_start", "overload", "killed_worker", "rollout_under_load", "erased_in_training")  # they need one
CROWD = 5  # times what is let in at once
HELD_SECONDS = 0.2  # reads are kept waiting, for less than an answer may take, also for who waits for a thread
PAUSE_SECONDS = (
    0.02  # between two questions of somebody who asks without end: the day's publication is in the same process
)
START_SECONDS = 300.0  # two workers import the API, on a machine that may be busy
MALFORMED: Sequence[tuple[str, str, bytes | None]] = (
    ("GET", path_of("x" * 10_000), None),
    ("GET", path_of("%00"), None),
    ("GET", path_of("%C3%28"), None),  # no UTF-8
    ("GET", path_of("%E2%80%AE%0A"), None),  # a mark that turns the direction of a text, and a line's end
    ("GET", path_of("c1") + "?k=many", None),
    ("GET", path_of("c1") + "?k=-1", None),
    ("POST", "/v1/recommendations", b"{"),
    ("POST", "/v1/recommendations", b"\xff\xfe"),
    ("POST", "/v1/recommendations", b'{"customer_id": ["c1"]}'),
    ("POST", "/v1/recommendations", b" " * 10_000_000),
    ("POST", "/v1/events", b'{"events": [{"event_type": "view"}]}'),
    ("GET", "/v2/nothing-here", None),
)


@contextmanager
def serving_faults(api: Api, faults: Collection[str]) -> Iterator[list[str]]:
    """Break what serving needs for a morning; yields what is broken, in words."""
    with ExitStack() as whole_again:
        acting = [name for name in STORE_FAULTS if name in faults]
        if acting:
            api.store_fault = acting[0]
            whole_again.callback(setattr, api, "store_fault", "")
        if "release_table_unreachable" in faults:
            whole_again.callback(api.look_afresh)
            whole_again.enter_context(_away(Path(str(sa.make_url(get_settings().release_url).database))))
            acting.append(f"release_table_unreachable: the API found it {api.look_afresh()}")
        if "shadow_dead" in faults:
            trial = api.service.releases.trial
            tried = f"version {trial.rollout.model_version} is on trial" if trial else "nothing is on trial"
            api.service.shadow.stop()  # its thread ends with what is queued; a new API has a new one
            acting.append(f"shadow_dead: {tried}")
        yield acting


@contextmanager
def _away(database: Path) -> Iterator[None]:
    """A folder where an SQLite file is: it cannot be opened."""
    kept = database.with_name(f"{database.name}.away")
    database.rename(kept)
    database.mkdir()
    try:
        yield
    finally:
        database.rmdir()
        kept.rename(database)


def tried_requests(api: Api, faults: Collection[str], customers: Sequence[str]) -> Iterator[str]:
    """Ask what nobody should ask, or too much at once; yields what came of it, in words."""
    if "malformed_requests" in faults:
        yield f"malformed_requests: {_malformed(api)}"
    if "overload" in faults:
        yield f"overload: {_crowd(api, customers)}"
    if "killed_worker" in faults:
        yield f"killed_worker: {_one_of_two_killed(customers)}"


def _malformed(api: Api) -> str:
    found = Counter(api.client.request(verb, path, content=body).status_code for verb, path, body in MALFORMED)
    return ", ".join(f"{number} x {status}" for status, number in sorted(found.items()))


def _crowd(api: Api, customers: Sequence[str]) -> str:
    """Reads of the store are held up, so that a fast machine is not done with the first before the last have asked."""
    most = get_settings().serving.max_in_flight
    asked = [customers[n % len(customers)] for n in range(CROWD * most)]
    api.hold_seconds = HELD_SECONDS
    try:
        with ThreadPoolExecutor(len(asked)) as crowd:
            answers = list(crowd.map(lambda customer: api.client.get(path_of(customer)), asked))
    finally:
        api.hold_seconds = 0.0
    refused = [answer for answer in answers if answer.status_code == 429 and answer.headers.get("Retry-After")]
    failed = len(answers) - len(refused) - sum(answer.status_code == 200 for answer in answers)
    return (
        f"{len(asked)} at once, {most} are let in: {'some' if refused else 'none'} told to come again, {failed} failed"
    )


@contextmanager
def asked_without_end(api: Api, customer: str) -> Iterator[Counter[int]]:
    """Four ask for a customer's list until the block ends; yields the answers by status, those that failed under 0."""
    found: Counter[int] = Counter()
    has_ended, counting = threading.Event(), threading.Lock()

    def ask() -> None:
        while not has_ended.wait(PAUSE_SECONDS):
            try:
                status = api.client.get(path_of(customer)).status_code
            except httpx.TransportError:
                status = 0
            with counting:
                found[status] += 1

    threads = [threading.Thread(target=ask, name="asking", daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        has_ended.set()
        for thread in threads:
            thread.join()


def _one_of_two_killed(customers: Sequence[str]) -> str:
    """Two workers of the real command over the same folder; one is killed, and everybody asks, each on a connection of its own."""
    with _server(2) as (url, process):
        children = psutil.Process(process.pid).children()
        victim = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
        victim.send_signal(signal.SIGKILL)
        victim.wait(30)
        failed = sum(httpx.get(url + path_of(customer), trust_env=False).status_code != 200 for customer in customers)
    return f"{len(customers)} asked, {failed} failed"


@contextmanager
def _server(workers: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`python -O -m pipeline_assets.serving` with this process's settings on a free port of the loopback interface, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-O", "-m", "pipeline_assets.serving", "--host", "127.0.0.1", "--port", str(port)]
    log = get_settings().data_dir / "workers.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)], cwd=PROJECT_ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while process.poll() is None and time.monotonic() < end:
            with suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                    break
            time.sleep(0.1)
        else:
            raise RunFailed(
                f"the API with {workers} workers", found="it is not ready", wanted="a server", fix=f"see {log}"
            )
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
