"""A new model takes over step by step, or not at all: the states, who gets which arm, and what follows from the evidence.

Pure: no database, clock or chance. Belongs here: the decision. Does not: storing it (rollout_state), collecting the
evidence (evidence), judging one guardrail (guardrails).

    shadow -> canary 5 % -> canary 25 % -> full
       \\________\\____________\\___________> rolled_back
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.serving.guardrails import GUARDRAILS, Finding

Stage = Literal["shadow", "canary", "full", "rolled_back"]
LATE = ("quality",)  # its labels are weeks away: a breach aborts, and no data does not hold the rollout up


@dataclass(frozen=True)
class RolloutState:
    """Where a rollout is: `share` of the known customers get the candidate's answers (0 in shadow, 1 when full)."""

    stage: Stage
    share: float

    @property
    def is_open(self) -> bool:
        return self.stage in ("shadow", "canary")


SHADOW = RolloutState("shadow", 0.0)
FULL = RolloutState("full", 1.0)
ROLLED_BACK = RolloutState("rolled_back", 0.0)


@dataclass(frozen=True)
class RolloutPolicy:
    """What a rollout has to go through.

    Args:
        steps: shares of the customers in canary, rising, each between 0 and 1 (exclusive).
        stage_seconds: least time in each stage, and least evidence of each stage is the guardrails' own.
        guardrails: names that are armed; none means that no rollout may start.

    Raises:
        ConfigurationError: a share or name that cannot be meant.
    """

    steps: tuple[float, ...]
    stage_seconds: float
    guardrails: tuple[str, ...]

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip((0.0, *self.steps), (*self.steps, 1.0), strict=True))
        if not self.steps or not rising:
            raise ConfigurationError(
                "rollout.steps",
                found=list(self.steps),
                wanted="rising shares between 0 and 1, such as [0.05, 0.25]",
                fix="correct PIPELINE_ROLLOUT__STEPS",
            )
        if not math.isfinite(self.stage_seconds) or self.stage_seconds < 0:
            raise ConfigurationError(
                "rollout.stage_minutes", found=self.stage_seconds, wanted="0 or more", fix="correct the setting"
            )
        if unknown := [name for name in self.guardrails if name not in GUARDRAILS]:
            raise ConfigurationError(
                "rollout.guardrails",
                found=", ".join(unknown),
                wanted=f"some of {', '.join(GUARDRAILS)}",
                fix="correct PIPELINE_ROLLOUT__GUARDRAILS",
            )

    def require_armed(self) -> None:
        """Raises ConfigurationError when nothing could stop a bad model: guardrails that judge while it is on trial."""
        if not set(self.guardrails) - set(LATE):
            raise ConfigurationError(
                "rollout.guardrails",
                found=f"{list(self.guardrails)}",
                wanted="at least one guardrail that can judge within the rollout",
                fix="arm some of " + ", ".join(name for name in GUARDRAILS if name not in LATE),
            )


@dataclass(frozen=True)
class Evidence:
    """What is known of the stage: its findings, and how long it has lasted."""

    findings: Sequence[Finding]
    seconds_in_stage: float


def next_step(state: RolloutState, evidence: Evidence, policy: RolloutPolicy) -> tuple[RolloutState, str]:
    """The state that follows, and why. A breach ends the rollout at once; anything that is not known holds it.

    An ended rollout stays as it is. A guardrail without a finding is inconclusive.

    Raises:
        ConfigurationError: no guardrail is armed.
    """
    if not state.is_open:
        return state, f"the rollout has ended: {state.stage}"
    policy.require_armed()
    if breaches := [f"{found.guardrail}: {found.detail}" for found in evidence.findings if found.verdict == "breach"]:
        return ROLLED_BACK, "; ".join(breaches)
    ok = {found.guardrail for found in evidence.findings if found.verdict == "ok"}
    details = {found.guardrail: found.detail for found in evidence.findings}
    if unknown := [name for name in policy.guardrails if name not in ok and name not in LATE]:
        shown = "; ".join(f"{name}: {details.get(name, 'not looked at')}" for name in unknown)
        return state, f"inconclusive, so it stays: {shown}"
    if evidence.seconds_in_stage < policy.stage_seconds:
        return state, f"{evidence.seconds_in_stage:.0f} s of the {policy.stage_seconds:.0f} s of a stage"
    following = next((share for share in policy.steps if share > state.share), None)
    reason = f"{len(ok)} guardrails are ok after {evidence.seconds_in_stage:.0f} s"
    return (FULL if following is None else RolloutState("canary", following)), reason


def is_canary(customer_id: str, rollout_id: int, salt: str, share: float) -> bool:
    """Whether a customer gets the candidate: always the same answer within a rollout, and who had it keeps it as the share grows.

    SHA-256 of rollout, salt and customer as a number in [0, 1). The salt draws other customers for every rollout.
    """
    digest = hashlib.sha256(f"{rollout_id}:{salt}:{customer_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share
