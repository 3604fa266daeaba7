"""Publication is whole or not at all, and every change to a published file is found before it is parsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline_assets.recommender import manifest
from pipeline_assets.recommender.errors import BundleError
from pipeline_assets.recommender.manifest import FILES, MANIFEST, make_manifest, publish, verify

BLOBS = {name: f"content of {name}".encode() for name in FILES}


def published(root: Path, version: str = "m1", created_at: str = "t0") -> Path:
    directory = root / "m1-2017-11-05"
    publish(directory, make_manifest(version, "2017-11-05", created_at, BLOBS), BLOBS)
    return directory


def test_published_bundle_verifies(tmp_path: Path) -> None:
    """Seven files and the manifest, nothing left beside them."""
    directory = published(tmp_path)
    assert verify(directory) == make_manifest("m1", "2017-11-05", "t0", BLOBS)
    assert sorted(path.name for path in directory.iterdir()) == sorted([*FILES, MANIFEST])
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]


def test_identical_bundle_is_left_alone(tmp_path: Path) -> None:
    """Same content at a later time: the first manifest stays, to the byte."""
    directory = published(tmp_path)
    before = (directory / MANIFEST).read_bytes()
    published(tmp_path, created_at="t1")
    assert (directory / MANIFEST).read_bytes() == before


def test_another_bundle_is_never_overwritten(tmp_path: Path) -> None:
    """The same directory with another model version is an error that names both."""
    published(tmp_path)
    with pytest.raises(BundleError, match=r"found bundle m1-.*wanted bundle m2-"):
        published(tmp_path, version="m2")


def test_crash_while_writing_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up at the third file: no directory, and no remains."""
    written: list[Path] = []

    def full_disk(path: Path, blob: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "_write_synced", full_disk)
    with pytest.raises(OSError, match="No space left"):
        published(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without a manifest is unfinished by definition."""
    order: list[str] = []
    monkeypatch.setattr(manifest, "_write_synced", lambda path, blob: order.append(path.name))
    published(tmp_path)
    assert order[-1] == MANIFEST
    assert set(order[:-1]) == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_is_found(tmp_path: Path, name: str) -> None:
    """Equal length, one bit: only the digest shows it."""
    path = published(tmp_path) / name
    raw = bytearray(path.read_bytes())
    raw[0] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=f"{name}: found sha256"):
        verify(path.parent)


@pytest.mark.parametrize("name", FILES)
def test_cut_file_is_found_by_its_size(tmp_path: Path, name: str) -> None:
    """One byte less than recorded."""
    path = published(tmp_path) / name
    size = len(BLOBS[name])
    path.write_bytes(BLOBS[name][:-1])
    with pytest.raises(BundleError, match=f"{name}: found {size - 1} bytes; wanted {size} bytes"):
        verify(path.parent)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """Each file in turn, the manifest too."""
    directory = published(tmp_path)
    (directory / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: found No such file"):
        verify(directory)


@pytest.mark.parametrize(
    ("key", "value"), [("model_version", "m9"), ("as_of", "2018-01-01"), ("bundle_id", "m1-2017-11-05-0")]
)
def test_edited_manifest_does_not_match_its_id(tmp_path: Path, key: str, value: str) -> None:
    """The id is derived from version, day and digests."""
    path = published(tmp_path) / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(BundleError, match="bundle_id"):
        verify(path.parent)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"files": [1]}', b"\xff\xfe"])
def test_manifest_that_is_none(tmp_path: Path, raw: bytes) -> None:
    """Bytes that are not a manifest are refused as such."""
    path = published(tmp_path) / MANIFEST
    path.write_bytes(raw)
    with pytest.raises(BundleError, match="wanted a manifest"):
        verify(path.parent)


def test_manifest_cannot_point_elsewhere(tmp_path: Path) -> None:
    """A path outside the bundle is not one of the seven names."""
    path = published(tmp_path) / MANIFEST
    raw = json.loads(path.read_text())
    raw["files"][0]["path"] = "../../etc/passwd"
    path.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="wanted files"):
        verify(path.parent)
