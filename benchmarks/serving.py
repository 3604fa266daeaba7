"""The API beside two peers, over HTTP on loopback, in one run: the naive FastAPI + Feast path, and `mlflow models serve` of the same model.

    python -m benchmarks.serving --data data       # the folder of a finished `make run UNTIL=2017-11-12`; 4 minutes
    python -m benchmarks.serving --page            # only writes the page from the JSON of the last run

CPU of the server's process tree for each answer is the primary figure: wrk and whatever else runs share the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.measured import ROOT
from benchmarks.serving_load import Load, Server, load, running
from benchmarks.serving_page import page
from benchmarks.serving_world import CANDIDATES, NAIVE_CUSTOMERS, Customer, build
from pipeline_assets.recommender.bundle import Bundle
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.settings import load_settings

RESULTS = ROOT / "benchmarks" / "results"
K = 10
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
BIN = Path(sys.executable).parent
SATURATED, OVERLOADED = 8, 80  # connections
OVERLOAD = 5  # times the capacity


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ours(stack: ExitStack, folder: Path, memory: bool, workers: int = 1) -> Server:
    """The API as `make serve` starts it."""
    port = free_port()
    environment = {
        **ONE_THREAD,
        "PIPELINE_DATA_DIR": str(folder),
        "PIPELINE_SERVING__REMEMBER_SECONDS": "3600" if memory else "0",
    }
    command = [sys.executable, "-O", "-m", "pipeline_assets.serving", "--port", str(port), "--workers", str(workers)]
    return stack.enter_context(running(command, port, "/readyz", environment, folder / f"ours-{port}.log"))


def naive(stack: ExitStack, folder: Path) -> Server:
    """The naive server with uvicorn's defaults, without its access log."""
    port = free_port()
    command = [str(BIN / "uvicorn"), "benchmarks.serving_naive:app", "--port", str(port), "--no-access-log"]
    environment = {**ONE_THREAD, "NAIVE_FOLDER": str(folder / "naive"), "FEAST_USAGE": "False"}
    return stack.enter_context(running(command, port, "/openapi.json", environment, folder / "naive.log"))


def mlflow_server(stack: ExitStack, folder: Path, data: Path) -> Server:
    """`mlflow models serve` of the champion, in this environment, one worker."""
    port = free_port()
    artifacts = data / "mlflow_artifacts"
    tracking = Tracking(
        tracking_uri=load_settings({"PIPELINE_DATA_DIR": str(data)}).mlflow_uri, artifact_root=str(artifacts)
    )
    run_id = tracking.require_champion().run_id
    (model,) = [path.parent for path in artifacts.rglob("MLmodel") if run_id in path.read_text()]
    environment = {**ONE_THREAD, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [str(BIN / "mlflow"), "models", "serve", "-m", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return stack.enter_context(running(command, port, "/ping", environment, folder / "mlflow.log"))


def paths(customers: Sequence[Customer]) -> list[str]:
    return [f"/v1/customers/{c.customer_id}/recommendations?k={K}" for c in customers]


def bodies(folder: Path, customers: Sequence[Customer], bundle: Bundle) -> list[str]:
    """One scoring request of MLflow's protocol a customer: its 200 rows, missing values as null."""
    lines = []
    for customer in customers[:NAIVE_CUSTOMERS]:
        _, matrix = bundle.matrix(customer.ids, customer.pair, customer.own)
        rows = [[None if value != value else value for value in row] for row in matrix.astype(float).tolist()]
        path = folder / f"body-{customer.customer_id}.json"
        path.write_text(json.dumps({"dataframe_split": {"columns": bundle.features.all, "data": rows}}))
        lines.append(f"POST /invocations {path}")
    return lines


def slate(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    return [(item["product_id"], item["score"]) for item in items]


def same_slates(
    server: Server, other: Server, scorer: Server, customers: Sequence[Customer], bundle: Bundle, lines: Sequence[str]
) -> dict[str, Any]:
    """Ours beside the naive path and MLflow, customer by customer.

    Raises:
        AssertionError: a slate differs, or an answer is a fallback.
    """
    worst = 0.0
    with httpx.Client(trust_env=False, timeout=60) as client:
        for customer, line in zip(customers[:NAIVE_CUSTOMERS], lines, strict=True):
            path = paths([customer])[0]
            answer = client.get(f"http://127.0.0.1:{server.port}{path}").raise_for_status().json()
            assert answer["fallback_level"] == "none", answer
            mine = slate(answer["items"])
            asked = f"http://127.0.0.1:{other.port}/customers/{customer.customer_id}/recommendations?k={K}"
            theirs = slate(client.get(asked).raise_for_status().json()["items"])
            body = Path(line.split()[-1]).read_bytes()
            headers = {"Content-Type": "application/json"}
            asked = f"http://127.0.0.1:{scorer.port}/invocations"
            scores = client.post(asked, content=body, headers=headers).raise_for_status().json()["predictions"]
            ids = bundle.matrix(customer.ids, customer.pair, customer.own)[0]
            order = np.lexsort((np.asarray(ids), -np.asarray(scores)))[:K]
            assert [p for p, _ in mine] == [p for p, _ in theirs] == [ids[i] for i in order], customer.customer_id
            worst = max(worst, *(abs(a - b) for (_, a), (_, b) in zip(mine, theirs, strict=True)))
    return {"customers": NAIVE_CUSTOMERS, "k": K, "equal": True, "largest_score_difference": worst}


def loads(server: Server, lines: Sequence[str], seconds: float, full: bool) -> dict[str, Any]:
    """One connection, saturation and, when `full`, half load and five times the capacity."""
    load(server, lines, 1, min(3.0, seconds))  # warm
    found: dict[str, Load] = {"one": load(server, lines, 1, seconds)}
    found["saturated"] = load(server, lines, SATURATED if full else 2, seconds)
    if full:
        capacity = found["saturated"].per_second
        found["half"] = load(server, lines, SATURATED, seconds, offered=capacity / 2)
        found["overload"] = load(server, lines, OVERLOADED, seconds, offered=capacity * OVERLOAD)
    return {name: one.fields() for name, one in found.items()}


def described(server: Server) -> dict[str, Any]:
    return {
        "start_s": round(server.start_s, 2),
        "start_cpu_s": round(server.start_cpu_s, 2),
        "rss_mb": server.rss_mb(),
    }


def run(data: Path, seconds: float) -> dict[str, Any]:
    """The whole comparison."""
    folder = Path(tempfile.mkdtemp(prefix="bench-serving-")) / "world"
    try:
        customers, bundle = build(data, folder)
        lines, scoring = paths(customers), bodies(folder, customers, bundle)
        naive_lines = [f"/customers/{c.customer_id}/recommendations?k={K}" for c in customers[:NAIVE_CUSTOMERS]]
        found: dict[str, Any] = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_before": os.getloadavg(),
        }
        found["model"] = {
            "trees": bundle.booster.num_trees(),
            "features": len(bundle.features.all),
            "candidates": CANDIDATES,
            "customers": len(customers),
            "compiled": bundle.is_compiled,
        }
        with ExitStack() as stack:
            servers = {"memory": ours(stack, folder, True), "feast": ours(stack, folder, False)}
            servers |= {"naive": naive(stack, folder), "mlflow": mlflow_server(stack, folder, data)}
            asked = {"memory": lines, "feast": lines, "naive": naive_lines, "mlflow": scoring}
            found["slates"] = same_slates(
                servers["feast"], servers["naive"], servers["mlflow"], customers, bundle, scoring
            )
            for name, server in servers.items():
                print(f"{name}: started in {server.start_s:.1f} s", file=sys.stderr, flush=True)
                measured = loads(server, asked[name], seconds, full=name in ("memory", "feast"))
                found[name] = {**measured, **described(server)}
                print(json.dumps(found[name]), file=sys.stderr, flush=True)
        with ExitStack() as stack:
            two = ours(stack, folder, True, workers=2)
            load(two, lines, SATURATED, 3.0)
            found["two_workers"] = {"saturated": load(two, lines, SATURATED, seconds).fields(), **described(two)}
        found["load_after"] = os.getloadavg()
        return found
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """Measure, write JSON and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of a finished make run")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--page", action="store_true", help="write the page from the last JSON")
    options = parser.parse_args(arguments)
    path = RESULTS / "serving.json"
    if not options.page:
        path.write_text(json.dumps(run(options.data.absolute(), options.seconds), indent=1) + "\n")
    (RESULTS / "serving.md").write_text(page(json.loads(path.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
