"""A feature is added to a copy of the checkout by the five steps of CONTRIBUTING.md, and a model is trained with it. `customer_amount_7d`: what
a customer spent in seven days.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets_tests.contract.repository import ROOT

NEW = "customer_amount_7d"
# Step -> file, the text there, and what takes its place.
STEPS = {
    "1 name it": (
        "pipeline_assets/recommender/features.py",
        '    "customer_amount_28d",\n',
        f'    "customer_amount_28d",\n    "{NEW}",  # spent in seven days, currency\n',
    ),
    "2 compute it": (
        "pipeline_assets/recommender/aggregates.py",
        "amount_28d / 1e9 as amount_28d\n    from (",
        "amount_28d / 1e9 as amount_28d, amount_7d / 1e9 as amount_7d\n    from (",
    ),
    "2 count it": (
        "pipeline_assets/recommender/aggregates.py",
        "sum(case when age <= 28 then amount end) as amount_28d\n        from line",
        "sum(case when age <= 28 then amount end) as amount_28d,\n"
        "            sum(case when age <= 7 then amount end) as amount_7d\n        from line",
    ),
    "3 test it": (
        "pipeline_assets_tests/unit/test_features.py",
        '"amount_28d": 2 + 2 + 1}',
        '"amount_28d": 2 + 2 + 1, "amount_7d": 2 + 1}',
    ),
}
# Steps 4 and 5 in a process of the copy: its worth on weeks that were not trained on, and a model that has it.
TRAIN = """
import json, sys
from pipeline_assets.recommender.ablation import feature_groups, without
from pipeline_assets.recommender.errors import FeatureMismatch
from pipeline_assets.recommender.metrics import paired_bootstrap
from pipeline_assets.recommender.training_set import require_model_features
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets_tests.shop_weeks import SUNDAYS, ShopWeeks
from pipeline_assets_tests.world import World

new, before = sys.argv[1], json.loads(sys.argv[2])
shop, weeks = ShopWeeks(World()), (SUNDAYS[6:8], SUNDAYS[8:9])
model = shop.trained(*weeks)
blind = shop.trained(*weeks, changed=lambda part: without(part, [new]))
worth = paired_bootstrap(*(shop.judged(each, SUNDAYS[9:10]) for each in (model, blind)), "ndcg", 200, seed=1)
try:
    require_model_features(before)
    refused = ""
except FeatureMismatch as error:
    refused = str(error)
group = next(name for name, members in feature_groups().items() if new in members)
print(json.dumps({"model": model.booster.feature_name(), "stored": FEATURE_TABLES["customer"].names, "group": group,
                  "worth": [worth.low, worth.mean_difference, worth.high], "refused": refused}))
"""


def checkout(root: Path, left_out: Sequence[str] = ()) -> Path:
    """A copy of the code with the feature, but for the steps that are left out."""
    for name in ("pipeline_assets", "pipeline_assets_tests", "feature_repo"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for step, (name, old, new) in STEPS.items():
        text = (root / name).read_text()
        assert text.count(old) == 1, f"step {step}: {old!r} is {text.count(old)} times in {name}"
        if step not in left_out:
            (root / name).write_text(text.replace(old, new))
    return root


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def run_tests(root: Path) -> subprocess.CompletedProcess[str]:
    """The unit test of customer features, and those of leakage."""
    chosen = ("-k", "customer_features_of_ann or change_no_bit", "pipeline_assets_tests/unit/test_features.py")
    return python(root, "-m", "pytest", *chosen)


@pytest.mark.ml_test("D6")
def test_five_steps_end_in_a_model_that_has_the_feature(tmp_path: Path) -> None:
    """Five changed lines in three files: lake, examples and model have it, its test and those of leakage pass, its worth has an interval,
    and examples without it are refused.
    """
    root = checkout(tmp_path)
    tests = run_tests(root)
    assert tests.returncode == 0, tests.stdout[-3000:]
    done = python(root, "-c", TRAIN, NEW, json.dumps(list(MODEL_FEATURES)))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["model"]) - set(MODEL_FEATURES) == {NEW}
    assert NEW in found["stored"]
    assert found["group"] == "customer"
    low, mean, high = found["worth"]
    assert low <= mean <= high
    assert NEW in found["refused"]


@pytest.mark.ml_test("D6", control=True)
def test_a_step_that_was_forgotten_is_named(tmp_path: Path) -> None:
    """Named and not computed: the tests of features fail, with the name of the column."""
    tests = run_tests(checkout(tmp_path, ["2 compute it", "2 count it"]))
    assert tests.returncode == 1
    assert "amount_7d" in tests.stdout
