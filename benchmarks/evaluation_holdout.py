"""The final judge: the model of the last development day on every week of the holdout, beside all baselines. Nothing is chosen by it.

The model is trained on no day of the holdout. Features and lists are fresh each week, as in daily operation; only the model ages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation import FRESH, Place, board, judged, say
from benchmarks.evaluation_page import boards, gain, origin, table
from pipeline_assets.recommender.judging import DISCOVER

if TYPE_CHECKING:
    from pipeline_assets.settings import Settings

TIFU = "TIFU-KNN"
# docs/design/evaluation.md: gain over TIFU-KNN, and the least that its lower bound may be
GOALS: Mapping[str, tuple[float, float | None]] = {
    "ndcg": (0.10, 0.08),
    "recall": (0.11, None),
    "revenue": (0.12, None),
}
NEW_ITEM_RECALL, ITS_COST = 0.006, 0.005


def weeks_of(settings: Settings, newest: date) -> list[date]:
    """As-of days of the whole weeks of the holdout that are over on `newest`."""
    start, horizon = settings.calendar.holdout_start, timedelta(days=settings.training.horizon_days)
    assert start is not None, "there is a holdout"
    first = start - timedelta(days=1)
    return [first + n * horizon for n in range((newest - first) // horizon)]


def landed(at: Place) -> list[date]:
    """Land and build what has arrived, and features as of each week of the holdout; returns the weeks."""
    import dagster as dg

    from pipeline_assets.loop import Loop
    from pipeline_assets.resources.sources import build_source
    from pipeline_assets.settings import with_until

    newest = build_source(with_until(date.max), at.door.recorded_at).arrived_days()[-1]
    weeks = weeks_of(at.settings, newest)
    with dg.DagsterInstance.get() as instance:
        Loop(with_until(newest), instance, say).prepare(newest, lambda _: weeks)
    return weeks


def holdout(at: Place) -> dict[str, Any]:
    """All measures of the stored model of the day and of every baseline, gains with intervals, slices, and how often the holdout was read."""
    from benchmarks.trials import compared, stored_model
    from pipeline_assets.recommender import baselines
    from pipeline_assets.recommender.promotion import GatePolicy
    from pipeline_assets.resources.holdout import counted, holdout_reads

    weeks, seed = landed(at), at.settings.training.seed
    there = replace(at, weeks=replace(at.weeks, evaluation=tuple(weeks)))
    found = judged(there, {FRESH: stored_model(at)}, tuple(baselines.ALL))
    slices = found.evidence(GatePolicy(), seed).slices
    return {
        **board(found, seed),
        "weeks": weeks,
        "by_week": {
            str(week): {
                "ranker": float(found.challenger.loc[week]["ndcg"].mean()),
                TIFU: float(found.baselines[TIFU].loc[week]["ndcg"].mean()),
            }
            for week in weeks
        },
        "discover_cost": compared(found.per_customer[DISCOVER], found.challenger, seed)["ndcg"],
        "slices": slices.to_dict("records"),
        "trained_through": str(at.weeks.early_stopping[-1] + timedelta(days=at.settings.training.horizon_days)),
        "reads": counted(holdout_reads(at.lake)),
    }


def section(entry: Mapping[str, Any]) -> str:
    """The section of results/evaluation.md."""
    rows = []
    for metric, (goal, low) in GOALS.items():
        found = entry["gains"][TIFU][metric]
        is_met = found["relative"] >= goal and (low is None or found["relative_low"] >= low)
        wanted = f"{goal:+.0%}" + (f", lower bound {low:+.0%}" if low else "")
        rows.append([f"{metric}@10 over {TIFU}", gain(found), wanted, _verdict(is_met)])
    new, cost = entry["methods"][DISCOVER]["new_item_recall"][0], entry["discover_cost"]
    rows += [
        ["new-item recall@10 of the discover slate", f"{new:.4f}", f"{NEW_ITEM_RECALL}", _verdict(new >= NEW_ITEM_RECALL)],
        ["its cost in NDCG@10", f"{-cost['difference']:.4f} ({-cost['high']:.4f} to {-cost['low']:.4f})", f"at most {ITS_COST}",
         _verdict(-cost["difference"] <= ITS_COST)],
    ]  # fmt: skip
    below = [each["slice"] for each in entry["slices"] if each["is_below"]]
    lower = [each for each in entry["slices"] if each["difference"] < 0 and not each["is_below"]]
    rows.append(["slices below their strongest baseline", ", ".join(below) or "none", "none", _verdict(not below)])
    reads = ", ".join(f"{number} for {purpose}" for purpose, number in entry["reads"].items())
    return "\n\n".join(
        [
            "## The holdout",
            f"{origin(entry)} The model of the day, trained on days up to {entry['trained_through']}, on the weeks that nothing was chosen by; lists "
            f"are fresh each week, the model ages. This folder's ledger counts {sum(entry['reads'].values())} reads of a week of the holdout: {reads}; "
            "each `make run` of the whole year, in CI too, reads weeks of it in a folder of its own.",
            table(["", "measured", "goal", ""], rows),
            _weeks(entry["by_week"]),
            *boards(entry),
            f"Slices, each against its strongest baseline, bounds for all of them together. {_few(lower)}",
            table(
                ["slice", "measure", "customers", "strongest baseline", "gain"],
                [
                    [each["slice"], each["metric"], f"{each['customers']:,}", each["baseline"], gain(each)]
                    for each in entry["slices"]
                ],
            ),
        ]
    )


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _few(lower: Sequence[Mapping[str, Any]]) -> str:
    if not lower:
        return "None is below it."
    return "Below it within noise: " + ", ".join(str(each["slice"]) for each in lower) + "."


def _weeks(by_week: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [week, f"{each['ranker']:.4f}", f"{each[TIFU]:.4f}", f"{each['ranker'] / each[TIFU] - 1:+.1%}"]
        for week, each in by_week.items()
    ]
    return table(["week as of", "NDCG@10", TIFU, "gain"], rows)
