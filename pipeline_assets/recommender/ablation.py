"""What a group of features is worth: a model that is trained without it, on the same customers.

A group is left out by making its columns missing in the examples: a column without values is never split on, so the
model does not look at it when it ranks either, and everything else (features, bins of the others, seed) stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.recommender.features import MODEL_FEATURES
from pipeline_assets.recommender.packing import F32
from pipeline_assets.recommender.training_set import Block, Examples

# The first pattern that matches names the group, so that a new feature is in one from its first day.
_PATTERNS = (
    ("promotion", r"display|mail|coupon|promot|discount|price"),
    ("collaborative", r"knn|similar|embedding|als_|ease"),
    ("timing", r"overdue|gap|days_since|trip|hazard|due|rhythm|season|weekday|timing|survival|phase"),
    ("type and category", r"_type_|_category_|_department_"),
    ("candidate source", r"pair_place|pair_source"),
    ("counters of the pair", r"^pair_"),
    ("customer", r"^customer_"),
    ("product popularity", r"^product_"),
)


def feature_groups(names: Sequence[str] = MODEL_FEATURES) -> dict[str, tuple[str, ...]]:
    """Group -> its features, in the order of the patterns; groups without a feature are left out.

    Raises:
        ConfigurationError: a feature is in no group.
    """
    found: dict[str, list[str]] = {group: [] for group, _ in _PATTERNS}
    for name in names:
        group = next((group for group, pattern in _PATTERNS if re.search(pattern, name)), None)
        if group is None:
            raise ConfigurationError(name, found="a feature of no group", wanted="one of ablation._PATTERNS",
                                     fix="give it the prefix of its table, or add a pattern")  # fmt: skip
        found[group].append(name)
    return {group: tuple(members) for group, members in found.items() if members}


def without(part: Examples, features: Sequence[str], names: Sequence[str] = MODEL_FEATURES) -> Examples:
    """The same examples with some features missing everywhere. `names` are the matrix's columns."""
    columns = [list(names).index(name) for name in features]

    def lacking(block: Block) -> F32:
        matrix = block.read().copy()
        matrix[:, columns] = np.nan
        return matrix

    return replace(part, blocks=tuple(replace(block, read=partial(lacking, block)) for block in part.blocks))
