"""Publication is whole or not at all, and every change to a published file is found before it is parsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline_assets.recommender import manifest
from pipeline_assets.recommender.errors import BundleError
from pipeline_assets.recommender.manifest import FILES, MANIFEST, SIGNATURE, Manifest, make_manifest, publish, sign
from pipeline_assets.recommender.signature import TrustedKeys, public_bytes
from pipeline_assets_tests import tiny_bundle as tiny

BLOBS = {name: f"content of {name}".encode() for name in FILES}


def published(root: Path, version: str = "m1", created_at: str = "t0") -> Path:
    directory = root / "m1-2017-11-05"
    publish(directory, make_manifest(version, "2017-11-05", created_at, BLOBS), BLOBS, tiny.KEY)
    return directory


def verify(directory: Path) -> Manifest:
    return manifest.verify(directory, tiny.TRUSTED)


def forge(path: Path, listing: bytes) -> None:
    """Replace the manifest and sign it: what a mistake of the signer would look like."""
    path.write_bytes(listing)
    (path.parent / SIGNATURE).write_bytes(sign(listing, tiny.KEY))


def test_published_bundle_verifies(tmp_path: Path) -> None:
    """Seven files, the manifest and its signature, nothing left beside them."""
    directory = published(tmp_path)
    assert verify(directory) == make_manifest("m1", "2017-11-05", "t0", BLOBS)
    assert sorted(path.name for path in directory.iterdir()) == sorted([*FILES, MANIFEST, SIGNATURE])
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
    assert set(order[:-1]) == {*FILES, SIGNATURE}


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
    forge(path, json.dumps({**json.loads(path.read_text()), key: value}).encode())
    with pytest.raises(BundleError, match="bundle_id"):
        verify(path.parent)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"files": [1]}', b"\xff\xfe"])
def test_manifest_that_is_none(tmp_path: Path, raw: bytes) -> None:
    """Bytes that are not a manifest are refused as such."""
    path = published(tmp_path) / MANIFEST
    forge(path, raw)
    with pytest.raises(BundleError, match="wanted a manifest"):
        verify(path.parent)


def test_manifest_cannot_point_elsewhere(tmp_path: Path) -> None:
    """A path outside the bundle is not one of the seven names."""
    path = published(tmp_path) / MANIFEST
    raw = json.loads(path.read_text())
    raw["files"][0]["path"] = "../../etc/passwd"
    forge(path, json.dumps(raw).encode())
    with pytest.raises(BundleError, match="wanted files"):
        verify(path.parent)


def test_unsigned_bundle_is_refused(tmp_path: Path) -> None:
    """Whole, but nobody says who made it."""
    directory = published(tmp_path)
    (directory / SIGNATURE).unlink()
    with pytest.raises(BundleError, match=r"manifest\.sig: found no signature"):
        verify(directory)


def test_edited_and_consistent_bundle_is_refused(tmp_path: Path) -> None:
    """File, digest and bundle id were changed together: only the signature shows it."""
    directory = published(tmp_path)
    blobs = {**BLOBS, "model.txt": b"another model"}
    other = publish(tmp_path / "other", make_manifest("m1", "2017-11-05", "t0", blobs), blobs, tiny.STRANGER)
    (directory / "model.txt").write_bytes(blobs["model.txt"])
    (directory / MANIFEST).write_bytes((tmp_path / "other" / MANIFEST).read_bytes())
    with pytest.raises(BundleError, match="of other content"):
        verify(directory)
    assert manifest.verify(tmp_path / "other", TrustedKeys((public_bytes(tiny.STRANGER),))) == other


def test_bundle_of_another_key_is_not_taken_for_the_same(tmp_path: Path) -> None:
    """An identical bundle that a stranger published is not adopted."""
    made = make_manifest("m1", "2017-11-05", "t0", BLOBS)
    publish(tmp_path / "m1-2017-11-05", made, BLOBS, tiny.STRANGER)
    with pytest.raises(BundleError, match="found a signature by key"):
        published(tmp_path)
