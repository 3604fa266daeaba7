"""What features cost is written down and bounded."""

from __future__ import annotations

import pytest

from pipeline_assets.recommender.features import MODEL_FEATURES, PAIR_FEATURES
from pipeline_assets.recommender.packing import PACKED
from pipeline_assets_tests import feature_costs, scenario
from pipeline_assets_tests.unit.test_features import computed


@pytest.mark.ml_test("D3")
def test_the_page_is_what_features_cost() -> None:
    """docs/feature-costs.md is written again after a feature came, went, or hangs on something else."""
    assert feature_costs.PAGE.read_text() == feature_costs.page()


@pytest.mark.ml_test("D3")
def test_no_group_is_above_its_limit() -> None:
    """Nor all of them together."""
    assert feature_costs.too_costly(MODEL_FEATURES) == []


def test_bytes_are_those_that_are_stored() -> None:
    """A customer's packed row is four bytes for each pair feature of each candidate, as the page counts them."""
    (ann,) = computed(scenario.feeds())["customer_product"].query("customer_id == 'ann'").itertuples()
    assert len(ann.pair_features) == len(ann.candidate_ids) * len(PAIR_FEATURES) * PACKED.itemsize


@pytest.mark.ml_test("D3", control=True)
def test_a_costly_feature_is_named() -> None:
    """Negative control: an embedding of 32 numbers for every candidate, 14,464 bytes a customer, is too much for its group and the row."""
    embedding = tuple(f"pair_embedding_{n}" for n in range(32))
    found = feature_costs.too_costly((*MODEL_FEATURES, *embedding))
    assert [reason.split(":")[0] for reason in found] == ["collaborative", "together"]
    assert f"{32 * 113 * 4 + 452:,} bytes" in found[0]


@pytest.mark.ml_test("D3", control=True)
def test_what_a_feature_hangs_on_is_found() -> None:
    """Without campaigns one feature moves; a change that changes nothing moves none."""
    as_is = feature_costs.computed(scenario.feeds())
    assert feature_costs.moved(feature_costs.CHANGES["exposures: campaigns, coupons"], as_is) == {"pair_has_coupon"}
    assert feature_costs.moved(lambda world: world, as_is) == set()
