"""`release` and `audit` as a person uses them, and the sensor `rollout`: real bundles, probes, release database and MLflow registry.

Two versions of a tiny model are registered; version 2 is champion, as after the gate's decision.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest
import sqlalchemy as sa

from pipeline_assets.cli import main
from pipeline_assets.definitions import defs
from pipeline_assets.resources.alerts import Alerts
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.rollout_run import record_approval, record_config
from pipeline_assets.resources.tracking import MODEL_NAME, Tracking
from pipeline_assets.serving.audit import entries
from pipeline_assets.serving.release_state import current_live, open_state
from pipeline_assets.serving.rollout import FULL, ROLLED_BACK, RolloutPolicy, RolloutState
from pipeline_assets.serving.rollout_state import Offered, advance, newest, offer, view
from pipeline_assets.settings import get_settings, load_settings
from pipeline_assets_tests import tiny_bundle as tiny
from pipeline_assets_tests.e2e.test_commands import commands_of
from pipeline_assets_tests.ticks import tick, webhook
from pipeline_assets_tests.unit.test_evidence import again, answer

NOW = datetime(2017, 11, 6, 12, tzinfo=UTC)
POLICY = RolloutPolicy((0.25,), 0.0, ("errors",))


class Desk:
    """A data folder whose live model is version 1, with version 2 on trial and champion."""

    def __init__(self, registry: Path) -> None:
        settings = get_settings()
        tiny.trust(settings.data_dir)
        self.engine: sa.Engine = open_state(settings.release_url)
        self.tracking = Tracking(tracking_uri=f"sqlite:///{registry}", artifact_root="unused")
        self.tracking.point_champion_at("2")
        for version in ("1", "2"):
            directory, _ = tiny.write(settings.data_dir / "bundles", version)
            offered = Offered(str(directory), version, tiny.AS_OF, None)
            offer(self.engine, offered, POLICY, salt="salt", fits=True, actor="pipeline", at=NOW)

    def move(self, state: RolloutState) -> None:
        rollout = view(self.engine).rollout
        assert rollout is not None
        assert advance(self.engine, rollout, state, "test", actor="test", at=NOW)

    @property
    def served(self) -> tuple[str, str]:
        """Version that is live, version of the champion."""
        live, champion = current_live(self.engine), self.tracking.champion()
        assert live is not None
        assert champion is not None
        return live.model_version, champion.version

    def tick(self, cursor: str | None = None) -> Any:
        settings = get_settings()
        resources = {"lake": local_lake(settings.data_dir), "tracking": self.tracking, "alerts": self.alerts}
        with dg.DagsterInstance.ephemeral() as instance:
            return tick(defs, "rollout", instance, resources, cursor)

    alerts: Any = None


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with two versions of the model."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    client.create_registered_model(MODEL_NAME)
    for _ in range(2):
        client.create_model_version(MODEL_NAME, "file:///nowhere")
    return path


@pytest.fixture
def desk(registry: Path, tmp_path: Path) -> Iterator[Desk]:
    """The settings of this process point to the desk's folder."""
    changed = {"PIPELINE_DATA_DIR": str(tmp_path), "PIPELINE_STORES__MLFLOW_URI": f"sqlite:///{registry}"}
    changed |= {"PIPELINE_ROLLOUT__STAGE_MINUTES": "0", "PIPELINE_ROLLOUT__STEPS": "[0.25]"}
    with mock.patch.dict(os.environ, changed):
        get_settings.cache_clear()
        desk = Desk(registry)
        yield desk
        desk.engine.dispose()
    get_settings.cache_clear()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def verb(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return verb


def test_the_commands_of_the_page(desk: Desk, run: Callable[..., tuple[int, str, str]]) -> None:
    """Version 2 became live; it is rolled back with a reason, and everything is said and kept."""
    desk.move(FULL)
    printed = []
    for arguments in commands_of("test_the_commands_of_the_page"):
        code, out, _ = run(*arguments)
        assert code == 0
        printed.append(out)
    assert printed[0].startswith("live: release 2, model 2 of 2017-11-05")
    assert printed[1] == "live: release 3, model 1 of 2017-11-05; champion is version 1 again\n"
    assert "rollback release 3: rollback to release 1: complaints about odd slates" in printed[2]
    assert printed[3].startswith("whole: 4 rows, newest digest ")
    assert desk.served == ("1", "1")


def test_a_rollback_during_a_canary_ends_it(desk: Desk, run: Callable[..., tuple[int, str, str]]) -> None:
    """Version 1 was live all the time; the champion follows."""
    desk.move(RolloutState("canary", 0.25))
    code, out, _ = run("release", "rollback", "--reason", "odd", "--json")
    assert (code, json.loads(out)["live"]["model_version"], json.loads(out)["champion_moved_to"]) == (0, "1", "1")
    rollout = newest(desk.engine)
    assert rollout is not None
    assert (rollout.state, desk.served) == (ROLLED_BACK, ("1", "1"))


def test_a_rollback_of_a_rollback(desk: Desk, run: Callable[..., tuple[int, str, str]]) -> None:
    """2, back to 1, back to 2."""
    desk.move(FULL)
    for expected in ("1", "2"):
        assert run("release", "rollback", "--reason", "odd")[0] == 0
        assert desk.served == (expected, expected)


def test_promote_makes_the_candidate_live(desk: Desk, run: Callable[..., tuple[int, str, str]]) -> None:
    """By hand, without evidence, with a reason; status shows what its guardrails say before."""
    code, out, _ = run("release", "status", "--json")
    status = json.loads(out)
    assert (code, status["rollout"]["state"]["stage"]) == (0, "shadow")
    assert {found["verdict"] for found in status["guardrails"]} == {"inconclusive"}
    assert run("release", "promote", "--reason", "a person looked")[0] == 0
    assert desk.served == ("2", "2")


def test_a_damaged_bundle_is_not_promoted(desk: Desk, run: Callable[..., tuple[int, str, str]]) -> None:
    """A person cannot overrule the probe: an error with its reason, and nothing changes."""
    model = get_settings().data_dir / "bundles" / f"2-{tiny.AS_OF}" / "model.txt"
    model.write_bytes(model.read_bytes()[:-100])
    code, _, err = run("release", "promote", "--reason", "hurry")
    assert code == 2
    assert "model.txt" in err
    assert desk.served[0] == "1"


def test_a_reason_is_wanted(run: Callable[..., tuple[int, str, str]]) -> None:
    """Nobody changes what is served without saying why."""
    for action in ("promote", "rollback"):
        with pytest.raises(SystemExit):
            run("release", action)


def test_nothing_to_go_back_to_is_said(desk: Desk, run: Callable[..., tuple[int, str, str]]) -> None:
    """The trial is ended; then there is no model before."""
    assert run("release", "rollback", "--reason", "odd")[0] == 0
    code, _, err = run("release", "rollback", "--reason", "odd")
    assert (code, "the only one that was ever live" in err) == (2, True)


def test_a_tampered_row_is_named(desk: Desk, run: Callable[..., tuple[int, str, str]]) -> None:
    """Exit code 1, and the row."""
    desk.move(FULL)
    with desk.engine.begin() as connection:
        connection.execute(sa.text("update audit set actor = 'nobody' where id = 2"))
    code, out, _ = run("audit", "verify")
    assert code == 1
    assert out.startswith("BROKEN at row 2: row 2 was changed: start of rollout 1 by nobody")


def answered(changed: float) -> None:
    """300 answers of stable customers, ranked again by the candidate with this share of changed slots."""
    lines = [answer(f"c{n}", rollout_id=1, product_ids=[f"p{n % 90}"]) for n in range(300)]
    shadow = [
        {**again(f"c{n}", True, changed), "rollout_id": 1, "price": 2.0, "product_ids": [f"p{n % 90}"]}
        for n in range(300)
    ]
    folder = get_settings().data_dir / "prediction_log"
    for target, rows in ((folder, lines), (folder / "shadow", shadow)):
        target.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps({**row, "ts": datetime.now(UTC).isoformat()}) + "\n" for row in rows)
        (target / f"{datetime.now(UTC).date()}.jsonl").write_text(text)


def test_the_sensor_rolls_a_bad_model_back(desk: Desk) -> None:
    """The candidate changes 90 % of the slots in shadow: rolled back, the champion is version 1 again, one critical alert; a second tick does nothing."""
    answered(0.9)
    with webhook() as inbox:
        desk.alerts = Alerts(webhook_url=inbox.url)
        first = desk.tick()
        second = desk.tick(first.cursor)
    assert "change: 90.0% of the slots" in first.skip_message
    assert second.skip_message == "nothing is on trial"
    assert [(alert["name"], alert["severity"]) for alert in inbox.alerts] == [("rollout_ended", "critical")]
    assert desk.served == ("1", "1")


def test_the_sensor_leads_a_good_model_on_and_waits_for_its_answers(desk: Desk) -> None:
    """Shadow is ok: to 25 %. There nobody has answered yet: it stays, however often the sensor looks."""
    answered(0.3)
    desk.alerts = Alerts(webhook_url="")
    assert desk.tick().skip_message.startswith("canary 25%: 8 guardrails are ok")
    for _ in range(2):
        assert "inconclusive, so it stays" in desk.tick().skip_message
    assert view(desk.engine).rollout is not None
    assert desk.served == ("1", "2")


def test_the_sensor_brings_the_champion_back_after_a_servers_verdict(desk: Desk) -> None:
    """A server ended the rollout by itself; the sensor notices at its next look."""
    desk.move(ROLLED_BACK)
    desk.alerts = Alerts(webhook_url="")
    desk.tick()
    assert desk.served == ("1", "1")


def test_changed_settings_are_in_the_audit_log_without_their_values(desk: Desk) -> None:
    """All sections at first, nothing the second time, then the one that changed; digests only."""
    settings = get_settings()
    assert "rollout" in record_config(settings, NOW)
    assert record_config(settings, NOW) == []
    changed = load_settings(
        {"PIPELINE_DATA_DIR": str(settings.data_dir), "PIPELINE_SOURCE__URL": "postgresql://u:secret@h/d"}
    )
    assert record_config(changed, NOW) == ["rollout", "source", "stores"]  # the desk's own variables are gone, too
    assert "secret" not in entries(desk.engine)[-1].details


def test_what_the_gate_let_through_is_in_the_audit_log(desk: Desk) -> None:
    """A promotion with its reasons; a rejection is no approval."""
    for outcome in ("promote", "reject"):
        record_approval(get_settings(), "2", outcome, ["NDCG@10 +3 %"], NOW.date(), NOW)
    last = entries(desk.engine)[-1]
    assert (last.actor, last.action, last.subject, last.reason) == ("gate", "approve", "model 2", "NDCG@10 +3 %")
    assert [row.action for row in entries(desk.engine)].count("approve") == 1
