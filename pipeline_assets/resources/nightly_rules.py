"""The shop's rules on the nightly slates: what must not be shown is left out, and caps are kept.

Boosts and pins are applied when a slate is served (serving/answers.py), so that nothing is boosted twice; so are rules that are
bound to a context, because the night has none.
"""

from __future__ import annotations

from datetime import date

import pandas as pd

from pipeline_assets.recommender.bundle import Bundle
from pipeline_assets.recommender.packing import unpack
from pipeline_assets.serving.answers import days_since_bought
from pipeline_assets.serving.rules import RuleContext, apply_rules
from pipeline_assets.settings_rules import RulesSettings


def barriers(rules: RulesSettings) -> RulesSettings:
    """What must not be shown at all."""
    return RulesSettings(blocked=rules.blocked, recently_bought=rules.recently_bought)


def caps(rules: RulesSettings) -> RulesSettings:
    """How much of one value a slate may show."""
    return RulesSettings(caps=rules.caps)


def ruled(
    ranked: pd.DataFrame, rows: pd.DataFrame, bundle: Bundle, rules: RulesSettings, today: date, k: int
) -> pd.DataFrame:
    """The best `k` rows of each customer that the rules allow, with ranks from 1 without holes.

    Args:
        ranked: customer_id, rank, product_id, score and columns that are kept; sorted by customer and rank.
        rows: customer_id, candidate_ids, pair_features (packed), one row per customer.
        today: the day on which the slates begin to count.
    """
    if rules.is_empty:
        return ranked[ranked["rank"] <= k]
    packs = {row.customer_id: row for row in rows.itertuples()} if rules.recently_bought else {}
    kept = []
    for customer, slate in ranked.groupby("customer_id", sort=False):
        since = {}
        if pack := packs.get(customer):
            pair = unpack(pack.pair_features, len(pack.candidate_ids), len(bundle.features.pair))
            since = days_since_bought(rules, bundle, pack.candidate_ids, pair)
        scored = list(zip(slate["product_id"], slate["score"], strict=True))
        allowed, _ = apply_rules(scored, rules, RuleContext(k, today, days_since=since), bundle)
        shown = slate[slate["product_id"].isin([product for product, _ in allowed])]
        kept.append(shown.assign(rank=range(1, len(shown) + 1)))
    return pd.concat(kept).astype({"rank": ranked["rank"].dtype}) if kept else ranked
