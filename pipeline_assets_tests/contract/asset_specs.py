"""The committed picture of the asset graph: key, group, dependencies, kinds, owners of every asset.

Write it again after a deliberate change, and read the difference in review:

    .venv/bin/python -m pipeline_assets_tests.contract.asset_specs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

SNAPSHOT = Path(__file__).with_name("asset_specs.json")
COMMAND = ".venv/bin/python -m pipeline_assets_tests.contract.asset_specs"


def specs(definitions: dg.Definitions) -> dict[str, dict[str, Any]]:
    """Asset -> what the snapshot keeps of it, as plain JSON values."""
    graph = definitions.resolve_asset_graph()
    nodes = (graph.get(key) for key in sorted(graph.get_all_asset_keys()))
    return {
        node.key.to_user_string(): {
            "group": node.group_name,
            "deps": sorted(key.to_user_string() for key in node.parent_keys),
            "kinds": sorted(node.kinds),
            "owners": sorted(node.owners),
        }
        for node in nodes
    }


def differences(committed: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> list[str]:
    """One line per asset that is new, gone or different."""
    lines = [f"{name}: gone from the code" for name in sorted(set(committed) - set(found))]
    lines += [f"{name}: not in the snapshot" for name in sorted(set(found) - set(committed))]
    for name in sorted(set(found) & set(committed)):
        for field in sorted({*found[name], *committed[name]}):
            before, now = committed[name].get(field), found[name].get(field)
            if before != now:
                lines.append(f"{name}: {field} was {before}, is {now}")
    return lines


def main() -> None:
    """Write the snapshot."""
    from pipeline_assets.definitions import defs

    SNAPSHOT.write_text(json.dumps(specs(defs), indent=1) + "\n")
    print(f"wrote {SNAPSHOT}")


if __name__ == "__main__":
    main()
