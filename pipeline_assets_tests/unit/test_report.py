"""Tables and card: what is written."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from pipeline_assets.recommender import report
from pipeline_assets.recommender.errors import NotEnoughData, SchemaError
from pipeline_assets.recommender.metrics import Estimate
from pipeline_assets.recommender.promotion import Decision

DECISION = Decision("reject", ("ndcg < champion & equal within noise",), pd.DataFrame())
FACTS = report.CardFacts(
    name="ranker", version="7", as_of="2017-11-05", intended_use="Weekly lists.", out_of_scope="Prices.",
    data="One retail year.", training_windows=("2017-08-07 to 2017-10-15",),
    evaluation_windows=("2017-10-23 to 2017-10-29",), limits=("One shop.",), known_failure_modes=("New customers.",),
)  # fmt: skip


def test_metric_table_marks_the_best_of_each_column() -> None:
    """b wins recall, a wins ndcg; a NaN is a dash and never the best."""
    table = report.metric_table(
        {"a": {"recall": 0.1, "ndcg": 0.3}, "b": {"recall": 0.2, "ndcg": float("nan")}}, ("recall", "ndcg")
    )
    assert table.splitlines() == [
        "| method | recall | ndcg |",
        "|---|---:|---:|",
        "| a | 0.1000 | **0.3000** |",
        "| b | **0.2000** | – |",
    ]


def test_metric_table_escapes_the_column_sign() -> None:
    """A pipe in a name would open a column."""
    assert "a\\|b" in report.metric_table({"a|b": {"recall": 0.1}}, ("recall",))


def test_metric_table_of_nothing_is_refused() -> None:
    """A table without methods says nothing."""
    with pytest.raises(NotEnoughData):
        report.metric_table({})


def test_metric_table_names_the_method_that_lacks_a_metric() -> None:
    """`a` has no ndcg."""
    with pytest.raises(SchemaError, match="a: found no ndcg"):
        report.metric_table({"a": {"recall": 0.1}}, ("recall", "ndcg"))


def test_card_has_every_section_and_number() -> None:
    """Use, data, windows, metrics with intervals, baselines, gate, limits, failure modes."""
    card = report.model_card(FACTS, {"ndcg": Estimate(0.28, 0.27, 0.29)}, {"tifu": {"ndcg": 0.26}}, DECISION)
    for title in (
        "Intended use", "Out of scope", "Data", "Training windows", "Evaluation windows", "Metrics",
        "Baselines on the same windows", "Promotion gate: reject", "Limits", "Known failure modes",
    ):  # fmt: skip
        assert f"## {title}\n" in card
    assert "| ndcg | 0.2800 | 0.2700 to 0.2900 |" in card
    assert "| tifu | 0.2600 |" in card


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(report.CardFacts)])
def test_card_without_a_fact_is_refused(field: str) -> None:
    """An empty limit or failure mode is not a statement; the error names the field."""
    empty = dataclasses.replace(FACTS, **{field: type(getattr(FACTS, field))()})
    with pytest.raises(SchemaError, match=field):
        report.model_card(empty, {"ndcg": Estimate(0.28, 0.27, 0.29)}, {"tifu": {"ndcg": 0.26}}, DECISION)


@pytest.mark.parametrize("baselines", [{}, {"ranker": {"ndcg": 0.26}}])
def test_card_needs_baselines_with_other_names(baselines: dict[str, dict[str, float]]) -> None:
    """No baseline, or one that would hide the model's own row."""
    with pytest.raises(NotEnoughData):
        report.model_card(FACTS, {"ndcg": Estimate(0.28, 0.27, 0.29)}, baselines, DECISION)
