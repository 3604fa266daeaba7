"""Quality against the age of a model, and the retraining cadence that follows from it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.recommender.metrics import metric_value, paired_bootstrap
from pipeline_assets.recommender.split import Weeks

TOLERANCE = (
    0.005  # half of the least gain for which a model replaces a counter (GatePolicy): a loss that is not worth a run
)


def shifted(weeks: Weeks, n_weeks: int, known: list[object]) -> Weeks:
    """The training and early-stopping weeks of a model that was trained `n_weeks` earlier, with as many label weeks.

    Args:
        known: all label weeks that there are, ascending; those of `weeks` are the newest of them.

    Raises:
        NotEnoughData: there are not enough weeks before.
    """
    labelled = [*weeks.training, *weeks.early_stopping]
    end = len(known) - n_weeks
    start = end - len(labelled)
    if start < 0:
        raise NotEnoughData(
            f"a model that is {n_weeks} weeks older", found=f"{len(known)} label weeks",
            wanted=f"{n_weeks + len(labelled)}", fix="use fewer label weeks, or build features of earlier days",
        )  # fmt: skip
    chosen = known[start:end]
    cut = len(weeks.training)
    return Weeks(tuple(chosen[:cut]), tuple(chosen[cut:]), weeks.evaluation)  # type: ignore[arg-type]


def quality_by_age(
    per_customer: Mapping[int, pd.DataFrame], metric: str = "ndcg", *, seed: int, draws: int = 2000
) -> pd.DataFrame:
    """Each older model against the fresh one (age 0), paired on the same customer-weeks.

    Args:
        per_customer: weeks older than the fresh model -> measures, index (window, customer_id); 0 must be there.

    Returns:
        Index age (weeks), ascending, 0 included: value, relative, relative_low, relative_high (95 %), negative = loss.

    Raises:
        NotEnoughData: there is no fresh model.
    """
    if 0 not in per_customer:
        raise NotEnoughData("ages", found=sorted(per_customer), wanted="0, the fresh model", fix="measure it too")
    fresh, rows = per_customer[0], {}
    for age, frame in sorted(per_customer.items()):
        row = {"value": metric_value(frame, metric), "relative": 0.0, "relative_low": 0.0, "relative_high": 0.0}
        if age:
            found = paired_bootstrap(frame, fresh, metric, draws, seed=seed)
            row |= {
                "relative": found.relative, "relative_low": found.relative_low, "relative_high": found.relative_high,
            }  # fmt: skip
        rows[age] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("age")


def cadence_weeks(ages: pd.DataFrame, tolerance: float = TOLERANCE) -> int:
    """Weeks between trainings: the greatest measured age up to which no age loses more than `tolerance` for certain.

    An age fails when even the upper bound of its interval is a loss above the tolerance: below that the data cannot tell
    it from a fresh model, and a run that changes nothing measurable is not worth its cost and its risk. At least 1.

    Args:
        ages: `quality_by_age`.
    """
    kept = 1
    for age, row in ages.iterrows():
        if row["relative_high"] < -tolerance:
            break
        kept = max(kept, int(age))
    return kept
