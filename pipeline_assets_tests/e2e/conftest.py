"""One generated shop is brought through the whole pipeline once a session; tests look at it, or go on in a copy."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import pytest

from pipeline_assets_tests.shop import Shop, new_shop


@dataclass(frozen=True)
class FirstRun:
    """A shop after `pipeline-assets run`, and what the command printed. Nobody may change its data folder."""

    shop: Shop
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    shop = new_shop(tmp_path_factory.mktemp("first_run"))
    done = shop.command("run")
    assert done.returncode == 0, done.stderr[-6000:]
    return FirstRun(shop, done)
