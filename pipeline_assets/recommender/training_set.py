"""Labelled examples: the candidates of customers who bought something in a window, with what they bought as the label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline_assets.recommender.errors import FeatureMismatch, NotEnoughData
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, MODEL_FEATURES, PAIR_FEATURES
from pipeline_assets.recommender.packing import F32, assemble, unpack

# What a purchase weighs in training: (its amount / the mean) ** AMOUNT_POWER, so that of two equally likely products the dearer one is
# first. Multiplying scores by price ** 0, 0.1, 0.2 and 0.4 after training gave revenue@10 +8.8, 11.2, 14.6 and 20.2 % over TIFU-KNN and NDCG@10
# +9.5, 9.6, 9.5 and 7.9 %; weighing in training follows that curve (development weeks, benchmarks/results/model-experiments-by-hand.md).
AMOUNT_POWER = 0.15
LEAST_AMOUNT = 0.05  # of the mean: what is given away weighs something too


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Product features of one day: ids and a float32 matrix (n x PRODUCT_FEATURES) in the same order."""

    ids: Sequence[str]
    matrix: F32

    @property
    def rows(self) -> dict[str, int]:
        return {product: row for row, product in enumerate(self.ids)}


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of one week that are stored together: how many, and how to read their matrix (n x MODEL_FEATURES, float32)."""

    week: date
    rows: int
    read: Callable[[], F32]


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows for LightGBM, in `blocks` whose matrices are read when they are needed, one at a time: those of all weeks are 0.5 GB, and
    ten times that with ten times the customers. `label` and `weight` (n,), grouped: `groups` sums to n, one per customer and week.
    """

    blocks: tuple[Block, ...]
    label: NDArray[np.int8]
    weight: F32
    groups: NDArray[np.int64]
    week: NDArray[np.object_]  # as-of day of each group

    def of(self, weeks: Sequence[date]) -> Examples:
        """The blocks and groups of some weeks."""
        wanted = set(weeks)
        rows = np.repeat([block.week in wanted for block in self.blocks], [block.rows for block in self.blocks])
        chosen = np.isin(self.week, np.array(weeks, dtype=object))
        blocks = tuple(block for block in self.blocks if block.week in wanted)
        return Examples(blocks, self.label[rows], self.weight[rows], self.groups[chosen], self.week[chosen])

    @property
    def matrix(self) -> F32:
        """All rows at once; for few of them."""
        return np.concatenate([block.read() for block in self.blocks])


def label_week(
    parts: Iterable[tuple[pd.DataFrame, Catalogue]],
    targets: pd.DataFrame,
    day: date,
    negative_share: float,
    seed: int,
) -> Iterator[pyarrow.Table]:
    """Examples of one week, as stored, part by part.

    Negatives are a uniform sample: keeping hard negatives whole and the rest in part, without weights, gave NDCG 0.169
    where a personal counter has 0.249 (docs/design/evaluation.md). Customers without a bought candidate teach a ranker nothing and are left out.

    Args:
        parts: some customers' rows (customer_id, CUSTOMER_FEATURES, candidate_ids, pair_features as of `day`) with the catalogue of their
            candidates; together all customers, in their order. How they are cut changes nothing.
        targets: distinct customer_id, product_id bought in the window, with the amount paid.
        negative_share: part of the not bought candidates that is kept, in (0, 1].
        seed: the sample depends on it and on `day` only.

    Yields:
        Columns week, customer_id, product_id, label (int8), amount (float32, 0 where not bought), MODEL_FEATURES (float32); one customer's
        rows are together.

    Raises:
        NotEnoughData: no customer of any part bought a candidate.
    """
    bought: Mapping[str, dict[str, float]] = {
        customer: dict(zip(part["product_id"], part["amount"], strict=True))
        for customer, part in targets.groupby("customer_id")
    }
    random = np.random.default_rng([seed, day.toordinal()])
    is_empty = True
    for rows, catalogue in parts:
        found = _part(rows, catalogue, bought, day, negative_share, random)
        if found is not None:
            is_empty = False
            yield found
    if is_empty:
        raise NotEnoughData(
            f"examples as of {day}",
            found="no customer bought a candidate",
            wanted="at least one",
            fix="check the purchases of the window",
        )


def _part(
    rows: pd.DataFrame,
    catalogue: Catalogue,
    bought: Mapping[str, dict[str, float]],
    day: date,
    negative_share: float,
    random: np.random.Generator,
) -> pyarrow.Table | None:
    place = catalogue.rows
    parts: list[F32] = []
    ids: list[str] = []
    products: list[str] = []
    labels: list[NDArray[np.int8]] = []
    amounts: list[F32] = []
    customer_matrix = rows[list(CUSTOMER_FEATURES)].to_numpy(np.float32)
    for row, (customer, candidate_ids, blob) in enumerate(
        zip(rows["customer_id"], rows["candidate_ids"], rows["pair_features"], strict=True)
    ):
        wanted = bought.get(customer)
        if not wanted or candidate_ids is None:
            continue
        label = np.fromiter((product in wanted for product in candidate_ids), dtype=np.int8, count=len(candidate_ids))
        keep = (label == 1) | (random.random(len(label)) < negative_share)
        if not label.any() or label.all():
            continue
        chosen = [candidate_ids[i] for i in np.flatnonzero(keep)]
        pair = unpack(blob, len(candidate_ids), len(PAIR_FEATURES))[keep]
        parts.append(assemble(pair, customer_matrix[row], catalogue.matrix[[place[product] for product in chosen]]))
        labels.append(label[keep])
        amounts.append(np.array([wanted.get(product, 0.0) for product in chosen], dtype=np.float32))
        ids += [customer] * len(chosen)
        products += chosen
    if not parts:
        return None
    matrix = np.concatenate(parts)
    table = {
        "week": pyarrow.array([day] * len(ids), pyarrow.date32()),
        "customer_id": pyarrow.array(ids, pyarrow.string()),
        "product_id": pyarrow.array(products, pyarrow.string()),
        "label": pyarrow.array(np.concatenate(labels)),
        "amount": pyarrow.array(np.concatenate(amounts)),
    }
    return pyarrow.table(table | {name: pyarrow.array(matrix[:, i]) for i, name in enumerate(MODEL_FEATURES)})


_NOT_FEATURES = ("week", "customer_id", "product_id", "label", "amount", "event_date")


def examples(parts: Iterable[tuple[pyarrow.Table, Callable[[], F32]]]) -> Examples:
    """Stored examples, without reading their matrices.

    Args:
        parts: in the order in which they are stored, each of one week: columns week, customer_id, label and amount, and what reads the matrix.
    """
    blocks: list[Block] = []
    starts: list[NDArray[np.int64]] = []
    weeks: list[date] = []
    labels: list[NDArray[np.int8]] = []
    amounts: list[F32] = []
    before: tuple[date, str] | None = None
    for table, read in parts:
        week, customer = table["week"][0].as_py(), table["customer_id"].combine_chunks()
        changes = pc.not_equal(customer.slice(1), customer.slice(0, len(customer) - 1)).to_numpy(zero_copy_only=False)
        first = np.flatnonzero(np.r_[before != (week, customer[0].as_py()), changes])
        starts.append(first + sum(block.rows for block in blocks))
        weeks += [week] * len(first)
        labels.append(table["label"].to_numpy())
        amounts.append(table["amount"].to_numpy())
        blocks.append(Block(week, len(table), read))
        before = (week, customer[-1].as_py())
    label = np.concatenate(labels)
    groups = np.diff(np.r_[np.concatenate(starts), len(label)])
    return Examples(
        tuple(blocks), label, purchase_weights(label, np.concatenate(amounts)), groups, np.array(weeks, dtype=object)
    )


def require_model_features(columns: Sequence[str]) -> None:
    """Refuse stored examples of another feature list: a column that moved would be learned under another name.

    Raises:
        FeatureMismatch: the stored feature columns are not this code's.
    """
    stored = tuple(name for name in columns if name not in _NOT_FEATURES)
    if stored != MODEL_FEATURES:
        differing = sorted(set(stored) ^ set(MODEL_FEATURES)) or "the order"
        raise FeatureMismatch(
            "training set",
            found=f"other features: {differing}",
            wanted=f"{len(MODEL_FEATURES)} features of this code",
            fix="materialise it again",
        )


def matrix_of(table: pyarrow.Table) -> F32:
    """The columns of the model's features as a matrix."""
    matrix = np.empty((len(table), len(MODEL_FEATURES)), dtype=np.float32)
    for column, name in enumerate(MODEL_FEATURES):
        matrix[:, column] = table[name].to_numpy()
    return matrix


def purchase_weights(label: NDArray[np.int8], amount: NDArray[Any]) -> F32:
    """1 for what was not bought; for a purchase more the more was paid, 1 in the mean (`AMOUNT_POWER`)."""
    is_bought = label == 1
    paid = amount[is_bought].astype(np.float64)
    value = np.maximum(paid / paid.mean(), LEAST_AMOUNT) ** AMOUNT_POWER if paid.sum() > 0 else np.ones(len(paid))
    weight = np.ones(len(label), dtype=np.float32)
    weight[is_bought] = value / value.mean() if len(value) else value
    return weight


def targets_of(purchases: pd.DataFrame) -> pd.DataFrame:
    """Distinct customer_id, product_id of a window's purchases, with the summed amount."""
    return purchases.groupby(["customer_id", "product_id"], as_index=False)["amount"].sum()
