"""Each kind of fault turns its own report red and no other: the reports on small lakes, through the functions that the assets call.

Drift and skew of the online store on a whole shop are in e2e/test_closed_loop.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from pipeline_assets.monitoring.quality import QualityPolicy
from pipeline_assets.resources.decision_run import decide_for
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.quality_run import quality_of
from pipeline_assets.resources.skew_run import slate_skew
from pipeline_assets.resources.slo_run import SLO_TABLE, frozen_by, slo_of
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets.settings import Settings, load_settings

DAY = date(2017, 3, 20)
NOW = datetime(2017, 3, 21, 3, tzinfo=UTC)
CUSTOMERS, DAYS = [f"c{n}" for n in range(4)], [DAY - timedelta(days=n) for n in range(60)]
POLICY = QualityPolicy(min_customers=2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"PIPELINE_DATA_DIR": str(tmp_path)})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Four customers who buy p1 and p2 every day; everybody is recommended them for three weeks, by model 1, promoted with an NDCG of 1."""
    lake = Lake(root=str(tmp_path / "lake"))
    lake.record_verdicts([Verdict("purchases", day, "passed", 8, 8, 0) for day in DAYS], "run", NOW)
    rows = [
        {"customer_id": c, "product_id": p, "event_date": day, "amount": 1.0, "quantity": 1.0, "order_id": f"{day}{c}"}
        for day in DAYS
        for c in CUSTOMERS
        for p in ("p1", "p2")
    ]
    lake.replace_days("warehouse/fct_purchases", pyarrow.Table.from_pylist(rows), DAYS, "run")
    catalogue(lake, ["p1", "p2", "p8", "p9", *(f"new{day}" for day in DAYS[:21])])
    recommend(lake, DAYS[:22], ["p1", "p2"])
    old = DAY - timedelta(days=5)
    summaries = json.dumps({"ranker": {"ndcg": 1.0}, "decayed frequency": {"ndcg": 1.0}})
    put(lake, "evaluation/promotion", old, outcome="promote", version="1", champion_version="1")
    put(lake, "evaluation/evaluation_report", old, summaries=summaries)
    return lake


def put(lake: Lake, table: str, day: date, **row: Any) -> None:
    lake.replace_days(table, pyarrow.Table.from_pylist([{**row, "event_date": day}]), [day], "run")


def catalogue(lake: Lake, sold: list[str]) -> None:
    """What may be recommended, since the first day; the bag may not."""
    rows = [{"product_id": p, "is_sellable": p != "bag", "event_date": DAYS[-1]} for p in [*sold, "bag"]]
    lake.replace_days("warehouse/dim_products", pyarrow.Table.from_pylist(rows), [DAYS[-1]], "run")


def recommend(lake: Lake, days: list[date], products: list[str], version: str = "1") -> None:
    """These products for everybody on these days."""
    rows = [
        {"event_date": d, "customer_id": c, "rank": n, "product_id": p, "score": 1.0 / n, "model_version": version}
        for d in days
        for c in CUSTOMERS
        for n, p in enumerate(products, 1)
    ]
    lake.replace_days("recommendations/daily", pyarrow.Table.from_pylist(rows), days, "run")


def reports(lake: Lake, settings: Settings) -> dict[str, str]:
    """Verdicts of quality, slates and service levels, in the order in which a run makes them."""
    door = Door(lake, "monitoring", "run", NOW, None)
    quality = quality_of(lake, DAY, settings, POLICY, "run", door, NOW).decision.verdict
    slates = slate_skew(lake, DAY)
    moved = "unknown" if slates is None else "skew" if slates.top_n_overlap < 0.5 else "ok"
    return {"quality": quality, "slates": moved, "slo": slo_of(lake, DAY, settings, "run", NOW).verdict}


GREEN = {"quality": "ok", "slates": "ok", "slo": "ok"}


@pytest.mark.ml_test("Mo7")
def test_a_good_day_is_green(lake: Lake, settings: Settings) -> None:
    """Recommended and bought the same for weeks; a page each, and nothing is decided."""
    assert reports(lake, settings) == GREEN
    pages = sorted(
        path.relative_to(settings.data_dir / "reports").as_posix() for path in settings.data_dir.rglob("*.html")
    )
    assert pages == ["quality/2017-03-20.html", "slo/2017-03-20.html"]
    assert decide_for(lake, DAY, settings, "run", NOW)[1].kind == "nothing"


@pytest.mark.ml_test("Mo7", control=True)
def test_bad_recommendations_turn_quality_red(lake: Lake, settings: Settings) -> None:
    """The same useless list for three weeks: quality alone is red, and asks for a training."""
    recommend(lake, DAYS[:22], ["p9", "p8"])
    assert reports(lake, settings) == GREEN | {"quality": "degraded"}
    decision = decide_for(lake, DAY, settings, "run", NOW)[1]
    assert (decision.kind, decision.trigger) == ("retrain", "quality")


@pytest.mark.parametrize(("half_width", "verdict"), [(0.1, "degraded"), (0.5, "ok")])
def test_what_the_champion_should_reach_is_known_as_well_as_it_was_measured(
    lake: Lake, settings: Settings, half_width: float, verdict: str
) -> None:
    """Half of a perfect list is too little for a champion that was promoted with 1.0 +- 0.1 of the yardstick's NDCG, and may be noise with +- 0.5."""
    recommend(lake, DAYS[:22], ["p1", "p9"])
    interval = {"relative_low": -half_width, "relative_high": half_width}
    comparisons = [
        {"reference": "popularity", "metric": "ndcg", "relative_low": -9.0, "relative_high": 9.0},
        {"reference": "decayed frequency", "metric": "revenue", "relative_low": -9.0, "relative_high": 9.0},
        {"reference": "decayed frequency", "metric": "ndcg", **interval},
    ]
    summaries = json.dumps({"ranker": {"ndcg": 1.0}, "decayed frequency": {"ndcg": 1.0}})
    day = DAY - timedelta(days=5)
    rows = [{"event_date": day, "summaries": summaries, "comparisons": json.dumps(comparisons)}]
    lake.replace_days("evaluation/evaluation_report", pyarrow.Table.from_pylist(rows), [day], "run", evolves=True)
    assert reports(lake, settings) == GREEN | {"quality": verdict}


def test_a_weak_week_of_the_calendar_is_not_degraded(lake: Lake, settings: Settings) -> None:
    """Half of what is bought is new to everybody: the yardstick of the same days falls as the recommendations do, and quality is ok."""
    rows = [
        {"customer_id": c, "product_id": p, "event_date": day, "amount": 1.0, "quantity": 1.0, "order_id": f"{day}{c}"}
        for day in DAYS[:21]
        for c in CUSTOMERS
        for p in ("p1", f"new{day}")
    ]
    lake.replace_days("warehouse/fct_purchases", pyarrow.Table.from_pylist(rows), DAYS[:21], "run")
    door = Door(lake, "monitoring", "run", NOW, None)
    report = quality_of(lake, DAY, settings, POLICY, "run", door, NOW)
    assert report.decision.verdict == "ok"
    assert report.decision.value < 0.5  # against the 1.0 of the promotion it would be degraded


def test_what_is_not_sold_is_no_yardstick(lake: Lake, settings: Settings) -> None:
    """Everybody also buys a bag each day, which nobody may be recommended. A yardstick that lists it would have three hits where a perfect list has two."""
    bags = [
        {"customer_id": c, "product_id": p, "event_date": day, "amount": 1.0, "quantity": 1.0, "order_id": f"{day}{c}"}
        for day in DAYS
        for c in CUSTOMERS
        for p in ("p1", "p2", "bag")
    ]
    lake.replace_days("warehouse/fct_purchases", pyarrow.Table.from_pylist(bags), DAYS, "run")
    report = quality_of(lake, DAY, settings, POLICY, "run", Door(lake, "monitoring", "run", NOW, None), NOW)
    assert (report.decision.verdict, report.decision.value) == ("ok", 1.0)


def test_a_stopped_label_stream_is_unknown(lake: Lake, settings: Settings) -> None:
    """The last twelve days have no verdict: quality is not known, which is not good; the day that is missing is the SLO's."""
    empty = Lake(root=str(settings.data_dir / "other"))
    for table in (
        "warehouse/fct_purchases",
        "warehouse/dim_products",
        "recommendations/daily",
        "evaluation/promotion",
        "evaluation/evaluation_report",
    ):
        rows = lake.read(table)
        empty.replace_days(table, rows, sorted(set(rows["event_date"].to_pylist())), "run")
    empty.record_verdicts([Verdict("purchases", day, "passed", 8, 8, 0) for day in DAYS[12:]], "run", NOW)
    assert reports(empty, settings) == GREEN | {"quality": "unknown"}


def test_lists_that_jump_turn_skew_red(lake: Lake, settings: Settings) -> None:
    """Today's batch of the same model shares nothing with yesterday's: its quality is not known before a week has passed."""
    recommend(lake, [DAY], ["p9", "p8"])
    assert reports(lake, settings) == GREEN | {"slates": "skew"}


def test_another_model_may_move_the_lists(lake: Lake, settings: Settings) -> None:
    """A promotion is no skew: slates of two models are not compared."""
    recommend(lake, [DAY], ["p9", "p8"], version="2")
    assert reports(lake, settings) == GREEN | {"slates": "unknown"}


def test_a_used_up_budget_turns_service_levels_red_and_freezes(lake: Lake, settings: Settings) -> None:
    """2 % of the values were skewed: the budget of 0.1 % is gone, and new models wait; days of before count too."""
    figures = json.dumps({"values": 1_000, "mismatches": 20})
    put(lake, "monitoring/skew_report", DAY, verdict="skew", reasons=["r"], figures=figures, recorded_at=NOW)
    assert reports(lake, settings) == GREEN | {"slo": "exhausted"}
    assert frozen_by(lake, DAY) == ("skew",)
    later = slo_of(lake, DAY + timedelta(days=1), settings, "run", NOW)
    assert later.frozen_by == ("skew",)
    assert frozen_by(lake, DAY - timedelta(days=1)) == ()


def test_a_missing_day_uses_a_budget_that_freezes_nothing(lake: Lake, settings: Settings) -> None:
    """Four of the year's days without a verdict: timeliness is used up, and a new model may still come."""
    for n in range(1, 5):
        slo = slo_of(lake, DAY + timedelta(days=n), settings, "run", NOW)
    assert (slo.verdict, slo.frozen_by) == ("exhausted", ())


@pytest.mark.parametrize(("age", "bad"), [(8, 0), (9, 1)])
def test_a_champion_that_a_fresher_model_did_not_beat_is_fresh(
    lake: Lake, settings: Settings, age: int, bad: int
) -> None:
    """A model that the gate rejected eight days ago is a training that took place; after nine days one was missed."""
    put(lake, "evaluation/promotion", DAY, outcome="reject", version="2", champion_version="1")
    later = DAY + timedelta(days=age)
    slo_of(lake, later, settings, "run", NOW)
    assert json.loads(lake.read(SLO_TABLE, later, later)["figures"][0].as_py())["counts"]["model_freshness"] == [1, bad]


def test_service_levels_count_the_answers_of_the_day_before(lake: Lake, settings: Settings) -> None:
    """The bundle of the day has answered nobody when its report is made: of yesterday's three answers to known customers one was no list of their own."""
    answers = [
        {"answer_id": f"a{n}", "customer_kind": "known", "fallback_level": level, "ts": "2017-03-20T12:00:00+00:00"}
        for n, level in enumerate(("none", "none", "batch"))
    ]
    before = DAY - timedelta(days=1)
    rows = pyarrow.Table.from_pylist([{**answer, "event_date": before} for answer in answers])
    lake.replace_days("monitoring/prediction_log", rows, [before], "run")
    slo_of(lake, DAY, settings, "run", NOW)
    assert json.loads(lake.read(SLO_TABLE, DAY, DAY)["figures"][0].as_py())["counts"]["personalised"] == [3, 1]


def test_on_the_wall_clock_late_is_bad(lake: Lake, tmp_path: Path) -> None:
    """Passed at 03:00 UTC of the next day is in time (06:00 in New York is 10:00 UTC); at 11:00 UTC it is not.."""
    wall = load_settings({"PIPELINE_DATA_DIR": str(tmp_path), "PIPELINE_CALENDAR__CLOCK": "wall"})

    def bad() -> float:
        slo_of(lake, DAY, wall, "run", NOW)
        counts = json.loads(lake.read(SLO_TABLE, DAY, DAY)["figures"][0].as_py())["counts"]
        return float(counts["timeliness"][1])

    assert bad() == 0
    lake.record_verdicts([Verdict("purchases", DAY, "passed", 8, 8, 0)], "run", NOW + timedelta(hours=8))
    assert bad() == 1


def test_an_unknown_indicator_is_an_error(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    """slo.toml promises what nothing measures."""
    from pipeline_assets.recommender.errors import ConfigurationError

    text = '[happiness]\nobjective = 0.9\nwindow_days = 28\nunit = "days"\nfreezes_promotion = false\n'
    (tmp_path / "slo.toml").write_text(text)
    chosen = settings.monitoring.model_copy(update={"slo_file": tmp_path / "slo.toml"})
    with pytest.raises(ConfigurationError, match="happiness"):
        slo_of(lake, DAY, settings.model_copy(update={"monitoring": chosen}), "run", NOW)


def test_days_are_judged_once(lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day after, one day more is complete: it alone is judged. A day whose labels were corrected is judged again."""
    from pipeline_assets.resources import quality_run

    judged: list[list[date]] = []
    measure = quality_run.paired_errors

    def watched(slates: Any, *rest: Any) -> Any:
        judged.append(sorted(slates))
        return measure(slates, *rest)

    monkeypatch.setattr(quality_run, "paired_errors", watched)

    def report(day: date) -> Any:
        return quality_of(lake, day, settings, POLICY, "run", Door(lake, "monitoring", "run", NOW, None), NOW)

    first = report(DAY - timedelta(days=1))
    second = report(DAY)
    assert judged[1] == [DAY - timedelta(days=7)]
    again = second.history.merge(first.history, on="as_of", suffixes=("", "_before"))
    both = again[(again["maturity"] == "complete") & (again["maturity_before"] == "complete")]
    assert len(both) >= 13
    assert (both["ndcg"] == both["ndcg_before"]).all()
    row = {"customer_id": "c0", "product_id": "p9", "event_date": DAY, "amount": 5.0, "quantity": 1.0, "order_id": "x"}
    lake.replace_days("warehouse/fct_purchases", pyarrow.Table.from_pylist([row]), [DAY], "run")
    lake.record_verdicts([Verdict("purchases", DAY + timedelta(days=1), "passed", 8, 8, 0)], "run", NOW)
    report(DAY + timedelta(days=1))
    assert DAY - timedelta(days=7) in judged[2]
    assert DAY - timedelta(days=8) not in judged[2]


def test_answers_are_judged_once(lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the API served is remembered as what was recommended is, until other answers of the day land."""
    from pipeline_assets.resources import quality_run

    def answer(day: date, customers: Sequence[str], products: Sequence[str]) -> None:
        rows = [
            {"customer_id": c, "product_ids": list(products), "ts": f"{day}T12:00:00+00:00", "event_date": day}
            for c in customers
        ]
        lake.replace_days("monitoring/prediction_log", pyarrow.Table.from_pylist(rows), [day], "run")

    judged: list[set[date]] = []
    measure = quality_run.realised_quality

    def watched(slates: Any, *rest: Any, **more: Any) -> Any:
        judged.append(set(slates))
        return measure(slates, *rest, **more)

    def report(day: date) -> Any:
        judged.clear()
        return quality_of(lake, day, settings, POLICY, "run", Door(lake, "monitoring", "run", NOW, None), NOW)

    old, new = DAY - timedelta(days=9), DAY - timedelta(days=7)
    monkeypatch.setattr(quality_run, "realised_quality", watched)
    answer(old, CUSTOMERS, ["p1"])
    answer(new, CUSTOMERS, ["p2"])
    first = report(DAY - timedelta(days=1))
    assert judged[-1] == {old, new}
    second = report(DAY)
    assert judged[-1] == {new}  # its window was open the day before
    assert list(second.served["as_of"]) == [old, new]
    assert list(second.served["maturity"]) == ["complete", "complete"]
    before = first.served["ndcg"].iloc[0]
    assert second.served["ndcg"].iloc[0] == pytest.approx(before, rel=1e-12)
    assert before > 0
    answer(old, CUSTOMERS[:1], ["p9", "p1"])
    lake.record_verdicts([Verdict("purchases", DAY + timedelta(days=1), "passed", 8, 8, 0)], "run", NOW)
    third = report(DAY + timedelta(days=1))
    assert judged[-1] == {old}
    assert third.served["ndcg"].iloc[0] < before
