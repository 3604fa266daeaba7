"""Who made a bundle: signatures of the right key over the right bytes, and everything else refused with its reason."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pipeline_assets.recommender.errors import BundleError, ConfigurationError
from pipeline_assets.recommender.signature import TrustedKeys, key_id, public_bytes, read_signing_key, sign
from pipeline_assets.resources.signing import signing_key, trusted
from pipeline_assets.settings import load_settings
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.contract.repository import ROOT, blocks

MESSAGE = b"content"


def check(signature: bytes, keys: TrustedKeys = tiny.TRUSTED, message: bytes = MESSAGE) -> None:
    keys.check(message, signature, "manifest.sig", "none")


def refusal(signature: bytes, keys: TrustedKeys = tiny.TRUSTED, message: bytes = MESSAGE) -> str:
    with pytest.raises(BundleError) as error:
        check(signature, keys, message)
    return str(error.value)


def test_signature_of_a_trusted_key_is_accepted() -> None:
    """And is the same bytes each time: nothing random is in a bundle."""
    check(sign(MESSAGE, tiny.KEY))
    assert sign(MESSAGE, tiny.KEY) == sign(MESSAGE, tiny.KEY)


@pytest.mark.parametrize("order", [1, -1])
def test_either_key_is_accepted_while_they_rotate(order: int) -> None:
    """Old and new bundles verify while both keys are trusted, in any order; then the old one is taken out."""
    keys = TrustedKeys((public_bytes(tiny.KEY), public_bytes(tiny.STRANGER))[::order])
    check(sign(MESSAGE, tiny.KEY), keys)
    check(sign(MESSAGE, tiny.STRANGER), keys)


def test_key_that_is_not_trusted_is_named() -> None:
    """The message says which key signed, and which ones are trusted."""
    message = refusal(sign(MESSAGE, tiny.STRANGER))
    assert f"found a signature by key {key_id(public_bytes(tiny.STRANGER))}" in message
    assert f"wanted one by key {key_id(public_bytes(tiny.KEY))}" in message


def test_without_trusted_keys_nothing_is_accepted() -> None:
    """No configuration is no permission."""
    assert "none is configured" in refusal(sign(MESSAGE, tiny.KEY), TrustedKeys(()))


def test_other_content_is_refused() -> None:
    """One bit of the message."""
    assert "of other content" in refusal(sign(MESSAGE, tiny.KEY), message=b"cOntent")


def test_stranger_who_claims_the_key_id_is_refused() -> None:
    """The name in the file is a hint, not the proof."""
    claimed = json.loads(sign(MESSAGE, tiny.STRANGER)) | {"key_id": key_id(public_bytes(tiny.KEY))}
    assert "of other content" in refusal(json.dumps(claimed).encode())


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"{}", b'{"key_id": "a", "signature": "?"}', b"\xff\xfe"])
def test_bytes_that_are_no_signature(raw: bytes) -> None:
    """Whatever lies in the file, it is refused and not raised as something else."""
    assert "found no signature" in refusal(raw)


def test_pair_is_made_once_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    """The first use makes it, the second finds it; the public part is what is trusted."""
    settings = load_settings({"PIPELINE_DATA_DIR": str(tmp_path)})
    first, second = signing_key(settings), signing_key(settings)
    assert trusted(settings).keys == (public_bytes(first),) == (public_bytes(second),)
    assert stat.S_IMODE((tmp_path / "keys/bundle_signing.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["bundle_signing.pem", "bundle_signing.pub"]


def test_lost_public_key_is_made_again_from_the_private_one(tmp_path: Path) -> None:
    """A kill between the two files leaves a private key only; the next use completes the pair and keeps the key."""
    settings = load_settings({"PIPELINE_DATA_DIR": str(tmp_path)})
    before = public_bytes(signing_key(settings))
    (tmp_path / "keys/bundle_signing.pub").unlink()
    signing_key(settings)
    assert trusted(settings).keys == (before,)


def test_production_makes_no_key(tmp_path: Path) -> None:
    """It is told which; the error says how to make one."""
    config = tmp_path / "shop.toml"
    stores = 'mlflow_uri = "x"\nrelease_url = "x"\nfeast_registry = "x"\nonline_store = {type = "redis"}\n'
    config.write_text(f'profile = "production"\n[stores]\n{stores}[signing]\npublic_keys = ["{tmp_path}/a.pub"]\n')
    with pytest.raises(ConfigurationError, match=r"signing.key_file.*openssl genpkey"):
        signing_key(load_settings({"PIPELINE_CONFIG": str(config), "PIPELINE_DATA_DIR": str(tmp_path / "data")}))
    assert not (tmp_path / "data").exists()


def test_key_from_a_file(tmp_path: Path) -> None:
    """A PEM file as openssl writes it."""
    path = tmp_path / "key.pem"
    path.write_bytes(tiny.KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    settings = load_settings({"PIPELINE_SIGNING__KEY_FILE": str(path), "PIPELINE_DATA_DIR": str(tmp_path)})
    assert public_bytes(signing_key(settings)) == public_bytes(tiny.KEY)
    assert not (tmp_path / "keys").exists()


def test_files_that_hold_no_usable_key_are_named(tmp_path: Path) -> None:
    """Missing, not PEM, and a key of another algorithm; private and public. No content of a file is shown."""
    other = generate_private_key(SECP256R1())
    (tmp_path / "text").write_text("secret-text")
    (tmp_path / "ec").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "ec.pub").write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for name, found in (("none", "No such file"), ("text", "no PEM private key"), ("ec", "a key of type EC")):
        with pytest.raises(ConfigurationError, match=f"private key .*{name}: found {found}") as error:
            read_signing_key(tmp_path / name)
        assert "secret-text" not in str(error.value)
    for name, found in (("none", "No such file"), ("text", "no PEM public key"), ("ec.pub", "a key of type EC")):
        with pytest.raises(ConfigurationError, match=f"public key .*{name}: found {found}"):
            TrustedKeys.read([tmp_path / name])


def test_keys_as_documented(tmp_path: Path) -> None:
    """The commands of docs/configuration.md make a pair that signs and is trusted."""
    marker = f"<!-- executed by pipeline_assets_tests/unit/test_signature.py::{test_keys_as_documented.__name__} -->"
    page = (ROOT / "docs/configuration.md").read_text()
    ((_, commands),) = [block for block in blocks(page, "bash") if block[0] == marker]
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, capture_output=True, check=True)
    check(
        sign(MESSAGE, read_signing_key(tmp_path / "bundle_signing.pem")),
        TrustedKeys.read([tmp_path / "bundle_signing.pub"]),
    )
