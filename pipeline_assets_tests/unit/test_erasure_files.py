"""Bundles that have a customer as a warm-up request: rewritten, put right after a kill, removed when nobody could serve them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline_assets.recommender.bundle import WarmupRequest, load_bundle
from pipeline_assets.resources.erasure_files import erase_files, look_at_files
from pipeline_assets.resources.mentions import Mentions
from pipeline_assets.resources.signing import trusted
from pipeline_assets.settings import Settings
from pipeline_assets_tests import tiny_bundle as tiny

HER = Mentions("c1")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data folder that signs with the tests' key."""
    found = Settings(data_dir=tmp_path)
    tiny.trust(tmp_path)
    pem = tiny.KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (found.local_pair / "bundle_signing.pem").write_bytes(pem)
    return found


def bundle(settings: Settings, *customers: str) -> Path:
    """A bundle whose warm-up customers are these."""
    requests = tuple(WarmupRequest(c, tiny.CANDIDATES, tiny.PAIR, tiny.CUSTOMER) for c in customers)
    path, _ = tiny.write(settings.data_dir / "bundles", warmup=requests)
    return path


def erase(settings: Settings) -> list[tuple[str, int]]:
    return [(removed.place, removed.rows) for removed in erase_files(settings, HER) if removed.is_anything]


def test_a_bundle_loses_its_warmup_request(settings: Settings) -> None:
    """The other one and its golden answer stay; it is signed again, and of the same model. Again there is nothing to do."""
    path = bundle(settings, "c1", "c2")
    before = load_bundle(path, trusted(settings))
    assert list(look_at_files(settings, HER)) == [f"bundles/{path.name}/warmup.json"], "control"
    assert erase(settings) == [(f"bundles/{path.name}", 1)]
    after = load_bundle(path, trusted(settings))
    assert [request.customer_id for request in after.warmup] == ["c2"]
    assert after.golden == before.golden[1:]
    assert after.manifest.bundle_id != before.manifest.bundle_id
    assert replace(after.manifest, bundle_id="", files=()) == replace(before.manifest, bundle_id="", files=())
    assert erase(settings) == []


def test_rows_of_a_csv_file(settings: Settings) -> None:
    """Hers by the column, of any order; quoted values of others stay. The same id in another column is not her."""
    path = settings.data_dir / "export.csv"
    path.write_text('product_id,customer_id,name\np1,c1,x\nc1,c2,"a, b"\n')
    assert list(look_at_files(settings, HER)) == ["export.csv"]
    assert erase(settings) == [("export.csv", 1)]
    assert path.read_text() == 'product_id,customer_id,name\nc1,c2,"a, b"\n'
    assert list(look_at_files(settings, HER)) == []


def test_killed_between_the_two_renames(settings: Settings) -> None:
    """The old bundle was moved away and the new one was not there yet: it takes its place, and the old one goes."""
    path = bundle(settings, "c2")
    hidden = path.parent / f".{path.name}-abc"
    shutil.copytree(path, hidden / path.name)
    path.rename(hidden / "before")
    assert erase(settings) == []
    assert [request.customer_id for request in load_bundle(path, trusted(settings)).warmup] == ["c2"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_killed_before_them(settings: Settings) -> None:
    """The old bundle is where it was, the new one is not finished: it goes, and is made again."""
    path = bundle(settings, "c1", "c2")
    shutil.copytree(path, path.parent / f".{path.name}-abc" / path.name)
    (path.parent / f".{path.name}-abc" / path.name / "manifest.json").unlink()
    assert erase(settings) == [(f"bundles/{path.name}", 1)]
    assert [request.customer_id for request in load_bundle(path, trusted(settings)).warmup] == ["c2"]


def test_what_nobody_could_serve_is_removed(settings: Settings) -> None:
    """Without any warm-up request a probe refuses a bundle; a damaged one is refused anyway."""
    path = bundle(settings, "c1")
    assert erase(settings) == [(f"bundles/{path.name}", 1)]
    assert not path.exists()
    path = bundle(settings, "c1", "c2")
    (path / "model.txt").write_text("damaged")
    assert erase(settings) == [(f"bundles/{path.name}", 1)]
    assert not path.exists()
