"""A real LightGBM bundle is written, loaded and asked; what does not fit is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.recommender.bundle import Bundle, FeatureLists, load_bundle
from pipeline_assets.recommender.errors import BundleError, FeatureMismatch
from pipeline_assets.recommender.manifest import FILES, make_manifest, publish, verify
from pipeline_assets_tests import tiny_bundle as tiny


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(tiny.write(tmp_path_factory.mktemp("bundles"))[0], tiny.TRUSTED)


def test_loaded_bundle_has_every_part(bundle: Bundle) -> None:
    """Five products; NaN where a price is missing; popularity without the product that left the catalogue."""
    assert bundle.features == tiny.FEATURES
    assert bundle.product_matrix.dtype == np.float32
    np.testing.assert_array_equal(bundle.product_matrix[:, 0], [1, 2, 3, np.nan, 5])
    assert bundle.rows == {"p1": 0, "p2": 1, "p3": 2, "p4": 3, "p5": 4}
    assert bundle.attributes["category"] == ["MILK", "BREAD", "SOAP", None, "SOAP"]
    assert bundle.fallback == (("p1", 9.0), ("p5", 8.0))
    assert bundle.evaluation == {"ndcg": 0.28}


def test_known_bundle_is_parsed_once_and_verified_each_time(tmp_path: Path) -> None:
    """The same files: the same object. Another day's: another one. A file that was changed since is refused, known or not."""
    directory = tiny.write(tmp_path / "here")[0]
    known = load_bundle(directory, tiny.TRUSTED)
    assert load_bundle(directory, tiny.TRUSTED, known) is known
    other = load_bundle(tiny.write(tmp_path / "there", as_of="2017-11-04")[0], tiny.TRUSTED, known)
    assert (other.manifest.as_of, known.manifest.as_of) == ("2017-11-04", tiny.AS_OF)
    (directory / "model.txt").write_text(tiny.model_text(sign=-1))
    with pytest.raises(BundleError, match=r"model\.txt"):
        load_bundle(directory, tiny.TRUSTED, known)


def test_rank_orders_by_score(bundle: Bundle) -> None:
    """Orders 3, 2, 1, 0 of p2, p4, p3, p1; the best two of them."""
    products, scores = bundle.rank(tiny.CANDIDATES, tiny.PAIR, tiny.CUSTOMER, 2)
    assert products == ["p2", "p4"]
    assert scores[0] > scores[1]


def test_equal_scores_are_ordered_by_product_id(bundle: Bundle) -> None:
    """Three candidates with equal features, given in another order."""
    pair = np.repeat(tiny.PAIR[:1], 3, axis=0)
    products, scores = bundle.rank(["p5", "p1", "p3"], pair, tiny.CUSTOMER, 3)
    assert len(set(scores.tolist())) == 1
    assert products == ["p1", "p3", "p5"]


def test_products_that_left_the_catalogue_are_dropped(bundle: Bundle) -> None:
    """The best candidate is gone: the next ones move up, each with its own features."""
    products, _ = bundle.rank(("p1", "gone", "p3", "p4"), tiny.PAIR, tiny.CUSTOMER, 4)
    assert products == ["p4", "p3", "p1"]


def test_no_candidate_left_is_an_empty_slate(bundle: Bundle) -> None:
    """Nothing to rank is no error: serving then takes the next rung."""
    assert bundle.rank(["gone"], tiny.PAIR[:1], tiny.CUSTOMER, 4)[0] == []
    assert bundle.rank([], tiny.PAIR[:0], tiny.CUSTOMER, 4)[0] == []


@pytest.mark.parametrize(
    ("pair", "customer"),
    [(tiny.PAIR[:, :1], tiny.CUSTOMER), (tiny.PAIR[:3], tiny.CUSTOMER), (tiny.PAIR, tiny.CUSTOMER[:1])],
)
def test_features_of_another_width_are_refused(bundle: Bundle, pair: np.ndarray, customer: np.ndarray) -> None:
    """One pair column too few, one row too few, one customer feature too few."""
    with pytest.raises(FeatureMismatch, match=r"wanted pair \(4, 2\), customer \(2,\)"):
        bundle.rank(tiny.CANDIDATES, pair, customer, 4)


def test_candidate_twice_is_refused(bundle: Bundle) -> None:
    """It would be recommended twice."""
    with pytest.raises(FeatureMismatch, match="an id twice"):
        bundle.rank(("p1", "p1", "p3", "p4"), tiny.PAIR, tiny.CUSTOMER, 4)


def test_score_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """Every leaf of the second tree is infinite: the score is, too. Writing asks the model, so nothing is published."""
    head, tree, tail = tiny.model_text().rpartition("leaf_value=")
    broken = head + tree + "inf inf inf inf\n" + tail.split("\n", 1)[1]
    with pytest.raises(BundleError, match="wanted finite scores"):
        tiny.write(tmp_path, text=broken)
    assert list(tmp_path.iterdir()) == []


def test_explanation_names_the_feature_that_decides(bundle: Bundle) -> None:
    """Only pair_orders was learned from: 3 orders of p2 raise its score, 0 orders of p1 lower it."""
    why = bundle.explain(["p2", "p1"], tiny.CANDIDATES, tiny.PAIR, tiny.CUSTOMER, 1)
    assert [(name, value) for ((name, value, _),) in why] == [("pair_orders", 3.0), ("pair_orders", 0.0)]
    assert why[0][0][2] > 0 > why[1][0][2]


def test_golden_answers_are_those_of_the_model(bundle: Bundle) -> None:
    """The warm-up request survives the round trip and is answered as recorded."""
    request, golden = bundle.warmup[0], bundle.golden[0]
    np.testing.assert_array_equal(request.pair_features, tiny.PAIR)
    np.testing.assert_array_equal(request.customer_features, tiny.CUSTOMER)
    products, scores = bundle.rank(request.candidate_ids, request.pair_features, request.customer_features, 10)
    assert (tuple(products), tuple(scores)) == (golden.product_ids, golden.scores)
    assert products == tiny.RANKED


def test_model_of_other_features_is_refused(tmp_path: Path) -> None:
    """Same width, two names swapped: the model would read one feature as the other."""
    swapped = FeatureLists(tiny.FEATURES.pair[::-1], tiny.FEATURES.customer, tiny.FEATURES.product)
    with pytest.raises(BundleError, match="6 features pair_orders, pair_days"):
        tiny.write(tmp_path, features=swapped)


@pytest.mark.parametrize("part", ["warmup", "evaluation", "model_card"])
def test_bundle_without_a_part_is_not_written(tmp_path: Path, part: str) -> None:
    """No probe, no evidence or no card: nothing to serve."""
    with pytest.raises(BundleError, match=f"{part}: found nothing"):
        tiny.write(tmp_path, **{part: ()})


@pytest.mark.parametrize(("part", "column"), [("products", "product_price"), ("fallback", "score")])
def test_table_without_a_column_is_not_written(tmp_path: Path, part: str, column: str) -> None:
    """The missing column is named."""
    frame = getattr(tiny.contents(), part).drop(columns=column)
    with pytest.raises(BundleError, match=column):
        tiny.write(tmp_path, **{part: frame})


@pytest.mark.parametrize(("field", "value"), [("created_at", "2017-11-06T01:00:00"), ("as_of", "5 November")])
def test_time_must_be_clear(tmp_path: Path, field: str, value: str) -> None:
    """A time without zone, and a day that is no ISO date."""
    with pytest.raises(BundleError, match="as_of and created_at"):
        tiny.write(tmp_path, **{field: value})


def test_evaluation_must_be_numbers(tmp_path: Path) -> None:
    """NaN is not JSON, and no evidence either."""
    with pytest.raises(BundleError, match=r"evaluation\.json"):
        tiny.write(tmp_path, evaluation={"ndcg": float("nan")})


def test_same_contents_give_the_same_bundle(tmp_path: Path) -> None:
    """Two directories, one id: nothing random is in a bundle."""
    first, second = tiny.write(tmp_path / "a")[1], tiny.write(tmp_path / "b")[1]
    assert first == second


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.995])
def test_cut_model_is_refused_before_it_is_parsed(tmp_path: Path, kept: float) -> None:
    """Parsing it would abort this very process (E5), so arriving at the error is the proof."""
    directory, _ = tiny.write(tmp_path)
    path = directory / "model.txt"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept)])
    with pytest.raises(BundleError, match=r"model\.txt: found"):
        load_bundle(directory, tiny.TRUSTED)


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    """Pickles begin with 0x80; the files are text, JSON and Parquet (PAR1)."""
    directory, manifest = tiny.write(tmp_path)
    assert verify(directory, tiny.TRUSTED) == manifest
    starts = {path.name: path.read_bytes()[:4] for path in directory.iterdir()}
    assert all(start[0] != 0x80 for start in starts.values())
    assert starts["products.parquet"] == starts["fallback.parquet"] == b"PAR1"


def test_products_are_written_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """Given last to first: rows are ascending, and equal scores still are ordered by id."""
    products = tiny.contents().products.iloc[::-1]
    bundle = load_bundle(tiny.write(tmp_path, products=products)[0], tiny.TRUSTED)
    assert list(bundle.rows) == sorted(bundle.rows)
    np.testing.assert_array_equal(bundle.product_matrix[:, 0], [1, 2, 3, np.nan, 5])


def test_products_in_another_order_are_refused(tmp_path: Path) -> None:
    """Ties would be broken by chance: a bundle of other software, signed by mistake."""
    directory, _ = tiny.write(tmp_path)
    blobs = {name: (directory / name).read_bytes() for name in FILES}
    sink = io.BytesIO()
    pd.read_parquet(directory / "products.parquet").iloc[::-1].to_parquet(sink, index=False)
    blobs["products.parquet"] = sink.getvalue()
    publish(tmp_path / "other", make_manifest("m1", tiny.AS_OF, tiny.CREATED_AT, blobs), blobs, tiny.KEY)
    with pytest.raises(BundleError, match="ids in any order"):
        load_bundle(tmp_path / "other", tiny.TRUSTED)
