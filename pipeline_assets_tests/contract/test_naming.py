"""The mirror rule: one noun, four places. An asset is found from its name, and a module's tests from its path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pipeline_assets_tests.contract.repository import ROOT

if TYPE_CHECKING:
    import dagster as dg

MIRRORED = ("recommender", "monitoring")
# A module without behaviour has nothing to test.
WITHOUT_TESTS = {
    "recommender/columns.py": "names only",
    "recommender/errors.py": "exercised by every test of a refusal",
}
NOUN = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
VERBS = {
    "build", "calculate", "compute", "create", "do", "evaluate", "fetch", "generate", "get", "load", "make", "process",
    "publish", "run", "train", "update", "write",
}  # fmt: skip


def key_faults(path: list[str], group: str, shells: set[str]) -> list[str]:
    """What is wrong with an asset's key and group."""
    faults = []
    if len(path) != 2:
        return [f"key {path}: wanted [group, noun]"]
    if path[0] != group:
        faults.append(f"key {path}: its group is {group}; wanted the key's prefix")
    if group not in shells:
        faults.append(f"key {path}: there is no assets/{group}.py")
    if not NOUN.fullmatch(path[1]):
        faults.append(f"key {path}: wanted lower case with underscores")
    if path[1].split("_")[0] in VERBS:
        faults.append(f"key {path}: starts with a verb; assets are nouns")
    return faults


def shells() -> set[str]:
    """The asset modules: every file of assets/ that declares a GROUP."""
    return {path.stem for path in (ROOT / "pipeline_assets/assets").glob("*.py") if "\nGROUP = " in path.read_text()}


def test_keys_are_group_and_noun(definitions: dg.Definitions) -> None:
    """The key is [group, noun], and a file of that name in assets/ exists."""
    graph = definitions.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
    faults = [fault for node in nodes for fault in key_faults(list(node.key.path), node.group_name, shells())]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", sorted(shells()))
def test_a_file_holds_its_group_and_no_other(name: str) -> None:
    """Everything that assets/<name>.py declares has group and key prefix <name>."""
    import importlib

    import dagster as dg

    module = importlib.import_module(f"pipeline_assets.assets.{name}")
    assert name == module.GROUP
    found = dg.load_assets_from_modules([module])
    groups = {
        group
        for asset in found
        if isinstance(asset, dg.AssetsDefinition)
        for group in asset.group_names_by_key.values()
    }
    assert groups == {name}


def test_each_pure_module_has_its_unit_tests() -> None:
    """recommender/x.py and monitoring/x.py are tested in unit/test_x.py."""
    wanted = {
        f"{package}/{path.name}": ROOT / f"pipeline_assets_tests/unit/test_{path.stem}.py"
        for package in MIRRORED
        for path in sorted((ROOT / "pipeline_assets" / package).glob("[!_]*.py"))
    }
    missing = {
        module: test.name for module, test in wanted.items() if not test.exists() and module not in WITHOUT_TESTS
    }
    assert not missing, f"modules without unit tests: {missing}"


def test_each_unit_test_has_its_module() -> None:
    """The mirror from the other side: no test file outlives its module."""
    folders = ("recommender", "monitoring", "schemas", "serving", "sources", "resources", "replay", "")
    known = {path.stem for folder in folders for path in (ROOT / "pipeline_assets" / folder).glob("*.py")}
    known |= {path.stem for path in (ROOT / "feature_repo").glob("*.py")}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "pipeline_assets_tests/unit").glob("test_*.py")}
    assert tests - known == set()


@pytest.mark.parametrize(
    ("path", "group", "fault"),
    [
        (["features"], "features", "wanted [group, noun]"),
        (["features", "customer"], "training", "wanted the key's prefix"),
        (["gold", "customer"], "gold", "there is no assets/gold.py"),
        (["features", "CustomerRows"], "features", "lower case"),
        (["features", "build_customer"], "features", "assets are nouns"),
    ],
)
def test_a_wrong_key_is_found(path: list[str], group: str, fault: str) -> None:
    """Negative control: each fault of a key is named."""
    assert any(fault in found for found in key_faults(path, group, shells()))
