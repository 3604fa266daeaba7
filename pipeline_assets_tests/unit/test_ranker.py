"""The ranker on examples that can be learned in a second: a product is bought when `pair_n_orders` is high."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender import ranker
from pipeline_assets.recommender.bundle import (
    Bundle,
    BundleContents,
    FeatureLists,
    WarmupRequest,
    load_bundle,
    write_bundle,
)
from pipeline_assets.recommender.errors import BundleError, NotEnoughData
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, MODEL_FEATURES, PAIR_FEATURES, PRODUCT_FEATURES
from pipeline_assets.recommender.packing import pack, unpack
from pipeline_assets.recommender.ranker import RankerParams, Trained, rank_customers
from pipeline_assets.recommender.training_set import Block, Catalogue, Examples
from pipeline_assets_tests import tiny_bundle
from pipeline_assets_tests import tiny_examples as tiny

N_PRODUCTS, N_CUSTOMERS = 40, 7
IDS = [f"p{n:02}" for n in range(N_PRODUCTS)]


def trained(
    seed: int = 7, threads: int = 1, data: int = 1, rounds: int = 12, params: RankerParams = tiny.PARAMS
) -> Trained:
    """Train on the tiny examples; `data` seeds them."""
    training, stopping = tiny.parts(data)
    first = ranker.dataset(training)
    return ranker.train(first, ranker.dataset(stopping, first), params, rounds, seed, threads)


def digest(model: Trained) -> str:
    return ranker.tree_digest(ranker.model_text(model.booster, model.best_iteration))


@pytest.fixture(scope="module")
def model() -> Trained:
    return trained()


def catalogue() -> Catalogue:
    matrix = np.random.default_rng(5).random((N_PRODUCTS, len(PRODUCT_FEATURES)), dtype=np.float32)
    matrix[::3] = matrix[0]  # every third product looks the same: equal scores are possible
    return Catalogue(IDS, matrix)


def rows() -> pd.DataFrame:
    """Seven customers with 20 candidates each; every third candidate of a customer has the same pair features."""
    random = np.random.default_rng(6)
    records = []
    for n in range(N_CUSTOMERS):
        ids = random.permutation(IDS)[:20].tolist()
        pair = random.random((20, len(PAIR_FEATURES)), dtype=np.float32)
        pair[[int(product[1:]) % 3 == 0 for product in ids]] = 0.5
        pair[1, 3] = np.nan  # a missing value
        values = dict(zip(CUSTOMER_FEATURES, random.random(len(CUSTOMER_FEATURES), dtype=np.float32), strict=True))
        records.append({"customer_id": f"c{n}", "candidate_ids": ids, "pair_features": pack(pair), **values})
    return pd.DataFrame(records)


@pytest.mark.ml_test("I2")
def test_learns_what_is_bought(model: Trained) -> None:
    """NDCG@10 on the later week is near 1 and the one informative feature has nearly all of the gain."""
    assert max(model.curve) > 0.9
    shares = ranker.importance(model.booster)
    assert next(iter(shares)) == tiny.SIGNAL
    assert shares[tiny.SIGNAL] > 0.5


def test_curve_has_a_value_per_round_and_the_best_trees_are_kept(model: Trained) -> None:
    """The text has `best_iteration` trees; of 12 rounds the last 4 rank, and the best of these is kept."""
    text = ranker.model_text(model.booster, model.best_iteration)
    assert lightgbm.Booster(model_str=text).num_trees() == model.best_iteration
    assert len(model.curve) == 12
    assert int(np.argmax(model.curve[8:])) + 9 == model.best_iteration


@pytest.mark.parametrize(
    ("curve", "kept"),
    [
        pytest.param([0.1, 0.3, 0.2, 0.299, 0.298], 4, id="as good as the first phase within 1 %"),
        pytest.param([0.1, 0.3, 0.2, 0.29, 0.28], 2, id="worse than the first phase"),
        pytest.param([0.1, 0.2, 0.25, 0.26, 0.31], 5, id="better at the end"),
        pytest.param([0.1], 1, id="one round only"),
    ],
)
def test_trees_of_the_ranking_phase_are_kept_unless_they_are_worse(curve: list[float], kept: int) -> None:
    """Three rounds learn the chance of a purchase, the others rank."""
    assert ranker.best_round(curve, 3) == kept


def test_one_text_holds_trees_of_both_objectives(model: Trained) -> None:
    """The first 8 trees are those of a run that never ranks; the model's scores are raw, so they may be negative."""
    training, stopping = tiny.parts()
    first = ranker.dataset(training)
    purchase = lightgbm.train(tiny.PARAMS.lightgbm(7, 1), first, 12, valid_sets=[ranker.dataset(stopping, first)])
    ours, theirs = (
        booster.trees_to_dataframe().groupby("tree_index")["value"].agg(list) for booster in (model.booster, purchase)
    )
    assert ours[:8].tolist() == theirs[:8].tolist()
    assert ours[8] != theirs[8]
    assert model.booster.predict(training.matrix, num_threads=1).min() < 0


def test_importance_is_shares_of_all_features_largest_first(model: Trained) -> None:
    """They add up to 1."""
    shares = ranker.importance(model.booster)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == set(MODEL_FEATURES)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_same_data_and_seed_grow_the_same_trees(model: Trained) -> None:
    """Two trainings, one digest."""
    assert digest(trained()) == digest(model)


def test_number_of_threads_changes_no_tree(model: Trained) -> None:
    """Two threads grow what one grows; only the parameters behind the trees differ, and the digest leaves them out."""
    two = trained(threads=2)
    assert digest(two) == digest(model)
    assert ranker.model_text(two.booster, two.best_iteration) != ranker.model_text(model.booster, model.best_iteration)


def test_histograms_by_column_grow_the_same_trees(model: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit of memory the bins are held once, and by row below it: the order of work, not its result."""
    monkeypatch.setattr(ranker, "BINS_TWICE", 0)
    by_column = trained()
    ways = [each.booster.params["force_row_wise"] for each in (model, by_column)]
    assert ways == [True, False]
    assert digest(by_column) == digest(model)


@pytest.mark.parametrize(
    "other", [{"data": 3}, {"seed": 8}, {"params": RankerParams(num_leaves=5, min_data_in_leaf=10)}]
)
def test_other_data_seed_or_parameters_grow_other_trees(model: Trained, other: dict[str, int]) -> None:
    """The digest is sensitive to what may change a model."""
    assert digest(trained(**other)) != digest(model)  # type: ignore[arg-type]


def test_model_without_a_split_is_refused() -> None:
    """360 rows cannot fill two leaves of 300."""
    with pytest.raises(NotEnoughData, match="min_data_in_leaf"):
        trained(params=RankerParams(min_data_in_leaf=300))


def test_one_dataset_serves_falling_leaf_sizes(capfd: pytest.CaptureFixture[str]) -> None:
    """Tuning tries 50 after 200 on the same dataset: as a fresh dataset would, and without a complaint of LightGBM."""
    training, stopping = tiny.parts()
    first = ranker.dataset(training)
    second = ranker.dataset(stopping, first)
    ranker.train(first, second, RankerParams(min_data_in_leaf=50), 3, 7, 1)
    reused = ranker.train(first, second, tiny.PARAMS, 12, 7, 1)
    assert digest(reused) == digest(trained())
    assert "Fatal" not in "".join(capfd.readouterr())


def test_slates_have_the_best_k_of_each_customer(model: Trained) -> None:
    """Ranks 1 to 5, scores that never rise, all of them candidates."""
    frame = rows()
    slates = rank_customers(model.booster, frame, catalogue(), k=5, threads=1)
    assert slates["customer_id"].tolist() == np.repeat(frame["customer_id"], 5).tolist()
    assert slates["rank"].tolist() == [1, 2, 3, 4, 5] * N_CUSTOMERS
    assert (slates.groupby("customer_id")["score"].diff().dropna() <= 0).all()
    candidates = frame.set_index("customer_id")["candidate_ids"]
    assert all(row.product_id in candidates[row.customer_id] for row in slates.itertuples())


def test_what_was_never_bought_is_new(model: Trained) -> None:
    """Candidates 0 to 4 of each customer have no count of orders."""
    frame = rows()
    blobs = [unpack(blob, 20, len(PAIR_FEATURES)).copy() for blob in frame["pair_features"]]
    for matrix in blobs:
        matrix[:5, PAIR_FEATURES.index("pair_n_orders")] = np.nan
    slates = rank_customers(model.booster, frame.assign(pair_features=[pack(m) for m in blobs]), catalogue(), 20, 1)
    new = slates[slates["is_new"]].groupby("customer_id")["product_id"].agg(set)
    assert new.tolist() == [set(ids[:5]) for ids in frame["candidate_ids"]]


def bundle(directory: Path, model: Trained) -> Bundle:
    """A real bundle of the same model and catalogue, written and loaded."""
    stock, frame = catalogue(), rows()
    products = pd.DataFrame(stock.matrix, columns=list(PRODUCT_FEATURES)).assign(product_id=IDS)
    products[["department", "category", "type", "brand"]] = "X"
    first = frame.iloc[0]
    request = WarmupRequest(
        "c0", tuple(first["candidate_ids"]), unpack(first["pair_features"], 20, len(PAIR_FEATURES)),
        first[list(CUSTOMER_FEATURES)].to_numpy(np.float32),
    )  # fmt: skip
    write_bundle(
        directory,
        BundleContents(
            model_version="m1", as_of="2017-02-19", created_at="2017-02-20T00:00:00+00:00",
            model_text=ranker.model_text(model.booster, model.best_iteration),
            features=FeatureLists(PAIR_FEATURES, CUSTOMER_FEATURES, PRODUCT_FEATURES), products=products,
            fallback=pd.DataFrame({"rank": [1], "product_id": ["p00"], "score": [1.0]}),
            evaluation={"ndcg": 1.0}, model_card="# Tiny\n", warmup=(request,),
        ),
        tiny_bundle.KEY,
    )  # fmt: skip
    return load_bundle(directory, tiny_bundle.TRUSTED)


@pytest.mark.ml_test("Mo5")
def test_batch_and_serving_give_the_same_bits(model: Trained, tmp_path: Path) -> None:
    """rank_customers on all customers at once = Bundle.rank one by one: order and scores, ties included."""
    frame, served = rows(), bundle(tmp_path / "m1-2017-02-19", model)
    slates = rank_customers(model.booster, frame, catalogue(), k=20, threads=1)
    assert slates.duplicated(["customer_id", "score"]).any()  # there are ties to break
    for _, row in frame.iterrows():
        pair = unpack(row["pair_features"], 20, len(PAIR_FEATURES))
        ids, scores = served.rank(row["candidate_ids"], pair, row[list(CUSTOMER_FEATURES)].to_numpy(np.float32), 20)
        own = slates[slates["customer_id"] == row["customer_id"]]
        assert own["product_id"].tolist() == ids
        assert own["score"].to_numpy().tobytes() == scores.tobytes()


def test_equal_scores_are_ordered_by_product_id(model: Trained) -> None:
    """Three candidates with the same features, given as p06, p00, p03."""
    alike = pack(np.full((3, len(PAIR_FEATURES)), 0.5, dtype=np.float32))
    frame = rows().iloc[:1].assign(candidate_ids=[["p06", "p00", "p03"]], pair_features=[alike])
    slates = rank_customers(model.booster, frame, catalogue(), k=3, threads=1)
    assert slates["product_id"].tolist() == ["p00", "p03", "p06"]


def test_size_of_the_blocks_changes_nothing(model: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven customers in blocks of 2, 2, 2 and 1."""
    whole = rank_customers(model.booster, rows(), catalogue(), k=5, threads=1)
    monkeypatch.setattr(ranker, "BLOCK_CUSTOMERS", 2)
    pd.testing.assert_frame_equal(
        rank_customers(model.booster, rows(), catalogue(), k=5, threads=1), whole, check_exact=True
    )


def test_candidates_that_left_the_catalogue_are_dropped(model: Trained) -> None:
    """Without the winner of c0 her second is the first, with the same score."""
    stock = catalogue()
    best = rank_customers(model.booster, rows(), stock, k=2, threads=1).iloc[:2]
    left = [n for n, product in enumerate(IDS) if product != best["product_id"].iloc[0]]
    smaller = Catalogue([IDS[n] for n in left], stock.matrix[left])
    first = rank_customers(model.booster, rows(), smaller, k=1, threads=1).iloc[0]
    assert (first["product_id"], first["score"]) == (best["product_id"].iloc[1], best["score"].iloc[1])


@pytest.mark.parametrize("nothing", [None, []])
def test_customer_without_candidates_has_no_slate(model: Trained, nothing: Sequence[str] | None) -> None:
    """The others have theirs; serving falls back to popularity for her."""
    frame = rows()
    frame.at[2, "candidate_ids"], frame.at[2, "pair_features"] = nothing, None
    slates = rank_customers(model.booster, frame, catalogue(), k=5, threads=1)
    assert sorted(slates["customer_id"].unique()) == ["c0", "c1", "c3", "c4", "c5", "c6"]


def test_nobody_with_candidates_is_refused(model: Trained) -> None:
    """An empty answer is never a plausible one."""
    frame = rows().assign(candidate_ids=[[]] * N_CUSTOMERS)
    with pytest.raises(NotEnoughData, match="no customer with candidates"):
        rank_customers(model.booster, frame, catalogue(), k=5, threads=1)


@pytest.mark.ml_test("Mo5", control=True)
def test_score_that_is_not_finite_is_refused() -> None:
    """A broken model must not fill slates."""

    class Broken:
        def predict(self, matrix: np.ndarray, num_threads: int) -> np.ndarray:
            return np.full(len(matrix), np.nan)

    with pytest.raises(BundleError, match="not finite"):
        rank_customers(Broken(), rows(), catalogue(), k=5, threads=1)  # type: ignore[arg-type]


def test_parameters_are_deterministic_and_binary_gain() -> None:
    """Whatever is tuned, the run has a seed and 1 as the gain of a purchase."""
    params = RankerParams(num_leaves=9).lightgbm(seed=3, threads=2)
    assert (params["deterministic"], params["seed"]) == (True, 3)
    assert params["objective"] == "binary"
    assert (params["label_gain"], params["eval_at"], params["num_leaves"], params["num_threads"]) == (
        [0, 1],
        [10],
        9,
        2,
    )


def test_blocks_give_the_trees_of_one_matrix() -> None:
    """1,440 rows in one block, in blocks of 500, and as a matrix that LightGBM reads itself: equal trees. One block is held at a time."""
    parts = [tiny.week(date(2017, 2, 5), seed) for seed in range(1, 5)]
    matrix = np.concatenate([part.matrix for part in parts])
    label, groups = (np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "groups"))
    held: list[weakref.ref[np.ndarray]] = []

    def read(start: int) -> np.ndarray:
        found = matrix[start : start + 500].copy()
        held.append(weakref.ref(found))
        assert sum(ref() is not None for ref in held) <= 2  # the one before goes when this one is there
        return found

    cut = tuple(Block(tiny.WEEKS[0], min(500, 1440 - start), partial(read, start)) for start in range(0, 1440, 500))
    weight, week = np.ones(1440, dtype=np.float32), np.concatenate([part.week for part in parts])
    whole = (Block(tiny.WEEKS[0], 1440, lambda: matrix),)
    examples = [Examples(blocks, label, weight, groups, week) for blocks in (cut, whole)]
    params = {"max_bin": 127, "verbosity": -1, "feature_pre_filter": False}
    plain = lightgbm.Dataset(
        matrix, label=label, weight=weight, group=groups, feature_name=list(MODEL_FEATURES), params=params
    )
    digests = [sampled_digest(data) for data in (plain, *map(ranker.dataset, examples))]
    assert len(set(digests)) == 1
    other = ranker.dataset(examples[0])
    other.params["data_random_seed"] = ranker.BIN_SEED + 1  # bins of other rows
    assert sampled_digest(other) != digests[0]


def sampled_digest(data: lightgbm.Dataset) -> str:
    """Of ten trees whose bins are made from 300 rows, as those of millions of rows are made from 200,000."""
    data.params["bin_construct_sample_cnt"] = 300
    return ranker.tree_digest(lightgbm.train(tiny.PARAMS.lightgbm(7, 1), data, 10).model_to_string())


def test_dataset_keeps_names_labels_and_groups() -> None:
    """What LightGBM is given is what the examples say."""
    part = tiny.week(date(2017, 2, 5), seed=1)
    data = ranker.dataset(part).construct()
    assert data.get_feature_name() == list(MODEL_FEATURES)
    assert data.get_group().tolist() == [tiny.ROWS] * tiny.GROUPS
    np.testing.assert_array_equal(data.get_label(), part.label)
