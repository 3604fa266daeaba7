"""A rollout as one serving process sees it: shadow, canary, a candidate that fails, promotion and rollback."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from pipeline_assets.recommender.errors import PipelineError
from pipeline_assets.recommender.signature import TrustedKeys
from pipeline_assets.serving.live import CANDIDATE_FAILURES, Releases, Trial
from pipeline_assets.serving.online import CustomerFeatures
from pipeline_assets.serving.probe import ProbeReport, question
from pipeline_assets.serving.release_state import open_state
from pipeline_assets.serving.rollout import FULL, ROLLED_BACK, RolloutPolicy, RolloutState, is_canary
from pipeline_assets.serving.rollout_state import Offered, advance, newest, offer, view
from pipeline_assets.serving.service import Service
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.api_world import KNOWN_AT, NOW, URL, Store, World, metric, products, service_of

CUSTOMERS = [f"k{n}" for n in range(20)]
POLICY = RolloutPolicy((0.5,), 0.0, ("errors",))
HALF = RolloutState("canary", 0.5)


class Shop(Store):
    """An online store that knows everybody, all alike."""

    def read(self, customer_id: str) -> CustomerFeatures | None:
        return CustomerFeatures(tiny.CANDIDATES, self.blob, tiny.CUSTOMER, KNOWN_AT)


class Stuck:
    """A model that never comes back, until the test ends."""

    def __init__(self) -> None:
        self.asked, self.end = threading.Event(), threading.Event()

    def predict(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        self.asked.set()
        self.end.wait()
        return np.zeros(len(tiny.CANDIDATES))


class Sick:
    """A model whose scores are no numbers."""

    def predict(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        return np.full(len(tiny.CANDIDATES), np.nan)


class Rolling:
    """Model m1 is live; m2, which ranks the other way round, is offered and moved by hand."""

    def __init__(self, root: Path) -> None:
        self.world = World(root, Shop())
        self.world.release("m1")
        self.engine: sa.Engine = open_state(self.world.url)
        self.offer("m2")

    def offer(self, version: str, as_of: str = tiny.AS_OF) -> Path:
        directory, _ = tiny.write(self.world.root / "bundles", version, as_of, text=tiny.model_text(sign=-1))
        offered = Offered(str(directory), version, as_of, None)
        offer(self.engine, offered, POLICY, salt="salt", fits=True, actor="test", at=NOW)
        return directory

    def move(self, state: RolloutState) -> None:
        rollout = view(self.engine).rollout
        assert rollout is not None
        assert advance(self.engine, rollout, state, "test", actor="test", at=NOW)

    def ended(self) -> str:
        """Why the newest rollout was rolled back."""
        rollout = newest(self.engine)
        assert rollout is not None
        assert rollout.state == ROLLED_BACK
        return rollout.reason

    @property
    def canary(self) -> list[str]:
        """Customers of the candidate at one half."""
        return [customer for customer in CUSTOMERS if is_canary(customer, 1, "salt", 0.5)]

    def shadow_lines(self) -> list[dict[str, Any]]:
        path = self.world.root / "log" / "shadow" / "2017-11-06.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


def in_process(directory: Path, trusted: TrustedKeys) -> ProbeReport:
    """The probe without its child process: 1.5 CPU s a bundle are of no use to tests of bundles that are whole."""
    try:
        return question(directory, trusted)
    except PipelineError as error:
        return ProbeReport(False, None, str(error), 0, 0.0)


@pytest.fixture(autouse=True)
def _quick_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_assets.serving.service.Releases", functools.partial(Releases, check=in_process))


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[Rolling]:
    rolling = Rolling(tmp_path)
    yield rolling
    rolling.engine.dispose()


def ask(client: TestClient, customers: Sequence[str] = CUSTOMERS) -> dict[str, list[str]]:
    """Customer -> products; every answer is a 200 that the ranker gave."""
    answers = {customer: client.get(URL.format(customer)) for customer in customers}
    assert {answer.status_code for answer in answers.values()} == {200}
    assert {answer.json()["fallback_level"] for answer in answers.values()} == {"none"}
    return {customer: products(answer.json()) for customer, answer in answers.items()}


def sabotage(service: Service, booster: object) -> None:
    """Another model in the place of the candidate's, which was loaded and probed."""
    trial = service.releases.trial
    assert isinstance(trial, Trial)
    bundle = replace(trial.candidate.bundle, booster=booster, scorer=booster)  # type: ignore[arg-type]
    service.releases.trial = replace(trial, candidate=replace(trial.candidate, bundle=bundle))


def test_shadow_never_answers(rolling: Rolling) -> None:
    """Everybody gets m1's order; what m2 would have shown is in the shadow's file, with the share of changed slots."""
    with rolling.world.client(shadow_share=1.0) as client:
        service_of(client).releases.refresh()
        assert set(map(tuple, ask(client).values())) == {tuple(tiny.RANKED)}
        assert products(client.get(URL.format("k0"), params={"k": 1}).json()) == ["p2"]
    lines = rolling.shadow_lines()
    assert {tuple(line["product_ids"]) for line in lines} == {tuple(tiny.RANKED[::-1]), ("p1",)}
    assert [line["change"] for line in lines if line["product_ids"] == ["p1"]] == [
        1.0
    ]  # the best of the one is the worst of the other
    assert {(line["model_version"], line["is_candidate"], line["error"]) for line in lines} == {("m2", True, "")}
    answered = rolling.world.lines()
    assert {(line["arm"], line["rollout_id"], line["model_version"]) for line in answered} == {("stable", 1, "m1")}
    assert {line["answer_id"] for line in lines} == {line["answer_id"] for line in answered}


def test_canary_is_sticky_and_its_answers_say_so(rolling: Rolling) -> None:
    """Half of the customers get m2, the same ones from another process; a visitor who is not known gets m1."""
    rolling.move(HALF)
    for _ in range(2):
        with rolling.world.client() as client:
            service_of(client).releases.refresh()
            found = ask(client)
            client.get("/v1/recommendations")
        assert [customer for customer in CUSTOMERS if found[customer] == tiny.RANKED[::-1]] == rolling.canary
        assert [customer for customer in CUSTOMERS if found[customer] == tiny.RANKED] == [
            customer for customer in CUSTOMERS if customer not in rolling.canary
        ]
    lines = rolling.world.lines()
    assert {line["customer_id"] for line in lines if line["arm"] == "canary"} == set(rolling.canary)
    assert {(line["arm"], line["model_version"]) for line in lines} == {("stable", "m1"), ("canary", "m2")}
    assert {line["arm"] for line in lines if line["customer_id"] is None} == {"stable"}


def test_promotion_and_rollback_swap_what_is_loaded(rolling: Rolling) -> None:
    """Full: everybody gets m2, which is not loaded again; a newer day of it is on its way as before."""
    rolling.move(HALF)
    with rolling.world.client() as client:
        releases = service_of(client).releases
        releases.refresh()
        trial = releases.trial
        assert trial is not None
        rolling.move(FULL)
        assert releases.refresh() == "swapped"
        assert releases.live is not None
        assert releases.live.bundle is trial.candidate.bundle
        assert (releases.live.arm, releases.live.rollout_id, releases.trial) == ("stable", None, None)
        assert set(map(tuple, ask(client).values())) == {tuple(tiny.RANKED[::-1])}


def test_a_rollback_takes_the_candidate_out(rolling: Rolling) -> None:
    """At the next look everybody gets m1, and lines are of no rollout any more."""
    rolling.move(HALF)
    with rolling.world.client() as client:
        service_of(client).releases.refresh()
        ask(client)
        rolling.move(ROLLED_BACK)
        service_of(client).releases.refresh()
        assert set(map(tuple, ask(client).values())) == {tuple(tiny.RANKED)}
    assert [line["rollout_id"] for line in rolling.world.lines()] == [1] * 20 + [None] * 20


def test_a_candidate_without_numbers_costs_nobody_an_answer(rolling: Rolling) -> None:
    """NaN scores: m1 answers for it, ranked; the fifth in a row takes it out of this process, and the next look out of all."""
    rolling.move(HALF)
    with rolling.world.client(shadow_share=0.0) as client:
        releases = service_of(client).releases
        releases.refresh()
        sabotage(service_of(client), Sick())
        assert set(map(tuple, ask(client).values())) == {tuple(tiny.RANKED)}
        assert metric(client, "serving_candidate_failures_total") == CANDIDATE_FAILURES
        assert releases.trial is None
        releases.refresh()
        assert "5 failures in a row in one process: ranker" in rolling.ended()
    failed = [line for line in rolling.world.lines() if line["failed"]]
    assert {(line["arm"], line["failed"], line["model_version"]) for line in failed} == {("canary", "ranker", "m1")}
    assert len(failed) == CANDIDATE_FAILURES


def test_a_candidate_that_fails_now_and_then_is_the_guardrails_matter(rolling: Rolling) -> None:
    """Four failures, an answer, four failures: it stays, and each failure is in the log for the guardrail."""
    rolling.move(HALF)
    with rolling.world.client(shadow_share=0.0) as client:
        service = service_of(client)
        service.releases.refresh()
        healthy = service.releases.trial
        for _ in range(2):
            sabotage(service, Sick())
            ask(client, rolling.canary[:4])
            service.releases.trial = healthy
            ask(client, rolling.canary[:1])
        assert service.releases.trial is healthy
    assert sum(bool(line["failed"]) for line in rolling.world.lines()) == 8


def test_a_damaged_candidate_is_refused_and_its_rollout_ends(rolling: Rolling) -> None:
    """The file was cut after it was offered: the probe refuses it, m1 goes on, and the rollout is rolled back with the reason."""
    model = rolling.world.root / "bundles" / f"m2-{tiny.AS_OF}" / "model.txt"
    model.write_bytes(model.read_bytes()[:-100])
    rolling.move(HALF)
    with rolling.world.client() as client:
        releases = service_of(client).releases
        releases.refresh()
        assert set(map(tuple, ask(client).values())) == {tuple(tiny.RANKED)}
        assert metric(client, "serving_bundle_refusals_total") == 1
        releases.refresh()
    assert "refused by a server" in rolling.ended()
    assert "model.txt" in rolling.ended()


def test_a_stuck_shadow_has_no_effect_on_answers(rolling: Rolling) -> None:
    """The shadow's model never comes back: 60 requests are answered, 32 wait for it in vain, the rest is left out and counted."""
    stuck = Stuck()
    with rolling.world.client(shadow_share=1.0) as client:
        service_of(client).releases.refresh()
        sabotage(service_of(client), stuck)
        ask(client, CUSTOMERS[:1])
        assert stuck.asked.wait(60)
        for _ in range(3):
            assert set(map(tuple, ask(client).values())) == {tuple(tiny.RANKED)}
        assert metric(client, "serving_shadow_dropped_total") == 60 - 32
        stuck.end.set()


def test_a_broken_shadow_is_a_finding(rolling: Rolling) -> None:
    """Its error is in its line; the answers are as ever."""
    with rolling.world.client(shadow_share=1.0) as client:
        service_of(client).releases.refresh()
        sabotage(service_of(client), Sick())
        assert set(map(tuple, ask(client).values())) == {tuple(tiny.RANKED)}
    assert all("wanted finite scores" in line["error"] for line in rolling.shadow_lines())


def test_a_newer_day_of_the_candidate_takes_its_place(rolling: Rolling) -> None:
    """The rollout goes on with the same customers."""
    rolling.move(HALF)
    with rolling.world.client() as client:
        releases = service_of(client).releases
        releases.refresh()
        rolling.offer("m2", "2017-11-06")
        releases.refresh()
        assert releases.trial is not None
        assert (releases.trial.candidate.as_of, releases.trial.rollout.id) == ("2017-11-06", 1)
        found = ask(client)
    assert [customer for customer in CUSTOMERS if found[customer] == tiny.RANKED[::-1]] == rolling.canary
