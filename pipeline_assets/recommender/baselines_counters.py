"""Baselines that count: popularity, personal frequency, decayed personal frequency. The contract is in `baselines`."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd

from pipeline_assets.recommender.columns import SCORE
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.recommender.known import FILL_DAYS, Known, filled, known_to, settle


def popularity(
    purchases: pd.DataFrame | Known, customers: list[str], as_of: date, days: int = FILL_DAYS, top: int = 20
) -> pd.DataFrame:
    """The same list for everybody: products in most orders of the last `days`, then of all time.

    Raises:
        ConfigurationError: `days` is below 1.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    known, _ = known_to(purchases, customers, as_of, days)
    nobody = pd.DataFrame({"row": np.empty(0, np.int64), "product": np.empty(0, np.int64), SCORE: np.empty(0)})
    return filled(nobody, known, customers, top)


def _personal(known: Known, weights: np.ndarray, place: np.ndarray) -> pd.DataFrame:
    """Sum of `weights` by customer and product, for the customers that have a place."""
    pairs = known.matrix(weights).tocoo()
    row, score = place[pairs.row], settle(pairs.data)
    wanted = (row >= 0) & (score > 0)
    return pd.DataFrame({"row": row[wanted], "product": pairs.col[wanted].astype(np.int64), SCORE: score[wanted]})


def personal_frequency(
    purchases: pd.DataFrame | Known, customers: list[str], as_of: date, top: int = 20
) -> pd.DataFrame:
    """The products that the customer put in most orders; score = number of orders.

    Raises:
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    known, place = known_to(purchases, customers, as_of)
    return filled(_personal(known, np.ones(len(known.customer)), place), known, customers, top)


def decayed_frequency(
    purchases: pd.DataFrame | Known, customers: list[str], as_of: date, half_life_days: float = 90, top: int = 20
) -> pd.DataFrame:
    """Like `personal_frequency`; an order counts 0.5 ** (age in days / half_life_days).

    Raises:
        ConfigurationError: `half_life_days` is not positive.
        NotEnoughData: nothing was bought by `as_of`, or fewer than `top` products.
        SchemaError: a customer is listed twice.
    """
    if half_life_days <= 0:
        raise ConfigurationError("half_life_days", found=half_life_days, wanted="above 0", fix="pass days, such as 90")
    known, place = known_to(purchases, customers, as_of)
    return filled(_personal(known, np.exp2(-known.age_days / half_life_days), place), known, customers, top)
