"""Who reads purchases: labels come through the door of resources/holdout.py, and every other reader is named here with its reason.

The rule is a function over source text; its negative controls are offenders that it must catch.
"""

from __future__ import annotations

import ast
import re

import pytest

from pipeline_assets_tests.contract.repository import modules

TABLES = re.compile(r"^(raw|validated|warehouse)/(\w*purchases)?$|^warehouse/$|^validated/$")
READS = {"read", "read_days", "files", "to_pyarrow_table", "DeltaTable"}
# Path -> (reads of purchases, why they need no door).
READERS = {
    "pipeline_assets/resources/training_data.py": (1, "behind `sellable_purchases` (known days only) and `window_purchases` (wants a door)"),
    "pipeline_assets/resources/monitoring_run.py": (1, "drift looks at the rows of its own day"),
    "pipeline_assets/resources/quality_run.py": (1, "realised quality enters the door before it reads"),
    "pipeline_assets/resources/passport_run.py": (1, "rows up to the day of the features that an answer was made from"),
    "pipeline_assets/replay/policy_lane.py": (1, "who shopped on a replayed day, so that they ask the API"),
    "pipeline_assets/replay/outcome.py": (1, "realised quality enters the door before it reads"),
    "pipeline_assets/resources/snapshots.py": (3, "marts up to the as-of day: features know nothing else"),
}  # fmt: skip
ELSEWHERE = (
    "pipeline_assets/sources/",  # landing: before anything is a label
    "pipeline_assets/schemas/",
    "pipeline_assets/checks/data.py",  # counts of rows
    "pipeline_assets/resources/warehouse.py",  # dbt's input, day by day
)


def literal(node: ast.expr) -> str:
    """The fixed beginning of a text: all of a constant, what an f-string begins with."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def purchase_reads(source: str) -> list[str]:
    """Calls that read a table of purchases, or a table of a layer whose name is put together."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in READS and node.args:
            table = literal(node.args[0])
            if TABLES.match(table):
                found.append(f"line {node.lineno}: {table}")
    return found


def test_every_reader_of_purchases_is_known() -> None:
    """A new way to read what was bought has to be named above, or go through the door."""
    sources = {path: text for path, text in modules("pipeline_assets").items() if not path.startswith(ELSEWHERE)}
    found = {path: len(reads) for path, text in sources.items() if (reads := purchase_reads(text))}
    assert found == {path: count for path, (count, _) in READERS.items()}


def test_labels_are_read_by_one_function() -> None:
    """The rows of days that are not known yet are read in `window_purchases` only, after it entered the door."""
    tree = ast.parse(modules("pipeline_assets")["pipeline_assets/resources/training_data.py"])
    functions = {node.name: ast.unparse(node) for node in tree.body if isinstance(node, ast.FunctionDef)}

    def callers(of: str) -> set[str]:
        return {
            name for name, text in functions.items() if re.search(rf"(?<!\w){of}\(", text.replace("def _", "def ", 1))
        }

    assert callers("_sellable_purchases") == {"sellable_purchases", "window_purchases"}
    assert callers("_purchases") == {"_sellable_purchases", "purchases_up_to"}
    window = functions["window_purchases"]
    assert 0 < window.index("door.enter(") < window.index("_sellable_purchases(")


@pytest.mark.parametrize(
    "offender",
    [
        "rows = lake.read('warehouse/fct_purchases', day, day)",
        "rows = lake.read(f'warehouse/{mart}')",
        "rows = lake.read_days('validated/purchases', days)",
        "table = deltalake.DeltaTable('validated/purchases')",
        "def f(lake):\n    return lake.files('raw/purchases')",
    ],
)
def test_a_reader_past_the_door_is_caught(offender: str) -> None:
    """Negative control: each way to read purchases."""
    assert purchase_reads(offender)
    assert not purchase_reads(offender.replace("purchases", "coupons").replace("{mart}", "dim_products"))
