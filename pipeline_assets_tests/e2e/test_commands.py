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
import pytest

from pipeline_assets.cli import main
from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets_tests.contract.repository import blocks
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import WORLD, Shop

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
