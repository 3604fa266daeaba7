"""Evaluation as text: markdown tables and the model card. Nothing is decided here: numbers come from `metrics` and `promotion`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline_assets.recommender.errors import NotEnoughData, SchemaError
from pipeline_assets.recommender.metrics import COMPARABLE, Estimate
from pipeline_assets.recommender.page import number
from pipeline_assets.recommender.promotion import Decision


@dataclass(frozen=True)
class CardFacts:
    """What a model card says beside its numbers. Every field is shown, and an empty one is an error."""

    name: str
    version: str
    as_of: str  # last business day that the model was trained on, YYYY-MM-DD
    intended_use: str
    out_of_scope: str
    data: str  # where from, how many customers, products, purchases; licence
    training_windows: tuple[str, ...]  # such as "2017-07-24 to 2017-10-15 (12 weeks)"
    evaluation_windows: tuple[str, ...]
    limits: tuple[str, ...]
    known_failure_modes: tuple[str, ...]


def _cell(value: object) -> str:
    return number(value).replace("|", "\\|").replace("\n", " ")


def metric_table(summaries: Mapping[str, Mapping[str, float]], metrics: Sequence[str] = COMPARABLE) -> str:
    """Markdown table, one row per method in the given order, the best value of each column in bold.

    Args:
        summaries: method -> metric -> value, such as results of `metrics.summarise`; higher is better. NaN shows as –.

    Raises:
        NotEnoughData: there is no method.
        SchemaError: a method lacks a metric.
    """
    if not summaries:
        raise NotEnoughData("summaries", found="no method", wanted="one or more", fix="evaluate a method first")
    for name, values in summaries.items():
        if missing := [metric for metric in metrics if metric not in values]:
            raise SchemaError(name, found=f"no {', '.join(missing)}", wanted="every metric", fix="use summarise")
    best = {metric: np.nanmax([*(v[metric] for v in summaries.values()), -np.inf]) for metric in metrics}
    lines = ["| method | " + " | ".join(_cell(m) for m in metrics) + " |", "|---|" + "---:|" * len(metrics)]
    for name, values in summaries.items():
        cells = [f"**{_cell(values[m])}**" if values[m] == best[m] else _cell(values[m]) for m in metrics]
        lines.append(f"| {_cell(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def model_card(
    facts: CardFacts,
    estimates: Mapping[str, Estimate],
    baselines: Mapping[str, Mapping[str, float]],
    decision: Decision,
) -> str:
    """Model card in markdown: use, data, windows, metrics with intervals, baselines, decision, limits, failure modes.

    Args:
        estimates: metric -> value and bounds of this model, on the evaluation windows. baselines: method -> metric ->
            value on the same windows, with at least the metrics of `estimates`; a method may not have the model's name.

    Raises:
        SchemaError: a fact is empty, or a baseline lacks a metric.
        NotEnoughData: there is no metric or no baseline.
    """
    for field in fields(facts):
        if not getattr(facts, field.name):
            raise SchemaError(f"model card, {field.name}", found="nothing", wanted="a statement", fix="fill it in")
    if not estimates:
        raise NotEnoughData("model card, metrics", found="none", wanted="one or more", fix="evaluate the model first")
    if not baselines or facts.name in baselines:
        wanted = f"one or more, none called {facts.name}"
        raise NotEnoughData("model card, baselines", found=sorted(baselines), wanted=wanted, fix="pass the baselines")
    rows = [f"| {_cell(m)} | {e.value:.4f} | {e.low:.4f} to {e.high:.4f} |" for m, e in estimates.items()]
    measured = "\n".join(["| metric | value | interval |", "|---|---:|---:|", *rows])
    this = {facts.name: {metric: estimate.value for metric, estimate in estimates.items()}}
    sections = {
        "Intended use": facts.intended_use,
        "Out of scope": facts.out_of_scope,
        "Data": facts.data,
        "Training windows": _bullets(facts.training_windows),
        "Evaluation windows": _bullets(facts.evaluation_windows),
        "Metrics": f"Bootstrap over customers, on the evaluation windows.\n\n{measured}",
        "Baselines on the same windows": metric_table({**this, **baselines}, tuple(estimates)).rstrip(),
        f"Promotion gate: {decision.outcome}": _bullets(decision.reasons),
        "Limits": _bullets(facts.limits),
        "Known failure modes": _bullets(facts.known_failure_modes),
    }
    head = f"# {facts.name} {facts.version}\n\nTrained as of {facts.as_of}.\n"
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
