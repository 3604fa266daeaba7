"""What both arms of a rollout have answered in its stage, read from the prediction log.

Belongs here: lines to arms. Does not: comparing them (guardrails), labels (which are in the lake: resources/rollout_run).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline_assets.serving.guardrails import Arm
from pipeline_assets.serving.prediction_log import SHADOW
from pipeline_assets.serving.rollout_state import Rollout

MAX_BYTES = 64 << 20  # of a file, its newest: 50,000 answers, read in 0.7 s CPU; more would not change a verdict
PLACES = 10
STRANGER = "unknown_customer"  # nobody's features: popularity by either model


def arms_of(folder: Path, rollout: Rollout, now: datetime) -> tuple[Arm, Arm]:
    """(stable, candidate) of the stage that `rollout` is in.

    In shadow the candidate's answers are those that were never given; in canary those of its customers. Requests that both
    models ranked say how much would change, in either stage.

    Args:
        folder: of the prediction log, the shadow's lines in a folder of it.
    """
    given = [
        line for line in _lines(folder, rollout, now) if line["customer_id"] and line["fallback_reason"] != STRANGER
    ]
    again = list(_lines(folder / SHADOW, rollout, now))
    stable = _of_answers([line for line in given if line["arm"] == "stable"])
    if rollout.state.stage == "shadow":
        candidate = _of_shadow([line for line in again if line["is_candidate"]])
    else:
        candidate = _of_answers([line for line in given if line["arm"] == "canary"])
    changes = [line["change"] for line in again if line["change"] is not None]
    return stable, Arm(**{**vars(candidate), "changes": changes})


def _of_answers(lines: Sequence[Mapping[str, Any]]) -> Arm:
    own = [line for line in lines if line["fallback_level"] == "none" and not line["failed"]]
    return Arm(
        answers=len(lines),
        errors=sum(bool(line["failed"]) or line["fallback_reason"] == "ranker" for line in lines),
        fallbacks=sum(line["fallback_level"] != "none" for line in lines),
        empty=sum(not line["product_ids"] for line in lines),
        latency_ms=[line["latency_ms"] for line in lines],
        slates=_slates(own),
        prices=[line["price"] for line in own if line["price"] is not None],
    )


def _of_shadow(lines: Sequence[Mapping[str, Any]]) -> Arm:
    own = [line for line in lines if not line["error"]]
    no_answer = sum(line["error"].startswith("NoPersonalAnswer") for line in lines)
    return Arm(
        answers=len(lines),
        errors=len(lines) - len(own) - no_answer,
        fallbacks=no_answer,
        empty=sum(not line["product_ids"] for line in own),
        latency_ms=[line["latency_ms"] for line in lines],
        slates=_slates(own),
        prices=[line["price"] for line in own if line["price"] is not None],
    )


def _slates(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    return {line["customer_id"]: tuple(line["product_ids"][:PLACES]) for line in lines}


def _lines(folder: Path, rollout: Rollout, now: datetime) -> Iterator[dict[str, Any]]:
    """Lines of the rollout since its stage began."""
    wanted, since = f'"rollout_id": {rollout.id},'.encode(), rollout.entered_at
    day = since.date()
    while day <= now.date():
        path = folder / f"{day}.jsonl"
        for text in _newest(path) if path.exists() else ():
            if wanted not in text:
                continue
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut by a kill; the landing counts it
            if datetime.fromisoformat(line["ts"]) >= since:
                yield line
        day += timedelta(days=1)


def _newest(path: Path) -> Iterator[bytes]:
    """Whole lines of the end of a file."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - MAX_BYTES))
        if size > MAX_BYTES:
            stream.readline()  # the line that the cut went through
        yield from (text for text in stream if text.endswith(b"\n"))
