"""Every asset says what it is, and the graph changes only on purpose."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from pipeline_assets_tests.contract.asset_specs import COMMAND, SNAPSHOT, differences, specs

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetNode

MIN_DESCRIPTION = 40  # characters: grain, source, freshness and reader do not fit in fewer


def faults(node: BaseAssetNode, n_checks: int) -> list[str]:
    """What an asset lacks (R8)."""
    own_tags = {name for name in node.tags if not name.startswith("dagster/")}
    rules = {
        f"a description of {MIN_DESCRIPTION} characters or more": len(node.description or "") >= MIN_DESCRIPTION,
        "an owner": bool(node.owners),
        "a kind": bool(node.kinds),
        "a tag": bool(own_tags),
        "a code version": bool(node.code_version),
        "daily partitions": isinstance(node.partitions_def, dg.DailyPartitionsDefinition),
        "a check": n_checks > 0,
    }
    return [f"{node.key.to_user_string()} has not {what}" for what, holds in rules.items() if not holds]


def all_faults(definitions: dg.Definitions) -> list[str]:
    graph = definitions.resolve_asset_graph()
    checks = [check.asset_key for check in graph.asset_check_keys]
    return [fault for key in sorted(graph.get_all_asset_keys()) for fault in faults(graph.get(key), checks.count(key))]


def test_the_graph_is_the_committed_one(definitions: dg.Definitions) -> None:
    """An asset, dependency, kind or owner that comes, goes or changes is seen in review."""
    found = differences(json.loads(SNAPSHOT.read_text()), specs(definitions))
    assert not found, (
        "the asset graph changed:\n  "
        + "\n  ".join(found)
        + f"\nif that is meant, run `{COMMAND}` and commit the difference"
    )


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    """Description, owner, kind, tag, code version, daily partitions and at least one check, on every asset."""
    found = all_faults(definitions)
    assert not found, "\n".join(found)


def test_all_assets_share_one_partitions_definition(definitions: dg.Definitions) -> None:
    """A day means the same everywhere: one start, one end, one time zone."""
    graph = definitions.resolve_asset_graph()
    found = {graph.get(key).partitions_def for key in graph.get_all_asset_keys()}
    assert len(found) == 1


def test_the_graph_is_one(definitions: dg.Definitions) -> None:
    """From every asset there is a way to every other one, along or against the arrows (R7)."""
    found = specs(definitions)
    neighbours: dict[str, set[str]] = {name: set() for name in found}
    for name, spec in found.items():
        for parent in spec["deps"]:
            neighbours[name].add(parent)
            neighbours[parent].add(name)
    reached, todo = set(), ["raw/purchases"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += neighbours[name]
    assert set(found) - reached == set()


def test_a_bare_asset_is_found() -> None:
    """Negative control: an asset with nothing but a name lacks all seven."""

    @dg.asset(key=["raw", "bare"])
    def bare() -> None: ...

    found = all_faults(dg.Definitions(assets=[bare]))
    assert len(found) == 7, found


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"raw/a": None}, "raw/a: gone from the code"),
        ({"raw/b": {"group": "raw", "deps": []}}, "raw/b: not in the snapshot"),
        ({"raw/a": {"group": "raw", "deps": ["raw/b"]}}, "raw/a: deps was [], is ['raw/b']"),
    ],
)
def test_a_changed_graph_is_described(change: dict[str, Any], line: str) -> None:
    """Negative control: what is gone, new or different is one line each."""
    committed: dict[str, Any] = {"raw/a": {"group": "raw", "deps": []}}
    found = {name: spec for name, spec in {**committed, **change}.items() if spec is not None}
    assert differences(committed, found) == [line]
