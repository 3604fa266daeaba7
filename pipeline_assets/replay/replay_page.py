"""The page that a replay ends with: what each policy would have earned, and all that happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_assets.recommender.page import Section, html_page
from pipeline_assets.recommender.plots import lines_plot
from pipeline_assets.replay.drive import Replayed
from pipeline_assets.replay.outcome import K
from pipeline_assets.replay.story import POLICIES

SYMBOLS = {"gate_promote": "^", "gate_reject": "v", "rolled_back": "X"}  # marks on the lines
TOLD = {  # kinds of events -> the column of the table
    "run_requested": "retrains",
    "gate_promote": "promoted",
    "gate_reject": "rejected",
    "gate_inconclusive": "inconclusive",
    "shadow": "rollouts",
    "full": "rolled out",
    "rolled_back": "rollbacks",
    "blocked": "blocked days",
    "run_failed": "failed runs",
    "alert": "alerts",
}
SHORT = 60  # events that are shown without a click
SMOOTHING = 7  # days: each weekday once


def write_page(replays: Sequence[Replayed], figures: Mapping[str, Any], path: Path) -> Path:
    """Write the page; returns its path."""
    path.write_text(page(replays, figures))
    return path


def page(replays: Sequence[Replayed], figures: Mapping[str, Any]) -> str:
    """The page as HTML, self-contained."""
    judged = [each for each in replays if len(each.table)]
    sections = []
    if judged:
        note = (
            f"What customers bought in the seven days after a list was shown, and how much of it the first {K} places had named. "
            f"Lines are means of {SMOOTHING} days; a triangle up is a promotion, one down a rejection, a cross a rollback. Policies are "
            "compared on the same days and customers."
        )
        sections.append(Section("What the lists were worth", note, figures=_plots(judged)))
    sections.append(Section("Policies", "", tables={"": _policies(replays, figures)}))
    for each in replays:
        ledger = pd.DataFrame(
            [(event.day, event.kind.replace("_", " "), event.text) for event in each.events],
            columns=["day", "what", "in words"],
        )
        note = f"{len(ledger)} events; digest {each.digest[:16]}, equal for an equal replay."
        is_short = len(ledger) <= SHORT
        shown, folded = ({"": ledger}, {}) if is_short else ({}, {f"all of {each.policy}": ledger})
        sections.append(Section(f"Ledger: {each.policy}", note, tables=shown, folded=folded))
    faults = ", ".join(figures["faults"]) or "none"
    share = figures["values"].get("source", {}).get("customer_share", 1)
    whose = "all customers" if share == 1 else f"{100 * share:g}% of the customers, whose sales these are"
    return html_page(
        "Replay",
        f"{figures['from']} to {figures['to']}, {whose}, faults: {faults}",
        tiles=_tiles(judged),
        sections=sections,
    )


def _tiles(judged: Sequence[Replayed]) -> dict[str, tuple[str, str]]:
    """Sales a week that the lists had named, by policy, against the first policy."""
    tiles, first = {}, None
    for each in judged:
        value = float(each.table["revenue_hit"].mean())
        first = first if first is not None else value
        beside = POLICIES[each.policy] if each is judged[0] else f"{value / first - 1:+.1%} against {judged[0].policy}"
        tiles[f"{each.policy}: named sales a week"] = (f"{value:,.0f}", beside)
    return tiles


def _plots(judged: Sequence[Replayed]) -> dict[str, bytes]:
    marks = [
        (each.policy, event.day, SYMBOLS[event.kind])
        for each in judged
        for event in each.events
        if event.kind in SYMBOLS
    ]
    found = {}
    for column, label in (("ndcg", f"NDCG@{K}"), ("revenue_hit", "named sales of the week, currency")):
        lines = {
            each.policy: each.table.set_index("day")[column].rolling(SMOOTHING, min_periods=1).mean() for each in judged
        }
        found[label] = lines_plot(lines, marks, label, label)
    return found


def _policies(replays: Sequence[Replayed], figures: Mapping[str, Any]) -> pd.DataFrame:
    """What is told of each policy, a row each; a column per policy."""
    columns: dict[str, list[Any]] = {
        "": [f"NDCG@{K}", f"recall@{K}", "named sales a week", *TOLD.values(), "CPU seconds"]
    }
    for each in replays:
        own = figures["policies"][each.policy]
        worth = [own.get("ndcg"), own.get("recall"), _whole(own["revenue_a_week"])]
        columns[each.policy] = [*worth, *(own["events"].get(kind, 0) for kind in TOLD), _whole(own["cpu_seconds"])]
    return pd.DataFrame(columns, dtype=object)


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"
