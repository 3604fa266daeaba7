"""A new model's way to live, on real databases: SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.serving.audit import entries, verify
from pipeline_assets.serving.release_state import Release, current_live, history, open_state
from pipeline_assets.serving.release_tables import audit, rollouts
from pipeline_assets.serving.rollout import FULL, ROLLED_BACK, RolloutPolicy, RolloutState
from pipeline_assets.serving.rollout_state import (
    Offered,
    Rollout,
    advance,
    go_back,
    newest,
    offer,
    release_before,
    view,
)
from pipeline_assets_tests.postgres import Postgres

NOW = datetime(2017, 11, 6, 1, 0, tzinfo=UTC)
POLICY = RolloutPolicy((0.05, 0.25), 0.0, ("errors",))
FIVE = RolloutState("canary", 0.05)


BOTH = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)  # else SQLite


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty release database."""
    url = f"sqlite:///{tmp_path / 'release.db'}"
    if getattr(request, "param", "sqlite") == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.database("rollout")
    engine = open_state(url)
    yield engine
    engine.dispose()


def offered(version: str, day: int = 5) -> Offered:
    return Offered(f"/bundles/v{version}-{day}", version, f"2017-11-{day:02}", f"/recommendations/v{version}-{day}")


def give(
    engine: sa.Engine, version: str, day: int = 5, policy: RolloutPolicy | None = POLICY, fits: bool = True
) -> Release:
    return offer(engine, offered(version, day), policy, salt="salt", fits=fits, actor="test", at=NOW)


def open_rollout(engine: sa.Engine) -> Rollout:
    rollout = view(engine).rollout
    assert rollout is not None
    return rollout


def move(engine: sa.Engine, state: RolloutState, reason: str = "because") -> bool:
    return advance(engine, open_rollout(engine), state, reason, actor="test", at=NOW + timedelta(minutes=1))


def states(engine: sa.Engine) -> dict[str, str]:
    """Bundle -> state of every release."""
    return {row.bundle_path.rsplit("/", 1)[1]: row.state for row in history(engine)}


def test_the_first_model_is_live_at_once(engine: sa.Engine) -> None:
    """There is nothing to compare it with, and nobody to serve meanwhile."""
    assert give(engine, "1").state == "live"
    assert view(engine).rollout is None


def test_a_newer_day_of_the_live_model_is_live_at_once(engine: sa.Engine) -> None:
    """A refresh: same model, newer catalogue; the day before is retired, an older day is skipped, again has no effect."""
    give(engine, "1", 5)
    assert give(engine, "1", 6).state == "live"
    assert give(engine, "1", 4).state == "skipped"
    assert give(engine, "1", 6).id == 2
    assert states(engine) == {"v1-5": "retired", "v1-6": "live", "v1-4": "skipped"}


@BOTH
def test_a_new_model_goes_through_shadow_and_canary_to_full(engine: sa.Engine) -> None:
    """The stable model stays live until the end; then it is retired. Each change is a row of the audit log."""
    give(engine, "1", 5)
    assert give(engine, "2", 6).state == "trial"
    assert open_rollout(engine).state == RolloutState("shadow", 0.0)
    assert move(engine, FIVE)
    now = view(engine)
    assert (now.live and now.live.model_version, now.candidate and now.candidate.model_version) == ("1", "2")
    assert now.rollout is not None
    assert (now.rollout.state, now.rollout.entered_at) == (FIVE, NOW + timedelta(minutes=1))
    assert move(engine, FULL)
    assert states(engine) == {"v1-5": "retired", "v2-6": "live"}
    assert view(engine).rollout is None
    assert [row.action for row in entries(engine)] == ["promote", "start", "advance", "promote"]
    assert verify(engine).broken_at is None


def test_rolled_back_leaves_the_stable_model_live(engine: sa.Engine) -> None:
    """The candidate is aborted with the reason, and is not tried again by itself; another new model is."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    move(engine, ROLLED_BACK, "errors: 5 %")
    assert states(engine) == {"v1-5": "live", "v2-6": "aborted"}
    again = give(engine, "2", 7)
    assert again.state == "refused"
    assert "errors: 5 %" in again.reason
    assert give(engine, "3", 7).state == "trial"


def test_days_go_on_while_a_model_is_on_trial(engine: sa.Engine) -> None:
    """Newer days of both models take their places, and the rollout goes on in its stage."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    move(engine, FIVE)
    assert give(engine, "1", 7).state == "live"
    assert give(engine, "2", 7).state == "trial"
    assert give(engine, "2", 6).state == "skipped"
    now = view(engine)
    assert (now.live and now.live.as_of, now.candidate and now.candidate.as_of) == ("2017-11-07", "2017-11-07")
    assert open_rollout(engine).state == FIVE


def test_a_newer_model_supersedes_the_one_on_trial(engine: sa.Engine) -> None:
    """One rollout at a time: the older is rolled back and says why."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    assert give(engine, "3", 7).state == "trial"
    assert states(engine) == {"v1-5": "live", "v2-6": "aborted", "v3-7": "trial"}
    assert open_rollout(engine).model_version == "3"


def test_an_older_day_of_another_model_is_skipped(engine: sa.Engine) -> None:
    """A backfill of old days starts no rollout."""
    give(engine, "1", 6)
    assert give(engine, "0", 5).state == "skipped"
    assert view(engine).rollout is None


def test_no_armed_guardrail_no_start(engine: sa.Engine) -> None:
    """An error, and nothing has changed."""
    give(engine, "1", 5)
    with pytest.raises(ConfigurationError, match="at least one guardrail"):
        give(engine, "2", 6, RolloutPolicy((0.05,), 0.0, ()))
    assert states(engine) == {"v1-5": "live"}
    assert newest(engine) is None


def test_features_that_do_not_fit_are_refused(engine: sa.Engine) -> None:
    """Two arms cannot read two feature lists from one online store; it says what a person can do."""
    give(engine, "1", 5)
    refused = give(engine, "2", 6, fits=False)
    assert refused.state == "refused"
    assert "release promote" in refused.reason


def test_without_a_policy_a_new_model_is_live_at_once(engine: sa.Engine) -> None:
    """A shop without traffic: the gate and the probe decide."""
    give(engine, "1", 5)
    assert give(engine, "2", 6, None).state == "live"


def test_a_decision_on_an_older_revision_has_no_effect(engine: sa.Engine) -> None:
    """Two sensors saw the same state; the second comes too late."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    seen = open_rollout(engine)
    assert advance(engine, seen, FIVE, "ok", actor="first", at=NOW)
    assert not advance(engine, seen, FULL, "ok", actor="second", at=NOW)
    assert open_rollout(engine).state == FIVE
    assert len(entries(engine)) == 3


@BOTH
def test_eight_sensors_at_once_have_one_effect(engine: sa.Engine) -> None:
    """All saw shadow and want 5 %: one of them did it."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    seen, done = open_rollout(engine), []
    threads = [
        threading.Thread(target=lambda: done.append(advance(engine, seen, FIVE, "ok", actor="sensor", at=NOW)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 7 + [True]
    assert open_rollout(engine).revision == 2
    assert verify(engine).rows == 3


def back(engine: sa.Engine, reason: str = "it is bad") -> Release:
    live = current_live(engine)
    assert live is not None
    target = release_before(engine, live)
    assert target is not None
    return go_back(engine, target, live, reason=reason, action="rollback", actor="anna", at=NOW)


@BOTH
@pytest.mark.ml_test("I7")
def test_rollback_goes_to_the_model_before_and_back_again(engine: sa.Engine) -> None:
    """v1 on days 5 and 6, v2 on 7 and 8: back to the newest day of v1; a rollback of that to the newest of v2."""
    give(engine, "1", 5)
    give(engine, "1", 6)
    give(engine, "2", 7)
    move(engine, FULL)
    give(engine, "2", 8)
    assert (back(engine).bundle_path, states(engine)["v2-8"]) == ("/bundles/v1-6", "reverted")
    assert back(engine).bundle_path == "/bundles/v2-8"
    last = entries(engine)[-1]
    assert (last.action, last.actor, "it is bad" in last.reason) == ("rollback", "anna", True)


@pytest.mark.ml_test("I7", control=True)
def test_a_model_that_was_rolled_back_does_not_come_again_by_itself(engine: sa.Engine) -> None:
    """The nightly bundle of the bad model is refused; the next day of the good one is live."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    move(engine, FULL)
    back(engine)
    assert give(engine, "2", 7).state == "refused"
    assert give(engine, "1", 7).state == "live"


def test_rollback_during_a_canary_ends_it(engine: sa.Engine) -> None:
    """Going back while a third model is on trial ends that rollout, too."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    move(engine, FULL)
    give(engine, "3", 7)
    move(engine, FIVE)
    assert back(engine).model_version == "1"
    assert view(engine).rollout is None
    assert states(engine)["v3-7"] == "aborted"


def test_two_persons_roll_back_at_once(engine: sa.Engine) -> None:
    """The second decided on a release that is live no more: an error, and no rollback of the rollback."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    move(engine, FULL)
    live = current_live(engine)
    assert live is not None
    target = release_before(engine, live)
    assert target is not None
    go_back(engine, target, live, reason="bad", action="rollback", actor="anna", at=NOW)
    with pytest.raises(ConfigurationError, match="live release"):
        go_back(engine, target, live, reason="bad", action="rollback", actor="ben", at=NOW)


@BOTH
def test_the_database_refuses_two_open_rollouts(engine: sa.Engine) -> None:
    """Also to a writer that does not use our functions."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    row = {"candidate_id": 9, "model_version": "9", "stage": "shadow", "share": 0.0, "salt": "", "is_open": True}
    row |= {"reason": "", "started_at": "x", "entered_at": "x", "revision": 1}
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(rollouts.insert().values(**row))


def test_a_changed_audit_row_is_named(engine: sa.Engine) -> None:
    """Five rows; the reason of the third is beautified."""
    for version, day in (("1", 5), ("1", 6), ("1", 7), ("2", 8)):
        give(engine, version, day)
    move(engine, ROLLED_BACK)
    assert verify(engine).rows == 5
    with engine.begin() as connection:
        connection.execute(audit.update().where(audit.c.id == 3).values(reason="all is well"))
    found = verify(engine)
    assert (found.rows, found.broken_at) == (2, 3)
    assert "row 3 was changed" in found.problem


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_removed_audit_row_is_named(engine: sa.Engine, recomputed: bool) -> None:
    """Whether or not whoever removed it numbers the later rows anew."""
    for day in (5, 6, 7, 8):
        give(engine, "1", day)
    with engine.begin() as connection:
        connection.execute(audit.delete().where(audit.c.id == 2))
        if recomputed:
            connection.execute(audit.update().where(audit.c.id == 3).values(id=2))
            connection.execute(audit.update().where(audit.c.id == 4).values(id=3))
    assert verify(engine).broken_at == 2


@BOTH
def test_a_change_without_its_audit_row_does_not_happen(engine: sa.Engine) -> None:
    """The audit table is gone: the promotion fails as a whole, and what was live stays."""
    give(engine, "1", 5)
    give(engine, "2", 6)
    with engine.begin() as connection:
        connection.execute(sa.text("drop table audit"))
    with pytest.raises(sa.exc.SQLAlchemyError):
        move(engine, FULL)
    assert states(engine) == {"v1-5": "live", "v2-6": "trial"}
