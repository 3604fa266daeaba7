"""From a backup to a working pipeline on a clean machine: the generated shop, at another path."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipeline_assets.serving import audit
from pipeline_assets.serving.__main__ import config_from
from pipeline_assets.serving.app import create_app
from pipeline_assets.serving.release_state import current_live, open_state
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.e2e.test_commands import commands_of
from pipeline_assets_tests.shop import NEWEST, Shop


@pytest.fixture(scope="module")
def restored(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Another folder with nothing but deliveries, after the commands of the page."""
    old, new = first_run.shop, Shop(tmp_path_factory.mktemp("clean"))
    shutil.copytree(old.drops, new.drops)
    archive = str(tmp_path_factory.mktemp("backups") / "shop.tar.gz")
    for shop, command in zip((old, new), commands_of("test_backup_and_restore_commands"), strict=True):
        done = shop.command(*(archive if word == "shop.tar.gz" else word for word in command))
        assert done.returncode == 0, done.stderr[-3000:]
    return new


def test_backup_and_restore_commands(restored: Shop, first_run: FirstRun) -> None:
    """The release is that of the new folder, whose audit log is whole; MLflow knows the old folder nowhere, and has the champion's model."""
    with restored.opened() as pipeline:
        engine = open_state(pipeline.settings.release_url)
        live = current_live(engine)
        assert live is not None
        assert Path(live.bundle_path).parent == restored.data_dir / "bundles"
        assert audit.verify(engine).broken_at is None
        with closing(sqlite3.connect(restored.data_dir / "mlflow.db")) as database:
            assert not [line for line in database.iterdump() if str(first_run.shop.data_dir) in line]
        tracking = pipeline.resources["tracking"]
        text = tracking.model_text(tracking.require_champion().run_id)
        assert text.encode() == (Path(live.bundle_path) / "model.txt").read_bytes()


def test_the_next_run_has_nothing_to_do_and_a_new_day_lands(restored: Shop) -> None:
    """Of 77 days none is landed again, no feature is computed, no model trained. Then a day comes, and is validated."""
    done = restored.command("run")
    assert done.returncode == 0, done.stderr[-3000:]
    to_do = [line for line in done.stdout.splitlines() if line.endswith("to do")]
    assert len(to_do) == 5
    assert all(line.endswith(" 0 to do") for line in to_do)
    next_day = NEWEST + timedelta(days=1)
    restored.deliver(next_day)
    with restored.opened() as pipeline:
        pipeline.execute("ingest", next_day, "raw/purchases", "validated/purchases")
        assert pipeline.lake.rows_by_day("validated/purchases")[next_day] > 0


def test_the_api_serves(restored: Shop) -> None:
    """The restored release, with the restored features of a customer."""
    with restored.opened() as pipeline, TestClient(create_app(config_from(pipeline.settings))) as client:
        answer = client.get("/v1/customers/c46/recommendations").json()
    assert (answer["customer_kind"], answer["fallback_level"], answer["as_of"]) == ("known", "none", str(NEWEST))
