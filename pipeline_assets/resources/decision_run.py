"""The decision about retraining of a day: its reports and verdicts from the lake, one row with inputs and reason, refusals too."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date, datetime, timedelta

import pyarrow

from pipeline_assets.monitoring.retraining import RetrainingDecision, RetrainingPolicy, Situation, decide_retraining
from pipeline_assets.resources.lake import Lake
from pipeline_assets.settings import Settings

DECISION_TABLE = "monitoring/retraining_decision"


def situation_of(lake: Lake, day: date, settings: Settings) -> Situation:
    """What is known at the end of `day`; nothing that was recorded for later days."""
    rows = {report: _row(lake, f"monitoring/{report}_report", day) for report in ("drift", "quality", "skew")}
    verdicts = {report: str(row["verdict"]) if row else "unknown" for report, row in rows.items()}
    figures = json.loads(str((rows["drift"] or {}).get("figures") or "{}"))
    return Situation(
        day,
        **verdicts,
        signs=tuple(figures.get("signs", ())),
        trained_days=tuple(sorted(d for d in lake.days("training/model") if d <= day)),
        requested_days=requested_days(lake, day),
        blocked_days=blocked_days(lake, day, settings),
    )


def decide_for(
    lake: Lake, day: date, settings: Settings, run_id: str, recorded_at: datetime
) -> tuple[Situation, RetrainingDecision]:
    """Decide about `day` and record it; deciding again about the same day replaces the record."""
    chosen = settings.monitoring
    situation = situation_of(lake, day, settings)
    policy = RetrainingPolicy(chosen.retrain_cooldown_days, chosen.retrain_weekly_maximum)
    decision = decide_retraining(situation, policy)
    row = {
        "event_date": day,
        "decision": decision.kind,
        "trigger": decision.trigger,
        "reason": decision.reason,
        "inputs": json.dumps(asdict(situation) | asdict(policy), sort_keys=True, default=str),
        "recorded_at": recorded_at,
    }
    lake.replace_days(DECISION_TABLE, pyarrow.Table.from_pylist([row]), [day], run_id, evolves=True)
    return situation, decision


def blocked_days(lake: Lake, day: date, settings: Settings) -> tuple[date, ...]:
    """Days of the week up to `day` without a passed verdict on purchases: retraining on a broken upstream makes it worse."""
    week = [day - timedelta(days=n) for n in range(7)]
    passed = set(lake.passed_days(["purchases"], week[-1], week[0]))
    return tuple(d for d in reversed(week) if d not in passed and d >= settings.calendar.first_day)


def requested_days(lake: Lake, day: date) -> tuple[date, ...]:
    """Days before `day` whose decision was to retrain."""
    if not lake.exists(DECISION_TABLE):
        return ()
    rows = lake.read(DECISION_TABLE, None, day - timedelta(days=1), ["event_date", "decision"]).to_pylist()
    return tuple(sorted(row["event_date"] for row in rows if row["decision"] == "retrain"))


def _row(lake: Lake, table: str, day: date) -> dict[str, object] | None:
    rows = lake.read(table, day, day).to_pylist() if lake.exists(table) else []
    return rows[0] if rows else None
