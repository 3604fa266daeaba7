"""Evaluation for people: markdown tables, one self-contained HTML page, the model card, and the plots of `plots`.

Nothing is decided here: numbers come from `metrics` and `promotion`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from pipeline_assets.recommender.errors import NotEnoughData, SchemaError
from pipeline_assets.recommender.metrics import COMPARABLE, Estimate
from pipeline_assets.recommender.plots import (
    BAD,
    GOOD,
    GREY,
    INK,
    MUTED,
    calibration_plot,
    gain_plot,
    importance_plot,
    leaderboard_plot,
)  # fmt: skip
from pipeline_assets.recommender.promotion import Decision

__all__ = [
    "CardFacts", "calibration_plot", "evaluation_html", "gain_plot", "importance_plot", "leaderboard_plot",
    "metric_table", "model_card",
]  # fmt: skip
_COLOURS = {"promote": GOOD, "reject": BAD, "inconclusive": "#9a6700"}

_STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f5f7f9; color: {INK}; font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }}
main {{ max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
h1 {{ font-size: 1.8rem; line-height: 1.2; margin: 0 0 .25rem; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .75rem; }}
section {{ background: #fff; border: 1px solid #e1e6eb; border-radius: .6rem; padding: 1.25rem 1.5rem; }}
section {{ margin-top: 1.25rem; }}
.subtitle {{ color: {MUTED}; margin: 0; }}
.verdict {{ border-left: .35rem solid var(--verdict); }}
.verdict strong {{ color: var(--verdict); text-transform: uppercase; letter-spacing: .04em; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .4rem .7rem; border-bottom: 1px solid #e1e6eb; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
thead th {{ color: {MUTED}; font-weight: 600; border-bottom: 2px solid {GREY}; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0; }}
dt {{ color: {MUTED}; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
figure {{ margin: 0 0 1.5rem; }} figcaption {{ color: {MUTED}; font-size: .9rem; }}
img {{ max-width: 100%; height: auto; }}
"""


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


def _number(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4f}"
    return "–" if value is None else str(value)


def _cell(value: object) -> str:
    return _number(value).replace("|", "\\|").replace("\n", " ")


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


def _html_table(frame: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(column))}</th>' for column in frame.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_number(value))}</td>" for value in row) + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def evaluation_html(
    title: str,
    subtitle: str,
    decision: Decision,
    facts: Mapping[str, str],
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, bytes],
) -> str:
    """One HTML page without any outside resource or script; every text is escaped.

    Args:
        facts: name -> value (windows, customers, data digest, run id). tables: heading -> frame, whose index is not
            shown. figures: caption -> PNG bytes. Each is shown in the given order.
    """
    heading = {"promote": "Promoted", "reject": "Rejected", "inconclusive": "Inconclusive"}[decision.outcome]
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in decision.reasons)
    shown = dict(tables)
    if not decision.comparisons.empty:
        shown["Paired comparisons"] = decision.comparisons
    parts = [
        f'<section class="verdict" style="--verdict: {_COLOURS[decision.outcome]}">'
        f"<h2><strong>{heading}</strong></h2><ul>{reasons}</ul></section>"
    ]
    if facts:
        listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
        parts.append(f"<section><h2>What was evaluated</h2><dl>{listed}</dl></section>")
    parts += [f"<section><h2>{html.escape(name)}</h2>{_html_table(frame)}</section>" for name, frame in shown.items()]
    if figures:
        drawn = "".join(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for caption, png in figures.items()
        )
        parts.append(f"<section><h2>Figures</h2>{drawn}</section>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{html.escape(title)}</h1>"
        f'<p class="subtitle">{html.escape(subtitle)}</p>{"".join(parts)}</main></body></html>\n'
    )


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
