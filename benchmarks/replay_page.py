"""The page of `benchmarks.replay`, from what a replay left. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

from pipeline_assets.replay.story import POLICIES, Event, days_of, ledger_digest, parse_fault

TOLD = {  # kind of event -> row of the table
    "run_requested": "trainings that were asked for", "gate_promote": "promoted by the gate", "gate_reject": "rejected",
    "gate_inconclusive": "inconclusive", "gate_frozen": "held back, as an error budget is used up",
    "shadow": "rollouts", "full": "rolled out", "rolled_back": "rolled back",
    "blocked": "blocked days", "held": "days without new lists", "run_failed": "failed runs", "alert": "alerts",
}  # fmt: skip
GOAL_MINUTES, GOAL_DAYS = 30, 184
SHOWN = 160  # characters of an event
ENDINGS = {"blocked", "held", "missing", "late", "run_failed", "answers", "fault", "caught_up", "gate_reject", "gate_inconclusive",
           "rolled_back", "drift_report", "decision_retrain", "decision_refuse"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Lane:
    """What a policy came to. `realised`: rows of outcome.realised by day. `cpu_seconds`: of the policy's process."""

    policy: str
    events: Sequence[Event]
    realised: pd.DataFrame
    cpu_seconds: float


def page(question: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], lanes: Sequence[Lane]) -> str:
    """Markdown: what was asked, what each policy earned and did, how the faults ended, what it cost.

    Args:
        runs: what was measured of each command; a command has one policy or several. `remark`: what a reader has to know of its figures.
    """
    first, last = (date.fromisoformat(question[name]) for name in ("first", "last"))
    measured = runs[0]
    asked = ", ".join(POLICIES[lane.policy] for lane in lanes)
    weeks = question["values"]["training"]["label_weeks"]
    return "\n".join(
        [
            "# A replay of the sample",
            "",
            f"Written by `python -m benchmarks.replay`. {first} to {last}, {asked}, "
            f"{measured['share']:.0%} of the customers, {measured['customers']} of them ask the API each morning, {weeks} label weeks. "
            f"{measured['machine']['cores']} cores.",
            "",
            "![Realised NDCG@10 by policy](replay.png)",
            "",
            "## What each policy earned, and did",
            "",
            *_policies(lanes),
            "",
            "The same days and customers for all; differences are to the first policy. A week counts as better where its mean NDCG@10 is higher.",
            "",
            "## How the faults ended",
            "",
            *_faults(question, lanes[0]),
            "",
            "## What it cost",
            "",
            *_costs(runs, lanes, (last - first).days + 1),
            "",
        ]
    )  # fmt: skip


def _costs(runs: Sequence[Mapping[str, Any]], lanes: Sequence[Lane], days: int) -> list[str]:
    lines = [
        f"Of the CPU time the lanes of the policies took {', '.join(f'{lane.policy} {lane.cpu_seconds:,.0f} s' for lane in lanes)}; the rest lands "
        f"the days, once a command. The goal is six months in {GOAL_MINUTES} minutes.",
        "",
        "| policies of one command | minutes | CPU s | CPU s a day | six months at this pace, minutes | commit | load before | after |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for run in runs:
        minutes = run["wall_s"] / 60
        pace = minutes * GOAL_DAYS / days
        verdict = "met" if pace <= GOAL_MINUTES else "**missed**"
        lines.append(
            f"| {', '.join(run['policies'])} | {minutes:.1f} | {run['cpu_s']:,.0f} | {run['cpu_s'] / days:.1f} | {pace:.1f} ({verdict}) | "
            f"`{run['commit']}` | {run['load_before'][0]} | {run['machine']['load'][0]} |"
        )
    remarks = [f"{', '.join(run['policies'])}: {run['remark']}." for run in runs if run.get("remark")]
    return lines + ["", *remarks] * bool(remarks)


def _policies(lanes: Sequence[Lane]) -> list[str]:
    counted = {lane.policy: Counter(event.kind for event in lane.events) for lane in lanes}
    rows = [["", *(lane.policy for lane in lanes)], ["---", *("---:" for _ in lanes)]]
    rows += [[name, *(f"{lane.realised[column].mean():.4f}" for lane in lanes)] for name, column in
             (("NDCG@10", "ndcg"), ("recall@10", "recall"))]  # fmt: skip
    rows.append(
        ["sales of a week that lists had named", *(f"{lane.realised['revenue_hit'].mean():,.0f}" for lane in lanes)]
    )
    rows.append(
        ["NDCG@10 against the first, weeks better : worse", "–", *(_against(lane, lanes[0]) for lane in lanes[1:])]
    )
    rows += [[name, *(str(counted[lane.policy][kind]) for lane in lanes)] for kind, name in TOLD.items()]
    rows.append(
        [
            "events; digest of the ledger",
            *(f"{len(lane.events)}; `{ledger_digest(lane.events)[:12]}`" for lane in lanes),
        ]
    )
    return ["| " + " | ".join(row) + " |" for row in rows]


def _against(lane: Lane, first: Lane) -> str:
    both = pd.DataFrame({"mine": lane.realised["ndcg"], "other": first.realised["ndcg"]}).dropna()
    weeks = both.resample("W").mean().dropna()
    better, worse = int((weeks["mine"] > weeks["other"]).sum()), int((weeks["mine"] < weeks["other"]).sum())
    return f"{both['mine'].mean() / both['other'].mean() - 1:+.2%}, {better} : {worse}"


def _faults(question: Mapping[str, Any], lane: Lane) -> list[str]:
    if not question["faults"]:
        return ["None was injected."]
    rows = [f"| fault | day | what the ledger of {lane.policy} says of its days |", "| --- | --- | --- |"]
    for each in question["faults"]:
        fault = parse_fault(f"{each['name']}@{each['day']}")
        told = [event for event in lane.events if event.day in days_of(fault) and event.kind in ENDINGS]
        words = "; ".join(f"*{event.kind.replace('_', ' ')}* {event.text[:SHOWN]}" for event in told).replace("|", "/")
        rows.append(f"| {fault.name} | {fault.day} | {words or 'nothing: the day went on'} |")
    return rows
