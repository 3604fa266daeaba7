"""The section `rollout` of the settings. settings.py reads it, as every section."""

from __future__ import annotations

from typing import Literal

import pydantic

from pipeline_assets.settings_base import Section

Guardrail = Literal["errors", "latency", "fallback", "empty", "coverage", "top_item", "price", "change", "quality"]


class RolloutSettings(Section):
    """How a new model comes to be live."""

    mode: Literal["guarded", "at_once"] = "guarded"  # at_once: a shop without traffic; the gate and the probe decide
    steps: tuple[float, ...] = (0.05, 0.25)  # shares of the customers, after the shadow and before all
    shadow_share: float = pydantic.Field(0.2, gt=0, le=1)  # of the ranked answers, ranked by the other model, too
    stage_minutes: float = pydantic.Field(30.0, ge=0)  # least time of a stage; an hour of the day is not the day
    guardrails: tuple[Guardrail, ...] = (
        "errors", "latency", "fallback", "empty", "coverage", "top_item", "price", "change", "quality",
    )  # fmt: skip
    min_answers: int = pydantic.Field(200, ge=30)  # of each arm and stage; fewer are inconclusive (guardrails.py)
    min_customers: int = pydantic.Field(50, ge=10)
