"""Lines of the prediction log to arms, on a dozen lines that a reader can count."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline_assets.serving.evidence import arms_of
from pipeline_assets.serving.rollout import SHADOW, RolloutState
from pipeline_assets.serving.rollout_state import Rollout

START = datetime(2017, 11, 6, 23, 50, tzinfo=UTC)
NOW = START + timedelta(minutes=20)  # another day: two files


def rollout(state: RolloutState) -> Rollout:
    return Rollout(7, 2, "2", state, "salt", "", START, START, 1)


CANARY = rollout(RolloutState("canary", 0.05))


def answer(customer: str | None, arm: str = "stable", minutes: int = 1, **changes: Any) -> dict[str, Any]:
    line = {
        "customer_id": customer,
        "rollout_id": 7,
        "arm": arm,
        "ts": (START + timedelta(minutes=minutes)).isoformat(),
    }
    line |= {
        "fallback_level": "none",
        "fallback_reason": "",
        "failed": "",
        "latency_ms": 5.0,
        "price": 2.0,
        "product_ids": ["a", "b"],
    }
    return line | changes


def again(customer: str, is_candidate: bool, change: float | None = 0.5, error: str = "") -> dict[str, Any]:
    line = {
        "customer_id": customer,
        "rollout_id": 7,
        "is_candidate": is_candidate,
        "ts": (START + timedelta(minutes=2)).isoformat(),
    }
    return line | {
        "error": error,
        "latency_ms": 1.0,
        "price": None,
        "product_ids": [] if error else ["c"],
        "change": change,
    }


def write(folder: Path, *lines: dict[str, Any], shadow: bool = False) -> Path:
    """Each line into the file of its day."""
    target = folder / "shadow" if shadow else folder
    target.mkdir(exist_ok=True)
    for line in lines:
        with (target / f"{line['ts'][:10]}.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
    return folder


def test_canary_lines_are_told_from_stable_ones(tmp_path: Path) -> None:
    """Two stable answers, one on either side of midnight; three of the canary: ranked, failed, fallback."""
    write(tmp_path, answer("c1"), answer("c2", minutes=15))
    write(tmp_path, answer("c3", "canary"), answer("c4", "canary", failed="ranker"))
    write(tmp_path, answer("c5", "canary", fallback_level="batch", fallback_reason="no_candidates", product_ids=[]))
    stable, candidate = arms_of(tmp_path, CANARY, NOW)
    assert (stable.answers, stable.errors, stable.fallbacks, stable.empty) == (2, 0, 0, 0)
    assert (candidate.answers, candidate.errors, candidate.fallbacks, candidate.empty) == (3, 1, 1, 1)
    assert dict(candidate.slates) == {"c3": ("a", "b")}  # what another model answered for it is not its slate
    assert (stable.latency_ms, stable.prices) == ([5.0, 5.0], [2.0, 2.0])


def test_lines_of_another_time_or_rollout_do_not_count(tmp_path: Path) -> None:
    """Before the stage began, of rollout 8, of none, and of people whom neither model knows."""
    write(tmp_path, answer("c1", minutes=-1), answer("c1", rollout_id=8), answer("c1", rollout_id=None), answer(None))
    write(tmp_path, answer("c1", fallback_level="popularity", fallback_reason="unknown_customer"))
    assert [arm.answers for arm in arms_of(tmp_path, CANARY, NOW)] == [0, 0]


def test_in_shadow_the_candidate_is_what_was_never_given(tmp_path: Path) -> None:
    """Three requests were ranked again: one well, one without an answer for the customer, one that broke."""
    write(tmp_path, answer("c1"), answer("c2"), answer("c3"))
    errors = ["", "NoPersonalAnswer: stale", "BundleError: NaN"]
    write(
        tmp_path,
        *(again(f"c{n}", True, None if error else 0.5, error) for n, error in enumerate(errors, 1)),
        shadow=True,
    )
    stable, candidate = arms_of(tmp_path, rollout(SHADOW), NOW)
    assert (stable.answers, candidate.answers, candidate.errors, candidate.fallbacks) == (3, 3, 1, 1)
    assert (dict(candidate.slates), candidate.changes) == ({"c1": ("c",)}, [0.5])


def test_changes_come_from_both_directions(tmp_path: Path) -> None:
    """In canary the stable model ranks again what the candidate answered, and the other way round."""
    write(tmp_path, again("c1", True, 0.2), again("c2", False, 0.4), shadow=True)
    assert arms_of(tmp_path, CANARY, NOW)[1].changes == [0.2, 0.4]


def test_the_newest_slate_of_a_customer_counts(tmp_path: Path) -> None:
    """Somebody who asks a hundred times is one slate."""
    write(tmp_path, answer("c1"), answer("c1", minutes=3, product_ids=["z"]))
    stable, _ = arms_of(tmp_path, CANARY, NOW)
    assert (stable.answers, dict(stable.slates)) == (2, {"c1": ("z",)})


def test_a_cut_line_is_left_out(tmp_path: Path) -> None:
    """A killed writer's line, in the middle and at the end."""
    write(tmp_path, answer("c1"))
    path = tmp_path / f"{START.date()}.jsonl"
    text = path.read_text()
    path.write_text(text[:-20] + "\n" + text + text[:-20])
    assert arms_of(tmp_path, CANARY, NOW)[0].answers == 1
