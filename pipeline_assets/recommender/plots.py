"""Plots of an evaluation as PNG bytes.

They draw on the Agg canvas directly, without pyplot's global state, and carry no timestamp: the same numbers give the
same bytes. matplotlib is imported when the first plot is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender.errors import NotEnoughData, SchemaError
from pipeline_assets.recommender.metrics import Estimate

INK, MUTED, ACCENT, GREY, GOOD, BAD = "#1f2933", "#6b7785", "#2563a8", "#b6c0cb", "#1b7f4d", "#b3261e"
GAIN_LIMIT = 0.3  # popularity is beaten by +150 %, which would squeeze the comparisons that matter (1 to 10 %)


def _axes(title: str, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.set_axisbelow(True)
    return figure, axes


def png_of(figure: Any) -> bytes:
    """The figure as PNG, without a version in it: the same input gives the same bytes. `savefig` would draw a figure with a layout twice."""
    buffer = io.BytesIO()
    figure.canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    """Horizontal rows from top to bottom, with a light grid along the values."""
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names], color=INK)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e8ecf0")
    axes.tick_params(axis="y", length=0)


def leaderboard_plot(estimates: Mapping[str, Estimate], metric: str, highlight: str | None = None) -> bytes:
    """Bars with intervals, the best method on top; `highlight` (the challenger) is coloured. PNG bytes.

    Raises:
        NotEnoughData: there is no method.
    """
    if not estimates:
        raise NotEnoughData("estimates", found="no method", wanted="one or more", fix="evaluate a method first")
    ordered = sorted(estimates.items(), key=lambda item: (-item[1].value, item[0]))
    figure, axes = _axes(f"{metric.upper() if metric == 'ndcg' else metric}@10", 1.2 + 0.42 * len(ordered))
    values = np.array([e.value for _, e in ordered])
    spread = np.array([[max(e.value - e.low, 0), max(e.high - e.value, 0)] for _, e in ordered]).T
    colours = [ACCENT if name == highlight else GREY for name, _ in ordered]
    axes.barh(range(len(ordered)), values, xerr=spread, color=colours, height=0.62, ecolor=INK, capsize=2.5)
    for row, (_, estimate) in enumerate(ordered):
        label = f" {estimate.value:.4f}"
        axes.text(max(estimate.high, estimate.value), row, label, va="center", fontsize=9, color=INK)
    axes.margins(x=0.12)
    _name_rows(axes, [name for name, _ in ordered])
    return png_of(figure)


def importance_plot(importance: Mapping[str, float], top: int = 25) -> bytes:
    """Bars of the `top` most important features as a share of the total (gain, so >= 0). PNG bytes.

    Raises:
        NotEnoughData: no feature has any importance.
    """
    total = sum(importance.values())
    if total <= 0:
        raise NotEnoughData("importance", found=f"total {total}", wanted="above 0", fix="train at least one split")
    ordered = sorted(importance.items(), key=lambda item: (-item[1], item[0]))[:top]
    title = f"Share of split gain, {len(ordered)} of {len(importance)} features"
    figure, axes = _axes(title, 1.2 + 0.27 * len(ordered))
    axes.barh(range(len(ordered)), [value / total for _, value in ordered], color=ACCENT, height=0.65)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _name_rows(axes, [name for name, _ in ordered])
    return png_of(figure)


def calibration_plot(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> bytes:
    """Predicted against observed purchase rate in bins of equal size, log-log because purchases are rare. PNG bytes.

    Args:
        probabilities: (n,) predicted, in [0, 1]; labels: (n,) 0 or 1. Bins without any purchase cannot be drawn in log
            scale; they are named in the plot.

    Raises:
        SchemaError: the lengths differ or a probability is outside [0, 1].
        NotEnoughData: fewer rows than bins, or no purchase.
    """
    if len(probabilities) != len(labels):
        raise SchemaError("labels", found=len(labels), wanted=len(probabilities), fix="pass one label per probability")
    if len(labels) < bins or not labels.any():
        raise NotEnoughData("labels", found=f"{len(labels)} rows, {int(labels.sum())} bought",
                            wanted=f"{bins} rows and one purchase or more", fix="evaluate more weeks")  # fmt: skip
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise SchemaError("probabilities", found="values outside", wanted="[0, 1]", fix="apply the sigmoid to scores")
    parts = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    predicted = np.array([probabilities[part].mean() for part in parts])
    observed = np.array([labels[part].mean() for part in parts])
    drawn = (predicted > 0) & (observed > 0)
    figure, axes = _axes("Calibration: predicted and observed purchase rate", 5)
    ends = [min(predicted[drawn].min(), observed[drawn].min()) / 1.5, max(predicted.max(), observed.max()) * 1.5]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(predicted[drawn], observed[drawn], color=ACCENT, marker="o", label=f"{bins} equal bins")
    axes.set(xscale="log", yscale="log", xlabel="predicted", ylabel="observed")
    if not drawn.all():
        axes.text(0.98, 0.03, f"{int((~drawn).sum())} bins without a purchase not drawn",
                  transform=axes.transAxes, ha="right", fontsize=9, color=MUTED)  # fmt: skip
    axes.grid(color="#e8ecf0")
    axes.legend(frameon=False, fontsize=9)
    return png_of(figure)


def gain_plot(comparisons: pd.DataFrame, metric: str = "ndcg") -> bytes:
    """Relative gain of the challenger over each reference, with intervals; green: above 0, red: below. PNG bytes.

    A gain beyond `GAIN_LIMIT` is an arrow at the edge, labelled with its value.

    Args:
        comparisons: `Decision.comparisons`.

    Raises:
        NotEnoughData: there is no comparison in `metric`.
    """
    rows = comparisons[comparisons["metric"] == metric]
    names = [str(name) for name in rows["reference"]]
    return _gains(rows, names, f"Paired gain in {metric} over each reference")


def slice_plot(slices: pd.DataFrame) -> bytes:
    """Relative gain over the strongest baseline of each slice, as `gain_plot`. PNG bytes.

    Args:
        slices: `slices.compare_slices`.

    Raises:
        NotEnoughData: there is no slice.
    """
    names = [f"{row.slice}  ({row.metric}, {row.customers:,})" for row in slices.itertuples()]
    return _gains(slices, names, "Gain over the strongest baseline of each slice")


def _gains(rows: pd.DataFrame, names: Sequence[str], title: str) -> bytes:
    if rows.empty:
        raise NotEnoughData("comparisons", found="none", wanted="one or more", fix="judge more customers")
    figure, axes = _axes(title, 1.3 + 0.42 * len(rows))
    axes.axvline(0, color=MUTED, linewidth=1)
    for at, row in enumerate(rows.itertuples()):
        if np.isnan([row.relative, row.relative_low, row.relative_high]).any():
            axes.text(0, at, " no ratio: hits are too few", va="center", fontsize=9, color=MUTED)
            continue
        colour = GOOD if row.low > 0 else BAD if row.high < 0 else MUTED
        low, value, high = np.clip([row.relative_low, row.relative, row.relative_high], -GAIN_LIMIT, GAIN_LIMIT)
        marker = "o" if value == row.relative else ">" if row.relative > 0 else "<"
        axes.plot([low, high], [at, at], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(value, at, marker=marker, color=colour, markersize=6)
        axes.text(value, at - 0.2, f"{row.relative:+.1%}", ha="center", va="bottom", fontsize=9, color=colour)
    axes.margins(x=0.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    _name_rows(axes, names)
    axes.set_ylim(len(rows) - 0.5, -0.7)
    return png_of(figure)


def position_plot(hit_rate: Mapping[str, np.ndarray], highlight: str | None = None) -> bytes:
    """Share of customers who bought the product at each rank: it should fall from left to right. PNG bytes.

    Args:
        hit_rate: method -> (k,) share of customers with a hit at rank 1..k.

    Raises:
        NotEnoughData: there is no method.
    """
    if not hit_rate:
        raise NotEnoughData("hit rates", found="no method", wanted="one or more", fix="evaluate a method first")
    figure, axes = _axes("Bought, by position in the slate", 4)
    for (name, values), style in zip(hit_rate.items(), ["-", "--", ":", "-."] * len(hit_rate), strict=False):
        colour = ACCENT if name == highlight else MUTED
        axes.plot(np.arange(1, len(values) + 1), values, style, color=colour, marker="o", markersize=4, label=name)
    axes.set(xlabel="rank", ylabel="share of customers who bought it")
    axes.set_xticks(np.arange(1, len(next(iter(hit_rate.values()))) + 1))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(bottom=0)
    axes.grid(color="#e8ecf0")
    axes.legend(frameon=False, fontsize=9)
    return png_of(figure)


def exposure_plot(exposure: pd.DataFrame, title: str) -> bytes:
    """Share of the slots beside the share of purchases of each group. PNG bytes.

    Args:
        exposure: `exposure.exposure`: slots and purchases, index group.

    Raises:
        NotEnoughData: there is no group.
    """
    if exposure.empty:
        raise NotEnoughData("exposure", found="no group", wanted="one or more", fix="evaluate a week with purchases")
    figure, axes = _axes(title, 1.2 + 0.4 * len(exposure))
    at = np.arange(len(exposure))
    axes.barh(at - 0.19, exposure["slots"], color=ACCENT, height=0.36, label="slots")
    axes.barh(at + 0.19, exposure["purchases"], color=GREY, height=0.36, label="purchases")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _name_rows(axes, [str(name) for name in exposure.index])
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return png_of(figure)


def age_plot(ages: pd.DataFrame, unit: str = "weeks") -> bytes:
    """Relative loss against a fresh model by age, with intervals. PNG bytes.

    Args:
        ages: index age; relative, relative_low, relative_high.

    Raises:
        NotEnoughData: there is no age.
    """
    if ages.empty:
        raise NotEnoughData("ages", found="none", wanted="one or more", fix="measure an older model first")
    figure, axes = _axes("Quality against the age of the model", 4)
    spread = [ages["relative"] - ages["relative_low"], ages["relative_high"] - ages["relative"]]
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.errorbar(ages.index, ages["relative"], yerr=spread, color=ACCENT, marker="o", capsize=3)
    axes.set(xlabel=f"{unit} older than the fresh model", ylabel="NDCG@10 against the fresh one")
    axes.set_xticks(list(ages.index))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.1%}")
    axes.grid(color="#e8ecf0")
    return png_of(figure)


def lines_plot(
    lines: Mapping[str, pd.Series], marks: Sequence[tuple[str, object, str]], title: str, label: str
) -> bytes:
    """One line for each name over days, with marks on them. PNG bytes.

    Args:
        lines: name -> values by day (index of dates, ascending).
        marks: (name of the line, day, symbol); a mark whose day the line does not have is left out.
        title, label: of the plot and its vertical axis.

    Raises:
        NotEnoughData: there is no line with a value.
    """
    if not any(len(line.dropna()) for line in lines.values()):
        raise NotEnoughData("lines", found="no value", wanted="one or more", fix="choose a longer period")
    figure, axes = _axes(title, 4)
    # each thinner than the one below it, so that equal lines are all seen
    styles = ((ACCENT, 4.0), (GOOD, 2.6), ("#9a6700", 1.2), (BAD, 0.8))
    for (name, line), (colour, width) in zip(lines.items(), styles, strict=False):
        axes.plot(line.index, line.to_numpy(), color=colour, linewidth=width, label=name)
        for symbol in sorted({symbol for of, _, symbol in marks if of == name}):
            days = [day for of, day, mark in marks if of == name and mark == symbol and day in line.index]
            axes.plot(days, [line[day] for day in days], symbol, color=colour, markersize=6, linestyle="none")
    axes.set_ylabel(label, color=MUTED)
    axes.grid(color="#e8ecf0")
    axes.legend(frameon=False, fontsize=9, loc="best")
    figure.autofmt_xdate(rotation=30)
    return png_of(figure)
