"""One generated shop is brought through the whole pipeline once a session; tests look at it, or go on in a copy."""

from __future__ import annotations

import pytest

from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import new_shop
import os, subprocess
from pathlib import Path
from pipeline_assets_tests.shop import Shop


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    if "DEV_SHOP" in os.environ:
        shop = Shop(Path(os.environ["DEV_SHOP"]))
        return FirstRun(shop, shop.command("run"))
    shop = new_shop(tmp_path_factory.mktemp("first_run"))
    done = shop.command("run")
    assert done.returncode == 0, done.stderr[-6000:]
    return FirstRun(shop, done)
