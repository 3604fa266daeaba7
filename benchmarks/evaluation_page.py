"""results/evaluation.md: what `python -m benchmarks.evaluation` measured, for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from benchmarks.scale import RESULTS

FIGURE = "evaluation-staleness.png"
MEASURES = (
    "ndcg",
    "recall",
    "revenue",
    "hit_rate",
    "repeat_recall",
    "new_item_recall",
    "coverage",
    "novelty",
    "departments",
    "tail_share",
)


def write_page() -> None:
    """Write the page and its figure from results/evaluation.json."""
    from benchmarks.evaluation_holdout import section as holdout_section
    from benchmarks.evaluation_pairs_page import discover_section, gate_section, tuning_section

    known: dict[str, Any] = json.loads((RESULTS / "evaluation.json").read_text())
    parts = [
        "# Quality of the model",
        "Written by `python -m benchmarks.evaluation page` from `evaluation.json`. Intervals are 95 %, from resampled customers, paired "
        "where two methods are compared; a customer is drawn with all her weeks. All sections but *The holdout* are of development "
        "weeks, and read no other.",
    ]
    sections = {
        "leaderboard": _leaderboard, "holdout": holdout_section, "discover": discover_section, "gate": gate_section, "tuning": tuning_section,
        "staleness": _staleness, "ablation": _ablation,
    }  # fmt: skip
    parts += [section(known[name]) for name, section in sections.items() if name in known]
    (RESULTS / "evaluation.md").write_text("\n\n".join(parts) + "\n")


def origin(entry: Mapping[str, Any]) -> str:
    weeks = ", ".join(entry["weeks"])
    return (
        f"As of {entry['as_of']}; weeks as of {weeks}: {entry['customer_weeks']:,} customer-weeks. Commit `{entry['commit']}`, "
        f"{entry['cpu_s']} CPU s, {entry['peak_mb'] / 1024:.1f} GB, load {entry['machine']['load'][0]} on {entry['machine']['cores']} cores."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bounds(value: list[float]) -> str:
    return f"{value[0]:.4f} ({value[1]:.4f} to {value[2]:.4f})"


def gain(found: Mapping[str, float]) -> str:
    """A relative difference with its bounds, which it has not where the base may be zero in a draw."""
    if math.isnan(found["relative_low"]):
        return f"{found['relative']:+.1%} (no bounds)"
    return f"{found['relative']:+.1%} ({found['relative_low']:+.1%} to {found['relative_high']:+.1%})"


def _leaderboard(entry: Mapping[str, Any]) -> str:
    return "\n\n".join(["## Leaderboard", origin(entry), *boards(entry)])


def boards(entry: Mapping[str, Any]) -> list[str]:
    """Two tables: all measures of all methods, the best NDCG@10 first, and the model's gain over each."""
    order = sorted(entry["methods"], key=lambda name: -entry["methods"][name]["ndcg"][0])
    rows = [
        [
            "**ranker**" if name == "challenger" else name,
            *(_bounds(entry["methods"][name][m]) if m in entry["methods"][name] else "–" for m in MEASURES),
        ]
        for name in order
    ]
    gains = [
        [name, *(gain(entry["gains"][name][metric]) for metric in ("ndcg", "recall", "revenue"))]
        for name in order
        if name in entry["gains"]
    ]
    return [
        table(["method", *MEASURES], rows),
        "Gain of the ranker over each:",
        table(["over", "NDCG@10", "recall@10", "revenue@10"], gains),
    ]


def _staleness(entry: Mapping[str, Any]) -> str:
    import pandas as pd

    from pipeline_assets.recommender.plots import age_plot

    ages = {int(age): row for age, row in entry["ages"].items()}
    frame = pd.DataFrame.from_dict(ages, orient="index").sort_index()
    (RESULTS / FIGURE).write_bytes(age_plot(frame))
    rows = [
        [
            str(age),
            f"{row['value']:.4f}",
            gain(row) if age else "–",
            f"{entry['changed_slots'][str(age)]:.0%}" if age else "–",
        ]
        for age, row in sorted(ages.items())
    ]
    return "\n\n".join(
        [
            "## Age of the model",
            origin(entry),
            f"Each model is trained on {entry['label_weeks']} label weeks; an older one on as many that end earlier. Features and lists are "
            "fresh for all of them: only the model ages.",
            table(["weeks older", "NDCG@10", "against the fresh model", "slots that differ"], rows),
            f"![Quality by age]({FIGURE})",
            f"Cadence by `staleness.cadence_weeks`: **{entry['cadence_weeks']} weeks**, the greatest measured age up to which no age loses more "
            "than 0.5 % NDCG for certain (docs/adr/0024-staleness.md).",
        ]
    )


def _ablation(entry: Mapping[str, Any]) -> str:
    order = sorted(entry["loss"], key=lambda name: entry["loss"][name]["ndcg"]["relative"])
    rows = [
        [
            name,
            str(len(entry["groups"][name])),
            *(gain(entry["loss"][name][metric]) for metric in ("ndcg", "recall", "revenue")),
        ]
        for name in order
    ]
    return "\n\n".join(
        [
            "## Without a group of features",
            origin(entry),
            f"Each model is trained on {entry['label_weeks']} label weeks without one group, and compared with the one that has all "
            f"({gain(entry['gain_over_tifu']['ndcg'])} NDCG@10 over TIFU-KNN). Groups: `recommender/ablation.py`.",
            table(["without", "features", "NDCG@10", "recall@10", "revenue@10"], rows),
        ]
    )
