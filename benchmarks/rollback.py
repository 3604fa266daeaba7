"""Ship bad models to customers under load, and measure how long it takes until they are found and gone: `python -m benchmarks.rollback`.

Real processes: the API with two workers, wrk on loopback, the release database, the prediction log on disk. What the sensor does
every half minute is done every second here (`rollout_run.look`, the same function); a sensor adds up to its interval, and the page
says both. The gate is bypassed (a bundle is offered directly) and so is the shadow (the rollout is moved to its canary by hand).

    python -m benchmarks.rollback            # writes results/rollback.json and .md
    python -m benchmarks.rollback --folder D # keeps the data folder
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measured import ROOT
from benchmarks.rollback_world import N_CUSTOMERS, Shop
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.rollout_run import look, policy_of, promote, roll_back
from pipeline_assets.serving.audit import verify
from pipeline_assets.serving.release_state import current_live, history, open_state
from pipeline_assets.serving.rollout import RolloutState
from pipeline_assets.serving.rollout_state import advance, newest, offer, view

RESULTS = ROOT / "benchmarks" / "results"
EVERY_SECONDS, SENSOR_SECONDS = 1.0, 30.0
GIVE_UP_SECONDS = 180.0


@dataclass(frozen=True)
class Shipped:
    """One bad model: what it was, where it was caught and how.

    Args:
        detect_s: from the first answer that it gave (canary) or ranked (shadow) to the decision.
        restore_s: from the decision to the last answer that it gave, by any worker.
        bad_answers: that customers got.
    """

    model: str
    stage: str
    guardrail: str
    detect_s: float
    restore_s: float
    bad_answers: int


BAD = (("reversed", "canary"), ("popular", "canary"), ("reversed", "shadow"))  # models, and where they are met


def experiment(shop: Shop, bad: Sequence[tuple[str, str]] = BAD) -> dict[str, Any]:
    """Bad models in shadow and in canary, a good one to the end, a rollback and its rollback: all under one load.

    Returns:
        shipped, load (of wrk), steps (of the good model), audit rows, and the versions that were live.
    """
    settings = shop.settings
    shop.fill()
    engine, policy = open_state(settings.release_url), policy_of(settings)
    assert policy is not None, "the mode is guarded"

    def ship(version: str, kind: str, seed: int = 0) -> None:
        offered = shop.bundle(version, kind, seed)
        offer(engine, offered, policy, salt=f"salt {version}", fits=True, actor="bypassed gate", at=datetime.now(UTC))

    ship("1", "good")
    shipped, steps, served = [], [], []
    with shop.served() as port, shop.load(port) as load:
        time.sleep(2)
        for number, (kind, stage) in enumerate(bad, 2):
            ship(str(number), kind)
            if stage == "canary":
                rollout = view(engine).rollout
                assert rollout is not None
                advance(
                    engine,
                    rollout,
                    RolloutState("canary", 0.25),
                    "past the shadow by hand",
                    actor="sabotage",
                    at=datetime.now(UTC),
                )
            _follow(shop, "rolled_back")
            time.sleep(3)  # every worker has looked again
            shipped.append(_measured(shop, str(number), kind, stage))
        good = str(len(bad) + 2)
        ship(good, "good", seed=1)
        steps = _follow(shop, "full")
        for act in (roll_back, roll_back):
            served.append(_live(shop))
            act(settings, "to see that it works", "benchmark", datetime.now(UTC))
            time.sleep(4)
        served.append(_live(shop))
        roll_back(settings, "to promote it again", "benchmark", datetime.now(UTC))
        promote(settings, "a person looked", "benchmark", datetime.now(UTC), release_id=_last_of(shop, good))
        time.sleep(4)
        served.append(_live(shop))
    chain = verify(engine)
    answered = [line["model_version"] for line in _lines(shop)]
    engine.dispose()
    return {
        "shipped": [asdict(each) for each in shipped],
        "load": load,
        "steps": steps,
        "live_in_turn": served,
        "answers_by_model": {version: answered.count(version) for version in sorted(set(answered))},
        "audit": asdict(chain),
    }


def _follow(shop: Shop, stage: str) -> list[str]:
    """Look every second, as the sensor does every half minute, until the rollout is in `stage`; returns the stages it was in."""
    settings, seen = shop.settings, []
    engine, lake = open_state(settings.release_url), local_lake(settings.data_dir)
    end = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < end:
        looked = look(settings, lake, datetime.now(UTC), "benchmark")
        if looked is not None and looked.is_ours:
            seen.append(f"{looked.after.stage} {looked.after.share:.0%}")
        rollout = newest(engine)
        if rollout is not None and rollout.state.stage == stage:
            engine.dispose()
            return seen
        if rollout is not None and not rollout.state.is_open:
            raise AssertionError(f"wanted {stage}, found {rollout.state.stage}: {rollout.reason}")
        time.sleep(EVERY_SECONDS)
    raise AssertionError(f"not {stage} within {GIVE_UP_SECONDS:.0f} s: {looked}")


def _measured(shop: Shop, version: str, kind: str, stage: str) -> Shipped:
    rollout = newest(open_state(shop.settings.release_url))
    assert rollout is not None
    assert rollout.model_version == version
    given = [line for line in _lines(shop) if line["model_version"] == version]
    ranked = (
        given if stage == "canary" else [line for line in _lines(shop, "shadow") if line["model_version"] == version]
    )
    moments = [datetime.fromisoformat(line["ts"]) for line in ranked]
    last = max((datetime.fromisoformat(line["ts"]) for line in given), default=rollout.entered_at)
    return Shipped(
        kind,
        stage,
        rollout.reason,
        round((rollout.entered_at - min(moments)).total_seconds(), 2),
        round(max(0.0, (last - rollout.entered_at).total_seconds()), 2),
        len(given),
    )


def _lines(shop: Shop, folder: str = "") -> list[dict[str, Any]]:
    files = sorted((shop.root / "prediction_log" / folder).glob("*.jsonl"))
    return [json.loads(text) for file in files for text in file.read_text().splitlines()]


def _live(shop: Shop) -> str:
    live = current_live(open_state(shop.settings.release_url))
    assert live is not None
    return live.model_version


def _last_of(shop: Shop, version: str) -> int:
    return next(row.id for row in history(open_state(shop.settings.release_url)) if row.model_version == version)


def page(found: dict[str, Any]) -> str:
    """The figures as a page."""
    load = found["load"]
    lines = [
        "# Bad models under load",
        "",
        f"Written by `python -m benchmarks.rollback` on {found['machine']}, {found['recorded_at'][:10]}. {found['workers']} API workers, "
        f"{N_CUSTOMERS} customers, wrk with 4 connections:",
        f"{load['requests']:.0f} requests ({load['requests_per_second']:.0f} a second), **{load['failed']:.0f} failed**, during three rollbacks of bad models, "
        "the rollout of a good one,",
        "three rollbacks by hand and a promotion by hand.",
        "",
        f"Looked at every {EVERY_SECONDS:.0f} s; the sensor looks every {SENSOR_SECONDS:.0f} s, so that up to {SENSOR_SECONDS:.0f} s "
        "come to the time to detect in operation. How soon 200 answers",
        "of each arm are there depends on the traffic. Goals: detected within 10 minutes of nominal traffic, restored within 60 s.",
        "",
        "| model | stage | detected after | gone after | answers it gave | by |",
        "|---|---|---|---|---|---|",
    ]
    for each in found["shipped"]:
        row = (
            each["model"],
            each["stage"],
            f"{each['detect_s']} s",
            f"{each['restore_s']} s",
            each["bad_answers"],
            each["guardrail"],
        )
        lines.append("| " + " | ".join(str(value) for value in row) + " |")
    lines += [
        "",
        f"The good model went {' → '.join(found['steps'])} by its evidence. Live in turn, after a rollback, a rollback of that, and a promotion by hand: "
        f"{', '.join(found['live_in_turn'])}.",
        f"The audit log has {found['audit']['rows']} rows and is whole.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the experiment and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollback", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keep the data there (default: a temporary folder)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the API (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rollback-") as temporary:
        found = experiment(Shop(options.folder or Path(temporary), options.workers))
    machine = f"{platform.machine()}, {platform.system()}"
    found |= {"workers": options.workers, "machine": machine, "recorded_at": datetime.now(UTC).isoformat()}
    (RESULTS / "rollback.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "rollback.md").write_text(page(found))
    print(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
