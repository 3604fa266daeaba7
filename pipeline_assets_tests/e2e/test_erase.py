"""A customer is erased while a training runs, on the generated shop: c00, who is in every table, in the bundle and in Dagster's pages."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet
import pytest

from pipeline_assets.cli import main
from pipeline_assets.recommender.bundle import load_bundle
from pipeline_assets.recommender.columns import CUSTOMER_ID
from pipeline_assets.recommender.errors import Busy
from pipeline_assets.resources import lake_lock
from pipeline_assets.resources.content import digest
from pipeline_assets.resources.erasure_lake import is_about_customers, tables
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.lake_lock import alone
from pipeline_assets.resources.signing import trusted
from pipeline_assets.resources.versions import stale_days
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.serving.release_state import current_live, open_state
from pipeline_assets.sources.late import redelivered
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.e2e.test_commands import commands_of
from pipeline_assets_tests.shop import NEWEST, Pipeline, Shop

HER, SHE_SHOPPED = "c00", date(2017, 3, 14)
TRAINING_SET = "training/training_set"


@dataclass(frozen=True)
class Erased:
    """What the command printed, after a training that had begun before it."""

    shop: Shop
    pipeline: Pipeline
    training: dg.ExecuteInProcessResult
    was_busy: bool
    receipt: dict[str, Any]


def printed(capture: pytest.CaptureFixture[str], command: list[str]) -> tuple[int, str]:
    capture.readouterr()
    code = main([HER if word == "100" else word for word in command])
    return code, capture.readouterr().out


def is_busy(root: str) -> bool:
    try:
        with alone(root, 0):
            return False
    except Busy:
        return True


@pytest.fixture(scope="module")
def shop(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return first_run.shop.copied(tmp_path_factory.mktemp("erase") / "shop")


@pytest.fixture(scope="module")
def erased(shop: Shop) -> Iterator[Erased]:
    """The training job writes its training set in a thread; as soon as it is in the lake, the command is given."""
    with mock.patch.dict(os.environ), shop.opened() as pipeline:
        done: list[dg.ExecuteInProcessResult] = []
        _ = pipeline.definitions
        thread = threading.Thread(target=lambda: done.append(pipeline.execute("training", NEWEST, TRAINING_SET)))
        thread.start()
        was_busy = False
        while thread.is_alive() and not was_busy:
            was_busy = is_busy(pipeline.lake.root)
        with redirect_stdout(io.StringIO()) as out:
            code = main(["erase", "--customer", HER, "--json"])
        thread.join()
        assert code == 0
        yield Erased(shop, pipeline, done[0], was_busy, json.loads(out.getvalue()))


def test_a_training_and_an_erasure_are_one_after_the_other(erased: Erased) -> None:
    """The training was in the lake and had her to its end; the erasure came then, and took her out of what the training had written."""
    assert erased.was_busy
    assert erased.training.success
    trained, then = erased.pipeline.lake.commits(TRAINING_SET)[-2:]
    assert trained.run_id == erased.training.run_id
    assert then.run_id == f"erasure-{erased.receipt['erasure_id']}"
    assert then.erased == {NEWEST: trained.days[NEWEST]}
    assert trained.days[NEWEST].rows - then.days[NEWEST].rows > 100
    assert erased.receipt["verified"]


def test_a_run_does_not_begin_during_an_erasure(erased: Erased, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, here for no time, and fails with the reason; nothing of it was written."""
    monkeypatch.setattr(lake_lock, "RUN_WAITS", 0.0)
    version = erased.pipeline.lake.version("raw/purchases")
    with alone(erased.pipeline.lake.root, 0):
        result = erased.pipeline.execute("ingest", NEWEST, "raw/purchases", raise_on_error=False)
    assert not result.success
    (message,) = [str(e.event_specific_data) for e in result.all_events if e.event_type_value == "PIPELINE_FAILURE"]
    assert "an erasure is in progress" in message + str(result.all_events)
    assert erased.pipeline.lake.version("raw/purchases") == version


def test_others_are_what_they_were(first_run: FirstRun, erased: Erased) -> None:
    """Every table that has customers, day by day: without her rows it is the shop of before."""
    old, new = local_lake(first_run.shop.data_dir), erased.pipeline.lake
    of_customers = [table for table in tables(old) if is_about_customers(old, table)]
    assert len(of_customers) > 12
    total = 0
    for table in of_customers:
        assert CUSTOMER_ID in old.schema(table).names
        for day in old.days(table):
            before, after = old.read_days(table, [day]), new.read_days(table, [day])
            others = before.filter(pc.fill_null(pc.not_equal(before[CUSTOMER_ID], HER), True))
            assert digest(after) == digest(others), f"{table} of {day}"
            total += len(before) - len(after)
    of_lake = [place["rows"] for place in erased.receipt["removed"] if place["place"].startswith("lake ")]
    assert sum(of_lake) == total > 1000


def test_nothing_is_stale(erased: Erased) -> None:
    """So the next run has nothing to compute again because of her."""
    assert stale_days(erased.pipeline.lake) == {}


def test_the_live_bundle_is_served_without_her(erased: Erased, first_run: FirstRun) -> None:
    """She was one of its warm-up customers; it is signed again, at the same place."""
    settings = erased.pipeline.settings
    live = current_live(open_state(settings.release_url))
    assert live is not None
    name = Path(live.bundle_path).name
    with first_run.shop.opened() as before:
        old = load_bundle(first_run.shop.data_dir / "bundles" / name, trusted(before.settings))
    new = load_bundle(erased.shop.data_dir / "bundles" / name, trusted(settings))
    assert HER in {request.customer_id for request in old.warmup}
    assert [r.customer_id for r in new.warmup] == [r.customer_id for r in old.warmup if r.customer_id != HER]
    assert len(new.golden) == len(new.warmup) > 0


def test_delivered_again_she_is_dropped(erased: Erased) -> None:
    """The source still has her: her rows are counted in the day's metadata and written nowhere; the day is not taken for corrected."""
    with erased.shop.opened() as pipeline:
        source = pipeline.resources["source"]
        delivered = source.read(FEEDS["purchases"], [SHE_SHOPPED])
        of_her = pc.sum(pc.equal(delivered[CUSTOMER_ID], HER)).as_py()
        assert of_her > 0, "control: the shop delivers her"
        pipeline.execute("ingest", SHE_SHOPPED, "raw/purchases", "validated/purchases")
        landed = pipeline.lake.read_days("raw/purchases", [SHE_SHOPPED])
        assert len(landed) == len(delivered) - of_her
        assert pipeline.metadata("raw/purchases", SHE_SHOPPED)["erased_rows"] == of_her
        assert redelivered(source.changed_days, pipeline.lake, NEWEST, 28) == {}


def test_a_model_from_before_is_not_reproduced(erased: Erased, capsys: pytest.CaptureFixture[str]) -> None:
    """Its versions have lost the files that held her; the error says so, and names the erasure."""
    with mock.patch.dict(os.environ), erased.shop.opened():
        assert main(["reproduce", "1"]) == 2
    error = capsys.readouterr().err
    assert "a customer was erased on" in error
    assert erased.receipt["erasure_id"] in error


@pytest.fixture
def run(erased: Erased, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[list[str]], tuple[int, str]]]:
    with mock.patch.dict(os.environ), erased.shop.opened():
        yield lambda command: printed(capsys, command)


def test_erase_commands(run: Callable[[list[str]], tuple[int, str]]) -> None:
    """She was erased before, and what came since was dropped: nothing to do, and verified. The audit log has the erasure, and is whole."""
    erase, verify = commands_of("test_erase_commands")
    assert run(erase) == (0, "nothing to do: erased before, and nothing has come since\n")
    assert run(verify) == (0, "verified: nothing holds this customer\n")
    assert ": erase customer " in run(["audit", "list"])[1]
    assert run(["audit", "verify"])[0] == 0


def test_what_still_holds_her_is_named(erased: Erased, run: Callable[[list[str]], tuple[int, str]]) -> None:
    """Negative control: one file of hers, put back, fails the check with its name. Erased again, it is gone."""
    left = erased.shop.data_dir / "recommendations" / "copy.parquet"
    pyarrow.parquet.write_table(pyarrow.table({CUSTOMER_ID: [HER], "product_id": ["p001"]}), left)
    assert run(["erase", "--customer", HER, "--verify"]) == (1, "still in recommendations/copy.parquet\n")
    assert run(["erase", "--customer", HER])[0] == 0
    assert run(["erase", "--customer", HER, "--verify"])[0] == 0
    assert len(pyarrow.parquet.read_table(left)) == 0
