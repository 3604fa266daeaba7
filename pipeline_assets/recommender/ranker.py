"""The ranker: LightGBM over candidates. Trained with `lgb.train`, stored as native text, never pickled.

One model, two objectives: the first trees learn the chance of a purchase (`binary`), the later ones the order of each customer's list
(`lambdarank`) on top of it (docs/adr/0020-how-the-ranker-is-trained.md).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_assets.recommender.errors import BundleError, NotEnoughData
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, MODEL_FEATURES, PAIR_FEATURES
from pipeline_assets.recommender.packing import F32, assemble, unpack
from pipeline_assets.recommender.training_set import Block, Catalogue, Examples

if TYPE_CHECKING:
    import lightgbm

    from pipeline_assets.recommender.compiled import CompiledModel

# Of the rounds, for the chance of a purchase: 200 of 320. After 200, 0, 40, 80 and 120 rounds of ranking gave +8.9, 9.5, 9.7 and 9.7 % over TIFU-KNN
# (benchmarks/results/model-experiments-by-hand.md); `python -m benchmarks.experiments run --trials "binary only" "order only"` leaves a phase out.
FIRST_PHASE = 0.625
OBJECTIVES = ("binary", "lambdarank")
RANKING_RATE = 0.6  # learning rate of the ranking phase, of the first one's
# What one early-stopping week cannot tell apart: the paired difference of two models on 1,300 customers has a standard error of about 0.4 % (an estimate).
NOISE = 0.01
_N_ORDERS = PAIR_FEATURES.index("pair_n_orders")  # missing for what was never bought
# Of the rows that bins are made from. LightGBM derives it from `seed` for a matrix in memory and not for blocks; 61 is what it derives from the default, 7.
BIN_SEED = 61
# Bins (a byte a value) that may be held twice: histograms by row want a second copy, for the same trees in 10 % less time (ADR 28).
BINS_TWICE = 512 * 2**20
BLOCK_CUSTOMERS = 500  # scored together: 0.1 M rows, 25 MB


@dataclass(frozen=True)
class RankerParams:
    """What tuning may change. Defaults were chosen on windows before 2017-11-13 (docs/adr/0020-how-the-ranker-is-trained.md)."""

    learning_rate: float = 0.08
    num_leaves: int = 31
    min_data_in_leaf: int = 200
    feature_fraction: float = 0.6
    bagging_fraction: float = 0.8
    lambda_l2: float = 5.0
    truncation_level: int = 10  # places whose pairs count: those that a slate shows

    def lightgbm(self, seed: int, threads: int) -> dict[str, Any]:
        """All parameters of a training run as it starts; deterministic for a given seed, whatever the threads."""
        return {
            "objective": "binary",
            "metric": "ndcg",
            "eval_at": [10],
            "label_gain": [0, 1],
            "lambdarank_truncation_level": self.truncation_level,
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.lambda_l2,
            "max_bin": 127,
            "deterministic": True,
            "seed": seed,
            "num_threads": threads,
            "verbosity": -1,
        }


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained ranker and its learning curve (NDCG@10 on the early-stopping weeks, one value per round of both phases)."""

    booster: lightgbm.Booster
    best_iteration: int
    curve: list[float]


def dataset(
    part: Examples, reference: lightgbm.Dataset | None = None, names: Sequence[str] = MODEL_FEATURES
) -> lightgbm.Dataset:
    """A LightGBM dataset of examples, binned like `reference` when given: a byte a value, filled block by block.

    Bins are from the same 200,000 rows as those of a matrix in memory, so that trees are too.

    Args:
        names: of the matrix's columns; experiments have more than the model.
    """
    import lightgbm

    # before a process has trained, LightGBM says what it does on standard output, where `--json` has one document
    lightgbm.register_logger(logging.getLogger("lightgbm"))

    return lightgbm.Dataset(
        _sequences(part.blocks),
        label=part.label,
        weight=part.weight,
        group=part.groups,
        feature_name=list(names),
        reference=reference,
        # no pre-filter: with it a tuning trial with a smaller min_data_in_leaf logs [Fatal] and bins everything again
        params={"max_bin": 127, "verbosity": -1, "feature_pre_filter": False, "data_random_seed": BIN_SEED},
    )


def _sequences(blocks: Sequence[Block]) -> list[lightgbm.Sequence]:
    """What LightGBM reads blocks through, twice and in their order: rows of its sample, and then all. One matrix is held at a time."""
    import lightgbm

    held: dict[Block, F32] = {}

    class Rows(lightgbm.Sequence):
        def __init__(self, block: Block) -> None:
            self._block, self.batch_size = block, block.rows

        def __len__(self) -> int:
            return self._block.rows

        def __getitem__(self, index: Any) -> Any:
            if self._block not in held:
                held.clear()
                held[self._block] = self._block.read()
            found = held[self._block][index]
            return found if isinstance(index, slice) else found.astype(np.float64)  # it wants its sample as doubles

    return [Rows(block) for block in blocks]


def train(
    training: lightgbm.Dataset,
    stopping: lightgbm.Dataset,
    params: RankerParams,
    max_rounds: int,
    seed: int,
    threads: int,
    callbacks: Sequence[Any] = (),
    objectives: tuple[str, str] = OBJECTIVES,
    first_phase: float = FIRST_PHASE,
) -> Trained:
    """Train both phases; the number of trees is chosen on later weeks.

    Args:
        objectives, first_phase: of the two phases, and the share of the rounds that the first one has; for experiments.

    Raises:
        NotEnoughData: the model did not learn a single useful tree.
    """
    import lightgbm

    history: dict[str, dict[str, list[float]]] = {}
    first = round(max_rounds * first_phase)
    phases: dict[str, list[Any]] = {
        "objective": [objectives[0]] * first + [objectives[1]] * (max_rounds - first),
        "learning_rate": [params.learning_rate] * first + [params.learning_rate * RANKING_RATE] * (max_rounds - first),
    }
    bins = training.construct().num_data() * training.num_feature()
    by_row = bins <= BINS_TWICE  # LightGBM would choose by timing both, each time anew
    booster = lightgbm.train(
        params.lightgbm(seed, threads) | {"force_row_wise": by_row, "force_col_wise": not by_row},
        training,
        num_boost_round=max_rounds,
        valid_sets=[stopping],
        valid_names=["stopping"],
        callbacks=[lightgbm.reset_parameter(**phases), lightgbm.record_evaluation(history), *callbacks],
    )
    if not booster.feature_importance("split").any():  # a tree without a split is one leaf
        raise NotEnoughData(
            "ranker",
            found="no tree was grown",
            wanted="at least one",
            fix="use more label weeks or a smaller min_data_in_leaf",
        )
    curve = [float(value) for value in history["stopping"]["ndcg@10"]]  # NumPy floats otherwise
    booster.best_iteration = best_round(curve, first)
    return Trained(booster, booster.best_iteration, curve)


def best_round(curve: Sequence[float], first: int) -> int:
    """How many trees to keep: the best of the ranking phase, unless the `first` rounds before it were better by more than noise.

    A small shop's later trees can learn its few customers by heart; then the curve falls, and the best tree of all is the last one kept.
    """
    values = np.asarray(curve)
    late = first + int(np.argmax(values[first:])) if len(values) > first else len(values) - 1
    early = int(np.argmax(values))
    return 1 + (late if values[late] >= values[early] * (1 - NOISE) else early)


def model_text(booster: lightgbm.Booster, best_iteration: int) -> str:
    """The model as native text, cut at the best iteration."""
    return str(booster.model_to_string(num_iteration=best_iteration))


def tree_digest(text: str) -> str:
    """SHA-256 of the trees. The parameters after them name threads and paths, which change nothing that is learned."""
    return hashlib.sha256(text.split("\nparameters:")[0].encode()).hexdigest()


def importance(booster: lightgbm.Booster) -> dict[str, float]:
    """Share of the split gain per feature, largest first."""
    gain = booster.feature_importance("gain")
    total = float(gain.sum()) or 1.0
    pairs = zip(MODEL_FEATURES, gain, strict=True)
    return dict(sorted(((name, float(g) / total) for name, g in pairs), key=lambda pair: -pair[1]))


def rank_customers(
    booster: lightgbm.Booster | CompiledModel,
    rows: pd.DataFrame,
    catalogue: Catalogue,
    k: int,
    threads: int,
    more: Callable[[NDArray[np.object_], NDArray[np.object_]], F32] | None = None,
) -> pd.DataFrame:
    """The best `k` candidates of every customer: the batch twin of `Bundle.rank`, over the same `assemble` and tie-break.

    Args:
        rows: customer_id, CUSTOMER_FEATURES, candidate_ids, pair_features.
        catalogue: product features of the same day; candidates it does not have are dropped.
        more: columns after the model's features for customers and products (n,); for experiments.

    Returns:
        Slates: customer_id, rank (1..k), product_id, score, is_new (the customer never bought it).

    Raises:
        BundleError: a score is not finite.
    """
    place = catalogue.rows
    slates = []
    for start in range(0, len(rows), BLOCK_CUSTOMERS):
        block = rows.iloc[start : start + BLOCK_CUSTOMERS]
        lengths = block["candidate_ids"].str.len().fillna(0).astype(int).to_numpy()
        if not lengths.sum():
            continue
        ids = np.concatenate([np.asarray(c, dtype=object) for c in block["candidate_ids"] if c is not None and len(c)])
        pair = np.concatenate(
            [unpack(blob, n, len(PAIR_FEATURES)) for blob, n in zip(block["pair_features"], lengths, strict=True) if n]
        )
        owner = np.repeat(np.arange(len(block)), lengths)
        found = np.fromiter((place.get(product, -1) for product in ids), dtype=np.intp, count=len(ids))
        kept = found >= 0
        customers = block[list(CUSTOMER_FEATURES)].to_numpy(np.float32)[owner[kept]]
        matrix = assemble(pair[kept], customers, catalogue.matrix[found[kept]])
        if more:
            extra = more(block["customer_id"].to_numpy(dtype=object)[owner[kept]], ids[kept])
            matrix = np.concatenate([matrix, extra], axis=1)
        scores = np.asarray(booster.predict(matrix, num_threads=threads), dtype=np.float64)
        if not np.isfinite(scores).all():
            raise BundleError(
                "ranker",
                found="a score that is not finite",
                wanted="finite scores",
                fix="look at the model's training run",
            )
        is_new = np.isnan(pair[kept, _N_ORDERS])
        frame = pd.DataFrame({"owner": owner[kept], "product_id": ids[kept], "score": scores, "is_new": is_new})
        frame = frame.sort_values(["owner", "score", "product_id"], ascending=[True, False, True], kind="stable")
        frame["rank"] = frame.groupby("owner", sort=False).cumcount() + 1
        frame = frame[frame["rank"] <= k]
        frame["customer_id"] = block["customer_id"].to_numpy()[frame["owner"]]
        slates.append(frame[["customer_id", "rank", "product_id", "score", "is_new"]])
    if not slates:
        raise NotEnoughData(
            "batch scoring",
            found="no customer with candidates",
            wanted="at least one",
            fix="materialise the features of the day",
        )
    return pd.concat(slates, ignore_index=True)
