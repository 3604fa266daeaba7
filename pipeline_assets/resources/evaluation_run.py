"""One evaluation: challenger, champion and baselines on the same customers of the newest complete weeks, and the gate's decision.

Labels are read through a door (holdout.py): evaluating a week of the holdout is recorded, each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from pipeline_assets.recommender import baselines
from pipeline_assets.recommender.metrics import bootstrap_interval, coverage, per_customer_metrics, summarise
from pipeline_assets.recommender.promotion import Decision, GatePolicy, decide
from pipeline_assets.recommender.ranker import rank_customers
from pipeline_assets.recommender.report import (
    CardFacts,
    calibration_plot,
    evaluation_html,
    gain_plot,
    leaderboard_plot,
    model_card,
)
from pipeline_assets.recommender.training_set import targets_of
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.tracking import Tracking
from pipeline_assets.resources.training_data import (
    Week,
    customer_ids,
    read_week,
    require_features,
    sellable_purchases,
    training_weeks,
    window_purchases,
)
from pipeline_assets.resources.training_run import model_run
from pipeline_assets.settings import Settings

K = 10
METRICS = ("ndcg", "recall", "revenue", "precision", "hit_rate", "map", "repeat_recall", "new_item_recall")
EVALUATION_TABLE = "evaluation/evaluation_report"
_ALL_CANDIDATES = 1000  # more than any customer has


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one evaluation. `summaries`: method -> metric -> value; `intervals`: the challenger's, metric -> bounds."""

    run_id: str
    decision: Decision
    summaries: dict[str, dict[str, float]]
    coverage: float
    customer_weeks: int
    weeks: tuple[date, ...]
    champion_version: str | None
    html_path: Path
    card: str
    plots: Mapping[str, bytes]


def _slates(
    week: Week, purchases: pd.DataFrame, customers: list[str], boosters: Mapping[str, Any], threads: int
) -> dict[str, pd.DataFrame]:
    """Slates of every method for one week, from what was known on its as-of day."""
    slates = {
        name: rank_customers(booster, week.rows, week.catalogue, _ALL_CANDIDATES, threads)
        for name, booster in boosters.items()
    }
    top = min(K, purchases["product_id"].nunique())
    slates["popularity"] = baselines.popularity(purchases, customers, week.day, top=top)
    slates["decayed frequency"] = baselines.decayed_frequency(purchases, customers, week.day, top=top)
    slates["TIFU-KNN"] = baselines.tifu_knn(purchases, customers, week.day, top=top)
    return slates


def _calibration(scores: np.ndarray, labels: np.ndarray, first: int) -> bytes:
    """Scores as probabilities by a logistic curve fitted on the first week, drawn on the later ones (on itself when there is one)."""
    from sklearn.linear_model import LogisticRegression

    rest = slice(first, None) if first < len(scores) else slice(None)
    fitted = LogisticRegression().fit(scores[:first, None], labels[:first])
    return calibration_plot(fitted.predict_proba(scores[rest, None])[:, 1], labels[rest])


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
    import lightgbm

    trained = model_run(lake, day)
    run_id, weeks = str(trained["run_id"]), training_weeks(lake, day, settings)
    champion = tracking.champion()
    if champion is not None and champion.run_id == run_id:
        champion = None  # it is judged again as it was the first time
    seen = date.fromisoformat(champion.tags["trained_through"]) if champion else weeks.evaluation[0]
    days = tuple(week for week in weeks.evaluation if week >= min(seen, weeks.evaluation[-1]))
    require_features(lake, days)
    horizon = settings.training.horizon_days
    door = Door(lake, "evaluation", dagster_run_id, recorded_at, settings.calendar.holdout_start)
    boosters = {"challenger": lightgbm.Booster(model_str=tracking.model_text(run_id))}
    if champion:
        boosters["champion"] = lightgbm.Booster(model_str=tracking.model_text(champion.run_id))
    store = features.apply()
    frames: dict[str, list[pd.DataFrame]] = {}
    covered: list[float] = []
    scores, labels, first = [], [], 0
    for week_day in days:
        targets = targets_of(window_purchases(lake, week_day, horizon, door))
        purchases = sellable_purchases(lake, settings.calendar.first_day, week_day, week_day)
        history = purchases[["customer_id", "product_id"]].drop_duplicates()
        customers = sorted(set(targets["customer_id"]) & set(customer_ids(lake, week_day)))
        targets = targets[targets["customer_id"].isin(customers)]
        week = read_week(features, store, customers, week_day)
        slates = _slates(week, purchases, customers, boosters, settings.training.threads)
        for name, slate in slates.items():
            top = slate[slate["rank"] <= K]
            frames.setdefault(name, []).append(
                pd.concat({week_day: per_customer_metrics(top, targets, history, K)}, names=["window"])
            )
        recent = purchases[pd.to_datetime(purchases["event_date"]) > pd.Timestamp(week_day - timedelta(days=91))]
        covered.append(coverage(slates["challenger"], recent["product_id"].nunique(), K))
        everything = slates["challenger"].merge(
            targets[["customer_id", "product_id"]].assign(label=1), "left", ["customer_id", "product_id"]
        )
        scores.append(everything["score"].to_numpy())
        labels.append(everything["label"].fillna(0).to_numpy(np.int8))
        first = first or len(scores[0])
        log(f"week as of {week_day}: {len(customers)} customers evaluated")
    tables = {name: pd.concat(parts) for name, parts in frames.items()}
    challenger, rivals = tables.pop("challenger"), tables.pop("champion", None)
    mean_coverage = float(np.mean(covered))
    if champion and seen > weeks.evaluation[-1]:
        reason = (
            f"the champion was trained through {seen}, after every week this model can be judged on; train a newer one"
        )
        decision = Decision("inconclusive", (reason,), pd.DataFrame())
    else:
        decision = decide(challenger, rivals, tables, policy, settings.training.seed, coverage=mean_coverage)
    summaries = {
        name: {metric: float(value) for metric, value in summarise(frame).items()}
        for name, frame in {"ranker": challenger, **({"champion": rivals} if champion else {}), **tables}.items()
    }
    intervals = {metric: bootstrap_interval(challenger, metric, seed=settings.training.seed) for metric in METRICS}
    estimates = {
        "ranker": intervals["ndcg"],
        **{n: bootstrap_interval(f, "ndcg", seed=settings.training.seed) for n, f in tables.items()},
    }
    plots = {
        "NDCG@10 with 95 % intervals": leaderboard_plot(estimates, "ndcg", "ranker"),
        "Calibration of the scores": _calibration(np.concatenate(scores), np.concatenate(labels), first),
    }
    if not decision.comparisons.empty:
        plots["Paired gain over each reference"] = gain_plot(decision.comparisons)
    windows = tuple(
        f"{week + timedelta(days=1)} to {week + timedelta(days=settings.training.horizon_days)}" for week in days
    )
    card = model_card(
        _facts(trained, weeks.training, windows),
        intervals,
        {k: v for k, v in summaries.items() if k != "ranker"},
        decision,
    )
    leaderboard = pd.DataFrame(
        [{"method": name, **{m: round(s[m], 4) for m in METRICS}} for name, s in summaries.items()]
    )
    html = evaluation_html(
        f"Evaluation of the ranker as of {day}",
        f"{len(challenger)} customer-weeks of {len(days)} weeks that no compared model was trained on",
        decision,
        {
            "windows": ", ".join(windows),
            "champion": f"version {champion.version}" if champion else "none",
            "MLflow run": run_id,
            "training data digest": str(trained["training_set_digest"]),
            "commit": str(trained["commit"]),
            "holdout weeks read": str(len(door.held_out(days, horizon))),
        },
        {"All methods, the same customers": leaderboard},
        plots,
    )
    path = settings.data_dir / "reports" / "evaluation" / f"{day}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html)
    result = Evaluation(
        run_id,
        decision,
        summaries,
        mean_coverage,
        len(challenger),
        days,
        champion.version if champion else None,
        path,
        card,
        plots,
    )
    _log(tracking, result, html)
    row = {
        "event_date": day,
        "run_id": run_id,
        "outcome": decision.outcome,
        "reasons": list(decision.reasons),
        "summaries": json.dumps(summaries, sort_keys=True),
        "coverage": mean_coverage,
        "customer_weeks": len(challenger),
        "champion_version": result.champion_version or "",
        "html_path": str(path),
    }
    lake.replace_days(EVALUATION_TABLE, pyarrow.Table.from_pylist([row]), [day], dagster_run_id)
    return result


def _facts(trained: Mapping[str, Any], training: Sequence[date], windows: tuple[str, ...]) -> CardFacts:
    return CardFacts(
        name="ranker",
        version=str(trained["run_id"])[:12],
        as_of=str(trained["trained_through"]),
        intended_use="Order about 230 candidate products for each known customer of this shop for the coming week.",
        out_of_scope="Other shops' customers, prices, credit or any decision about a person; recommendations to people without a purchase "
        "history come from popularity, not from this model.",
        data="Purchases, promotions, campaigns, products and customers of the configured source; on the sample: dunnhumby / 84.51° "
        "The Complete Journey, 2017, offered by its publishers for education and prototyping (package licence MIT).",
        training_windows=(
            f"{len(training)} weeks as of {training[0]} to {training[-1]}, and one week to stop the training",
        ),
        evaluation_windows=windows,
        limits=(
            "Nearly all of its value is in repeats: it seldom finds products that are new to the customer.",
            "It assumes that next week's promotion plan is known on the evening before the week starts.",
        ),
        known_failure_modes=(
            "Lists that are a week old lose about 3 % NDCG, eight weeks about 14 %: publish daily.",
            "A store without a promotion plan gets no promotion features.",
        ),
    )


def _log(tracking: Tracking, result: Evaluation, html: str) -> None:
    client = tracking.client()
    for metric, value in result.summaries["ranker"].items():
        if np.isfinite(value):
            client.log_metric(result.run_id, f"eval_{metric}", value)
    client.set_tag(result.run_id, "outcome", result.decision.outcome)
    client.log_text(result.run_id, html, "evaluation/report.html")
    client.log_text(result.run_id, result.card, "evaluation/model_card.md")
    content = {
        "summaries": result.summaries,
        "coverage": result.coverage,
        "outcome": result.decision.outcome,
        "reasons": list(result.decision.reasons),
    }
    client.log_text(result.run_id, json.dumps(content, sort_keys=True, indent=1), "evaluation/evaluation.json")
    import io

    from PIL import Image

    for number, image in enumerate(result.plots.values()):
        client.log_image(result.run_id, Image.open(io.BytesIO(image)), f"evaluation/plot_{number}.png")
