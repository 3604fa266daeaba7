"""Candidate recall: of what customers bought, how much each candidate source names. It bounds what any ranking can reach."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline_assets.recommender.page import Section

_PAIR = ["customer_id", "product_id"]


def candidate_recall(named: pd.DataFrame, targets: pd.DataFrame, sources: Sequence[str]) -> pd.DataFrame:
    """What each source contributes.

    Args:
        named: customer_id, product_id, source (index into `sources`): a row for every source that names the product.
        targets: distinct customer_id, product_id that were bought; customers without one do not count.
        sources: names, in the order in which they come: a candidate is the first's that names it.

    Returns:
        One row per source and one `all`, with columns source, candidates (named, a customer), targets (of all targets, the share that is
        named), first (named by this source and by none before it), alone (by no other source). `first` adds up to `targets` of `all`,
        which is the recall of the candidates; without `alone` of a source the candidates would lose as much.
    """
    customers = targets["customer_id"].nunique()
    named = named[named["customer_id"].isin(targets["customer_id"])]
    hits = named.merge(targets[_PAIR], on=_PAIR)
    by_pair = hits.groupby(_PAIR)["source"].agg(["min", "count"])
    is_alone = hits.join(by_pair, on=_PAIR)["count"] == 1
    n_targets, n_candidates = len(targets), named.groupby("source").size()
    rows = [
        {
            "source": name,
            "candidates": n_candidates.get(index, 0) / customers,
            "targets": (hits["source"] == index).sum() / n_targets,
            "first": (by_pair["min"] == index).sum() / n_targets,
            "alone": (is_alone & (hits["source"] == index)).sum() / n_targets,
        }
        for index, name in enumerate(sources)
    ]
    together = len(by_pair) / n_targets
    distinct = len(named[_PAIR].drop_duplicates()) / customers
    rows.append({"source": "all", "candidates": distinct, "targets": together, "first": together, "alone": together})
    return pd.DataFrame(rows)


def sources_section(recall: pd.DataFrame, window: str) -> Section:
    """`candidate_recall` as a section of the evaluation's page.

    Args:
        window: the days in which the targets were bought, in words.
    """
    shares = recall[["targets", "first", "alone"]].map(lambda share: f"{share:.2%}")
    shown = pd.concat([recall["source"], recall["candidates"].round(1), shares], axis=1)
    return Section(
        "What the candidates can reach",
        f"Of what was bought from {window}: the share that each source names, names before the sources above it did not, and alone names. "
        "No ranking finds more than all of them.",
        tables={"": shown},
    )
