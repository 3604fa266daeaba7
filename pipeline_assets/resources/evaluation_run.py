"""One evaluation: challenger, champion and baselines on the same customers of the newest complete weeks, and the gate's decision.

Labels are read through a door (holdout.py): evaluating a week of the holdout is recorded, each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import pandas as pd
import pyarrow

from pipeline_assets.recommender import baselines
from pipeline_assets.recommender.candidate_recall import sources_section
from pipeline_assets.recommender.discover import discover
from pipeline_assets.recommender.evaluation_page import evaluation_page, example_slates, named
from pipeline_assets.recommender.judging import CHALLENGER, CHAMPION, DISCOVER, Facts, Judged, join_weeks, judge_week
from pipeline_assets.recommender.promotion import Decision, Evidence, GatePolicy, decide
from pipeline_assets.recommender.ranker import rank_customers
from pipeline_assets.resources.candidate_sources import recall_by_source
from pipeline_assets.resources.evaluation_record import Evaluation, card_of, lake_row, log_evaluation
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.tracking import Tracking, Version
from pipeline_assets.resources.training_data import (
    purchases_up_to,
    read_weeks,
    require_features,
    training_weeks,
    week_targets,
)
from pipeline_assets.resources.training_run import model_run
from pipeline_assets.settings import Settings

K = 10
EVALUATION_TABLE = "evaluation/evaluation_report"
_ALL_CANDIDATES = 1000  # more than any customer has
_PRODUCT_COLUMNS = ["product_id", "department", "type", "brand", "is_sellable", "event_date"]


@dataclass(frozen=True, eq=False)
class Opponents:
    """Whom a challenger meets, and when: the champion (None: there is none), and weeks that neither was trained on.

    `is_too_new`: the champion was trained through after every week that the challenger can be judged on.
    """

    champion: Version | None
    days: tuple[date, ...]
    is_too_new: bool


def opponents(tracking: Tracking, run_id: str, weeks: Sequence[date]) -> Opponents:
    """The champion, unless it is the challenger itself, and those of its `weeks` that the champion has not seen."""
    champion = tracking.champion()
    if champion is None or champion.run_id == run_id:  # it is judged again as it was the first time
        return Opponents(None, tuple(weeks), False)
    seen = date.fromisoformat(champion.tags["trained_through"])
    unseen = tuple(week for week in weeks if week >= seen)
    return Opponents(champion, unseen or tuple(weeks[-1:]), not unseen)


def week_facts(lake: Lake, day: date, targets: pd.DataFrame, purchases: pd.DataFrame) -> Facts:
    """What one week is judged with: its `targets`, sellable `purchases` before, and the catalogue."""
    products = lake.read("warehouse/dim_products", None, day, _PRODUCT_COLUMNS).to_pandas()
    newest = products.sort_values("event_date").drop_duplicates("product_id", keep="last")
    return Facts(day, targets, purchases, newest.set_index("product_id").drop(columns="event_date"))


def judge_weeks(
    lake: Lake,
    features: FeatureStoreResource,
    days: Sequence[date],
    models: Mapping[str, str],
    methods: Sequence[str],
    settings: Settings,
    door: Door,
    log: Callable[[str], object],
) -> tuple[Judged, Facts, pd.DataFrame]:
    """Rank and judge every week; returns all of them joined, and the facts and the challenger's slates of the newest.

    Args:
        models: name -> native text, with `CHALLENGER` among them. methods: names of `baselines.ALL`.

    Raises:
        BlockedPartition: features or labels of a week are missing.
    """
    import lightgbm

    require_features(lake, days)
    boosters = {name: lightgbm.Booster(model_str=text) for name, text in models.items()}
    targets = {day: week_targets(lake, day, settings.training.horizon_days, door) for day in days}
    wanted = ((day, sorted(bought["customer_id"].unique())) for day, bought in targets.items())
    weeks = []
    read = read_weeks(features, features.apply(), wanted)
    for week, purchases in zip(read, purchases_up_to(lake, settings.calendar.first_day, days), strict=True):
        day = week.day
        facts = week_facts(lake, day, targets[day], purchases)
        slates = {
            name: rank_customers(
                booster,
                week.rows,
                week.catalogue,
                _ALL_CANDIDATES if name == CHALLENGER else K,
                settings.training.usable_threads,
            )
            for name, booster in boosters.items()
        }
        slates[DISCOVER] = discover(slates[CHALLENGER], K)
        top = min(K, facts.purchases["product_id"].nunique())
        slates |= baselines.baseline_slates(methods, facts.purchases, facts.customers, day, top)
        weeks.append(judge_week(facts, slates, K))
        log(f"week as of {day}: {len(facts.customers)} customers evaluated")
    return join_weeks(weeks), facts, slates[CHALLENGER]


def evaluate(
    lake: Lake,
    features: FeatureStoreResource,
    tracking: Tracking,
    day: date,
    settings: Settings,
    policy: GatePolicy,
    dagster_run_id: str,
    recorded_at: datetime,
    log: Callable[[str], object],
) -> Evaluation:
    """Evaluate `training/model` of `day` and write its report; see the module's text.

    Raises:
        NotEnoughData: there is no model, or no complete week to evaluate on.
        BlockedPartition: features or labels of a week are missing.
    """
    trained, seed = model_run(lake, day), settings.training.seed
    run_id, weeks = str(trained["run_id"]), training_weeks(lake, day, settings)
    met = opponents(tracking, run_id, weeks.evaluation)
    door = Door(lake, "evaluation", dagster_run_id, recorded_at, settings.calendar.holdout_start)
    models = {CHALLENGER: tracking.model_text(run_id)}
    if met.champion:
        models[CHAMPION] = tracking.model_text(met.champion.run_id)
    methods = tuple(baselines.ALL if settings.training.baselines == "all" else baselines.GATE)
    judged, newest, slates = judge_weeks(lake, features, met.days, models, methods, settings, door, log)
    evidence = judged.evidence(policy, seed)
    decision = _decision(judged, met, policy, seed, evidence)
    estimates = judged.estimates(seed)
    summaries = {named(name): values for name, values in judged.summaries().items()}
    windows = tuple(_window(week, settings.training.horizon_days) for week in met.days)
    card = card_of(trained, weeks.training, windows, estimates, summaries, decision)
    sources = recall_by_source(lake, newest.day, newest.targets)
    report = evaluation_page(
        f"Evaluation of the ranker as of {day}",
        f"{len(judged.challenger):,} customer-weeks of {len(met.days)} weeks that no compared model was trained on",
        judged,
        decision,
        evidence,
        estimates,
        {
            "windows": ", ".join(windows),
            "champion": f"version {met.champion.version}" if met.champion else "none",
            "MLflow run": run_id,
            "training data digest": str(trained["training_set_digest"]),
            "commit": str(trained["commit"]),
            "holdout weeks read": str(len(door.held_out(met.days, settings.training.horizon_days))),
        },
        card,
        example_slates(newest, slates, judged.slices.xs(newest.day, level="window")),
        seed,
        (sources_section(sources, windows[-1]),),
    )
    report = replace(report, tables={**report.tables, "candidate_recall": sources})
    path = settings.data_dir / "reports" / "evaluation" / f"{day}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.html)
    version = met.champion.version if met.champion else None
    result = Evaluation(run_id, decision, summaries, judged, evidence, version, path, card, report)
    log_evaluation(tracking, result, estimates[CHALLENGER])
    row = pyarrow.Table.from_pylist([lake_row(day, result)])
    lake.replace_days(EVALUATION_TABLE, row, [day], dagster_run_id, evolves=True)
    return result


def _decision(judged: Judged, met: Opponents, policy: GatePolicy, seed: int, evidence: Evidence) -> Decision:
    if met.champion and met.is_too_new:
        seen = met.champion.tags["trained_through"]
        change = "train a newer one"
        reason = f"the champion was trained through {seen}, after every week this model can be judged on: {change}."
        return Decision("inconclusive", (reason,), pd.DataFrame(), (change,))
    return decide(judged.challenger, judged.champion, judged.baselines, policy, seed, evidence)


def _window(week: date, horizon_days: int) -> str:
    return f"{week + timedelta(days=1)} to {week + timedelta(days=horizon_days)}"
