"""The evaluation report: what a person sees of one evaluation. Numbers come from `judging`, the verdict from `promotion`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline_assets.recommender.calibration import expected_error, later_weeks
from pipeline_assets.recommender.columns import CUSTOMER_ID, PRODUCT_ID, RANK
from pipeline_assets.recommender.judging import CHALLENGER, CHAMPION, DISCOVER, Facts, Judged
from pipeline_assets.recommender.metrics import Estimate, Interval, paired_bootstrap
from pipeline_assets.recommender.page import Section, html_page
from pipeline_assets.recommender.plots import (
    calibration_plot,
    exposure_plot,
    gain_plot,
    leaderboard_plot,
    position_plot,
    slice_plot,
)
from pipeline_assets.recommender.promotion import Decision, Evidence

FOUND = {  # what is bought
    "ndcg": "NDCG@10", "recall": "recall@10", "revenue": "revenue@10", "precision": "precision@10",
    "hit_rate": "hit rate@10", "map": "MAP@10",
}  # fmt: skip
SHOWN = {  # for whom it is new, and what is shown
    "repeat_recall": "repeat recall@10", "new_item_recall": "new-item recall@10",
    "coverage": "coverage@10", "novelty": "novelty", "departments": "departments", "tail_share": "tail share",
}  # fmt: skip
NAMES = {**FOUND, **SHOWN}
MODEL = "ranker"  # what the challenger is called for people
N_EXAMPLES, N_SHOWN = 3, 5  # customers and products of the example slates


@dataclass(frozen=True, eq=False)
class Report:
    """An evaluation as files: the page, and its plots by caption."""

    html: str
    plots: dict[str, bytes]
    tables: dict[str, pd.DataFrame]


def named(method: str) -> str:
    """The method's name for people."""
    return MODEL if method == CHALLENGER else method


def _with_bounds(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.4f}\n{estimate.low:.4f} to {estimate.high:.4f}"


def leaderboard_table(estimates: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """One row per method, the best NDCG first: `method` and `NAMES`, each value with its bounds on a second line."""
    order = sorted(estimates, key=lambda name: (-estimates[name]["ndcg"].value, name))
    return pd.DataFrame(
        [
            {"method": named(name), **{shown: _with_bounds(estimates[name].get(m)) for m, shown in NAMES.items()}}
            for name in order
        ]
    )


def _relative(row: Any) -> str:
    """Relative gain with its bounds on a second line; the plain difference where the baseline is 0 in some resample."""
    if np.isnan([row.relative, row.relative_low, row.relative_high]).any():
        return f"{row.difference:+.4f}\n{row.low:+.4f} to {row.high:+.4f}"
    return f"{row.relative:+.1%}\n{row.relative_low:+.1%} to {row.relative_high:+.1%}"


def slice_table(slices: pd.DataFrame) -> pd.DataFrame:
    """The slices for people: name, measure, customers, both values, gain and verdict."""
    return pd.DataFrame(
        {
            "slice": slices["slice"],
            "measure": slices["metric"].map(NAMES),
            "customers": [f"{n:,}" for n in slices["customers"]],
            MODEL: slices["challenger"].astype(float),
            "baseline": slices["baseline_value"].astype(float),
            "strongest baseline": slices["baseline"],
            "gain": [_relative(row) for row in slices.itertuples()],
            "below": slices["is_below"].astype(bool),
        }
    )


def example_slates(facts: Facts, slates: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """The first products of one light, one medium and one heavy customer, by name, with a mark at what was bought."""
    bought = set(zip(facts.targets[CUSTOMER_ID], facts.targets[PRODUCT_ID], strict=True))
    rows: dict[str, list[str]] = {}
    for activity in ("light", "medium", "heavy"):
        of = slices.index[slices["activity"] == activity].get_level_values(CUSTOMER_ID)
        if not len(of):
            continue
        customer = str(sorted(of)[len(of) // 2])
        top = slates[(slates[CUSTOMER_ID] == customer) & (slates[RANK] <= N_SHOWN)].sort_values(RANK)
        kinds = facts.products["type"].reindex(top[PRODUCT_ID])
        rows[f"{customer} ({activity})"] = [
            f"{kind if isinstance(kind, str) else 'unnamed'}{' ✓' if (customer, product) in bought else ''}\n{product}"
            for product, kind in kinds.items()
        ]
    if not rows:
        return pd.DataFrame(columns=["customer"])
    columns = [f"rank {n}" for n in range(1, max(map(len, rows.values())) + 1)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("customer").reset_index()


def _gain(interval: Interval, over: str) -> str:
    return f"{interval.relative:+.1%} over {over} ({interval.relative_low:+.1%} to {interval.relative_high:+.1%})"


def _tiles(
    judged: Judged, estimates: Mapping[str, Mapping[str, Estimate]], strongest: str, seed: int
) -> dict[str, tuple[str, str]]:
    own, tiles = estimates[CHALLENGER], {}
    for measure in ("ndcg", "recall", "revenue"):
        interval = paired_bootstrap(judged.challenger, judged.baselines[strongest], measure, seed=seed)
        tiles[NAMES[measure]] = (f"{own[measure].value:.4f}", _gain(interval, strongest))
    if "new_item_recall" in own:
        beside = estimates[strongest].get("new_item_recall")
        tiles[NAMES["new_item_recall"]] = (
            f"{own['new_item_recall'].value:.4f}", f"{strongest}: {beside.value:.4f}" if beside else "",
        )  # fmt: skip
    if DISCOVER in estimates:
        interval = paired_bootstrap(judged.per_customer[DISCOVER], judged.challenger, "ndcg", seed=seed)
        found = estimates[DISCOVER].get("new_item_recall")
        tiles["discover slate"] = (
            f"{found.value:.4f}" if found else "–",
            f"new-item recall; NDCG {interval.mean_difference:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})",
        )
    tiles[NAMES["coverage"]] = (
        f"{own['coverage'].value:.1%}",
        f"{strongest}: {estimates[strongest]['coverage'].value:.1%}",
    )
    if judged.change is not None:
        tiles["slots that change"] = (f"{judged.change:.0%}", "against the champion's slates, newest week")
    return tiles


def evaluation_page(
    title: str,
    subtitle: str,
    judged: Judged,
    decision: Decision,
    evidence: Evidence,
    estimates: Mapping[str, Mapping[str, Estimate]],
    facts: Mapping[str, str],
    card: str,
    examples: pd.DataFrame,
    seed: int,
    more: tuple[Section, ...] = (),
) -> Report:
    """The page of one evaluation, its plots and its tables.

    Args:
        estimates: `Judged.estimates`. facts: what was evaluated, name -> value. card: the model card in markdown.
        examples: `example_slates`. more: sections of what was measured beside the week.
    """
    strongest = max(judged.baselines, key=lambda name: estimates[name]["ndcg"].value)
    shown = {named(name): found["ndcg"] for name, found in estimates.items()}
    leaders = {
        "Mean over customer-weeks, with 95 % intervals from resampled customers": leaderboard_plot(shown, "ndcg", MODEL)
    }
    if not decision.comparisons.empty:
        leaders[
            "The same customers and weeks on both sides; green: the whole interval is above 0; an arrow: beyond the axis"
        ] = gain_plot(decision.comparisons)
    sliced: dict[str, bytes] = {}
    slices = evidence.slices if evidence.slices is not None else pd.DataFrame()
    if len(slices):
        sliced[
            "In brackets the measure and the number of customers; intervals are wide enough for all slices together"
        ] = slice_plot(slices)
    probabilities, labels = later_weeks(judged.scores, judged.labels, judged.starts)
    chosen = [CHALLENGER, *([CHAMPION] if judged.champion is not None else []), strongest]
    scores = {
        "Scores as probabilities, fitted on the first week and drawn on the later ones": calibration_plot(
            probabilities, labels
        ),
        "A good slate falls from left to right": position_plot(
            {named(name): judged.hit_rate[name] for name in chosen}, MODEL
        ),
    }
    by = {
        "popularity": "Slots by popularity: fifths of the products that were bought in 91 days",
        "brand": "Slots by brand",
        "department": "Slots by department",
    }
    shares = {**judged.exposure, "popularity": judged.exposure["popularity"].sort_index()}
    exposed = {caption: exposure_plot(shares[name], f"By {name}") for name, caption in by.items()}
    leaderboard = leaderboard_table(estimates)
    sections = [
        Section("What was evaluated", facts=facts),
        Section(
            "All methods, the same customers",
            "Mean over customer-weeks with its 95 % interval below; revenue is pooled. Coverage, novelty (bits), departments and tail "
            "describe what is shown, not whether it is bought.",
            tables={
                "What is bought": leaderboard[["method", *FOUND.values()]],
                "Repeats and new products, and what is shown": leaderboard[["method", *SHOWN.values()]],
            },
            figures=leaders,
            marked=frozenset({MODEL}),
        ),
        Section(
            "Slices against their strongest baseline",
            "Customers by orders in the last 91 days and by first order; products by department and brand, where recall is of "
            "the targets of that group. A slice whose whole interval is below 0 stops a promotion.",
            figures=sliced,
            folded={"All numbers": slice_table(slices)} if len(slices) else {},
        ),
        Section(
            "Scores and positions",
            f"Predicted and observed rates differ by {expected_error(probabilities, labels):.1%} of the observed rate on "
            "average over ten bins. Hits should fall from rank to rank.",
            figures=scores,
        ),
        Section(
            "Who gets the slots",
            "Share of the recommended slots beside the share of what was bought.",
            figures=exposed,
            folded={f"By {name}": shares[name].reset_index().rename(columns={"group": name}) for name in by},
        ),
        *more,
        Section("Slates of three customers", "✓: bought in the week after.", tables={"": examples}),
        Section("Model card", markdown=card),
    ]
    page = html_page(title, subtitle, decision, _tiles(judged, estimates, strongest, seed), sections)
    return Report(page, {**leaders, **sliced, **scores, **exposed}, {"leaderboard": leaderboard, "slices": slices})
