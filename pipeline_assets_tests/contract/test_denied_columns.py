"""What a customer said of themselves is not used to rank for them: age, income, household and children stay out of features."""

from __future__ import annotations

import ast

import pytest

from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets_tests.contract.repository import modules

DENIED = set(FEEDS["customers"].columns) - {"customer_id", "event_date"}
# Everything that computes or reads features and training examples.
COMPUTES = ("pipeline_assets/recommender", "pipeline_assets/resources", "feature_repo")


def uses(source: str) -> set[str]:
    """Denied columns that a module names, as text, attribute or variable."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        named = node.value if isinstance(node, ast.Constant) else getattr(node, "attr", getattr(node, "id", None))
        if isinstance(named, str):
            found |= {column for column in DENIED if column == named}
    return found


@pytest.mark.ml_test("D4")
def test_no_feature_is_made_of_what_customers_say_of_themselves() -> None:
    """No module that computes features names such a column, and no feature has its name."""
    assert {"age_band", "income_band", "household_size", "kids_count"} == DENIED
    assert {path: found for path, source in modules(*COMPUTES).items() if (found := uses(source))} == {}
    assert [name for name in MODEL_FEATURES if any(column in name for column in DENIED)] == []


@pytest.mark.ml_test("D4", control=True)
@pytest.mark.parametrize(
    "source", ["rows['age_band']", "rows.kids_count.mean()", "columns = ['customer_id', 'income_band']"]
)
def test_a_use_is_found(source: str) -> None:
    """Negative control: by key, by attribute, in a list of columns to read."""
    assert uses(source)
