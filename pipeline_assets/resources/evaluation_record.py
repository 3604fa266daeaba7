"""What is kept of one evaluation: the model card, MLflow metrics and artefacts of the training run, the row in the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_assets.recommender.evaluation_page import MODEL, Report
from pipeline_assets.recommender.judging import CHALLENGER, DISCOVER, Judged
from pipeline_assets.recommender.metrics import COMPARABLE, Estimate
from pipeline_assets.recommender.promotion import Decision, Evidence
from pipeline_assets.recommender.report import CardFacts, model_card
from pipeline_assets.resources.tracking import Tracking

METRICS = ("ndcg", "recall", "revenue", "precision", "hit_rate", "map", "repeat_recall", "new_item_recall")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The outcome of one evaluation. `summaries`: method -> measure -> value, the challenger's under `MODEL`."""

    run_id: str
    decision: Decision
    summaries: dict[str, dict[str, float]]
    judged: Judged
    evidence: Evidence
    champion_version: str | None
    html_path: Path
    card: str
    report: Report

    @property
    def customer_weeks(self) -> int:
        return len(self.judged.challenger)

    @property
    def plots(self) -> Mapping[str, bytes]:
        return self.report.plots

    @property
    def coverage(self) -> float:
        return self.evidence.coverage


def lake_row(day: date, result: Evaluation) -> dict[str, Any]:
    """The row of `evaluation/evaluation_report`."""
    return {
        "event_date": day,
        "run_id": result.run_id,
        "outcome": result.decision.outcome,
        "reasons": list(result.decision.reasons),
        "summaries": json.dumps(result.summaries, sort_keys=True),
        "comparisons": result.decision.comparisons.to_json(orient="records", double_precision=15),
        "coverage": result.coverage,
        "customer_weeks": result.customer_weeks,
        "champion_version": result.champion_version or "",
        "html_path": str(result.html_path),
    }


def card_of(
    trained: Mapping[str, Any],
    training: Sequence[date],
    windows: tuple[str, ...],
    estimates: Mapping[str, Mapping[str, Estimate]],
    summaries: Mapping[str, Mapping[str, float]],
    decision: Decision,
) -> str:
    own = {metric: estimates[CHALLENGER][metric] for metric in METRICS if metric in estimates[CHALLENGER]}
    others = {name: values for name, values in summaries.items() if name not in (MODEL, DISCOVER)}
    return model_card(_facts(trained, training, windows), own, others, decision)


def _facts(trained: Mapping[str, Any], training: Sequence[date], windows: tuple[str, ...]) -> CardFacts:
    return CardFacts(
        name="ranker",
        version=str(trained["run_id"])[:12],
        as_of=str(trained["trained_through"]),
        intended_use="Order about 110 candidate products for each known customer of this shop for the coming week.",
        out_of_scope="Other shops' customers, prices, credit or any decision about a person; recommendations to people without a purchase "
        "history come from popularity, not from this model.",
        data="Purchases, promotions, campaigns, products and customers of the configured source; on the sample: dunnhumby / 84.51° "
        "The Complete Journey, 2017, offered by its publishers for education and prototyping (package licence MIT).",
        training_windows=(
            f"{len(training)} weeks as of {training[0]} to {training[-1]}, and one week to stop the training",
        ),
        evaluation_windows=windows,
        limits=(
            "Nearly all of its value is in repeats: it seldom finds products that are new to the customer.",
            "It assumes that next week's promotion plan is known on the evening before the week starts.",
        ),
        known_failure_modes=(
            "Lists that are a week old lose about 3 % NDCG, eight weeks about 14 %: publish daily.",
            "A store without a promotion plan gets no promotion features.",
        ),
    )


def log_evaluation(tracking: Tracking, result: Evaluation, estimates: Mapping[str, Estimate]) -> None:
    """The evaluation as MLflow metrics and artefacts of the training run."""
    import io

    from PIL import Image

    client, own = tracking.client(), result.summaries[MODEL]
    for metric in COMPARABLE:
        if np.isfinite(own[metric]):
            client.log_metric(result.run_id, f"eval_{metric}", own[metric])
    client.set_tag(result.run_id, "outcome", result.decision.outcome)
    client.log_text(result.run_id, result.report.html, "evaluation/report.html")
    client.log_text(result.run_id, result.card, "evaluation/model_card.md")
    content = {
        "summaries": {
            name: {m: v for m, v in values.items() if np.isfinite(v)} for name, values in result.summaries.items()
        },
        "intervals": {metric: [found.low, found.high] for metric, found in estimates.items()},
        "coverage": result.coverage,
        "outcome": result.decision.outcome,
        "reasons": list(result.decision.reasons),
        "changes": list(result.decision.changes),
    }
    client.log_text(result.run_id, json.dumps(content, sort_keys=True, indent=1), "evaluation/evaluation.json")
    for name, table in result.report.tables.items():
        client.log_text(result.run_id, table.to_csv(index=False), f"evaluation/{name}.csv")
    for number, image in enumerate(result.plots.values()):
        client.log_image(result.run_id, Image.open(io.BytesIO(image)), f"evaluation/plot_{number}.png")
