"""Who may import what, where the environment is read, and what is never done. Rules are functions over source text.

Each rule has a negative control: an offender it must catch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from pipeline_assets_tests.contract.repository import modules

PRODUCT = ("pipeline_assets", "feature_repo")
PURE = ("pipeline_assets/recommender", "pipeline_assets/monitoring", "pipeline_assets/schemas")
# What a pure package may import of ours: itself and the ones below it.
PURE_MAY_IMPORT = {
    "recommender": {"recommender"},
    "schemas": {"recommender", "schemas"},
    "monitoring": {"recommender", "schemas", "monitoring"},
}
ORCHESTRATION = {"dagster", "mlflow", "feast"}
NOT_IN_SERVING = {"dagster", "mlflow", "dbt"}
PICKLES = {"pickle", "cPickle", "_pickle", "joblib", "cloudpickle", "dill", "shelve", "marshal"}
PICKLE_CALLS = {"to_pickle", "read_pickle"}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv", "EnvVar"}
MAX_LINES = 400
SETTINGS = "pipeline_assets/settings.py"
# Path -> (how many, why). One boundary of a kind, where anything may break and something must still be answered.
BROAD_EXCEPT = {
    "pipeline_assets/serving/service.py": (1, "whatever breaks in ranking, the customer gets the next rung, flagged and logged"),
    "pipeline_assets/serving/shadow.py": (1, "a candidate that breaks beside the requests is a finding of its rollout"),
}  # fmt: skip


def imports(source: str) -> Iterator[str]:
    """Dotted names of every import, inside functions and under TYPE_CHECKING too; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used: the layer could not be read from them"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def is_of(name: str, packages: set[str]) -> bool:
    """`dagster_dbt.x` is of dagster: its integrations count."""
    top = name.split(".")[0]
    return any(top == package or top.startswith(f"{package}_") for package in packages)


def orchestration_imports(source: str) -> list[str]:
    return sorted(name for name in imports(source) if is_of(name, ORCHESTRATION))


def imports_above(source: str, package: str) -> list[str]:
    """Imports of our own packages that a pure package may not know."""
    own = (name.split(".") for name in imports(source) if name.startswith(("pipeline_assets.", "feature_repo")))
    return sorted(
        ".".join(parts) for parts in own if parts[0] != "pipeline_assets" or parts[1] not in PURE_MAY_IMPORT[package]
    )


def environment_reads(source: str) -> list[str]:
    """Uses of the environment: os.environ, os.getenv, os.putenv, from os import ..., dagster's EnvVar."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        if ENVIRONMENT & set(names):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def pickle_uses(source: str) -> list[str]:
    found = [name for name in imports(source) if name.split(".")[0] in PICKLES]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in PICKLE_CALLS:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(f"line {node.value.lineno}: allow_pickle={ast.unparse(node.value)}")
    return found


def broad_excepts(source: str) -> list[str]:
    """`except:`, `except Exception`, `except BaseException`, alone or in a tuple, and `suppress(Exception)`."""
    broad, found = {"Exception", "BaseException"}, []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in broad for kind in caught):
                found.append(f"line {node.lineno}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            found += [f"line {node.lineno}" for argument in node.args if ast.unparse(argument) in broad]
    return found


def clock_reads_and_unseeded_draws(source: str) -> list[str]:
    """Time and randomness are arguments below the shell (style.md, 7)."""
    clocks, seeded = {"now", "utcnow", "today"}, {"default_rng", "Generator", "SeedSequence", "PCG64"}
    global_draws = ("np.random.", "numpy.random.", *(["random."] if "random" in imports(source) else []))
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        module, _, function = called.rpartition(".")
        is_clock = (module and function in clocks) or called in ("time.time", "time.monotonic")
        is_draw = f"{module}." in global_draws and function not in seeded
        is_unseeded = function == "default_rng" and not node.args and not node.keywords
        if is_clock or is_draw or is_unseeded:
            found.append(f"line {node.lineno}: {called}")
    return found


def reachable(start: str, sources: dict[str, str]) -> dict[str, str]:
    """Third-party import -> the path of ours that leads to it, from modules below `start`, through our own imports."""
    by_name = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources}
    todo = [(path, path) for path in sources if path.startswith(start)]
    seen, found = {path for path, _ in todo}, {}
    while todo:
        path, way = todo.pop()
        for name in imports(sources[path]):
            own = next((by_name[n] for n in (name, name.rpartition(".")[0]) if n in by_name), None)
            if own is None:
                found.setdefault(name, way)
            elif own not in seen:
                seen.add(own)
                todo.append((own, f"{way} > {own}"))
    return found


def offenders(rule: Callable[[str], list[str]], *packages: str) -> dict[str, list[str]]:
    """Path -> what breaks the rule there."""
    checked = {path: rule(source) for path, source in modules(*packages).items()}
    return {path: found for path, found in checked.items() if found}


def test_pure_packages_import_no_orchestration() -> None:
    """recommender, monitoring and schemas can be used and tested without dagster, mlflow or feast."""
    assert offenders(orchestration_imports, *PURE) == {}


@pytest.mark.parametrize("package", sorted(PURE_MAY_IMPORT))
def test_pure_packages_import_nothing_above_them(package: str) -> None:
    """recommender knows itself only; schemas know recommender; monitoring knows both. None knows the settings."""
    assert offenders(lambda source: imports_above(source, package), f"pipeline_assets/{package}") == {}


def test_pure_packages_ask_neither_the_clock_nor_chance() -> None:
    """Time and randomness are arguments, so that the same input gives the same output."""
    assert offenders(clock_reads_and_unseeded_draws, *PURE) == {}


def test_serving_reaches_no_pipeline() -> None:
    """No chain of our imports leads from serving to dagster, mlflow or dbt, not even inside a function."""
    found = reachable("pipeline_assets/serving/", modules(*PRODUCT))
    assert {name: way for name, way in found.items() if is_of(name, NOT_IN_SERVING)} == {}


@pytest.mark.parametrize("connector", ["files", "sql", "sample"])
def test_connectors_need_no_orchestration(connector: str) -> None:
    """They run in the environment of the Snowflake stand-in, which has neither Dagster nor Delta (requirements-snowflake.lock)."""
    found = reachable(f"pipeline_assets/sources/{connector}.py", modules(*PRODUCT))
    assert {
        name: way for name, way in found.items() if name.split(".")[0] in {*ORCHESTRATION, "deltalake", "dbt"}
    } == {}


def test_the_environment_is_read_in_one_file() -> None:
    """Configuration has one door: settings.py."""
    found = offenders(environment_reads, *PRODUCT)
    assert found.pop(SETTINGS), "settings.py reads the environment, or this rule sees nothing"
    assert found == {}


def test_nothing_pickles() -> None:
    """No pickle, joblib or cloudpickle is imported or called, in the product and in its tests (R1)."""
    assert offenders(pickle_uses, *PRODUCT, "pipeline_assets_tests") == {}


def test_no_module_is_too_long() -> None:
    """400 lines is the hard limit of a module of the product."""
    lengths = {path: len(source.splitlines()) for path, source in modules(*PRODUCT).items()}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_broad_excepts_are_the_named_boundaries() -> None:
    """A failure never becomes a plausible value: only the boundaries named above catch everything."""
    found = {path: len(lines) for path, lines in offenders(broad_excepts, *PRODUCT).items()}
    assert found == {path: count for path, (count, _) in BROAD_EXCEPT.items()}


def test_asset_shells_compute_nothing_heavy_at_import() -> None:
    """mlflow, feast, evidently, lightgbm and optuna cost 3 to 9 CPU s each: they are imported inside functions (docs/design/stack.md)."""
    heavy = {"mlflow", "feast", "evidently", "lightgbm", "optuna", "sklearn"}

    def at_import(source: str) -> list[str]:
        tree = ast.parse(source)
        unconditional = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        return sorted(
            name for node in unconditional for name in imports(ast.unparse(node)) if name.split(".")[0] in heavy
        )

    found = offenders(at_import, "pipeline_assets")
    assert found == {}


@pytest.mark.parametrize(
    ("rule", "offender"),
    [
        (orchestration_imports, "import dagster as dg"),
        (orchestration_imports, "def f():\n    from dagster_mlflow import mlflow_tracking"),
        (
            orchestration_imports,
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from feast import FeatureStore",
        ),
        (orchestration_imports, "import importlib\nm = importlib.import_module('mlflow')"),
        (environment_reads, "import os\nhome = os.environ['HOME']"),
        (environment_reads, "import os as system\nhome = system.getenv('HOME')"),
        (environment_reads, "from os import environ"),
        (environment_reads, "import dagster as dg\nurl = dg.EnvVar('URL')"),
        (pickle_uses, "import joblib"),
        (pickle_uses, "def f():\n    from pickle import loads"),
        (pickle_uses, "frame.to_pickle('x')"),
        (pickle_uses, "np.load(path, allow_pickle=True)"),
        (broad_excepts, "try:\n    f()\nexcept Exception:\n    pass"),
        (broad_excepts, "try:\n    f()\nexcept:\n    pass"),
        (broad_excepts, "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    pass"),
        (broad_excepts, "with contextlib.suppress(Exception):\n    f()"),
        (clock_reads_and_unseeded_draws, "from datetime import datetime\nx = datetime.now()"),
        (clock_reads_and_unseeded_draws, "x = np.random.default_rng()"),
        (clock_reads_and_unseeded_draws, "x = np.random.shuffle(y)"),
        (clock_reads_and_unseeded_draws, "import random\nx = random.random()"),
        (lambda source: imports_above(source, "recommender"), "from pipeline_assets.settings import get_settings"),
        (lambda source: imports_above(source, "recommender"), "from pipeline_assets.monitoring.drift import compare"),
    ],
)
def test_each_rule_catches_an_offender(rule: Callable[[str], list[str]], offender: str) -> None:
    """Negative control: a rule that cannot fail proves nothing."""
    assert rule(offender)


@pytest.mark.parametrize(
    ("rule", "innocent"),
    [
        (orchestration_imports, "import feasible_things"),
        (environment_reads, "import os\nos.replace(a, b)"),
        (pickle_uses, "np.load(path, allow_pickle=False)"),
        (broad_excepts, "try:\n    f()\nexcept ValueError:\n    pass"),
        (clock_reads_and_unseeded_draws, "x = np.random.default_rng(seed).normal()"),
        (clock_reads_and_unseeded_draws, "random = np.random.default_rng([seed, n])\nx = random.random(3)"),
    ],
)
def test_each_rule_lets_an_innocent_pass(rule: Callable[[str], list[str]], innocent: str) -> None:
    """The other half of the control: a rule that always fails proves nothing either."""
    assert rule(innocent) == []


def test_a_forbidden_import_two_steps_away_is_found() -> None:
    """Negative control of `reachable`: serving > helper > resources, where mlflow is imported inside a function."""
    sources = {
        "pipeline_assets/serving/app.py": "from pipeline_assets import helper",
        "pipeline_assets/helper.py": "from pipeline_assets.resources.tracking import Tracking",
        "pipeline_assets/resources/tracking.py": "def f():\n    import mlflow",
    }
    way = "pipeline_assets/serving/app.py > pipeline_assets/helper.py > pipeline_assets/resources/tracking.py"
    assert reachable("pipeline_assets/serving/", sources)["mlflow"] == way
