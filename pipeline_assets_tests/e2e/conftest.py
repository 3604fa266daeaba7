"""One generated shop is brought through the whole pipeline once a session; tests look at it, or go on in a copy."""

from __future__ import annotations

import pytest

from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import new_shop


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    shop = new_shop(tmp_path_factory.mktemp("first_run"))
    done = shop.command("run")
    assert done.returncode == 0, done.stderr[-6000:]
    return FirstRun(shop, done)
