"""The simple methods that a model has to beat.

Every function takes purchases, customers and a day, and returns slates (customer_id, rank 1..top, product_id, score)
for exactly those customers, `top` products each. Only rows with event_date <= as_of are used. What they share (ties,
filling with popular products) is in `known`.

The defaults were tuned for NDCG@10 on the weeks as of 2017-09-10 to 2017-10-08, which come before the weeks that are
reported; benchmarks/results/leaderboard.md has what was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType

import pandas as pd

from pipeline_assets.recommender.baselines_counters import decayed_frequency, personal_frequency, popularity
from pipeline_assets.recommender.baselines_items import als, ease, item_knn
from pipeline_assets.recommender.baselines_users import tifu_knn, up_cf
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.recommender.known import known_on

__all__ = [
    "ALL", "GATE", "als", "baseline_slates", "decayed_frequency", "ease", "item_knn", "personal_frequency", "popularity",
    "tifu_knn", "up_cf",
]  # fmt: skip
Method = Callable[..., pd.DataFrame]
GATE: Mapping[str, Method] = MappingProxyType(
    {"popularity": popularity, "decayed frequency": decayed_frequency, "TIFU-KNN": tifu_knn}
)
"""In every evaluation: the weakest that has to be beaten, the one without parameters to speak of, and the strongest."""
ALL: Mapping[str, Method] = MappingProxyType(
    {**GATE, "personal frequency": personal_frequency, "UP-CF": up_cf, "item-kNN": item_knn, "EASE": ease, "ALS": als}
)


def baseline_slates(
    names: Sequence[str], purchases: pd.DataFrame, customers: list[str], as_of: date, top: int
) -> dict[str, pd.DataFrame]:
    """Slates of several methods with their default parameters, from purchases that are encoded once.

    Raises:
        ConfigurationError: a method is unknown.
        NotEnoughData, SchemaError: as of the methods.
    """
    if unknown := sorted(set(names) - set(ALL)):
        raise ConfigurationError("baselines", found=unknown, wanted=f"of {', '.join(ALL)}", fix="correct the name")
    known = known_on(purchases, as_of)
    return {name: ALL[name](known, customers, as_of, top=top) for name in names}
