"""The four reports as pages that a person reads: drift, skew, quality, service levels. No verdict is made here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date

import pandas as pd

from pipeline_assets.monitoring.causes import CausePolicy, Signs, cause_of
from pipeline_assets.monitoring.drift import DriftDecision, DriftPolicy, DriftResult
from pipeline_assets.monitoring.quality import QualityDecision
from pipeline_assets.monitoring.slo import Budget, Counts
from pipeline_assets.monitoring.summary import budget_plot, drift_plot, quality_plot
from pipeline_assets.recommender.columns import AS_OF
from pipeline_assets.recommender.page import Banner, Section, html_page
from pipeline_assets.recommender.plots import BAD, GOOD, MUTED

_AMBER = "#9a6700"
_COLOURS = {"ok": GOOD, "watch": _AMBER, "unknown": MUTED}
_SERVED_NOTE = (
    "The newest answer of each customer on the day. Only customers who asked are in it, so it makes no verdict."
)
_CAUSES = {
    "none": "–",
    "shop": "the shop or the season: no sign of a broken source",
    "upstream": "the source: see the signs",
}


def banner(verdict: str, reasons: Sequence[str]) -> Banner:
    """Green, amber, grey for unknown, red for everything else."""
    return Banner(verdict.capitalize(), _COLOURS.get(verdict, BAD), reasons)


def share(value: float, digits: int = 1) -> str:
    """A share as per cent, or a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}%}"


def drift_page(
    day: date,
    result: DriftResult,
    decision: DriftDecision,
    policy: DriftPolicy,
    signs: Signs,
    causes: CausePolicy,
    history: Sequence[tuple[date, str]],
    evidently: str,
) -> str:
    """Inputs: what differs from the same weekdays before, by how much, and whether the shop or the source did it.

    Args:
        history: verdicts of the days before, oldest first.
        evidently: relative address of Evidently's page; empty where there is none.
    """
    columns = sorted(result.columns, key=lambda column: -column.effect_size)
    table = pd.DataFrame(
        [
            {
                "column": column.column,
                "kind": column.kind,
                "PSI": f"{column.effect_size:.3f}",
                "adjusted p": f"{column.adjusted_p_value:.2g}",
                "design effect": f"{column.design_effect:.1f}",
                "drifted": "extreme" if column.is_extreme else column.is_drifted,
                "important": column.column in policy.important_columns,
            }
            for column in columns
        ]
    )
    largest = f"{columns[0].effect_size:.3f}" if columns else "–"
    tiles = {
        "columns that drifted": (f"{len(result.drifted_columns)} of {len(columns)}", "2 important ones are a change"),
        "largest PSI": (largest, f"drifted from {policy.psi_threshold:g}, extreme from {policy.extreme_psi:g}"),
        "lines of the day": (f"{result.current_rows:,}", f"{result.reference_rows:,} to compare with"),
        "points at": (
            cause_of(decision.verdict, signs).replace("none", "nobody"),
            _CAUSES[cause_of(decision.verdict, signs)],
        ),
    }
    measured = pd.DataFrame(
        [
            (
                "lines with another list price than usual",
                share(signs.repriced_share),
                f"≤ {causes.max_repriced_share:.0%}",
            ),
            ("shift of the time of day", f"{signs.hour_shift:+.1f} h", f"± {causes.max_hour_shift:g} h"),
            (
                "lines with a discount, of their usual share",
                share(signs.discount_part, 0),
                f"≥ {causes.min_discount_part:.0%}",
            ),
            ("lines of products without a department", share(signs.unknown_share), f"≤ {causes.unknown_share:.0%}"),
        ],
        columns=["what a season does not do", "this day", "usual"],
    )
    sections = [
        Section(
            "What changed",
            "A column drifted when its change is both big (PSI) and more than chance, with lines of one order not counted as independent.",
            tables={"": table} if columns else {},
            marked=frozenset(result.drifted_columns),
            figures={"effect size per column": drift_plot(result, policy)} if columns else {},
        ),
        Section(
            "Season, or broken source?",
            "A season changes what is bought. A fault changes what the same product looks like. No training is asked for on a day with a sign.",
            tables={"": measured},
            facts={"signs": "; ".join(signs.found) or "none"},
        ),
        _past(history),
    ]
    if evidently:
        sections.append(Section("Column by column", links={"Evidently's page of the same two samples": evidently}))
    title = f"Input drift of {day}"
    return html_page(
        title,
        "Purchase lines against the same weekdays of the weeks before",
        banner(decision.verdict, decision.reasons),
        tiles,
        sections,
    )


def quality_page(
    day: date, history: pd.DataFrame, decision: QualityDecision, served: pd.DataFrame, yardstick: str
) -> str:
    """What became of the recommendations, once their week is over.

    Args:
        history: rows of `realised_quality` of the batch, with a column `baseline` (NaN where it is not known).
        served: rows of `realised_quality` of what the API answered; may be empty.
        yardstick: the name of the simple method that is judged on the same days.
    """
    complete = history[history["maturity"] == "complete"]
    open_windows = int((history["maturity"] == "partial").sum())
    tiles = {
        "NDCG@10, judged days": (_figure(decision.value), f"limit {_figure(decision.limit)}"),
        "days with complete labels": (f"{len(complete)} of {len(history)}", f"{open_windows} windows are still open"),
        "revenue@10": (share(complete["revenue"].mean()), "of what was spent, on recommended products"),
        "recall@10": (share(complete["recall"].mean()), "of what was bought"),
    }
    sections = [
        Section(
            "Day by day",
            "Labels of a day are complete when its whole week has been validated. Open is not over; unknown has a missing day, and never "
            f"counts as good. The baseline of a day is {yardstick} on the same customers and days, scaled to the champion's level at promotion. That was "
            "measured on lists as of the evening before a week, when its promotions are known: they are judged strictly, those of other evenings loosely.",
            tables={"": _quality_rows(history)} if len(history) else {},
            figures={"NDCG@10 of the complete days with 95 % intervals": quality_plot(history, decision)}
            if len(history)
            else {},
        ),
        Section(
            "What the API served",
            _SERVED_NOTE if len(served) else "No answer was logged on these days.",
            tables={"": _quality_rows(served)} if len(served) else {},
        ),
    ]
    title = f"Realised quality on {day}"
    return html_page(
        title,
        "Recommendations against what was bought in the week after",
        banner(decision.verdict, decision.reasons),
        tiles,
        sections,
    )


def _quality_rows(history: pd.DataFrame) -> pd.DataFrame:
    rows = history.sort_values(AS_OF, ascending=False)
    has_baseline = "baseline" in rows
    return pd.DataFrame(
        {
            "as of": rows[AS_OF].astype(str),
            "labels": rows["maturity"],
            "NDCG@10": rows["ndcg"].map(_figure),
            **({"baseline": rows["baseline"].map(_figure)} if has_baseline else {}),
            "recall@10": rows["recall"].map(share),
            "revenue@10": rows["revenue"].map(share),
            "customers": rows["customers"].map("{:,}".format),
            "why no figure": rows["reason"],
        }
    )


def slo_page(
    day: date,
    verdict: str,
    reasons: Sequence[str],
    budgets: Sequence[Budget],
    counts: Mapping[str, Mapping[date, Counts | None]],
    frozen_by: Sequence[str],
) -> str:
    """Objectives, what is left of their budgets, and the days that used them.

    Args:
        counts: indicator -> day -> counts, of the longest window.
    """
    rows, worst = [], []
    for found in budgets:
        o = found.objective
        good = 1 - found.bad / found.total if found.total else math.nan
        rows.append(
            {
                "objective": o.indicator,
                "promised": share(o.objective, 2),
                "kept": share(good, 2),
                "budget left": share(found.remaining, 0),
                "bad": f"{found.bad:,.0f} of {found.total:,.0f} {o.unit}" if found.days else "–",
                "window": f"{o.window_days} days, {found.days} measured",
                "freezes promotion": o.freezes_promotion,
            }
        )
        days = {d: c for d, c in counts.get(o.indicator, {}).items() if c is not None and c.bad > 0}
        worst += [(o.indicator, str(d), f"{c.bad:,.0f} of {c.total:,.0f}") for d, c in days.items()]
    known = [found for found in budgets if not math.isnan(found.remaining)]
    lowest = min(known, key=lambda found: found.remaining, default=None)
    tiles = {
        "objectives kept": (
            f"{sum(not b.is_exhausted for b in known)} of {len(known)}",
            f"{len(budgets) - len(known)} not known",
        ),
        "least budget left": (share(lowest.remaining, 0), lowest.objective.indicator)
        if lowest
        else ("–", "nothing measured"),
        "promotion": ("frozen" if frozen_by else "open", ", ".join(frozen_by) or "no freezing budget is used up"),
    }
    listed = pd.DataFrame(sorted(worst, key=lambda row: row[1], reverse=True)[:30], columns=["objective", "day", "bad"])
    sections = [
        Section(
            "Error budgets",
            "A budget is what an objective allows to go wrong. At 0 % it is used up, and below it is overspent.",
            tables={"": pd.DataFrame(rows)},
            marked=frozenset(b.objective.indicator for b in budgets if b.is_exhausted),
            figures={"what is left of each budget": budget_plot(budgets)} if known else {},
        ),
        Section(
            "Days that used them",
            "" if worst else "No bad event was measured.",
            tables={"": listed} if worst else {},
        ),
    ]
    return html_page(
        f"Service levels on {day}",
        "Objectives of slo.toml and their error budgets",
        banner(verdict, reasons),
        tiles,
        sections,
    )


def _past(history: Sequence[tuple[date, str]]) -> Section:
    rows = [(str(day), verdict) for day, verdict in reversed(history)][:14]
    table = pd.DataFrame(rows, columns=["day", "verdict"])
    return Section("The days before", "" if rows else "No report before this one.", tables={"": table} if rows else {})


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
