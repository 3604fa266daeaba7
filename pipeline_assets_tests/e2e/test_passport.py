"""Answers that were given, computed again: by the route from what is served, by the verb from the lake."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from pipeline_assets.cli import main
from pipeline_assets.recommender.packing import pack
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.resources.passport_run import trace
from pipeline_assets.resources.prediction_log_run import land_prediction_log
from pipeline_assets.serving.prediction_line import day_of
from pipeline_assets.serving.release_state import open_state, releases
from pipeline_assets.settings import get_settings, load_settings
from pipeline_assets.sources.landing import BATCHES
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.api_world import KNOWN_AT, URL, World, service_of
from pipeline_assets_tests.e2e.test_commands import commands_of

DAY = date.fromisoformat(tiny.AS_OF)


def fill(lake: Lake, pair: np.ndarray[Any, Any] = tiny.PAIR) -> None:
    """The lake that c1's answer was made from: features of the day, and two purchases of p2 in one batch."""
    stamp = {"feature_ts": KNOWN_AT, "event_date": DAY}
    customer = {"customer_id": "c1", "customer_orders": np.float32(4), "customer_days": None} | stamp
    packed = {"customer_id": "c1", "candidate_ids": list(tiny.CANDIDATES), "pair_features": pack(pair)} | stamp
    lake.replace_days("features/customer", pyarrow.Table.from_pylist([customer], _customer()), [DAY], "run")
    lake.replace_days("features/customer_product", pyarrow.Table.from_pylist([packed]), [DAY], "run")
    bought = [
        {
            "event_id": f"e{n}",
            "order_id": f"o{n}",
            "customer_id": "c1",
            "product_id": "p2",
            "quantity": 1.0,
            "amount": 2.0,
            "event_date": DAY,
        }
        for n in range(2)
    ]
    lake.replace_days("validated/purchases", pyarrow.Table.from_pylist(bought), [DAY], "run")
    batch = {
        "feed": "purchases",
        "event_date": DAY,
        "batch_id": "b1",
        "rows": 2,
        "digest": "d",
        "run_id": "r",
        "recorded_at": datetime.now(UTC),
    }
    lake.append(BATCHES, pyarrow.Table.from_pylist([batch]))


def _customer() -> pyarrow.Schema:
    return pyarrow.schema(
        [
            ("customer_id", pyarrow.string()),
            *((name, pyarrow.float32()) for name in tiny.FEATURES.customer),
            ("feature_ts", pyarrow.timestamp("us", "UTC")),
            ("event_date", pyarrow.date32()),
        ]
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, TestClient]]:
    """One process with m1 live."""
    world = World(tmp_path_factory.mktemp("passport"))
    world.release()
    with world.client() as client:
        service_of(client).releases.refresh()
        yield world, client


@pytest.fixture
def given(served: tuple[World, TestClient], tmp_path: Path) -> tuple[Path, str]:
    """A data folder of its own with c1's answer in its log, and the answer's id."""
    world, client = served
    answer_id = str(client.get(URL.format("c1")).json()["answer_id"])
    written(world, answer_id)
    for name in ("release.db", "bundles", "keys", "2017-11-05.parquet"):
        if (world.root / name).exists():
            _copy(world.root / name, tmp_path / name)
    _copy(world.root / "log", tmp_path / "prediction_log")
    fill(local_lake(tmp_path))
    return tmp_path, answer_id


def _copy(source: Path, target: Path) -> None:
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def written(world: World, answer_id: str) -> None:
    """Wait until the log's thread has written the line."""
    path = world.root / "log" / f"{day_of(answer_id)}.jsonl"
    for _ in range(600):
        if path.exists() and answer_id in path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the line was never written")


def traced(folder: Path, answer_id: str, **environment: str) -> Any:
    settings = load_settings({"PIPELINE_DATA_DIR": str(folder), **environment})
    return trace(settings, local_lake(folder), answer_id)


def first_difference(folder: Path, answer_id: str, **environment: str) -> str:
    difference = traced(folder, answer_id, **environment).passport.first_difference
    return difference.name if difference else ""


def test_the_route_computes_an_answer_again_to_equality(served: tuple[World, TestClient]) -> None:
    """Known, new and anonymous: all parts are equal, and the ranked one has all candidates, best first."""
    world, client = served
    for url, candidates in (
        (URL.format("c1"), tiny.RANKED),
        (URL.format("nobody"), None),
        ("/v1/recommendations", None),
    ):
        answer = client.get(url).json()
        written(world, answer["answer_id"])
        body = client.get(f"/v1/recommendations/{answer['answer_id']}").json()
        assert (body["status"], body["first_difference"]) == ("equal", None)
        assert body["line"]["product_ids"] == [item["product_id"] for item in answer["items"]]
        if candidates:
            assert [each["product_id"] for each in body["candidates"]] == candidates
            assert all(each["before"] == each["after"] for each in body["candidates"])


def test_the_route_has_the_features_as_served(served: tuple[World, TestClient]) -> None:
    """Of p2: three orders, one day ago (`tiny.PAIR`), four orders of the customer, whose other feature is missing; the six of the model."""
    world, client = served
    answer = client.get(URL.format("c1")).json()
    written(world, answer["answer_id"])
    values = client.get(f"/v1/recommendations/{answer['answer_id']}").json()["features"]
    assert list(values) == tiny.RANKED
    assert list(values["p2"]) == tiny.FEATURES.all
    assert list(values["p2"].values())[:4] == [3.0, 1.0, 4.0, None]


def test_the_route_names_changed_features(served: tuple[World, TestClient]) -> None:
    """The online store has other values by now."""
    world, client = served
    answer = client.get(URL.format("c1")).json()
    written(world, answer["answer_id"])
    kept, world.store.blob = world.store.blob, pack(tiny.PAIR + 1)
    body = client.get(f"/v1/recommendations/{answer['answer_id']}").json()
    world.store.blob = kept
    assert (body["status"], body["first_difference"]) == ("different", "features: pair")


@pytest.mark.parametrize("answer_id", ["x", "20171106" + "0" * 24, "99999999" + "0" * 24, "..%2F..%2Fetc%2Fpasswd"])
def test_an_unknown_answer_is_404(served: tuple[World, TestClient], answer_id: str) -> None:
    """Nonsense, well-formed and unknown, no date, no path."""
    assert served[1].get(f"/v1/recommendations/{answer_id}").status_code == 404


def test_the_lake_computes_it_again_to_equality(given: tuple[Path, str]) -> None:
    """From the log file; and from the landed row, when the file is gone. The purchases behind p2 are named with their batch."""
    folder, answer_id = given
    found = traced(folder, answer_id)
    assert found.passport.first_difference is None
    assert [part.name for part in found.passport.parts][:2] == ["model", "bundle"]
    assert [(row["event_id"], row["batch_id"]) for row in found.raw["p2"]] == [("e0", "b1"), ("e1", "b1")]
    land_prediction_log(local_lake(folder), DAY, folder / "prediction_log", "run")
    for path in (folder / "prediction_log").glob("*.jsonl"):
        path.unlink()
    assert first_difference(folder, answer_id) == ""


def test_a_changed_feature_value_is_the_first_difference(given: tuple[Path, str]) -> None:
    """One pair value in the lake is another one by now (late data): named before the scores that follow from it."""
    folder, answer_id = given
    changed = tiny.PAIR.copy()
    changed[0, 0] = 3
    fill(local_lake(folder), changed)
    found = traced(folder, answer_id).passport
    assert [part.name for part in found.parts if not part.is_equal][:2] == ["features: pair", "scores of the model"]


def test_a_changed_rule_is_the_first_difference(given: tuple[Path, str]) -> None:
    """p2 is blocked today: the rules differ, and so do products."""
    folder, answer_id = given
    blocked = {"PIPELINE_RULES__BLOCKED": json.dumps([{"products": ["p2"]}])}
    assert first_difference(folder, answer_id, **blocked) == "rules"


def test_another_model_in_the_place_of_the_bundle_is_the_first_difference(given: tuple[Path, str]) -> None:
    """Somebody with the key put another, whole and signed bundle into its folder."""
    folder, answer_id = given
    directory = folder / "elsewhere"
    tiny.write(directory, text=tiny.model_text(sign=-1))
    (line,) = (folder / "bundles").iterdir()
    shutil.rmtree(line)
    shutil.move(directory / line.name, line)
    _repoint(folder)
    assert first_difference(folder, answer_id) == "model"


def _repoint(folder: Path) -> None:
    """The release row of the copied database names the bundle of the copied folder."""
    engine = open_state(f"sqlite:///{folder / 'release.db'}")
    (bundle,) = (folder / "bundles").iterdir()
    with engine.begin() as connection:
        connection.execute(sa.update(releases).values(bundle_path=str(bundle)))
    engine.dispose()


def test_the_command_of_the_page(given: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and *equal*; after a change 1 and the first difference."""
    folder, answer_id = given
    (arguments,) = commands_of("test_the_command_of_the_page")
    with mock.patch.dict(os.environ, {"PIPELINE_DATA_DIR": str(folder)}):
        get_settings.cache_clear()
        assert main([arguments[0], answer_id]) == 0
        out = capsys.readouterr().out
        assert out.endswith("equal: the same answer comes out again\n")
        assert "p2: score" in out
        assert "bought in 2 lines before, newest 2017-11-05, event e0 of batch b1" in out
        fill(local_lake(folder), tiny.PAIR + 1)
        assert main([arguments[0], answer_id, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["first_difference"] == "features: pair"
    get_settings.cache_clear()
