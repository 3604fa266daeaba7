"""What a person reads in the Dagster UI: markdown tables, and small PNG plots. No verdict is made here."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from pipeline_assets.monitoring.drift import DriftDecision, DriftPolicy, DriftResult
from pipeline_assets.monitoring.quality import QualityDecision
from pipeline_assets.monitoring.skew import ScoreSkew, SkewResult
from pipeline_assets.monitoring.slo import Budget
from pipeline_assets.recommender.columns import AS_OF
from pipeline_assets.recommender.plots import png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# 7 x 3 inches at 80 dots: about 20 KB, so that a plot fits in the metadata of every day's materialisation.
PLOT_INCHES = (7.0, 3.0)
PLOT_DPI = 80
CHANGED, CALM = "tab:red", "tab:blue"


def drift_table(result: DriftResult, decision: DriftDecision) -> str:
    """Markdown: verdict, reasons, and one row per column, largest PSI first."""
    columns = sorted(result.columns, key=lambda column: -column.effect_size)
    rows = [
        (
            column.column,
            column.kind,
            f"{column.effect_size:.3f}",
            f"{column.adjusted_p_value:.2g}",
            f"{column.design_effect:.1f}",
            "extreme" if column.is_extreme else "yes" if column.is_drifted else "no",
        )
        for column in columns
    ]
    head = _verdict(decision.verdict, decision.reasons)
    sizes = f"Rows: {result.current_rows:,} today, {result.reference_rows:,} reference."
    table = _table(("column", "kind", "PSI", "adjusted p", "design effect", "drifted"), rows)
    return "\n\n".join([head, sizes, table] if rows else [head, sizes])


def quality_table(history: pd.DataFrame, decision: QualityDecision, *, days: int = 14) -> str:
    """Markdown: verdict, reasons, and the last `days` rows of `realised_quality`, newest first; no figure is a dash."""
    rows = [
        (
            str(row[AS_OF]),
            str(row["maturity"]),
            _number(row["ndcg"]),
            _number(row["recall"]),
            _number(row["revenue"]),
            f"{int(row['customers']):,}",
            str(row["reason"]),
        )
        for row in history.sort_values(AS_OF, ascending=False).head(days).to_dict("records")
    ]
    k = int(history["k"].iloc[0]) if len(history) else 10
    names = ("as of", "labels", f"NDCG@{k}", f"recall@{k}", f"revenue@{k}", "customers", "why no figure")
    return _verdict(decision.verdict, decision.reasons) + "\n\n" + _table(names, rows)


def skew_table(result: SkewResult) -> str:
    """Markdown: the share of differing values, and the features that differ, worst first."""
    within = "within" if result.is_within_objective else "OVER"
    head = f"**{result.mismatch_share:.3%}** of values differ over {result.rows:,} rows: {within} the objective."
    differing = sorted((f for f in result.features if f.mismatches), key=lambda f: (-f.mismatches, f.name))
    rows = [
        (f.name, f"{f.mismatches:,}", f"{f.mismatch_share:.3%}", _number(f.max_absolute_difference)) for f in differing
    ]
    return head + "\n\n" + _table(("feature", "values", "share", "largest difference"), rows) if rows else head


def score_skew_table(skew: ScoreSkew) -> str:
    """Markdown: one row per measure of two sets of slates."""
    top = f"{skew.reference_top_item_share:.1%} before, {skew.current_top_item_share:.1%} now"
    rows = [
        ("score PSI", f"{skew.psi:.3f}"),
        ("overlap of the top lists", f"{skew.top_n_overlap:.1%} of {skew.shared_customers:,} customers"),
        ("slates with the most recommended product", top),
        ("distance of product shares (0 same, 1 disjoint)", f"{skew.item_share_distance:.3f}"),
    ]
    return _table(("measure", "value"), rows)


def drift_plot(result: DriftResult, policy: DriftPolicy) -> bytes:
    """PNG: PSI of every column as a bar, drifted ones red, with the policy's two limits."""
    figure, axes = _figure()
    columns = sorted(result.columns, key=lambda column: column.effect_size)
    colours = [CHANGED if column.is_drifted else CALM for column in columns]
    axes.barh([column.column for column in columns], [column.effect_size for column in columns], color=colours)
    axes.axvline(policy.psi_threshold, color="black", linestyle="--", label=f"drifted {policy.psi_threshold:g}")
    axes.axvline(policy.extreme_psi, color="black", linestyle=":", label=f"extreme {policy.extreme_psi:g}")
    axes.set_xlabel("population stability index")
    axes.legend(loc="lower right")
    return png_of(figure)


def quality_plot(history: pd.DataFrame, decision: QualityDecision) -> bytes:
    """PNG: NDCG of the complete days with 95 % error bars, unknown days as red crosses below, and the limit."""
    figure, axes = _figure()
    known = history[history["maturity"] == "complete"].sort_values(AS_OF)
    gaps = history[history["maturity"] == "unknown"]
    if len(known):
        errors = 1.96 * known["ndcg_standard_error"].astype(float).fillna(0.0)
        axes.errorbar(pd.to_datetime(known[AS_OF]), known["ndcg"].astype(float), yerr=errors, fmt="o-", color=CALM)
    if len(gaps):
        axes.plot(pd.to_datetime(gaps[AS_OF]), [0.0] * len(gaps), "x", color=CHANGED, label="unknown")
    if "baseline" in known and known["baseline"].notna().any():
        axes.plot(pd.to_datetime(known[AS_OF]), known["baseline"].astype(float), "s--", color="0.5", label="baseline")
    if math.isfinite(decision.limit):
        axes.axhline(decision.limit, color="black", linestyle="--", label=f"limit {decision.limit:.3f}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left")
    axes.set_ylabel(f"NDCG@{int(history['k'].iloc[0]) if len(history) else 10}")
    axes.set_ylim(bottom=0.0)
    figure.autofmt_xdate()
    return png_of(figure)


def budget_plot(budgets: Sequence[Budget]) -> bytes:
    """PNG: what is left of each known error budget; nothing left is red, and an overdraft is cut at -100 %."""
    figure, axes = _figure()
    known = [budget for budget in reversed(budgets) if not math.isnan(budget.remaining)]
    left = [max(budget.remaining, -1.0) for budget in known]
    colours = [CHANGED if budget.is_exhausted else CALM for budget in known]
    axes.barh([budget.objective.indicator for budget in known], [100 * value for value in left], color=colours)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlim(-105, 105)
    axes.set_xlabel("budget left, %")
    return png_of(figure)


def png_markdown(png: bytes, alternative_text: str) -> str:
    """A PNG as an inline markdown image; `alternative_text` is read where images are not shown."""
    text = alternative_text.replace("[", "(").replace("]", ")")
    return f"![{text}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"


def _verdict(verdict: str, reasons: Iterable[str]) -> str:
    return "\n".join([f"**{verdict}**", "", *(f"- {_cell(reason)}" for reason in reasons)])


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Data in a cell must not end it, start a line or be read as HTML."""
    plain = " ".join(str(text).split())
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _figure() -> tuple[Figure, Axes]:
    """A figure on the Agg canvas, without pyplot: no display, and no figure kept alive by global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=PLOT_INCHES, dpi=PLOT_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
