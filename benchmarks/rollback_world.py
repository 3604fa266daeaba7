"""A shop for benchmarks/rollback.py: 500 customers in a real Feast store, a good model and two sabotaged ones, the API's processes under wrk.

The good model ranks by how often a customer ordered a product. `reversed` ranks the other way round; `popular` shows everybody the
same. Both are whole, signed bundles with golden answers of their own, so that every probe passes: nothing is wrong with the files.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.measured import ROOT
from feature_repo.config import repo_options
from pipeline_assets.recommender.bundle import BundleContents, FeatureLists, WarmupRequest, write_bundle
from pipeline_assets.recommender.packing import pack
from pipeline_assets.resources.signing import signing_key
from pipeline_assets.serving.online import open_feature_store
from pipeline_assets.serving.rollout_state import Offered
from pipeline_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    import numpy.typing as npt

FEATURES = FeatureLists(
    ("pair_orders", "pair_days"), ("customer_orders", "customer_days"), ("product_price", "product_orders")
)
N_CUSTOMERS, N_PRODUCTS, N_OWN, N_POPULAR = 500, 400, 50, 10  # candidates: 50 of their own, 10 that all have
AS_OF = date(2017, 11, 5)
FEATURE_TS = datetime(2017, 11, 6, tzinfo=UTC)
LUA = """
local n = 0
request = function() n = n + 1; return wrk.format("GET", "/v1/customers/c" .. (n * 7919 % {customers}) .. "/recommendations") end
local bad = 0
response = function(status) if status ~= 200 then bad = bad + 1; if bad == 1 then print("first status that is not 200: " .. status) end end end
"""


def model_text(kind: str, seed: int = 0) -> str:
    """A native LightGBM text: `good` and `reversed` by pair_orders, `popular` by product_orders."""
    import lightgbm

    random = np.random.default_rng(seed)
    matrix = np.ascontiguousarray(random.integers(0, 4, size=(2_000, len(FEATURES.all))), dtype=np.float32)
    matrix[:, 5] = random.integers(0, N_PRODUCTS, len(matrix))
    label = {"good": 10 * matrix[:, 0], "reversed": -10 * matrix[:, 0], "popular": matrix[:, 5]}[kind]
    options = {
        "objective": "l2",
        "num_leaves": 16,
        "learning_rate": 1.0,
        "num_threads": 1,
        "verbosity": -1,
        "seed": seed,
    }
    data = lightgbm.Dataset(matrix, label=label, feature_name=FEATURES.all)
    return str(lightgbm.train(options, data, num_boost_round=5).model_to_string())


@dataclass
class Shop:
    """A data folder with features of every customer in its online store."""

    root: Path
    workers: int = 2

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PIPELINE_DATA_DIR": str(self.root),
            "PIPELINE_SERVING__POLL_SECONDS": "1",
            "PIPELINE_ROLLOUT__STEPS": "[0.25]",
            "PIPELINE_ROLLOUT__STAGE_MINUTES": "0",
        }

    @property
    def settings(self) -> Settings:
        return load_settings(self.environment)

    def products(self) -> pd.DataFrame:
        random = np.random.default_rng(1)
        ids = [f"p{n:03}" for n in range(N_PRODUCTS)]
        frame = pd.DataFrame({"product_id": ids, "department": "D", "category": "C", "type": "T", "brand": "B"})
        frame["product_price"] = np.exp(random.normal(1, 0.5, N_PRODUCTS)).round(2)
        frame["product_orders"] = np.arange(N_PRODUCTS)[::-1]  # p000 is the most popular
        return frame

    def candidates(self, customer: int) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Ids and pair features [n, 2] of one customer."""
        random = np.random.default_rng([2, customer])
        own = N_POPULAR + random.permutation(N_PRODUCTS - N_POPULAR)[:N_OWN]
        orders = random.integers(0, 4, N_POPULAR + N_OWN)
        pair = np.stack([orders, random.integers(1, 90, len(orders))], axis=1).astype(np.float32)
        return [f"p{n:03}" for n in [*range(N_POPULAR), *own]], pair

    def fill(self) -> None:
        """Write everybody's features into the online store, through Feast."""
        from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
        from feast.types import Array, Bytes, Float32, String

        self.root.mkdir(parents=True, exist_ok=True)
        store = open_feature_store(
            repo_options(self.settings)
        )  # with an offline store: `apply` wants one, serving has none
        entity = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
        columns: Mapping[str, Mapping[str, Any]] = {
            "customer": dict.fromkeys(FEATURES.customer, Float32),
            "customer_candidates": {"candidate_ids": Array(String), "pair_features": Bytes},
        }
        views = [
            FeatureView(
                name=view,
                entities=[entity],
                ttl=timedelta(days=2),
                schema=[Field(name=name, dtype=kind) for name, kind in fields.items()],
                source=FileSource(name=view, path=str(self.root / f"{view}.parquet"), timestamp_field="feature_ts"),
            )
            for view, fields in columns.items()
        ]
        found = [self.candidates(n) for n in range(N_CUSTOMERS)]
        key = {"customer_id": [f"c{n}" for n in range(N_CUSTOMERS)], "feature_ts": [FEATURE_TS] * N_CUSTOMERS}
        frames = {
            "customer": pd.DataFrame({**key, "customer_orders": 4.0, "customer_days": 9.0}),
            "customer_candidates": pd.DataFrame(
                {**key, "candidate_ids": [ids for ids, _ in found], "pair_features": [pack(pair) for _, pair in found]}
            ),
        }
        for view, frame in frames.items():
            frame.to_parquet(self.root / f"{view}.parquet")
        store.apply([entity, *views, FeatureService(name="ranker_online", features=views)])
        for view, frame in frames.items():
            store.write_to_online_store(view, frame)

    def bundle(self, version: str, kind: str, seed: int = 0) -> Offered:
        """A whole and signed bundle, as the pipeline would offer it."""
        products = self.products()
        ids, pair = self.candidates(0)
        contents = BundleContents(
            model_version=version,
            as_of=AS_OF.isoformat(),
            created_at=FEATURE_TS.isoformat(),
            model_text=model_text(kind, seed),
            features=FEATURES,
            products=products,
            fallback=pd.DataFrame({"rank": [1], "product_id": ["p000"], "score": [1.0]}),
            evaluation={"note": "made for the benchmark of rollbacks"},
            model_card="# A model made for the benchmark of rollbacks\n",
            warmup=[WarmupRequest("c0", tuple(ids), pair, np.array([4.0, 9.0], np.float32))],
        )
        directory = self.root / "bundles" / f"v{version}-{AS_OF}"
        directory.parent.mkdir(parents=True, exist_ok=True)
        write_bundle(directory, contents, signing_key(self.settings))
        return Offered(str(directory), version, AS_OF.isoformat(), None)

    @contextmanager
    def served(self) -> Iterator[int]:
        """The API's processes, ready; gives their port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        command = [sys.executable, "-O", "-m", "pipeline_assets.serving", "--port", str(port)]
        with (self.root / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--workers", str(self.workers)],
                cwd=ROOT,
                env=self.process_environment(),
                stdout=log,
                stderr=log,
            )
        try:
            self._until_ready(port, process)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)

    def process_environment(self) -> dict[str, str]:
        """Ours for a child process."""
        return {**os.environ, **self.environment, "OMP_NUM_THREADS": "1"}

    def _until_ready(self, port: int, process: subprocess.Popen[bytes]) -> None:
        import httpx

        ready = 0  # in a row: each new connection may meet another worker
        end = time.monotonic() + 120
        while ready < 10 * self.workers:
            if time.monotonic() > end or process.poll() is not None:
                raise AssertionError(f"not ready:\n{(self.root / 'server.log').read_text()[-3000:]}")
            try:
                is_ready = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
            except httpx.TransportError:
                is_ready = False
            ready = ready + 1 if is_ready else 0
            time.sleep(0 if is_ready else 0.1)

    @contextmanager
    def load(self, port: int, connections: int = 4) -> Iterator[dict[str, float]]:
        """Requests of all customers by wrk until the end of the block; its figures are in the dict then."""
        script = self.root / "load.lua"
        script.write_text(LUA.replace("{customers}", str(N_CUSTOMERS)))
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            "-d3600s",
            "--timeout",
            "10s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
        ]
        figures: dict[str, float] = {}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            yield figures
        finally:
            process.send_signal(signal.SIGINT)  # wrk prints what it has
            text, _ = process.communicate(timeout=30)
            figures |= read_wrk(text)


def read_wrk(text: str) -> dict[str, float]:
    """requests, failed (statuses that are not 2xx or 3xx, and socket errors), requests a second.

    Raises:
        ValueError: this is no summary of wrk.
    """
    total = re.search(r"(\d+) requests in", text)
    if total is None:
        raise ValueError(f"no summary of wrk in {text!r}")
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = int(status[1]) if status else 0
    failed += sum(int(count) for count in sockets.groups()) if sockets else 0
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    return {"requests": int(total[1]), "failed": failed, "requests_per_second": float(rate[1]) if rate else 0.0}
