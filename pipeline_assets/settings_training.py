"""Settings of training: which weeks, how many trees, what the gate asks for."""

from __future__ import annotations

from typing import Literal

import pydantic

from pipeline_assets.settings_base import Section, usable_cores


class TrainingSettings(Section):
    """The weekly training run. Weeks are windows of `horizon_days` that end on or before the as-of day."""

    horizon_days: int = pydantic.Field(
        7, ge=7, le=28, multiple_of=7
    )  # whole weeks, so that cut-offs keep their weekday
    label_weeks: int = pydantic.Field(
        30, ge=2
    )  # 8, 19 and 27 weeks: NDCG@10 +8.1, 9.1 and 9.3 % over TIFU-KNN (docs/adr/0020-how-the-ranker-is-trained.md)
    evaluation_weeks: int = pydantic.Field(4, ge=1)  # newest complete windows, never trained on
    early_stopping_weeks: int = pydantic.Field(1, ge=1)  # newest label weeks, used to choose the number of trees
    negative_share: float = pydantic.Field(
        0.4, gt=0, le=1
    )  # uniform sample: hard-negative mining loses (docs/design/evaluation.md)
    max_rounds: int = pydantic.Field(320, ge=1)
    trials: int = pydantic.Field(0, ge=0)  # Optuna; 0 uses the defaults
    trial_seconds: int = pydantic.Field(600, ge=1)
    gate_min_customers: int = pydantic.Field(200, ge=2)  # fewer cannot tell a good model from a bad one (promotion.py)
    gate_min_ndcg: float = pydantic.Field(0.01, ge=0, le=1)  # absolute floor: below it something is broken
    gate_min_slice_customers: int = pydantic.Field(50, ge=2)  # smaller groups of customers are not judged on their own
    gate_max_change: float = pydantic.Field(0.5, ge=0, le=1)  # share of slots that may change without a person
    baselines: Literal["gate", "all"] = "gate"  # all: UP-CF, item-kNN, EASE, ALS too, 10 CPU s a week (baselines.py)
    threads: int = pydantic.Field(2, ge=1)  # at most; a process that may use fewer cores has fewer (`usable_threads`)
    seed: int = 7

    @property
    def usable_threads(self) -> int:
        """`threads`, or as many as this process has cores: more of them only wait for each other. Trees are the same for any number."""
        return min(self.threads, usable_cores())
