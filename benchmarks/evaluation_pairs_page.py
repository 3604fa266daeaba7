"""Sections of results/evaluation.md that set two models or two rules for slates beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evaluation_page import gain, origin, table


def _points(found: Mapping[str, float]) -> str:
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def discover_section(entry: Mapping[str, Any]) -> str:
    """New products in a slate, by rule."""
    rows = [
        [
            f"**{name}**" if name == entry["chosen"] else name,
            f"{found['new_item_recall']['value']:.4f}",
            _points(found["ndcg"]),
            _points(found["revenue"]),
            f"{found['new_products']:.2f}",
            f"{found['with_none']:.0%}",
        ]
        for name, found in entry["rules"].items()
    ]
    return "\n\n".join(
        [
            "## New products in a slate",
            f"{origin(entry)} Slates of ten from the same ranking, against the usual ones; the goal is a new-item recall of 0.006 for 0.005 NDCG or "
            "less (docs/adr/0029-discover-where-it-is-cheap.md).",
            table(
                ["rule", "new-item recall@10", "NDCG@10", "revenue@10", "new products a slate", "slates with none"],
                rows,
            ),
        ]
    )


def gate_section(entry: Mapping[str, Any]) -> str:
    """Champion against challenger."""
    stops, weeks = entry["stops"], entry["label_weeks"]
    rows = [
        [
            f"the {name} one",
            f"**{found['outcome']}**",
            *(gain(found[measure]) for measure in ("ndcg", "recall", "revenue")),
            f"{found['changed_slots']:.0%}",
        ]
        for name, found in entry["challengers"].items()
    ]
    said = [
        f"The {name} one as challenger: "
        + " ".join(found["reasons"] if found["outcome"] == "promote" else found["changes"])
        for name, found in entry["challengers"].items()
    ]
    return "\n\n".join(
        [
            "## Champion against challenger",
            f"{origin(entry)} Two models of the sample, judged by the gate on weeks that neither was trained on: the newer one learned from "
            f"{weeks['newer']} label weeks up to the one as of {stops[1]}, the older one from {weeks['older']} up to the one as of {stops[0]}.",
            table(["challenger", "outcome", "NDCG@10", "recall@10", "revenue@10", "slots that change"], rows),
            *said,
        ]
    )


def tuning_section(entry: Mapping[str, Any]) -> str:
    """Tuned against default."""
    rows = [
        [found["metric"], f"{found['tuned']:.4f}", f"{found['default']:.4f}",
         f"{found['gain']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})", found["verdict"]]
        for found in entry["gains"]
    ]  # fmt: skip
    tuned = ", ".join(
        f"{name} {_short(value)} ({_short(entry['defaults'][name])})" for name, value in entry["params"].items()
    )
    return "\n\n".join(
        [
            "## Tuned against default",
            f"{origin(entry)} A study of {entry['trials']} trials, {entry['seconds']} s and {entry['rounds']} rounds at most, on {entry['label_weeks']} label "
            f"weeks. On the week that stops the training, which chose it, the tuned model has NDCG@10 {entry['stopping_ndcg']['tuned']:.4f} and the default "
            f"{entry['stopping_ndcg']['default']:.4f}; on the evaluation weeks:",
            table(["metric", "tuned", "default", "tuned less default", ""], rows),
            f"Tuned (default): {tuned}.",
        ]
    )


def _short(value: float) -> str:
    return f"{value:.3g}"
