"""The pipeline left alone: `make soak`. Everything is switched on, business days arrive every few minutes, nobody touches anything.

Real parts: `pipeline-assets dev` as `make dev` starts it (webserver, daemon, code server, runs in processes of their own), the API as
`make serve` starts it, on the generated shop of the tests (pipeline_assets_tests/world.py), which has been run up to 2017-03-18 before.
A business week is shorter than a week, so `automation.training_cron` is, too. Ends like Ctrl-C, and says who did not.

    python -m benchmarks.soak                              # an hour, a day each 257 s: a week is half an hour
    python -m benchmarks.soak --minutes 6 --day-seconds 60 # a look; results go where --out says
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.measured import ROOT
from benchmarks.soak_sampling import Born, alive, dagster_rows, disk_mb, look_at
from pipeline_assets_tests.shop import NEWEST, Shop, new_shop
from pipeline_assets_tests.world import N_CUSTOMERS

RESULTS = ROOT / "benchmarks" / "results"
SAMPLE_SECONDS, DISK_EVERY = 10.0, 6  # disk is walked once a minute: the walk itself costs CPU
START_SECONDS, RUN_SECONDS, STOP_SECONDS = 180.0, 600.0, 90.0  # bounds for something broken
REQUESTS_A_SECOND = 4.0
EVENT_EVERY = 20  # requests: a view of a product
SOAK = {  # beside shop.SMALL
    "PIPELINE_AUTOMATION__IS_ON": "true",
    "PIPELINE_SERVING__POLL_SECONDS": "2",
    "PIPELINE_ROLLOUT__STEPS": "[0.5]",  # 80 customers: 5 % of them are four
    "PIPELINE_ROLLOUT__STAGE_MINUTES": "3",
    "PIPELINE_ROLLOUT__SHADOW_SHARE": "1",
    "PIPELINE_ROLLOUT__MIN_ANSWERS": "100",
    "PIPELINE_ROLLOUT__MIN_CUSTOMERS": "20",
}


@dataclass
class Traffic:
    """What the customers asked and got."""

    statuses: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)

    def ask(self, client: httpx.Client, number: int) -> None:
        """One request: a customer's recommendations, or now and then an event."""
        customer = f"c{number * 37 % N_CUSTOMERS:02}"
        started = time.perf_counter()
        try:
            if number % EVENT_EVERY == 0:
                seen = {"type": "view", "customer_id": customer, "product_id": f"p{1 + number % 100:03}"}
                answer = client.post("/v1/events", json={"events": [{"event_id": f"soak-{number}", **seen}]})
            else:
                answer = client.get(f"/v1/customers/{customer}/recommendations")
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            return
        self.milliseconds.append((time.perf_counter() - started) * 1e3)
        self.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200 and "items" in answer.json():
            self.levels[answer.json()["fallback_level"]] += 1
            self.models[str(answer.json()["model_version"])] += 1

    def figures(self) -> dict[str, Any]:
        """Counts, and the median and 99th percentile of the time of an answer."""
        p50, p99 = np.percentile(self.milliseconds, [50, 99]) if self.milliseconds else (None, None)
        return {
            "statuses": dict(self.statuses),
            "levels": dict(self.levels),
            "models": dict(self.models),
            "p50_ms": p50,
            "p99_ms": p99,
        }


@contextmanager
def customers(url: str, traffic: Traffic) -> Iterator[None]:
    """Requests at a steady pace, until the end."""
    over = threading.Event()

    def ask() -> None:
        number = 0
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            while not over.wait(1 / REQUESTS_A_SECOND):
                traffic.ask(client, number)
                number += 1

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def arrive(shop: Shop, day: date) -> None:
    """A day's drops appear whole, its purchases last: with them the day has arrived."""
    with tempfile.TemporaryDirectory(dir=shop.root) as folder:
        Shop(Path(folder)).deliver(day)
        drops = sorted((Path(folder) / "drops").rglob("*.parquet"), key=lambda path: path.parent.name == "purchases")
        for path in drops:
            target = shop.drops / path.relative_to(Path(folder) / "drops")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Two digits are what a page needs, and a file that is kept."""
    return {name: round(value, 2) for name, value in figures.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _started(command: Sequence[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """In a session of its own: what it leaves behind is found by its ids, and a Ctrl-C of ours is not its."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            list(command), cwd=ROOT, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )


def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended:\n{log.read_text()[-4000:]}")
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.5)
    raise SystemExit(f"{url} did not answer within {START_SECONDS:.0f} s:\n{log.read_text()[-4000:]}")


def _stopped(processes: Sequence[subprocess.Popen[bytes]], born: set[Born]) -> dict[str, Any]:
    """Interrupt the two that were started, as Ctrl-C does, and wait until nobody of their trees is there."""
    started = time.monotonic()
    for process in processes:
        process.send_signal(signal.SIGINT)
    left = alive(born)
    while left and time.monotonic() - started < STOP_SECONDS:
        for process in processes:
            process.poll()
        time.sleep(0.2)
        left = alive(born)
    return {"seconds": round(time.monotonic() - started, 1), "left": left}


def soak(shop: Shop, minutes: float, day_seconds: float) -> dict[str, Any]:
    """Run for `minutes`; returns samples, arrivals, traffic, and how it ended."""
    environment = shop.process_environment()
    ui, port = free_port(), free_port()
    dev_log, api_log = shop.root / "dev.log", shop.root / "api.log"
    python = sys.executable
    samples: list[dict[str, Any]] = []
    arrivals: list[tuple[float, str]] = []
    disk: list[dict[str, Any]] = []
    born: set[Born] = set()
    traffic = Traffic()
    with ExitStack() as stack:
        dev = _started([python, "-m", "pipeline_assets.cli", "dev", "--port", str(ui)], environment, dev_log)
        api = _started([python, "-O", "-m", "pipeline_assets.serving", "--port", str(port)], environment, api_log)
        ended: dict[str, Any] = {}

        def stop() -> None:
            ended.update(_stopped([dev, api], born | look_at([dev.pid, api.pid])[1]))

        stack.callback(stop)
        _until_ready(f"http://127.0.0.1:{port}/readyz", api, api_log)
        _until_ready(f"http://127.0.0.1:{ui}/server_info", dev, dev_log)
        stack.enter_context(customers(f"http://127.0.0.1:{port}", traffic))
        began, coming = time.monotonic(), NEWEST + timedelta(days=1)
        end = minutes * 60
        # at the end a run that goes on is waited for: Dagster lets it finish, and its worker is no leak
        while (now := time.monotonic() - began) < end or (
            samples and samples[-1]["in_progress"] and now < end + RUN_SECONDS
        ):
            due = len(arrivals) * day_seconds + day_seconds / 3  # a quiet while first: the base to compare with
            if due <= now < end:
                arrive(shop, coming)
                arrivals.append((round(now, 1), str(coming)))
                coming += timedelta(days=1)
            usage, seen = look_at([dev.pid, api.pid])
            born |= seen
            rows = dagster_rows(shop.data_dir / "dagster")
            samples.append(
                {"t": round(now, 1), "roles": {n: rounded(asdict(u)) for n, u in usage.items()}, **asdict(rows)}
            )
            if len(samples) % DISK_EVERY == 1:
                logs = {"dev.log": dev_log.stat().st_size / 2**20, "api.log": api_log.stat().st_size / 2**20}
                disk.append({"t": round(now, 1), "mb": rounded({**disk_mb(shop.data_dir), **logs})})
            time.sleep(max(0.0, began + len(samples) * SAMPLE_SECONDS - time.monotonic()))
    return {
        "minutes": minutes,
        "day_seconds": day_seconds,
        "samples": samples,
        "disk": disk,
        "arrivals": arrivals,
        "traffic": traffic.figures(),
        "stop": ended,
        "processes_seen": len(born),
    }


def done_by_itself(shop: Shop) -> dict[str, Any]:
    """What happened meanwhile, from the records that everybody has: runs, ticks, gate, releases, alerts, reports."""
    import dagster as dg

    from pipeline_assets.resources.alerts import AlertMemory, memory_path
    from pipeline_assets.serving.release_state import history, open_state

    with shop.opened() as pipeline:
        instance, lake = pipeline.instance, pipeline.lake
        begun = datetime.combine(NEWEST + timedelta(days=1), datetime.min.time()).date()
        records = [
            r for r in instance.get_run_records() if "command line" not in r.dagster_run.tags.get("started_by", "")
        ]
        runs = Counter(f"{r.dagster_run.job_name} {r.dagster_run.status.value}" for r in records)
        failed = [
            {
                "job": r.dagster_run.job_name,
                "day": r.dagster_run.tags.get("dagster/partition"),
                "why": _why(instance, r),
            }
            for r in records
            if r.dagster_run.status is dg.DagsterRunStatus.FAILURE
        ]
        ticks: dict[str, Counter[str]] = {}
        errors: Counter[str] = Counter()
        for state in instance.all_instigator_state():
            for tick in instance.get_ticks(state.origin.get_id(), state.selector_id):
                ticks.setdefault(state.name, Counter())[tick.status.value] += 1
                if tick.error is not None:
                    errors[f"{state.name}: {tick.error.message.strip()[:300]}"] += 1
        engine = open_state(pipeline.settings.release_url)
        releases = [
            {"version": row.model_version, "as_of": str(row.as_of), "state": row.state, "reason": row.reason}
            for row in history(engine)
            if date.fromisoformat(str(row.as_of)) >= begun
        ]
        engine.dispose()
        gate = lake.read("evaluation/promotion", begun).to_pylist()
        reports = {}
        for name in ("drift_report", "skew_report", "quality_report", "slo_report"):
            rows = lake.read(f"monitoring/{name}", begun, None, ["event_date", "verdict"]).to_pylist()
            reports[name] = dict(Counter(row["verdict"] for row in rows))
        alerts = AlertMemory(memory_path(pipeline.settings.data_dir), timedelta(), 1).counts()
        return {
            "runs": dict(runs),
            "failed_runs": failed,
            "ticks": {name: dict(counts) for name, counts in ticks.items()},
            "tick_errors": dict(errors),
            "published": sorted(str(day) for day in lake.days("deployment/bundle") if day >= begun),
            "gate": [{"day": str(row["event_date"]), "outcome": row["outcome"], "reasons": list(row["reasons"])} for row in gate],
            "releases": releases,
            "reports": reports,
            "alerts": {f"{name} ({severity})": count for (name, severity), count in alerts.items()},
        }  # fmt: skip


def _why(instance: Any, record: Any) -> str:
    """The first line of what a failed run says."""
    from dagster import DagsterEventType

    for event_type in (DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE):
        for entry in instance.all_logs(record.dagster_run.run_id, of_type=event_type):
            error = getattr(entry.dagster_event.event_specific_data, "error", None)
            while error is not None and error.cause is not None:
                error = error.cause
            return (error.message if error else entry.dagster_event.message or "").strip()[:400]
    return "nothing was recorded"


def main() -> int:
    """Prepare the shop, soak, write the figures and the page."""
    from benchmarks.soak_page import write_page

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument(
        "--day-seconds", type=float, default=257, help="between two business days (default %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where the shop lives (default: a temporary folder)")
    parser.add_argument("--base", type=Path, help="a shop that was run up to NEWEST already; it is copied")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of soak.json, soak.md, soak.png")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and our children would
    week = max(1, round(7 * options.day_seconds / 60))
    more = {**SOAK, "PIPELINE_AUTOMATION__TRAINING_CRON": f"*/{week} * * * *"}
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        if options.base:
            shutil.copytree(options.base, folder)
            shop = Shop(folder, more)
        else:
            shop = Shop(new_shop(folder).root, more)
            done = shop.command("run")
            if done.returncode:
                raise SystemExit(done.stderr[-4000:])
        load = os.getloadavg()
        found = soak(shop, options.minutes, options.day_seconds)
        found |= {
            "measured_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "cores_allowed": sorted(os.sched_getaffinity(0)),
            "load_before": [round(value, 1) for value in load],
            "load_after": [round(value, 1) for value in os.getloadavg()],
            "training_cron": more["PIPELINE_AUTOMATION__TRAINING_CRON"],
            "by_itself": done_by_itself(shop),
        }
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "soak.json").write_text(json.dumps(found) + "\n")
    print(write_page(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
