"""Events change the next answer: taken over HTTP, kept once, followed by every worker, forgotten in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from pipeline_assets.serving.api_models import ErrorBody
from pipeline_assets.serving.behaviour import Event, Kind
from pipeline_assets.serving.event_store import after, append, open_events, positions_of, purge, timely
from pipeline_assets.serving.recent import Follower, Recent
from pipeline_assets.settings_rules import RulesSettings
from pipeline_assets_tests.api_world import NOW, URL, World, metric, products, service_of

WEEK = timedelta(days=7)
# Ranked for c1: p2 (GROCERY, BREAD), p4, p3 (DRUG, SOAP, BAR), p1 (GROCERY, MILK); popular: p1, p5 (DRUG, SOAP).


def event(number: int, product: str = "p1", customer: str = "c1", kind: Kind = "click", at: datetime = NOW) -> Event:
    return Event(f"e{number}", kind, customer, product, at)


def body(*events: Event) -> dict[str, Any]:
    """The body of a POST."""
    return {
        "events": [
            {
                "event_id": e.event_id,
                "type": e.kind,
                "customer_id": e.customer_id,
                "product_id": e.product_id,
                "event_ts": e.at.isoformat(),
            }
            for e in events
        ]
    }


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.release()
    return world


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    """A process with a live bundle and an event store of its own."""
    with world.quick() as client:
        service_of(client).releases.refresh()
        yield client


def post(client: TestClient, *events: Event) -> dict[str, int]:
    """Send events and let the process look, as it does every half second."""
    response = client.post("/v1/events", json=body(*events))
    assert response.status_code == 200, response.text
    service_of(client).follower.look()
    return dict(response.json())


def scores(client: TestClient) -> dict[str, float]:
    return {item["product_id"]: item["score"] for item in client.get(URL.format("c1")).json()["items"]}


def test_a_click_changes_the_next_answer(client: TestClient) -> None:
    """p1 was clicked: +0.7 on its score, p2 of its department +0.3, soap as it was; another customer's click changes nothing."""
    before = scores(client)
    post(client, event(1, customer="somebody else"))
    assert scores(client) == before
    assert post(client, event(2)) == {"new": 1, "known": 0, "expired": 0}
    moved = {product: round(score - before[product], 9) for product, score in scores(client).items()}
    assert moved == {"p1": 0.7, "p2": 0.3, "p3": 0.0, "p4": 0.0}


def test_replayed_events_change_nothing(client: TestClient) -> None:
    """The same ids again, in one body, in the next, and with other content: counted once, as they came first."""
    assert post(client, event(1), event(1, product="p3")) == {"new": 1, "known": 1, "expired": 0}
    once = scores(client)
    assert post(client, event(1), event(1)) == {"new": 0, "known": 2, "expired": 0}
    assert scores(client) == once
    assert metric(client, "serving_recent_events") == 1.0


def test_order_of_arrival_makes_no_difference(tmp_path: Path) -> None:
    """The same events forwards and backwards: the same memory."""
    events = [event(n, at=NOW - timedelta(minutes=n)) for n in range(5)]
    forwards, backwards = Recent(100, 3), Recent(100, 3)
    forwards.add(events)
    backwards.add(events[::-1])
    assert forwards.of("c1") == backwards.of("c1") == tuple(events[2::-1])


def test_memory_is_bounded_and_forgets_who_was_quiet_longest() -> None:
    """Four events for three: a is gone with both of its own, because b and c did something later; None is nobody."""
    recent = Recent(3, 2)
    recent.add([event(1, customer="a"), event(2, customer="a"), event(3, customer="b"), event(4, customer="c")])
    assert (recent.of("a"), len(recent.of("b")), recent.count, recent.of(None)) == ((), 1, 2, ())


def test_restart_knows_what_was_sent(world: World) -> None:
    """A new process reads the store from its beginning."""
    with world.quick() as client:
        service_of(client).releases.refresh()
        post(client, event(1))
        told = scores(client)
    with world.quick() as client:
        service_of(client).releases.refresh()
        service_of(client).follower.look()
        assert scores(client) == told


def test_purchases_of_a_new_customer_come_first(client: TestClient) -> None:
    """Who has no features bought soap p3, which is not even popular: it is the first of the answer; a known one's order stays."""
    post(client, event(1, product="p3", customer="nobody", kind="purchase"), event(2, product="p3", kind="purchase"))
    answer = client.get(URL.format("nobody"), params={"explain": "true"}).json()
    assert (answer["fallback_level"], products(answer)) == ("popularity", ["p3", "p1", "p5"])
    assert answer["rules"][0] == {"rule": "recent: bought", "product_id": "p3", "before": 3, "after": 1}
    assert products(client.get(URL.format("c1")).json()) == ["p2", "p4", "p3", "p1"]


def test_purchase_is_recently_bought_at_once(world: World) -> None:
    """With the rule, what was bought a moment ago is left out of the next answer, of the ranker's and of the batch's."""
    rules = RulesSettings.model_validate({"recently_bought": [{"level": "product", "days": 3}]})
    with world.quick(rules=rules) as client:
        service_of(client).releases.refresh()
        post(client, event(1, product="p2", kind="purchase"), event(2, product="p5", kind="purchase"))
        assert products(client.get(URL.format("c1")).json()) == ["p4", "p3", "p1"]
        world.store.error = OSError("connection refused")
        answer = client.get(URL.format("c1")).json()
        assert (answer["fallback_level"], products(answer)) == ("batch", ["p4"])


def test_what_the_features_know_already_does_not_count_twice(client: TestClient) -> None:
    """Features of midnight: a click of a second before says nothing any more."""
    before = scores(client)
    midnight = datetime(2017, 11, 6, tzinfo=UTC)
    post(client, event(1, at=midnight - timedelta(seconds=1)))
    assert scores(client) == before
    post(client, event(2, at=midnight))
    assert scores(client) != before


def test_old_events_expire_and_future_ones_count_as_now(client: TestClient) -> None:
    """Eight days are too old to be taken; tomorrow is now, so that it expires like the others."""
    taken = post(client, event(1, at=NOW - timedelta(days=8)), event(2, at=NOW + timedelta(days=1)))
    assert taken == {"new": 1, "known": 0, "expired": 1}
    assert [known.at for known in service_of(client).recent.of("c1")] == [NOW]


def test_purged_events_do_not_come_back(tmp_path: Path) -> None:
    """Removed after the retention, and a replay is too old to be taken; ids go on, so a follower misses nothing."""
    engine = open_events(f"sqlite:///{tmp_path / 'events.db'}")
    old, young = event(1, at=NOW - WEEK), event(2)
    append(engine, [old, young], NOW)
    assert purge(engine, NOW - WEEK + timedelta(seconds=1)) == 1
    later = NOW + timedelta(seconds=1)
    assert append(engine, timely([old], later, WEEK), later) == 0
    assert purge(engine, NOW + WEEK) == 1
    append(engine, [event(3)], NOW)
    assert [(row, known.event_id) for row, known in after(engine, 2, 9)] == [(3, "e3")]


def test_positions_are_kept_with_their_events_and_never_go_back(tmp_path: Path) -> None:
    """A second reader that is behind changes neither; a failed transaction keeps nothing of both."""
    engine = open_events(f"sqlite:///{tmp_path / 'events.db'}")
    append(engine, [event(1)], NOW, {("t", 0): 5})
    append(engine, [event(1)], NOW, {("t", 0): 3, ("t", 1): 1})
    assert positions_of(engine, "t") == {0: 5, 1: 1}
    with pytest.raises(sa.exc.SQLAlchemyError):
        append(engine, [event(2)], NOW, {("t", None): 9})  # type: ignore[dict-item]
    assert positions_of(engine, "t") == {0: 5, 1: 1}
    assert [known.event_id for _, known in after(engine, 0, 9)] == ["e1"]


def test_writers_at_once_keep_every_event_once(tmp_path: Path) -> None:
    """Four threads send the same hundred events in different orders: a hundred rows, and a follower that looks meanwhile has all of them."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    recent = Recent(1_000, 1_000)
    follower = Follower(url, recent, 3600.0, WEEK, lambda: NOW, lambda: 0.0)
    engine = open_events(url)
    events = [event(n) for n in range(100)]
    counted = []

    def send(turn: int) -> None:
        for start in range(0, 100, 10):
            counted.append(append(engine, (events[turn * 25 :] + events[: turn * 25])[start : start + 10], NOW))

    threads = [threading.Thread(target=send, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        follower.look()
    follower.look()
    follower.stop()
    assert sum(counted) == 100
    assert {known.event_id for known in recent.of("c1")} == {known.event_id for known in events}
    assert recent.count == 100


def test_store_that_is_down_asks_to_send_again_and_answers_go_on(tmp_path: Path) -> None:
    """503 with Retry-After; recommendations are given as before."""
    world = World(tmp_path)
    world.release()
    (tmp_path / "file").write_text("")
    with world.quick(events_url=f"sqlite:///{tmp_path / 'file' / 'events.db'}") as client:
        service_of(client).releases.refresh()
        response = client.post("/v1/events", json=body(event(1)))
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert ErrorBody.model_validate(response.json()).error.culprit == "event store"
        assert service_of(client).follower.look() == -1
        assert client.get(URL.format("c1")).json()["fallback_level"] == "none"


def test_without_a_database_events_are_in_a_file_that_all_threads_see(tmp_path: Path) -> None:
    """Taken in one thread, looked for in another, closed in a third. In memory each thread would have a database of its own."""
    world = World(tmp_path)
    world.release()
    with world.quick(events_url="") as client:
        service_of(client).releases.refresh()
        assert post(client, event(1)) == {"new": 1, "known": 0, "expired": 0}
        assert [known.event_id for known in service_of(client).recent.of("c1")] == ["e1"]
    assert (tmp_path / "log" / "events.db").is_file()


GOOD = body(event(1))["events"][0]


@pytest.mark.parametrize(
    ("wrong", "culprit"),
    [
        ({"events": []}, "body.events"),
        ({"events": [GOOD] * 1_001}, "body.events"),
        ({"events": [GOOD | {"event_id": ""}]}, "body.events.0.event_id"),
        ({"events": [GOOD | {"customer_id": "x" * 129}]}, "body.events.0.customer_id"),
        ({"events": [GOOD | {"product_id": "\u0000"}]}, "body.events.0.product_id"),
        ({"events": [GOOD | {"type": "theft"}]}, "body.events.0.type"),
        ({"events": [GOOD | {"event_ts": "2017-11-06T01:00:00"}]}, "body.events.0.event_ts"),
        ({"events": [GOOD | {"event_ts": "0001-01-01T00:00:00+14:00"}]}, "body.events.0.event_ts"),
        ({"events": [GOOD | {"event_ts": 1e300}]}, "body.events.0.event_ts"),
        ({"events": [GOOD | {"price": 1}]}, "body.events.0.price"),
        ({"event": GOOD}, "body.events"),
    ],
)
def test_wrong_events_are_a_clear_422(client: TestClient, wrong: dict[str, Any], culprit: str) -> None:
    """None, too many, ids, types, times without a zone or outside the calendar, unknown keys: nothing of the body is kept."""
    response = client.post("/v1/events", json=wrong)
    assert (response.status_code, response.json()["error"]["culprit"]) == (422, culprit)
    assert service_of(client).follower.look() == 0
