"""A correction through the real pipeline: the day re-opens, dependants are stale and computed again, and the past can be rebuilt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date

import pyarrow.parquet
import pytest

from pipeline_assets.resources.versions import stale_days
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, Pipeline, Shop

CORRECTED = date(2017, 2, 8)  # a training label week, and before cut-off 02-12 and all later ones


@pytest.fixture(scope="module")
def shop(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return first_run.shop.copied(tmp_path_factory.mktemp("versions") / "shop")


@pytest.fixture(scope="module")
def corrected(shop: Shop) -> Iterator[Pipeline]:
    """The amounts of one day are doubled in its file, and the day is ingested again."""
    path = shop.drops / "purchases" / f"{CORRECTED}.parquet"
    rows = pyarrow.parquet.read_table(path)
    doubled = pyarrow.array([2 * amount for amount in rows["amount"].to_pylist()])
    pyarrow.parquet.write_table(rows.set_column(rows.schema.get_field_index("amount"), "amount", doubled), path)
    with shop.opened() as pipeline:
        pipeline.execute("ingest", CORRECTED)
        yield pipeline


def test_after_the_first_run_nothing_is_stale(first_run: FirstRun) -> None:
    """Every stage was computed from what is there."""
    done = first_run.shop.command("data", "stale", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])


def test_the_correction_is_the_day_and_the_old_day_is_history(shop: Shop, corrected: Pipeline) -> None:
    """One more version of raw; the rows that differ are all rows of the day, before and after."""
    log = json.loads(
        shop.command("data", "log", "raw/purchases", "--from", str(CORRECTED), "--to", str(CORRECTED), "--json").stdout
    )
    assert [entry["changed"] for entry in log] == ["yes", "yes"]
    before = str(log[0]["version"])
    days = json.loads(shop.command("data", "diff", "raw/purchases", before, str(log[1]["version"]), "--json").stdout)
    assert [change["day"] for change in days] == [str(CORRECTED)]
    rows = json.loads(shop.command("data", "diff", "raw/purchases", before, "--day", str(CORRECTED), "--json").stdout)
    sides = [row["only"] for row in rows]
    assert sides.count("before") == sides.count("after") == log[0]["rows"] > 0
    assert corrected.metadata("raw/purchases", CORRECTED)["digest"] == log[1]["digest"]


def test_what_was_made_from_it_is_stale(corrected: Pipeline) -> None:
    """Features as of the day or later, and the training set; not the marts, which the run built again, and not what is older."""
    stale = stale_days(corrected.lake)
    assert set(stale) == {"features/customer", "features/product", "features/customer_product", "training/training_set"}
    assert min(stale["features/customer"]) == date(2017, 2, 12)
    assert stale["features/customer"][date(2017, 2, 12)] == [f"warehouse/fct_purchases of {CORRECTED} changed"]


def test_a_past_training_set_is_rebuilt_exactly(shop: Shop, corrected: Pipeline) -> None:
    """Its purchases are others now; from the versions it was built from it comes out with the same digest."""
    done = shop.command("data", "rebuild", str(NEWEST), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["is_equal"]) == (0, True), done.stderr
    assert found["recorded"]["digest"] == corrected.metadata("training/training_set", NEWEST)["digest"]
    assert "warehouse/fct_purchases" in found["changed_inputs"]


def test_without_the_old_versions_it_is_another(shop: Shop, corrected: Pipeline) -> None:
    """Negative control: built from what is there now, after features were computed again, the digest differs."""
    stale = stale_days(corrected.lake, ["features/customer"])["features/customer"]
    for day in stale:
        corrected.execute("features", day)
    before = corrected.metadata("training/training_set", NEWEST)["digest"]
    corrected.materialize(NEWEST, "training/training_set")
    assert corrected.metadata("training/training_set", NEWEST)["digest"] != before
    assert stale_days(corrected.lake) == {}
    done = shop.command("data", "rebuild", str(NEWEST), "--json")
    assert json.loads(done.stdout)["is_equal"], "the new one is rebuilt too"
