"""The trials: what was tried to make the ranker better, one change each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline_assets.recommender.ranker import RankerParams

ALL_WEEKS = 52  # more than the sample's year has
BASE_WEEKS = 8  # of a trial: a quarter of what the pipeline trains on, so that ten trials take ten minutes
# Of every trial that does not say otherwise, so that they stay comparable: the package had it until "30 weeks, short lists" was measured.
BASE_PARAMS = {"truncation_level": 20}
REFERENCE, STORED, CHANCE = "reference", "the day's model", "another seed"


@dataclass(frozen=True)
class Trial:
    """One change.

    Args:
        params: of `RankerParams`; more: of LightGBM, which the package does not let tuning change.
        seeds: the scores of several are averaged. phases, first: as `ranker.train` has them. is_weighed: purchases by amount.
        extra: groups of `extra_features` that the model sees too. midweek: a cut-off between every two label weeks too.
    """

    why: str
    weeks: int = BASE_WEEKS
    params: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (7,)
    phases: tuple[str, str] = ("binary", "lambdarank")
    first: float = 0.625
    is_weighed: bool = True
    rounds: int | None = None
    without: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    midweek: bool = False

    @property
    def ranker(self) -> RankerParams:
        """The parameters with the trial's changes."""
        from pipeline_assets.recommender.ranker import RankerParams

        more = self.more

        class Changed(RankerParams):
            def lightgbm(self, seed: int, threads: int) -> dict[str, Any]:
                return super().lightgbm(seed, threads) | more

        return replace(Changed(), **{**BASE_PARAMS, **self.params})


# Of `extra_features`, groups that say the same thing in different ways, tried together.
_EXTRA = {
    "stacking": (("tifu", "up_cf"), "scores of the strongest baselines: own part, neighbours' part, place"),
    "item affinity": (("ease", "svd"), "linear item-to-item weights, and 64 factors"),
    "newest baskets": (("last_basket", "weeks_before"), "the last ten baskets and eight weeks, one by one"),
    "visits": (("visits",), "how often the customer comes now, and what that makes of a product's chance"),
    "hierarchy": (("hierarchy",), "brand and department: share and recency"),
    "others now": (
        ("trend_nearby", "next_week"),
        "what customers alike buy this week; what follows last week's products",
    ),
    "within the list": (("within_list",), "place among the customer's candidates, and among those of its type"),
    "mailer response": (("mailer_response",), "the customer's own rate in weeks with and without the mailer"),
}
EVERY = tuple(group for groups, _ in _EXTRA.values() for group in groups)
TRIALS: Mapping[str, Trial] = {
    REFERENCE: Trial("the package's defaults, pairs of the first twenty places"),
    "4 weeks": Trial("fewer label weeks", weeks=4),
    "16 weeks": Trial("more label weeks", weeks=16),
    "24 weeks": Trial("more label weeks", weeks=24),
    "all weeks": Trial("every week with four weeks of history", weeks=ALL_WEEKS),
    "16 weeks, two cut-offs a week": Trial("windows that overlap by half", weeks=16, midweek=True),
    CHANCE: Trial("nothing changed but chance: what differences of one training are worth", seeds=(8,)),
    "seeds": Trial("three seeds, mean of their scores: three times the cost of scoring", seeds=(7, 8, 9)),
    "leaves": Trial("larger trees", params={"num_leaves": 63}),
    "small leaves": Trial("smaller trees, more of them", params={"num_leaves": 15}, rounds=480),
    "slow": Trial("half the rate, twice the rounds", params={"learning_rate": 0.04}, rounds=640),
    "fast": Trial("a third fewer rounds at a greater rate", params={"learning_rate": 0.115}, rounds=224),
    "30 weeks, fast": Trial(
        "fewer rounds at a greater rate, with the weeks of the day's model", 30, params={"learning_rate": 0.115}, rounds=224
    ),
    "30 weeks": Trial("pairs of the first twenty places, with the weeks of the day's model", 30),
    "30 weeks, short lists": Trial("pairs of the first ten places only, with the weeks of the day's model", 30, params={"truncation_level": 10}),
    "30 weeks, short lists, larger trees": Trial(
        "more rows may fill more leaves", 30, params={"truncation_level": 10, "num_leaves": 63, "min_data_in_leaf": 400}
    ),
    "faster": Trial("half the rounds at twice the rate", params={"learning_rate": 0.16}, rounds=160),
    "short lists": Trial("pairs of the first ten places only", params={"truncation_level": 10}),
    "xendcg": Trial("another objective of order", phases=("binary", "rank_xendcg")),
    "binary only": Trial("no second phase", first=1.0),
    "order only": Trial("no first phase", first=0.0),
    "unweighed": Trial("every purchase weighs the same", is_weighed=False),
    "half the rows a tree": Trial("a third less time, if nothing is lost", params={"bagging_fraction": 0.5}),
    "few columns a tree": Trial("more different trees", params={"feature_fraction": 0.3}),
    "few columns a split": Trial("more different trees", more={"feature_fraction_bynode": 0.4}),
    "random thresholds": Trial("smoother trees", more={"extra_trees": True}),
    "smoothed leaves": Trial("small leaves follow their parents", more={"path_smooth": 20.0}),
    "rows by gradient": Trial(
        "less time a tree: rows of small gradient are sampled", more={"data_sample_strategy": "goss", "bagging_freq": 0}
    ),
    "not normalised": Trial("customers with more purchases weigh more in the order", more={"lambdarank_norm": False}),
    "no customer features": Trial(
        "they say nothing of the order within a list", without=("customer_n_orders", "customer_n_orders_28d", "customer_amount_28d")
    ),
    **{name: Trial(why, extra=groups) for name, (groups, why) in _EXTRA.items()},
    "all extra columns": Trial(f"the {len(_EXTRA)} groups of extra columns at once", extra=EVERY),
    "16 weeks, all extra columns": Trial("the same with more weeks", weeks=16, extra=EVERY),
}  # fmt: skip
