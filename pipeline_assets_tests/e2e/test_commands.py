"""docs/commands.md, executed on the generated shop: its days and names take the place of the sample's, the rest is as it stands.

The verbs run in this process, as `pipeline-assets` would start them: a process of its own costs seconds of imports each.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from unittest import mock

import pandas as pd
import pyarrow.compute
import pytest

from pipeline_assets.cli import main
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.settings import PROJECT_ROOT, get_settings
from pipeline_assets_tests.contract.repository import blocks
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, WORLD, Shop
from pipeline_assets_tests.world import BAG

PAGE = (PROJECT_ROOT / "docs/commands.md").read_text()
MORNING = date(2017, 3, 19)  # after the newest day of the shop's first run: everything that it needs is built
IN_THE_SHOP = {"2017-11-06": MORNING.isoformat()}


def commands_of(test: str) -> list[list[str]]:
    """The command lines of the page's block whose marker names this test, without the program, in the shop's words."""
    ((_, content),) = [block for block in blocks(PAGE, "bash") if f"::{test} " in block[0]]
    for sample, here in IN_THE_SHOP.items():
        content = content.replace(sample, here)
    lines = [shlex.split(line) for line in content.splitlines() if not line.startswith("#")]
    assert all(line[0] == "pipeline-assets" for line in lines)
    return [line[1:] for line in lines]


@pytest.fixture(scope="module")
def shop(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return first_run.shop.copied(tmp_path_factory.mktemp("commands") / "shop")


@pytest.fixture
def run(shop: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run a verb in the shop, in an empty working folder; returns its exit code and what it printed."""
    with mock.patch.dict(os.environ), shop.opened(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)

        def verb(arguments: list[str], *more: str) -> tuple[int, str]:
            capsys.readouterr()
            code = main([*arguments, *more])
            return code, capsys.readouterr().out

        yield verb


@pytest.fixture(scope="module")
def first_choice(shop: Shop) -> tuple[str, str]:
    """A customer, and the product that was recommended first."""
    rows = local_lake(shop.data_dir).read("recommendations/daily", NEWEST, NEWEST).to_pandas()
    first = rows[rows["rank"] == 1].sort_values("customer_id").iloc[0]
    return first["customer_id"], first["product_id"]


def in_words_of(command: list[str], pair: tuple[str, str]) -> list[str]:
    """The page's customer and product are the sample's: these take their place."""
    names = dict(zip(("100", "1029743"), pair, strict=True))
    return [names.get(word, word) for word in command]


def test_backtest(shop: Shop, run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """Twenty distinct sellable products for each of the 80 customers, best first; no model or release comes of it."""
    (command,) = commands_of("test_backtest")
    before = sorted(path.name for path in shop.data_dir.rglob("*") if "release" in path.name or "bundles" in path.parts)
    code, out = run(command, "--json")
    assert code == 0
    (summary,) = json.loads(out)["backtests"]
    rows = pd.read_parquet(tmp_path / "recs.parquet")
    assert list(rows) == ["as_of", "customer_id", "rank", "product_id", "score"]
    assert set(rows["as_of"]) == {MORNING}
    assert set(rows["customer_id"]) == set(WORLD.customers["customer_id"])
    assert rows.groupby("customer_id")["rank"].agg(list).map(lambda ranks: ranks == list(range(1, 21))).all()
    assert not rows.duplicated(["customer_id", "product_id"]).any()
    assert (rows.groupby("customer_id")["score"].diff().dropna() <= 0).all()
    assert summary["rows"] == len(rows) == 80 * 20
    after = sorted(path.name for path in shop.data_dir.rglob("*") if "release" in path.name or "bundles" in path.parts)
    assert after == before


def test_holdout(run: Callable[..., tuple[int, str]]) -> None:
    """The shop's year ends long before its holdout."""
    (command,) = commands_of("test_holdout")
    assert run(command) == (0, "holdout from 2017-11-13: never read\n")
    code, out = run(command, "--json")
    assert (code, json.loads(out)["reads"]) == (0, {})


@pytest.mark.ml_test("I5")
def test_explain(run: Callable[..., tuple[int, str]], first_choice: tuple[str, str]) -> None:
    """The first recommendation of a customer: rank 1, and contributions that add up to its score."""
    (command,) = commands_of("test_explain")
    code, out = run(in_words_of(command, first_choice), "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["customer_id"], found["product_id"], found["rank"]) == (*first_choice, 1)
    total = found["base"] + sum(entry["contribution"] for entry in found["contributions"])
    assert total == pytest.approx(found["score"], abs=1e-6)
    assert found["shopper"].startswith(found["name"])
    assert "number 1 of" in found["merchant"]


@pytest.mark.ml_test("I5", control=True)
def test_explain_says_why_not(run: Callable[..., tuple[int, str]], first_choice: tuple[str, str]) -> None:
    """The bag is bought by everybody and not sellable; a product that does not exist is not in the catalogue. Exit code 1."""
    (command,) = commands_of("test_explain")
    code, out = run(in_words_of(command, (first_choice[0], BAG)))
    assert (code, "it is not sellable" in out) == (1, True)
    code, out = run(in_words_of(command, (first_choice[0], "p999")), "--json")
    assert (code, json.loads(out)["reasons"]) == (1, ["it is not in the catalogue as of that day"])


def test_explain_does_not_know_a_stranger(run: Callable[..., tuple[int, str]]) -> None:
    """An unknown customer is an error that says who gets what."""
    (command,) = commands_of("test_explain")
    assert run(in_words_of(command, ("nobody", "p001")))[0] == 2


@pytest.fixture(scope="module")
def changed(shop: Shop) -> str:
    """After the training the amounts of one day of purchases are doubled: the input that differs."""
    table, day = "warehouse/fct_purchases", date(2017, 2, 1)
    lake = local_lake(shop.data_dir)
    rows = lake.read_days(table, [day])
    doubled = pyarrow.compute.multiply(rows["amount"], 2.0)
    lake.replace_days(table, rows.set_column(rows.schema.get_field_index("amount"), "amount", doubled), [day], "test")
    return f"{table} of {day}"


@pytest.mark.usefixtures("changed")
@pytest.mark.ml_test("I1")
def test_reproduce(run: Callable[..., tuple[int, str]]) -> None:
    """From the recorded versions everything is equal, whatever happened since: trees, slates, and the recommendations that were published."""
    (command,) = commands_of("test_reproduce")
    code, out = run(command, "--json")
    found = json.loads(out)
    assert (code, found["is_equal"], found["first_difference"]) == (0, True, None)
    compared = [part["name"] for part in found["parts"]]
    assert compared[-4:] == ["training set", "trees", "slates", "published slates"]


@pytest.mark.ml_test("I1", control=True)
def test_reproduce_names_the_input_that_changed(run: Callable[..., tuple[int, str]], changed: str) -> None:
    """From the newest versions, the changed day is the first difference: recorded and found digests are told."""
    (command,) = commands_of("test_reproduce")
    code, out = run(command, "--newest-inputs")
    assert code == 1
    assert out.splitlines()[-1].startswith(f"DIFFERENT, first in {changed}: recorded ")


def test_reproduce_knows_the_versions_there_are(run: Callable[..., tuple[int, str]]) -> None:
    """A version that was never registered is an error."""
    assert run(["reproduce", "99"])[0] == 2


@pytest.mark.parametrize(
    ("arguments", "culprit", "fix"),
    [
        pytest.param(["--as-of", "2017-04-30"], "business day 2017-04-29", "calendar.until", id="not arrived"),
        pytest.param(["--as-of", "2017-02-20"], "training as of 2017-02-19", "wait until", id="too early to train"),
        pytest.param(["--as-of", str(MORNING), "--horizon-days", "5"], "training.horizon_days", "correct", id="no whole weeks"),
    ],
)  # fmt: skip
def test_a_backtest_that_is_not_possible_says_why(
    run: Callable[..., tuple[int, str]],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    culprit: str,
    fix: str,
) -> None:
    """One line with the culprit and what to do, exit code 2, and no file."""
    capsys.readouterr()
    code = main(["backtest", *arguments, "--out", "none.parquet"])
    error = capsys.readouterr().err
    assert code == 2
    assert culprit in error
    assert fix in error.split("Fix:")[1]
    assert not Path("none.parquet").exists()


def test_a_stopped_clock_is_not_moved(run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stopped the clock for development does not look past it by a backtest."""
    monkeypatch.setenv("PIPELINE_CALENDAR__UNTIL", "2017-03-12")
    get_settings.cache_clear()
    assert main(["backtest", "--as-of", str(MORNING), "--out", "none.parquet"]) == 2
