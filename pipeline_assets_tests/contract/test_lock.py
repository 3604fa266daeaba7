"""The lock file names every package with hashes and no address, so that it installs from whatever index a user has."""

from __future__ import annotations

import configparser
import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline_assets_tests.contract.repository import ROOT, files

PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?: ;[^\\]*)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
# Put together here, so that this file does not name a host itself.
_PARTS = (("pypi", "org"), ("pythonhosted", "org"), ("registry", "npmjs"), ("deb", "debian"))
HOSTS = re.compile("|".join(re.escape(".".join(parts)) for parts in _PARTS))
NAMES_THEM_TO_REFUSE_THEM = {".ci/run"}


def lock_faults(text: str) -> list[str]:
    """Entries that are not `name==version` with at least one SHA-256, and any line that is an option or an address."""
    faults = []
    logical = re.sub(r"\\\n\s*", " ", text)
    for line in (line.strip() for line in logical.splitlines() if line.strip() and not line.startswith("#")):
        entry, *rest = line.split(" --hash=")
        if not PIN.fullmatch(entry.strip()):
            faults.append(f"not a pin: {entry[:80]}")
        elif not rest:
            faults.append(f"without a hash: {entry}")
        elif not all(HASH.fullmatch(f"--hash={value.strip()}") for value in rest):
            faults.append(f"not a SHA-256: {entry}")
    return faults


def pins() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text()
    return {
        canonicalize_name(m["name"]): m["version"] for m in re.finditer(rf"^{PIN.pattern}", text, flags=re.MULTILINE)
    }


def declared(*extras: str) -> list[Requirement]:
    """What setup.cfg asks for, with these extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    of_extras = [config["options.extras_require"][extra] for extra in extras]
    return [
        Requirement(line)
        for block in [config["options"]["install_requires"], *of_extras]
        for line in block.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]


@pytest.mark.parametrize("lock", [path.name for path in files("requirements*.lock")])
def test_every_pin_is_hashed_and_nothing_else_is_there(lock: str) -> None:
    """No entry without a version and a SHA-256, no index, no link, no option."""
    assert lock_faults((ROOT / lock).read_text()) == []


def test_no_package_is_pinned_twice() -> None:
    """One version each."""
    text = (ROOT / "requirements.lock").read_text()
    names = [canonicalize_name(m["name"]) for m in re.finditer(rf"^{PIN.pattern}", text, flags=re.MULTILINE)]
    assert len(names) == len(set(names)) > 100


@pytest.mark.parametrize("requirement", declared("sample", "test"), ids=lambda r: r.name)
def test_the_lock_satisfies_setup_cfg(requirement: Requirement) -> None:
    """Each requirement of setup.cfg is pinned to a version of its range."""
    version = pins().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not in requirements.lock; run `make lock`"
    assert requirement.specifier.contains(version, prereleases=True), (
        f"{requirement} but {version} is locked; run `make lock`"
    )


@pytest.mark.ml_test("Mo1")
def test_what_is_installed_is_what_is_locked() -> None:
    """The environment these tests run in has the locked versions of what the product needs to run."""
    locked = pins()
    names = [canonicalize_name(requirement.name) for requirement in declared("sample")]
    different = {
        name: (locked[name], metadata.version(name)) for name in names if locked.get(name) != metadata.version(name)
    }
    assert different == {}


def test_no_file_names_a_registry_host() -> None:
    """Where packages come from is the user's business: no index, mirror or registry host in any file of the repository."""
    found = {}
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        content = path.read_bytes()
        if (
            b"\0" not in content[:8000]
            and name not in NAMES_THEM_TO_REFUSE_THEM
            and (host := HOSTS.search(content.decode()))
        ):
            found[name] = host[0]
    assert found == {}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("agate==1.9.1", "without a hash"),
        ("agate>=1.9.1 \\\n    --hash=sha256:" + "0" * 64, "not a pin"),
        ("agate==1.9.1 \\\n    --hash=sha256:0123", "not a SHA-256"),
        ("--index-url https://example.com/simple", "not a pin"),
        ("agate @ https://example.com/agate.whl", "not a pin"),
        ("-e .", "not a pin"),
    ],
)
@pytest.mark.ml_test("Mo1", control=True)
def test_a_loose_line_is_found(line: str, fault: str) -> None:
    """Negative control: each way to be loose is named; a proper entry is not."""
    good = "# comment\nagate==1.9.1 \\\n    --hash=sha256:" + "0" * 64 + " \\\n    --hash=sha256:" + "1" * 64 + "\n"
    assert lock_faults(good) == []
    assert [found.startswith(fault) for found in lock_faults(good + line)] == [True]


def test_a_host_is_recognised() -> None:
    """Negative control: the pattern matches an address."""
    assert HOSTS.search("https://files." + "pythonhosted" + ".org/packages/x.whl")
