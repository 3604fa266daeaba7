"""What many models of the generated shop show: which features are worth something, what a search finds, how a model ages, and whether
offline and realised quality agree. Each with a shop, or a search, where the answer has to be another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest

from pipeline_assets.recommender import tuning
from pipeline_assets.recommender.ablation import feature_groups, without
from pipeline_assets.recommender.metrics import Interval, paired_bootstrap
from pipeline_assets.recommender.ranker import RankerParams, Trained, dataset, train
from pipeline_assets.recommender.split import Weeks
from pipeline_assets.recommender.staleness import cadence_weeks, quality_by_age, shifted
from pipeline_assets.recommender.training_set import Examples
from pipeline_assets.replay.outcome import realised
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.schemas.validation import Verdict
from pipeline_assets_tests.shop_weeks import HORIZON, SUNDAYS, ShopWeeks
from pipeline_assets_tests.world import World, day

TRAINING, STOPPING, JUDGED = SUNDAYS[-9:-5], SUNDAYS[-5:-4], SUNDAYS[-4:]
DRAWS = 500
FEW = 12  # trees of a model that is searched for: a low learning rate does not get far with them
GROUPS = feature_groups()
CHANGE = day(77)  # where the taste of the drifting shop changes


@pytest.fixture(scope="module")
def shop() -> ShopWeeks:
    return ShopWeeks(World())


@pytest.fixture(scope="module")
def model(shop: ShopWeeks) -> Trained:
    return shop.trained(TRAINING, STOPPING)


def compared(shop: ShopWeeks, one: Trained, other: Trained) -> Interval:
    """NDCG of one model less that of the other, on weeks that neither saw."""
    return paired_bootstrap(shop.judged(one, JUDGED), shop.judged(other, JUDGED), "ndcg", DRAWS, seed=1)


def shuffled(part: Examples) -> Examples:
    """The same candidates with labels that mean nothing."""
    return replace(part, label=np.random.default_rng(3).permutation(part.label))


# Which features are worth something: customers of the shop buy when a product is due (timing) or shown (promotion)


@pytest.mark.ml_test("D2")
@pytest.mark.parametrize("group", ["timing", "promotion"])
def test_a_group_with_signal_earns_its_place(shop: ShopWeeks, model: Trained, group: str) -> None:
    """Without it a model is worse for certain."""
    blind = shop.trained(TRAINING, STOPPING, changed=lambda part: without(part, GROUPS[group]))
    assert compared(shop, model, blind).low > 0


@pytest.mark.ml_test("D2", control=True)
@pytest.mark.parametrize("group", ["collaborative", "candidate source"])
def test_a_group_without_signal_is_found(shop: ShopWeeks, model: Trained, group: str) -> None:
    """Nobody's taste is like another's in this shop: without what neighbours say a model is no worse."""
    blind = shop.trained(TRAINING, STOPPING, changed=lambda part: without(part, GROUPS[group]))
    assert compared(shop, model, blind).low <= 0


# What a search finds


@dataclass(frozen=True)
class BadDefaults(RankerParams):
    """Within the search space, and too cautious for a shop of 6,000 candidates a week."""

    learning_rate: float = 0.02
    num_leaves: int = 15
    min_data_in_leaf: int = 1000
    lambda_l2: float = 50.0


def searched(shop: ShopWeeks, trials: int, monkeypatch: pytest.MonkeyPatch) -> RankerParams:
    """What the pipeline's search makes of bad defaults."""
    monkeypatch.setattr(tuning, "RankerParams", BadDefaults)
    training = dataset(shop.examples(TRAINING))
    return tuning.tune(
        training, dataset(shop.examples(STOPPING), training), trials=trials, seconds=600, max_rounds=FEW, seed=7,
        threads=1, storage=None, study_name="shop",
    )  # fmt: skip


def gain(shop: ShopWeeks, found: RankerParams) -> Interval:
    """NDCG of a model with the parameters that were found less that of the defaults."""
    return compared(shop, *(shop.trained(TRAINING, STOPPING, params, rounds=FEW) for params in (found, BadDefaults())))


@pytest.mark.ml_test("M3")
def test_a_search_mends_bad_defaults(shop: ShopWeeks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight trials: better for certain on weeks that the search did not see."""
    assert gain(shop, searched(shop, 8, monkeypatch)).low > 0


@pytest.mark.ml_test("M3", control=True)
def test_a_search_whose_trials_reach_no_training_gains_nothing(
    shop: ShopWeeks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial is trained with the defaults, whatever it suggests: none is better than the first, which is the defaults."""
    monkeypatch.setattr(tuning, "train", lambda *args: train(*args[:2], BadDefaults(), *args[3:]))
    assert gain(shop, searched(shop, 3, monkeypatch)).low <= 0


# How a model ages


def aged(shop: ShopWeeks) -> pd.DataFrame:
    """Quality of models that are 0, 2 and 4 weeks older, with fresh features."""
    fresh, known = Weeks(SUNDAYS[-6:-3], SUNDAYS[-3:-2], SUNDAYS[-2:]), list(SUNDAYS[:-2])
    found = {}
    for age in (0, 2, 4):
        weeks = shifted(fresh, age, known)
        found[age] = shop.judged(shop.trained(weeks.training, weeks.early_stopping), weeks.evaluation)
    return quality_by_age(found, seed=1, draws=DRAWS)


@pytest.mark.ml_test("M4")
def test_a_model_of_a_shop_whose_taste_changes_ages() -> None:
    """From the change on nobody buys what is promoted. A model that learned before it loses more than a tenth, one from after it nothing."""
    bought = World().purchases
    ages = aged(ShopWeeks(World(), bought[(bought["event_date"] <= CHANGE) | (bought["discount"] == 0)]))
    assert ages.loc[4, "relative_high"] < -0.1
    assert cadence_weeks(ages) == 1


@pytest.mark.ml_test("M4", control=True)
def test_a_model_of_a_shop_that_stays_the_same_does_not(shop: ShopWeeks) -> None:
    """The same curve without the change: four weeks cost nothing certain, and the cadence is the longest age that was measured."""
    ages = aged(shop)
    assert ages.loc[4, "relative_high"] > 0
    assert cadence_weeks(ages) == 4


# Whether offline and realised quality agree


@pytest.fixture(scope="module")
def rivals(shop: ShopWeeks, model: Trained) -> dict[str, Trained]:
    """Three models, from good to useless; the second does not know what a customer bought before."""
    personal = [name for group, names in GROUPS.items() if group != "product popularity" for name in names]
    return {
        "good": model,
        "impersonal": shop.trained(TRAINING, STOPPING, changed=lambda part: without(part, personal)),
        "noise": shop.trained(TRAINING, STOPPING, changed=shuffled),
    }


OFFLINE = SUNDAYS[-3:-2]  # its window ends on day 105
DAYS = (day(105), day(108), day(111))  # the week after the last one that is judged offline


def published(shop: ShopWeeks, served: Trained, root: Path) -> Lake:
    """A lake with the lists that were shown after `DAYS`, and all that was bought then."""
    lake = local_lake(root)
    for each in DAYS:
        rows = shop.slates(served, each)[["customer_id", "rank", "product_id"]].assign(event_date=each)
        lake.replace_days("recommendations/daily", pyarrow.Table.from_pandas(rows, preserve_index=False), [each], "run")
    days = [DAYS[0] + timedelta(days=n) for n in range(15)]
    bought = World().purchases
    bought = bought.loc[bought["event_date"].isin(days), ["event_date", "customer_id", "product_id", "amount"]]
    lake.replace_days("warehouse/fct_purchases", pyarrow.Table.from_pandas(bought, preserve_index=False), days, "run")
    sold = bought[["product_id"]].drop_duplicates().assign(event_date=days[0], is_sellable=True)
    lake.replace_days("warehouse/dim_products", pyarrow.Table.from_pandas(sold, preserve_index=False), days[:1], "run")
    lake.record_verdicts([Verdict("purchases", each, "passed", 1, 1, 0) for each in days], "run", datetime.now(UTC))
    return lake


@pytest.fixture(scope="module")
def offline(shop: ShopWeeks, rivals: dict[str, Trained]) -> dict[str, pd.DataFrame]:
    return {name: shop.judged(each, OFFLINE) for name, each in rivals.items()}


@pytest.fixture(scope="module")
def online(shop: ShopWeeks, rivals: dict[str, Trained], tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Mean NDCG of what was shown, as a replay judges it."""
    found = {}
    for name, each in rivals.items():
        lake = published(shop, each, tmp_path_factory.mktemp(name.replace(" ", "_")))
        table = realised(lake, DAYS, HORIZON, Door(lake, "backtest", "replay", datetime(2017, 5, 1, tzinfo=UTC), None))
        assert len(table) == len(DAYS)
        found[name] = float(table["ndcg"].mean())
    return found


def told_apart(offline: dict[str, pd.DataFrame]) -> list[tuple[str, str]]:
    """Pairs of models of which the first is better offline for certain."""
    return [
        (one, other)
        for one, other in permutations(offline, 2)
        if paired_bootstrap(offline[one], offline[other], "ndcg", DRAWS, seed=1).low > 0
    ]


def disagreements(offline: dict[str, pd.DataFrame], online: dict[str, float]) -> list[tuple[str, str]]:
    """Those of them of which the first was not better in what was realised."""
    return [(one, other) for one, other in told_apart(offline) if online[one] <= online[other]]


@pytest.mark.ml_test("M2")
def test_what_is_better_offline_is_better_when_it_is_shown(
    offline: dict[str, pd.DataFrame], online: dict[str, float]
) -> None:
    """Every pair that the gate can tell apart, the good model against the two others for one, has the same order in what was bought after
    the lists were shown.
    """
    assert disagreements(offline, online) == []
    assert {("good", "impersonal"), ("good", "noise")} <= set(told_apart(offline))


@pytest.mark.ml_test("M2", control=True)
def test_another_model_than_the_judged_one_is_found(offline: dict[str, pd.DataFrame], online: dict[str, float]) -> None:
    """The lists of the useless model are shown under the good one's name, and the other way round."""
    found = disagreements(offline, {**online, "good": online["noise"], "noise": online["good"]})
    assert ("good", "noise") in found
