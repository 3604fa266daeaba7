"""Kinds of `benchmarks.evaluation` that set two models or two rules for slates beside each other: discover, gate, tuning."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation import FRESH, Place, say
from benchmarks.trials import compared, side_by_side, stored_examples, stored_model

if TYPE_CHECKING:
    import pandas as pd

MARGINS = (1.0, 1.2, 1.4, 1.5, 1.6, 1.8)
TUNED_WEEKS, TRIALS, SECONDS, ROUNDS = 5, 8, 300, 160  # of the study: a budget of a CPU minute or two
CHAMPION_WEEKS = 12


def one_place(ranked: pd.DataFrame, k: int = 10) -> pd.DataFrame:
    """The rule of ADR 21: place `k` is for the best new product, unless one is there already."""
    import pandas as pd

    best = ranked[ranked["is_new"]].drop_duplicates("customer_id")  # ranks ascend
    moved = best[best["rank"] > k]
    kept = ranked[ranked["rank"] <= k - ranked["customer_id"].isin(moved["customer_id"]).astype(int)]
    return pd.concat([kept, moved.assign(rank=k)]).sort_values(["customer_id", "rank"], ignore_index=True)


def discover(at: Place) -> dict[str, Any]:
    """What new products cost and bring: one place for everybody, and places where a new product counts more by some margin."""
    import lightgbm

    from pipeline_assets.recommender.discover import MARGIN
    from pipeline_assets.recommender.discover import discover as rule

    variants: dict[str, Any] = {"one place for everybody": one_place}
    variants |= {f"margin {margin}": partial(rule, margin=margin) for margin in MARGINS}
    new: dict[str, list[float]] = {}

    def counted(name: str, ranked: pd.DataFrame) -> pd.DataFrame:
        slates: pd.DataFrame = variants[name](ranked)
        new.setdefault(name, []).extend(slates.groupby("customer_id")["is_new"].sum().tolist())
        return slates

    models = {FRESH: lightgbm.Booster(model_str=stored_model(at))}
    frames = side_by_side(at, models, {name: partial(counted, name) for name in variants})
    seed = at.settings.training.seed
    return {
        "rules": {
            name: {
                **compared(frames[name], frames[FRESH], seed),
                "new_products": sum(counts) / len(counts),
                "with_none": sum(count == 0 for count in counts) / len(counts),
            }
            for name, counts in new.items()
        },
        "chosen": f"margin {MARGIN}",
        "customer_weeks": len(frames[FRESH]),
    }


def gate(at: Place) -> dict[str, Any]:
    """The model of the day as challenger of one that a smaller training a week earlier would have made champion, and the other way round."""
    from pipeline_assets.recommender import baselines
    from pipeline_assets.recommender.judging import CHALLENGER, CHAMPION
    from pipeline_assets.recommender.promotion import GatePolicy, decide
    from pipeline_assets.resources.evaluation_run import judge_weeks
    from pipeline_assets.settings import get_settings

    everything, training = stored_examples(at), at.weeks.training
    earlier = replace(at.weeks, training=training[-CHAMPION_WEEKS:-1], early_stopping=training[-1:])
    older = _text(at, everything, earlier)
    newer, settings = stored_model(at), get_settings().training
    policy = GatePolicy(
        min_customers=settings.gate_min_customers,
        min_primary=settings.gate_min_ndcg,
        min_slice_customers=settings.gate_min_slice_customers,
        max_change=settings.gate_max_change,
    )
    found, seed = {}, at.settings.training.seed
    for name, challenger, champion in (("newer", newer, older), ("older", older, newer)):
        models = {CHALLENGER: challenger, CHAMPION: champion}
        judged, _, _ = judge_weeks(
            at.lake, at.features, at.weeks.evaluation, models, baselines.GATE, at.settings, at.door, say
        )
        evidence = judged.evidence(policy, seed)
        decision = decide(judged.challenger, judged.champion, judged.baselines, policy, seed, evidence)
        assert judged.champion is not None
        found[name] = {
            "outcome": decision.outcome,
            "reasons": list(decision.reasons),
            "changes": list(decision.changes),
            "changed_slots": judged.change,
            **compared(judged.challenger, judged.champion, seed),
        }
        rows = len(judged.challenger)
    weeks = {"newer": len(training) + 1, "older": CHAMPION_WEEKS}
    return {"challengers": found, "label_weeks": weeks, "stops": [training[-1], at.weeks.early_stopping[-1]], "customer_weeks": rows}  # fmt: skip


def _text(at: Place, everything: Any, weeks: Any) -> str:
    from benchmarks.evaluation import trained

    text = trained(at, everything, weeks)
    say("trained the champion")
    return text


def tuning(at: Place) -> dict[str, Any]:
    """A study of a few minutes on a few label weeks, its best model and the default's on the evaluation weeks."""
    from pipeline_assets.recommender.ranker import RankerParams
    from pipeline_assets.resources.training_data import week_targets
    from pipeline_assets.resources.training_run import fit
    from pipeline_assets.resources.tuning_run import tuned_against_default

    chosen = at.settings.training.model_copy(
        update={"trials": TRIALS, "trial_seconds": SECONDS, "max_rounds": ROUNDS, "label_weeks": TUNED_WEEKS}
    )
    settings = at.settings.model_copy(update={"training": chosen})
    everything = stored_examples(at)
    weeks = replace(at.weeks, training=at.weeks.training[-(TUNED_WEEKS - 1) :])
    tuned = fit(everything, weeks, settings, study="benchmark", storage=None)
    say(f"tuned: {tuned.params}")
    default = fit(everything, weeks, settings, study="benchmark", storage=None, params=RankerParams())
    gains = tuned_against_default(
        at.lake, at.features, tuned.text, default.text, at.weeks.evaluation, settings, at.door, say
    )
    return {
        "params": asdict(tuned.params),
        "defaults": asdict(RankerParams()),
        "gains": [{**asdict(gain), "verdict": gain.verdict} for gain in gains],
        "stopping_ndcg": {"tuned": max(tuned.trained.curve), "default": max(default.trained.curve)},
        "trees": {"tuned": tuned.trained.best_iteration, "default": default.trained.best_iteration},
        "trials": TRIALS,
        "seconds": SECONDS,
        "rounds": ROUNDS,
        "label_weeks": TUNED_WEEKS,
        "customer_weeks": sum(
            week_targets(at.lake, day, at.settings.training.horizon_days, at.door)["customer_id"].nunique()
            for day in at.weeks.evaluation
        ),
    }
