"""Labelled examples: from the scenario's features and window, and from plain made-up rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest

from pipeline_assets.recommender.errors import FeatureMismatch, NotEnoughData
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, MODEL_FEATURES, PAIR_FEATURES, PRODUCT_FEATURES
from pipeline_assets.recommender.packing import pack
from pipeline_assets.recommender.training_set import (
    AMOUNT_POWER,
    LEAST_AMOUNT,
    Catalogue,
    Examples,
    examples,
    label_week,
    matrix_of,
    purchase_weights,
    require_model_features,
    targets_of,
)
from pipeline_assets.resources.content import contents
from pipeline_assets.resources.day_file import DayFile
from pipeline_assets.resources.training_data import read_training_set, training_set_digest
from pipeline_assets.schemas.tables import TRAINING_EXAMPLES
from pipeline_assets_tests import scenario

DAY, NEXT = date(2017, 2, 12), date(2017, 2, 19)
PRODUCTS = [f"p{n:04}" for n in range(2000)]
# The product feature of row n is n, the pair feature 1000 + its place, the customer feature 5000 + the customer's row.
CATALOGUE = Catalogue(PRODUCTS, np.repeat(np.arange(2000, dtype=np.float32)[:, None], len(PRODUCT_FEATURES), axis=1))


def rows(candidates: Mapping[str, Sequence[str] | None]) -> pd.DataFrame:
    """One row per customer; the features say where they come from."""
    frame = pd.DataFrame({"customer_id": list(candidates), "candidate_ids": list(candidates.values())})
    blobs = []
    for ids in candidates.values():
        place = np.arange(len(ids or []), dtype=np.float32)[:, None]
        blobs.append(pack(np.repeat(1000 + place, len(PAIR_FEATURES), axis=1)))
    frame["pair_features"] = blobs
    for name in CUSTOMER_FEATURES:
        frame[name] = np.arange(len(frame), dtype=np.float32) + 5000
    return frame


def bought(**products: str) -> pd.DataFrame:
    """bought(ann="p0001 p0002"): each for 3.0."""
    pairs = [(customer, product, 3.0) for customer, basket in products.items() for product in basket.split()]
    return pd.DataFrame(pairs, columns=["customer_id", "product_id", "amount"])


def one_week(
    rows: pd.DataFrame, catalogue: Catalogue, targets: pd.DataFrame, day: date, negative_share: float, seed: int
) -> pyarrow.Table:
    """A week whose customers are read together."""
    return pyarrow.concat_tables(label_week([(rows, catalogue)], targets, day, negative_share, seed))


def stored(*tables: pyarrow.Table) -> Examples:
    """As read from blocks in a file."""
    return examples((table, partial(matrix_of, table)) for table in tables)


def labelled(table: pyarrow.Table) -> list[tuple[str, str, int]]:
    return list(zip(*(table[name].to_pylist() for name in ("customer_id", "product_id", "label")), strict=True))


def week(share: float = 1.0, seed: int = 7, day: date = DAY, positives: str = "p0003 p1000") -> pyarrow.Table:
    """ann with all 2,000 products as candidates."""
    return one_week(rows({"ann": PRODUCTS}), CATALOGUE, bought(ann=positives), day, share, seed)


def test_bought_candidates_are_one_and_the_others_zero() -> None:
    """ann bought p0001 of three candidates; p0009, which she bought too, was not a candidate."""
    table = one_week(
        rows({"ann": ["p0000", "p0001", "p0002"]}),
        CATALOGUE,
        bought(ann="p0001 p0009"),
        DAY,
        negative_share=1.0,
        seed=7,
    )
    assert labelled(table) == [("ann", "p0000", 0), ("ann", "p0001", 1), ("ann", "p0002", 0)]
    assert set(table["week"].to_pylist()) == {DAY}


def test_matrix_has_pair_customer_and_product_values_of_the_row() -> None:
    """bob is row 1 (5001), p0005 is his candidate 1 (1001) and catalogue row 5."""
    candidates = {"ann": ["p0000", "p0001"], "bob": ["p0007", "p0005"]}
    table = one_week(rows(candidates), CATALOGUE, bought(ann="p0000", bob="p0005"), DAY, negative_share=1.0, seed=7)
    row = table.to_pylist()[3]
    assert (row["customer_id"], row["product_id"], row["label"]) == ("bob", "p0005", 1)
    assert {row[name] for name in PAIR_FEATURES} == {1001}
    assert {row[name] for name in CUSTOMER_FEATURES} == {5001}
    assert {row[name] for name in PRODUCT_FEATURES} == {5}
    assert table.column_names == ["week", "customer_id", "product_id", "label", "amount", *MODEL_FEATURES]


@pytest.mark.parametrize(
    "absent",
    [
        pytest.param((["p0000", "p0001"], ""), id="bought nothing"),
        pytest.param((["p0000", "p0001"], "p0009"), id="bought no candidate"),
        pytest.param((["p0000", "p0001"], "p0000 p0001"), id="bought every candidate"),
        pytest.param(([], "p0000"), id="has no candidate"),
        pytest.param((None, "p0000"), id="has no features"),
    ],
)
def test_customer_who_teaches_nothing_is_left_out(absent: tuple[list[str] | None, str]) -> None:
    """A ranker learns from pairs of a bought and a not bought product; bob has one, ann has none."""
    candidates, basket = absent
    both = rows({"ann": candidates, "bob": ["p0002", "p0003"]})
    table = one_week(both, CATALOGUE, bought(ann=basket, bob="p0002"), DAY, negative_share=1.0, seed=7)
    assert set(table["customer_id"].to_pylist()) == {"bob"}


def test_week_without_any_example_is_refused_naming_the_day() -> None:
    """Nobody bought a candidate."""
    with pytest.raises(NotEnoughData, match="examples as of 2017-02-12"):
        one_week(rows({"ann": ["p0000"]}), CATALOGUE, bought(ann="p0009"), DAY, negative_share=1.0, seed=7)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.9])
def test_all_positives_and_a_share_of_the_negatives_are_kept(share: float) -> None:
    """Of 1,998 negatives about `share` (within four standard deviations), of 2 positives both."""
    table = week(share)
    labels = np.array(table["label"].to_pylist())
    assert labels.sum() == 2
    assert (labels == 0).sum() == pytest.approx(1998 * share, abs=4 * np.sqrt(1998 * share * (1 - share)))


def test_negatives_are_sampled_uniformly_over_the_places() -> None:
    """Each fifth of the 2,000 places keeps about 400 x 0.25 = 100: best candidates are not preferred, nor avoided."""
    kept = np.array([PRODUCTS.index(product) for product in week(0.25)["product_id"].to_pylist()])
    counts = np.bincount(kept // 400)
    assert np.abs(counts - 100).max() < 4 * np.sqrt(400 * 0.25 * 0.75)


def test_kept_candidates_stay_in_their_order() -> None:
    """A group is a sub-sequence of the candidates."""
    products = week(0.25)["product_id"].to_pylist()
    assert products == sorted(products)


def test_sample_depends_on_day_and_seed_only() -> None:
    """Same day and seed: the same rows. Another day or another seed: others."""
    again, other_day, other_seed = week(0.25), week(0.25, day=NEXT), week(0.25, seed=8)
    assert again.equals(week(0.25))
    assert labelled(other_day) != labelled(again)
    assert labelled(other_seed) != labelled(again)


def test_what_is_bought_does_not_move_the_sample() -> None:
    """With another label the same other products are kept: the draw does not look at labels."""
    first, second = week(0.25, positives="p0003"), week(0.25, positives="p1000")
    changed = set(first["product_id"].to_pylist()) ^ set(second["product_id"].to_pylist())
    assert changed <= {"p0003", "p1000"}


def test_groups_are_customers_of_a_week() -> None:
    """ann 3 and bob 2 rows in one week, bob and cleo 2 each in the next: bob's two weeks are two groups."""
    first = one_week(
        rows({"ann": PRODUCTS[:3], "bob": PRODUCTS[:2]}), CATALOGUE, bought(ann="p0000", bob="p0001"), DAY, 1.0, 7
    )
    second = one_week(
        rows({"bob": PRODUCTS[:2], "cleo": PRODUCTS[:2]}), CATALOGUE, bought(bob="p0000", cleo="p0001"), NEXT, 1.0, 7
    )
    part = stored(first, second)
    assert part.groups.tolist() == [3, 2, 2, 2]
    assert part.week.tolist() == [DAY, DAY, NEXT, NEXT]
    assert part.groups.sum() == len(part.matrix) == len(part.label) == 9
    assert part.label.tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 1]


def test_customers_in_parts_give_the_rows_of_one() -> None:
    """ann and bob read together, or one after the other with nobody in between: the same sample, which goes on from part to part."""
    both, targets = rows({"ann": PRODUCTS, "bob": PRODUCTS}), bought(ann="p0003", bob="p1000")
    parts = [(both.iloc[:1], CATALOGUE), (both.iloc[:0], CATALOGUE), (both.iloc[1:], CATALOGUE)]
    cut = list(label_week(parts, targets, DAY, 0.25, 7))
    assert [len(set(part["customer_id"].to_pylist())) for part in cut] == [1, 1]
    assert pyarrow.concat_tables(cut).equals(one_week(both, CATALOGUE, targets, DAY, 0.25, 7))


def test_customer_who_is_cut_by_blocks_is_one_group() -> None:
    """5 rows of ann in blocks of 2, 2 and 1 are one group; bob's 3 begin in the block where ann's end."""
    table = one_week(
        rows({"ann": PRODUCTS[:5], "bob": PRODUCTS[:3]}), CATALOGUE, bought(ann="p0000", bob="p0001"), DAY, 1.0, 7
    )
    part = stored(*(table.slice(start, 2) for start in range(0, 8, 2)))
    assert part.groups.tolist() == [5, 3]
    assert [block.rows for block in part.blocks] == [2, 2, 2, 2]
    np.testing.assert_array_equal(part.matrix, stored(table).matrix)


def test_matrices_are_read_when_they_are_asked_for() -> None:
    """Examples, and those of one of two weeks, are there before any matrix is; the matrix of the second week reads one block."""
    tables = [one_week(rows({"ann": PRODUCTS[:3]}), CATALOGUE, bought(ann="p0000"), day, 1.0, 7) for day in (DAY, NEXT)]
    read: list[date] = []

    def reading(table: pyarrow.Table) -> np.ndarray:
        read.append(table["week"][0].as_py())
        return matrix_of(table)

    part = examples((table, partial(reading, table)) for table in tables).of([NEXT])
    assert read == []
    assert len(part.matrix) == 3
    assert read == [NEXT]


def test_examples_of_a_week_are_whole_groups() -> None:
    """Choosing a week chooses its rows, labels and groups alike."""
    tables = [
        one_week(
            rows({"ann": PRODUCTS[:n], "bob": PRODUCTS[:2]}), CATALOGUE, bought(ann="p0000", bob="p0001"), day, 1.0, 7
        )
        for n, day in ((3, DAY), (4, NEXT))
    ]
    chosen, wanted = stored(*tables).of([NEXT]), stored(tables[1])
    assert chosen.groups.tolist() == [4, 2]
    np.testing.assert_array_equal(chosen.matrix, wanted.matrix)
    np.testing.assert_array_equal(chosen.label, wanted.label)
    np.testing.assert_array_equal(chosen.weight, wanted.weight)


def test_dear_purchases_weigh_more_and_one_in_the_mean() -> None:
    """Amounts 1 and 3, mean 2: (1 / 2) ** p and (3 / 2) ** p, scaled to a mean of 1; what was not bought weighs 1."""
    weight = purchase_weights(np.array([1, 0, 1], dtype=np.int8), np.array([1.0, 0.0, 3.0]))
    cheap, dear = (1 / 2) ** AMOUNT_POWER, (3 / 2) ** AMOUNT_POWER
    assert weight.tolist() == pytest.approx([2 * cheap / (cheap + dear), 1, 2 * dear / (cheap + dear)])


def test_what_is_given_away_weighs_something() -> None:
    """Amounts 0 and 2, mean 1: 0 counts as a twentieth of the mean. Nothing paid at all: 1 each."""
    weight = purchase_weights(np.array([1, 1], dtype=np.int8), np.array([0.0, 2.0]))
    assert weight[0] / weight[1] == pytest.approx((LEAST_AMOUNT / 2) ** AMOUNT_POWER)
    assert purchase_weights(np.array([1, 1], dtype=np.int8), np.zeros(2)).tolist() == [1, 1]


def test_amounts_are_those_of_the_window() -> None:
    """ann paid 3.0 for p0000 and nothing for what she did not buy."""
    table = one_week(rows({"ann": PRODUCTS[:2]}), CATALOGUE, bought(ann="p0000"), DAY, 1.0, 7)
    assert table["amount"].to_pylist() == [3, 0]


def test_stored_partition_column_is_not_a_feature() -> None:
    """The lake adds event_date."""
    table = week(0.25)
    with_day = table.append_column("event_date", pyarrow.array([NEXT] * len(table), pyarrow.date32()))
    require_model_features(with_day.column_names)
    assert stored(with_day).matrix.shape == (len(table), len(MODEL_FEATURES))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param(lambda names: names[1:], PAIR_FEATURES[0], id="one is missing"),
        pytest.param(lambda names: [*names[:-2], names[-1], names[-2]], "the order", id="other order"),
    ],
)
def test_examples_of_another_feature_list_are_refused(change: object, found: str) -> None:
    """A column that moved would be learned under another name."""
    names = change(list(MODEL_FEATURES))  # type: ignore[operator]
    with pytest.raises(FeatureMismatch) as error:
        require_model_features(week(0.25).select(["week", "customer_id", "product_id", "label", *names]).column_names)
    assert found in error.value.found


def test_targets_are_distinct_pairs_with_summed_amount() -> None:
    """The scenario's window 02-20 .. 02-26: six pairs; a product bought twice is one target with both amounts."""
    purchases = scenario.purchases()
    window = purchases[purchases["event_date"].between(scenario.T, date(2017, 2, 26))]
    twice = pd.concat([window, window[window["product_id"] == "wine"]])
    found = targets_of(twice).set_index(["customer_id", "product_id"])["amount"].to_dict()
    assert found == {("ann", "milk"): 2, ("ann", "wine"): 8 + 8, ("bob", "bread"): 1, ("cleo", "soap"): 4,
                     ("fay", "jam"): 2.5, ("fay", "milk"): 2}  # fmt: skip


def test_stored_examples_come_back_from_a_file_in_blocks(tmp_path: Path) -> None:
    """Two weeks of 5 and 4 rows in groups of 3: blocks of 3, 2, 3 and 1, the same matrix, and the digest that a commit would carry."""
    weeks = [
        one_week(
            rows({"ann": PRODUCTS[:n], "bob": PRODUCTS[:2]}), CATALOGUE, bought(ann="p0000", bob="p0001"), day, 1.0, 7
        )
        for n, day in ((3, DAY), (2, NEXT))
    ]
    whole = pyarrow.concat_tables(weeks)
    whole = whole.append_column("event_date", pyarrow.array([NEXT] * len(whole), pyarrow.date32()))
    with DayFile(str(tmp_path), TRAINING_EXAMPLES, NEXT, row_group=3) as file:
        for part in (whole.slice(0, 5), whole.slice(5)):
            file.add(part)
        content = file.finish()
    found = read_training_set([file.address])
    assert [(block.week, block.rows) for block in found.blocks] == [(DAY, 3), (DAY, 2), (NEXT, 3), (NEXT, 1)]
    assert found.groups.tolist() == [3, 2, 2, 2]
    np.testing.assert_array_equal(found.matrix, stored(*weeks).matrix)
    assert content == contents(whole, [NEXT])[NEXT]
    assert training_set_digest([file.address], NEXT) == content.digest
