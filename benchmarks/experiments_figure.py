"""The curve of what was tried: quality by label weeks, and every trial against the reference, with intervals. PNG bytes, the same for the same figures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from benchmarks.declared import REFERENCE
from pipeline_assets.recommender.plots import ACCENT, GOOD, INK, MUTED

GOAL = 0.10  # NDCG@10 over TIFU-KNN, docs/design/evaluation.md
COLOURS = (ACCENT, GOOD)
# equal but for their label weeks
OF_WEEKS = (REFERENCE, "4 weeks", "16 weeks", "24 weeks", "all weeks", "the day's model")


def figure(known: Mapping[str, Any]) -> bytes:
    """Both panels, a colour a fold.

    Args:
        known: as-of day -> what `experiments.run` found.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ordered(known)
    drawn = Figure(figsize=(11, 1.6 + 0.27 * len(names)), layout="constrained", facecolor="white")
    FigureCanvasAgg(drawn)
    by_weeks, by_trial = drawn.subplots(1, 2, width_ratios=(2, 3))
    for number, (day, colour) in enumerate(zip(sorted(known, reverse=True), COLOURS, strict=False)):
        trials = known[day]["trials"]
        points = sorted((trials[name]["weeks"], name) for name in OF_WEEKS if name in trials)
        found = [trials[name]["against_tifu"]["ndcg"] for _, name in points]
        _points(by_weeks, [weeks + number * 0.3 for weeks, _ in points], found, colour, f"as of {day}", upright=True)
        rows = [(row, trials[name]["against_reference"]["ndcg"]) for row, name in enumerate(names) if name in trials]
        _points(
            by_trial, [row + number * 0.25 for row, _ in rows], [each for _, each in rows], colour, None, upright=False
        )
    by_weeks.axhline(GOAL, color=MUTED, linewidth=1, linestyle="--")
    by_weeks.set(xlabel="label weeks", ylabel="NDCG@10 over TIFU-KNN")
    by_weeks.yaxis.set_major_formatter(lambda value, _: f"{value:+.1%}")
    by_weeks.legend(frameon=False, fontsize=9, loc="lower right")
    by_weeks.set_title("More weeks", loc="left", fontsize=11, fontweight="bold", color=INK)
    by_trial.axvline(0, color=MUTED, linewidth=1)
    by_trial.set_yticks(range(len(names)), names, color=INK, fontsize=9)
    by_trial.invert_yaxis()
    by_trial.xaxis.set_major_formatter(lambda value, _: f"{value:+.1%}")
    by_trial.set_title(
        "NDCG@10 against the reference of 8 weeks", loc="left", fontsize=11, fontweight="bold", color=INK
    )
    for axes in (by_weeks, by_trial):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8ecf0")
        axes.set_axisbelow(True)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def ordered(known: Mapping[str, Any]) -> list[str]:
    """The trials of all folds but the reference, best first on the newest fold that has them."""
    gains: dict[str, float] = {}
    for day in sorted(known):
        gains |= {name: trial["against_reference"]["ndcg"]["relative"] for name, trial in known[day]["trials"].items()}
    return sorted((name for name in gains if name != REFERENCE), key=lambda name: -gains[name])


def _points(
    axes: Any, at: list[float], found: list[Mapping[str, float]], colour: str, label: str | None, *, upright: bool
) -> None:
    values = [each["relative"] for each in found]
    spread = [
        [each["relative"] - each["relative_low"] for each in found],
        [each["relative_high"] - each["relative"] for each in found],
    ]
    look = {"color": colour, "marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.2, "label": label}
    if upright:
        axes.errorbar(at, values, yerr=spread, **look)
    else:
        axes.errorbar(values, at, xerr=spread, linestyle="none", **look)
