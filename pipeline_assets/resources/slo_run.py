"""Service levels of a day: each indicator counted from where it is recorded, budgets over their windows, one row and one page."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pyarrow

from pipeline_assets.monitoring.pages import slo_page
from pipeline_assets.monitoring.slo import (
    Budget,
    Counts,
    Objective,
    SloVerdict,
    budget,
    freezing,
    read_objectives,
    slo_verdict,
)
from pipeline_assets.recommender.errors import ConfigurationError, SourceError
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.prediction_log_run import newest_answers
from pipeline_assets.resources.quality_run import QUALITY_TABLE
from pipeline_assets.resources.report_page import write_page
from pipeline_assets.resources.skew_run import SKEW_TABLE
from pipeline_assets.settings import Settings

SLO_TABLE = "monitoring/slo_report"
MAX_FEATURE_HOURS, MAX_MODEL_DAYS, DUE = 26, 8, time(6)  # docs/design/reliability.md, service levels
_V1 = 'endpoint=~"/v1/.*"'
_PROMETHEUS = {  # indicator -> (all, bad) of a day that ends now
    "availability": (
        f"sum(increase(serving_requests_total{{{_V1}}}[24h]))",
        f'sum(increase(serving_requests_total{{{_V1},status=~"5.."}}[24h])) or vector(0)',
    ),
    "latency": (
        f"sum(increase(serving_latency_seconds_count{{{_V1}}}[24h]))",
        f"sum(increase(serving_latency_seconds_count{{{_V1}}}[24h]))"
        f' - sum(increase(serving_latency_seconds_bucket{{{_V1},le="0.1"}}[24h]))',
    ),
}


@dataclass(frozen=True)
class SloReport:
    """The verdict, the budgets it was made from, what is frozen by them, and the page."""

    verdict: SloVerdict
    reasons: tuple[str, ...]
    budgets: tuple[Budget, ...]
    frozen_by: tuple[str, ...]
    html_path: Path


def objectives_of(path: Path) -> tuple[Objective, ...]:
    """The objectives of a slo.toml.

    Raises:
        ConfigurationError: the file cannot be read or is not as it should be.
    """
    try:
        return read_objectives(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            "monitoring.slo_file", found=f"{path}: {error}", wanted="a TOML file of objectives", fix="see slo.toml"
        ) from None


def slo_of(lake: Lake, day: date, settings: Settings, run_id: str, recorded_at: datetime) -> SloReport:
    """Count the indicators of `day`, add the days before as they were recorded, and judge.

    Raises:
        ConfigurationError: slo.toml names an indicator that nothing measures.
        SourceError: a Prometheus is configured and does not answer.
    """
    objectives = objectives_of(settings.monitoring.slo_file)
    counted = counts_of(lake, day, settings)
    if unknown := [o.indicator for o in objectives if o.indicator not in counted]:
        raise ConfigurationError(
            "monitoring.slo_file", found=f"objectives for {unknown}", wanted=f"of {sorted(counted)}", fix="remove them"
        )
    history = _history(lake, day, max(o.window_days for o in objectives))
    for indicator, counts in counted.items():
        history.setdefault(indicator, {})[day] = counts
    budgets = tuple(budget(o, history.get(o.indicator, {}), day) for o in objectives)
    verdict, reasons = slo_verdict(budgets)
    frozen_by = freezing(budgets)
    page = write_page(settings, "slo", day, slo_page(day, verdict, reasons, budgets, history, frozen_by))
    figures = {
        "counts": {name: None if c is None else [c.total, c.bad] for name, c in counted.items()},
        "budgets": {
            b.objective.indicator: {"objective": b.objective.objective, "remaining": _known(b)} for b in budgets
        },
        "frozen": list(frozen_by),
    }
    row = {
        "event_date": day,
        "verdict": verdict,
        "reasons": list(reasons),
        "figures": json.dumps(figures, sort_keys=True),
        "html_path": str(page),
        "recorded_at": recorded_at,
    }
    lake.replace_days(SLO_TABLE, pyarrow.Table.from_pylist([row]), [day], run_id, evolves=True)
    return SloReport(verdict, reasons, budgets, frozen_by, page)


def frozen_by(lake: Lake, day: date) -> tuple[str, ...]:
    """Indicators whose exhausted budgets hold new models back, by the newest report up to `day`; none without a report."""
    days = [d for d in lake.days(SLO_TABLE) if d <= day]
    if not days:
        return ()
    row = lake.read(SLO_TABLE, max(days), max(days), ["figures"]).to_pylist()[0]
    return tuple(json.loads(row["figures"])["frozen"])


def counts_of(lake: Lake, day: date, settings: Settings) -> dict[str, Counts | None]:
    """Indicator -> events of the day and the bad ones among them; None where it is not known. Answers are those that were given until the day's run:
    from the bundle of the day before, as a rule."""
    answered, answers = newest_answers(lake, day, ["customer_kind", "fallback_level", "ts"])
    personal = [row for row in answers if row["customer_kind"] == "known"]
    return {
        **{indicator: _prometheus(settings, *queries) for indicator, queries in _PROMETHEUS.items()},
        "personalised": Counts(len(personal), sum(row["fallback_level"] != "none" for row in personal)) if personal else None,
        "feature_freshness": _freshness(answers, answered, settings),
        "skew": _skew(lake, day),
        "timeliness": _timeliness(lake, day, settings),
        "model_freshness": _model_freshness(lake, day),
        "quality": _quality(lake, day),
    }  # fmt: skip


def _known(found: Budget) -> float | None:
    return None if math.isnan(found.remaining) else found.remaining


def _history(lake: Lake, day: date, days: int) -> dict[str, dict[date, Counts | None]]:
    found: dict[str, dict[date, Counts | None]] = {}
    if lake.exists(SLO_TABLE):
        first, last = day - timedelta(days=days), day - timedelta(days=1)
        for row in lake.read(SLO_TABLE, first, last, ["event_date", "figures"]).to_pylist():
            for indicator, counts in json.loads(row["figures"])["counts"].items():
                found.setdefault(indicator, {})[row["event_date"]] = Counts(*counts) if counts else None
    return found


def _freshness(answers: list[dict[str, Any]], day: date, settings: Settings) -> Counts | None:
    """Answers whose features were complete (midnight of the shop after `day`) more than 26 hours before.

    On the replay clock the moments of answers are of another age than the days: not known.
    """
    if not answers or settings.calendar.clock == "replay":
        return None
    complete = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(settings.calendar.time_zone))
    limit = complete + timedelta(hours=MAX_FEATURE_HOURS)
    return Counts(len(answers), sum(datetime.fromisoformat(row["ts"]) > limit for row in answers))


def _skew(lake: Lake, day: date) -> Counts | None:
    if not lake.exists(SKEW_TABLE):
        return None
    rows = lake.read(SKEW_TABLE, day, day, ["figures"]).to_pylist()
    figures = json.loads(rows[0]["figures"]) if rows else {}
    return Counts(figures["values"], figures["mismatches"]) if figures.get("values") else None


def _timeliness(lake: Lake, day: date, settings: Settings) -> Counts:
    """Whether purchases of the day were passed by 06:00 of the next morning; on the replay clock, whether they were passed."""
    verdict = lake.verdicts("purchases", day, day, status="passed").get(day)
    if verdict is None:
        return Counts(1, 1)
    due = datetime.combine(day + timedelta(days=1), DUE, ZoneInfo(settings.calendar.time_zone))
    is_late = settings.calendar.clock == "wall" and verdict.recorded_at is not None and verdict.recorded_at > due
    return Counts(1, int(is_late))


def _model_freshness(lake: Lake, day: date) -> Counts | None:
    """Whether the gate judged a model as of one of the last eight days. A champion that a fresher model did not beat is as good as fresh:
    a missed training is bad, a training that changed nothing is not, and nobody could mend it."""
    judged = [other for other in lake.days("evaluation/promotion") if other <= day]
    return Counts(1, int((day - max(judged)).days > MAX_MODEL_DAYS)) if judged else None


def _quality(lake: Lake, day: date) -> Counts | None:
    """Unknown quality is no event: neither good nor bad."""
    if not lake.exists(QUALITY_TABLE):
        return None
    verdicts = [row["verdict"] for row in lake.read(QUALITY_TABLE, day, day, ["verdict"]).to_pylist()]
    return Counts(1, int(verdicts[0] == "degraded")) if verdicts and verdicts[0] != "unknown" else None


def _prometheus(settings: Settings, total: str, bad: str) -> Counts | None:
    """The last 24 hours by the configured Prometheus; None where there is none, or no request.

    Raises:
        SourceError: it does not answer: that is not the same as no traffic.
    """
    if not settings.monitoring.prometheus_url:
        return None
    values = []
    for query in (total, bad):
        try:
            answer = httpx.get(
                f"{settings.monitoring.prometheus_url.rstrip('/')}/api/v1/query", params={"query": query}, timeout=10
            )
            result = answer.raise_for_status().json()["data"]["result"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise SourceError(
                "monitoring.prometheus_url",
                found=f"{type(error).__name__} for {query}",
                wanted="an answer of Prometheus",
                fix="start it, or unset PIPELINE_MONITORING__PROMETHEUS_URL",
            ) from None
        values.append(float(result[0]["value"][1]) if result else 0.0)
    return Counts(values[0], max(values[1], 0.0)) if values[0] > 0 else None
