"""results/model-experiments.md: what `python -m benchmarks.experiments` measured, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.declared import CHANCE
from benchmarks.experiments_figure import OF_WEEKS
from benchmarks.scale import RESULTS

BY_HAND = "model-experiments-by-hand.md"
FIGURE = "model-experiments.png"
LEAST_GAIN = 0.003  # what a trial has to bring, on two folds


def write_page() -> None:
    """Write the page and its figure from results/model-experiments.json."""
    from benchmarks.experiments_figure import figure

    known: dict[str, Any] = json.loads((RESULTS / "model-experiments.json").read_text())
    (RESULTS / FIGURE).write_bytes(figure(known))
    parts = [
        "# Experiments with the ranker",
        "Written by `python -m benchmarks.experiments page` from `model-experiments.json`; trials are declared in "
        "[declared.py](../declared.py), extra columns computed in [extra_features.py](../extra_features.py), and trained by the package's functions. "
        "Development weeks only: nothing from 2017-11-13 on was looked at. Differences are paired by customer, with 95 % intervals of 2,000 draws. "
        "What pays has its NDCG@10 interval above 0 and gains 0.3 points on two "
        f"folds. Earlier trials, which led to the present features and objectives, ran outside of the package and are a log: [{BY_HAND}]({BY_HAND}).",
        _saturation(known),
        *(_fold(day, known[day]) for day in sorted(known, reverse=True)),
    ]
    (RESULTS / "model-experiments.md").write_text("\n\n".join(parts) + "\n")


def _change(found: Mapping[str, float]) -> str:
    return f"{found['relative']:+.2%} [{found['relative_low']:+.2%}, {found['relative_high']:+.2%}]"


def _verdict(name: str, found: Mapping[str, float]) -> str:
    if name == "reference":
        return ""
    return "better" if found["relative_low"] > 0 else "worse" if found["relative_high"] < 0 else "within noise"


def paying(known: Mapping[str, Any]) -> list[str]:
    """Trials whose NDCG@10 interval is above 0 and whose gain is `LEAST_GAIN` or more, on every fold and on two at least."""
    names = set.intersection(*(set(entry["trials"]) for entry in known.values())) if len(known) > 1 else set()
    found = {name: [entry["trials"][name]["against_reference"]["ndcg"] for entry in known.values()] for name in names}
    return sorted(
        name
        for name, each in found.items()
        if all(one["relative_low"] > 0 and one["relative"] >= LEAST_GAIN for one in each)
    )


def _saturation(known: Mapping[str, Any]) -> str:
    lines = []
    for day in sorted(known, reverse=True):
        trials = known[day]["trials"]
        weeks = sorted((trials[name]["weeks"], name) for name in OF_WEEKS if name in trials)
        steps = ", ".join(
            f"{many} weeks {trials[name]['against_tifu']['ndcg']['relative']:+.1%}" for many, name in weeks
        )
        gains = {
            name: each["against_reference"]["ndcg"]
            for name, each in trials.items()
            if name not in (*OF_WEEKS, CHANCE) and each["weeks"] == known[day]["base_weeks"]
        }
        best = max(gains, key=lambda name: gains[name]["relative"])
        chance = (
            f" Another seed, which changes nothing, gives {_change(trials[CHANCE]['against_reference']['ndcg'])}."
            if CHANCE in trials
            else ""
        )
        lines.append(
            f"- **As of {day}**: NDCG@10 over TIFU-KNN by label weeks: {steps}. Of {len(gains)} changes with other things equal the best one, *{best}*, gives "
            f"{_change(gains[best])} against the reference.{chance}"
        )
    paid = [name for name in paying(known) if name not in OF_WEEKS]
    return "\n\n".join(
        [
            "## Where it saturates",
            "\n".join(lines),
            f"What pays on both folds, but for more weeks: {', '.join(paid) or 'nothing that was tried on both'}. *All weeks* are those with four weeks of "
            "history before them: the year has no more.",
            f"![What was tried]({FIGURE})",
            "Not tried: age, income, household and children (customers' own declarations, denied for features by a contract test), and the season of the "
            "year (one year has no second one to learn it from).",
        ]
    )


def _fold(day: str, entry: Mapping[str, Any]) -> str:
    trials = entry["trials"]
    order = sorted(trials, key=lambda name: -trials[name]["against_tifu"]["ndcg"]["value"])
    rows = ["| trial | why | weeks | trees | split gain | CPU s | NDCG@10 over TIFU-KNN | NDCG@10 against the reference | recall@10 | revenue@10 | |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    for name in order:
        trial = trials[name]
        against = trial["against_reference"]
        changes = ["–"] * 3 if name == "reference" else [_change(against[m]) for m in ("ndcg", "recall", "revenue")]
        cells = [
            name, trial["why"], str(trial["weeks"]), str(trial["trees"]),
            f"{trial['gain']:.1%}" if trial.get("gain") else "–", "–" if trial["cpu_s"] is None else f"{trial['cpu_s']:.0f}",
            _change(trial["against_tifu"]["ndcg"]), *changes, _verdict(name, against["ndcg"]),
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    weeks = ", ".join(entry["weeks"])
    return "\n\n".join(
        [
            f"## As of {day}",
            f"Weeks as of {weeks}: {entry['customer_weeks']:,} customer-weeks. Commit `{entry['commit']}`, load {entry['machine']['load'][0]} on "
            f"{entry['machine']['cores']} cores. The reference and, where a trial does not say otherwise, the trials learn from {entry['base_weeks']} label "
            "weeks. *Split gain*: the part of it that extra columns have.",
            "\n".join(rows),
        ]
    )
