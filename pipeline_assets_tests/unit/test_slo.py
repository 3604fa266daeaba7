"""Error budgets and burn rates by arithmetic, what freezes promotion, and the committed slo.toml beside Prometheus' rules."""

from __future__ import annotations

import math
import re
import tomllib
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from pipeline_assets.monitoring.slo import (
    BURN_ALERTS,
    Budget,
    Counts,
    Objective,
    budget,
    burn_rate,
    freezing,
    frozen_outcome,
    is_burning,
    read_objectives,
    slo_verdict,
)
from pipeline_assets.recommender.errors import ConfigurationError

DAY = date(2017, 3, 20)
ROOT = Path(__file__).parents[2]
COMMITTED = read_objectives(tomllib.loads((ROOT / "slo.toml").read_text()))


def objective(share: float = 0.99, days: int = 28, unit: str = "requests", freezes: bool = True) -> Objective:
    return Objective("availability", share, days, unit, freezes)  # type: ignore[arg-type]


def history(*counts: Counts | None) -> dict[date, Counts | None]:
    """Counts of `DAY`, the day before, and so on."""
    return {DAY - timedelta(days=n): found for n, found in enumerate(counts)}


def test_half_a_budget() -> None:
    """1,000 requests at 99 % allow 10 bad ones; 5 of them leave a half."""
    found = budget(objective(), history(Counts(600, 2), Counts(400, 3)), DAY)
    assert (found.total, found.bad, found.days) == (1_000, 5, 2)
    assert found.remaining == pytest.approx(0.5)
    assert not found.is_exhausted


def test_the_window_ends() -> None:
    """A bad day 28 days ago is out of a window of 28 days, one of 27 days ago is in it."""
    counts = [Counts(100, 0)] * 27
    assert budget(objective(), history(*counts, Counts(100, 50)), DAY).bad == 50
    assert budget(objective(), history(*counts, Counts(100, 0), Counts(100, 50)), DAY).bad == 0


def test_unknown_days_are_neither_good_nor_bad() -> None:
    """None, and days without events, are stepped over; nothing known is NaN and not exhausted."""
    assert budget(objective(), history(None, Counts(0, 0), Counts(100, 1)), DAY).remaining == pytest.approx(0.0)
    nothing = budget(objective(), history(None), DAY)
    assert math.isnan(nothing.remaining)
    assert not nothing.is_exhausted


def test_a_budget_of_days_is_of_the_whole_window() -> None:
    """99 % of 365 days allow 3.65 bad ones: the first day may be bad, four may not."""
    yearly = objective(0.99, 365, "days")
    assert budget(yearly, history(Counts(1, 1)), DAY).remaining == pytest.approx(1 - 1 / 3.65)
    assert budget(yearly, history(*[Counts(1, 1)] * 4), DAY).is_exhausted


def test_burn_rate() -> None:
    """2 % bad at 99.9 % is 20 times too fast; nothing happened is no rate."""
    assert burn_rate(Counts(1_000, 20), 0.999) == pytest.approx(20)
    assert math.isnan(burn_rate(Counts(0, 0), 0.999))


@pytest.mark.parametrize(
    ("long", "short", "expected"),
    [(20, 20, True), (20, 0, False), (0, 20, False), (14, 20, False)],
)
def test_both_windows_have_to_burn(long: float, short: float, expected: bool) -> None:
    """Bad per 1,000 at 99.9 %: the rate is the number. 14.4 over an hour and over five minutes."""
    assert is_burning(Counts(1_000, long), Counts(1_000, short), 0.999, BURN_ALERTS[0]) is expected


def test_a_window_without_traffic_does_not_burn() -> None:
    """No request in the last five minutes: nobody is woken."""
    assert not is_burning(Counts(1_000, 500), Counts(0, 0), 0.999, BURN_ALERTS[0])


def budgets(remaining: float, freezes: bool = True) -> list[Budget]:
    return [Budget(objective(freezes=freezes), 1, 100.0, 1.0, 1.0, remaining)]


@pytest.mark.parametrize(
    ("remaining", "verdict"), [(0.5, "ok"), (0.0, "exhausted"), (-1.0, "exhausted"), (math.nan, "unknown")]
)
def test_verdict(remaining: float, verdict: str) -> None:
    """Something left, nothing left, overspent, nothing known."""
    assert slo_verdict(budgets(remaining))[0] == verdict


def test_an_unknown_budget_beside_known_ones_is_named() -> None:
    """Verdict ok, and the reason says what is not known."""
    verdict, reasons = slo_verdict([*budgets(0.5), *budgets(math.nan)])
    assert verdict == "ok"
    assert reasons == ("not known, because nothing was measured: availability",)


@pytest.mark.parametrize(("remaining", "freezes", "expected"), [(-1, True, 1), (-1, False, 0), (0.1, True, 0)])
def test_what_freezes(remaining: float, freezes: bool, expected: int) -> None:
    """Only an exhausted budget of an objective that says so; an unknown one does not."""
    assert len(freezing(budgets(remaining, freezes))) == expected
    assert freezing(budgets(math.nan)) == ()


def test_a_promotion_is_frozen() -> None:
    """The outcome and the reason change; what was decided before stays in the reasons."""
    outcome, reasons = frozen_outcome("promote", ["better"], ["skew"], "", has_champion=True)
    assert outcome == "frozen"
    assert reasons[0] == "better"
    assert "the error budget of skew is used up" in reasons[1]


def test_a_person_overrides_with_a_reason() -> None:
    """The reason is recorded with the promotion."""
    outcome, reasons = frozen_outcome("promote", ["better"], ["skew"], "fixes the skew", has_champion=True)
    assert (outcome, reasons[1].endswith("is used up: fixes the skew")) == ("promote", True)


@pytest.mark.parametrize(
    ("outcome", "frozen_by", "has_champion"),
    [("reject", ["skew"], True), ("promote", [], True), ("promote", ["skew"], False)],
)
def test_what_is_not_frozen(outcome: str, frozen_by: list[str], has_champion: bool) -> None:
    """A rejection stays one; nothing exhausted; the first model."""
    assert frozen_outcome(outcome, ["r"], frozen_by, "", has_champion) == (outcome, ["r"])


@pytest.mark.parametrize(
    ("entry", "culprit"),
    [
        ({"objective": 0.9}, "found \\['objective'\\]"),
        ({"objective": 1.0, "window_days": 28, "unit": "days", "freezes_promotion": True}, "allows no error"),
        ({"objective": 0.9, "window_days": 0, "unit": "days", "freezes_promotion": True}, "window_days"),
        ({"objective": 0.9, "window_days": 1, "unit": "weeks", "freezes_promotion": True}, "unit"),
        (0.9, "found 0.9"),
    ],
)
def test_an_unusable_objective_is_named(entry: object, culprit: str) -> None:
    """With the indicator, what was found and what is wanted."""
    with pytest.raises(ConfigurationError, match=culprit):
        read_objectives({"availability": entry})


def test_what_a_new_model_mends_does_not_freeze() -> None:
    """ADR 40: freezing on a stale or degraded model would hold back what mends it."""
    mended = {"model_freshness", "quality", "feature_freshness", "timeliness"}
    assert {o.indicator for o in COMMITTED if not o.freezes_promotion} == mended
    assert {o.indicator for o in COMMITTED if o.freezes_promotion} == {
        "availability",
        "latency",
        "personalised",
        "skew",
    }


def test_prometheus_has_the_same_objectives_and_windows() -> None:
    """The recorded objectives are slo.toml's, and the alerts' factors and windows are BURN_ALERTS."""
    rules = ROOT / "deploy/prometheus/rules"
    groups = yaml.safe_load((rules / "recording.yml").read_text())["groups"]
    recorded = {
        rule["labels"]["indicator"]: float(re.findall(r"[\d.]+", rule["expr"])[0])
        for group in groups
        for rule in group["rules"]
        if rule["record"] == "slo:objective:ratio"
    }
    wanted = {o.indicator: o.objective for o in COMMITTED}
    assert recorded == {name: wanted[name] for name in recorded}
    assert len(recorded) == 3
    alerts = [r for g in yaml.safe_load((rules / "serving.yml").read_text())["groups"] for r in g["rules"]]
    found = [rule["expr"] for rule in alerts if rule["alert"].startswith("ErrorBudget")]
    for alert, text in zip(BURN_ALERTS, found, strict=True):
        windows = [f"{alert.long_minutes // 60}h", f"{alert.short_minutes}m"]
        assert re.findall(r"ratio_rate(\w+)", text) == windows
        assert set(re.findall(r"\(([\d.]+) \*", text)) == {f"{alert.factor:g}"}
