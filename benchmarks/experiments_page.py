"""results/model-experiments.md: what `python -m benchmarks.experiments` measured, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.scale import RESULTS

BY_HAND = "model-experiments-by-hand.md"


def write_page() -> None:
    """Write the page from results/model-experiments.json."""
    known: dict[str, Any] = json.loads((RESULTS / "model-experiments.json").read_text())
    parts = [
        "# Experiments with the ranker",
        "Written by `python -m benchmarks.experiments page` from `model-experiments.json`; trials are declared in "
        "[experiments.py](../experiments.py) and trained by the package's functions. Development weeks only: nothing from 2017-11-13 on was looked at. "
        "Differences are paired by customer, with 95 % intervals of 2,000 draws. What pays has its NDCG@10 interval above 0 and gains 0.3 points on two "
        f"folds. Earlier trials, which led to the present features and objectives, ran outside of the package and are a log: [{BY_HAND}]({BY_HAND}).",
        *(_fold(day, known[day]) for day in sorted(known, reverse=True)),
    ]
    (RESULTS / "model-experiments.md").write_text("\n\n".join(parts) + "\n")


def _change(found: Mapping[str, float]) -> str:
    return f"{found['relative']:+.2%} [{found['relative_low']:+.2%}, {found['relative_high']:+.2%}]"


def _verdict(name: str, found: Mapping[str, float]) -> str:
    if name == "reference":
        return ""
    return "better" if found["relative_low"] > 0 else "worse" if found["relative_high"] < 0 else "within noise"


def _fold(day: str, entry: Mapping[str, Any]) -> str:
    trials = entry["trials"]
    order = sorted(trials, key=lambda name: -trials[name]["against_tifu"]["ndcg"]["value"])
    rows = ["| trial | why | weeks | trees | CPU s | NDCG@10 over TIFU-KNN | NDCG@10 against the reference | recall@10 | revenue@10 | |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    for name in order:
        trial = trials[name]
        against = trial["against_reference"]
        changes = ["–"] * 3 if name == "reference" else [_change(against[m]) for m in ("ndcg", "recall", "revenue")]
        cells = [
            name, trial["why"], str(trial["weeks"]), str(trial["trees"]), "–" if trial["cpu_s"] is None else f"{trial['cpu_s']:.0f}",
            _change(trial["against_tifu"]["ndcg"]), *changes, _verdict(name, against["ndcg"]),
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    weeks = ", ".join(entry["weeks"])
    return "\n\n".join(
        [
            f"## As of {day}",
            f"Weeks as of {weeks}: {entry['customer_weeks']:,} customer-weeks. Commit `{entry['commit']}`, load {entry['machine']['load'][0]} on "
            f"{entry['machine']['cores']} cores. The reference and, where a trial does not say otherwise, the trials learn from {entry['base_weeks']} label "
            "weeks.",
            "\n".join(rows),
        ]
    )
