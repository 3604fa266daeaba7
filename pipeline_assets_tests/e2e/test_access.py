"""Who may ask what: every route with every kind of key, rotation, rates, sizes, and a key that nobody writes down."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from pipeline_assets.cli import main
from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.serving.access import Access, Bucket, check_scopes, refuse_open_bind, scope_of
from pipeline_assets.serving.app import create_app
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.http_errors import RequestError
from pipeline_assets.settings_access import KeySettings, read_keys
from pipeline_assets_tests.api_world import NOW, URL, World, service_of

CANARY = "pa_canary-7d1c9e44f0"
SCOPES = ("read", "events:write", "admin")


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def key_of(name: str, *scopes: str, **limits: Any) -> KeySettings:
    """A key whose secret is `secret-<name>`."""
    return KeySettings(name=name, sha256=hashed(f"secret-{name}"), scopes=scopes, **limits)  # type: ignore[arg-type]


def bearing(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-{name}"}


KEYS = (
    *(key_of(scope.replace(":", "-"), scope) for scope in SCOPES),
    key_of("all", *SCOPES),
    key_of("past", *SCOPES, not_after=NOW),
    key_of("future", *SCOPES, not_before=NOW + timedelta(seconds=1)),
)
# Who presents what -> the scopes that it opens; None: it is nobody.
ROLES: dict[str, tuple[str, ...] | None] = {
    "": None,
    "stranger": None,
    "past": None,
    "future": None,
    "read": ("read",),
    "events-write": ("events:write",),
    "admin": ("admin",),
    "all": SCOPES,
}


def routes() -> list[tuple[str, str, str]]:
    """(method, path, scope) of every route of the application, as it is built."""
    app = create_app(ServingConfig("sqlite://", Path("unused")))
    found = []
    for route in app.routes:
        if isinstance(route, APIRoute):
            scope = scope_of(route)
            assert scope is not None
            found += [(method, route.path, scope) for method in sorted(route.methods or ())]
    return found


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A process with keys and a live bundle."""
    world = World(tmp_path_factory.mktemp("access"))
    world.release()
    with world.quick(keys=KEYS) as client:
        service_of(client).releases.refresh()
        yield client


def test_the_matrix_covers_the_application(client: TestClient) -> None:
    """Routes are read from the application, and the ones that everybody knows are among them."""
    found = {(method, path) for method, path, _ in routes()}
    assert {("GET", "/v1/customers/{customer_id}/recommendations"), ("GET", "/metrics"), ("GET", "/healthz")} <= found
    assert {path for method, path, scope in routes() if scope == "public"} == {"/healthz", "/readyz"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path", "scope"), routes(), ids=lambda value: str(value))
def test_role_by_endpoint(client: TestClient, method: str, path: str, scope: str, role: str) -> None:
    """401 for nobody, 403 without the scope, and anything else (an answer, or a complaint about the empty request) with it."""
    opens = ROLES[role]
    url = path.replace("{", "").replace("}", "")
    response = client.request(method, url, headers=bearing(role) if role else {})
    wanted = None if scope == "public" else 401 if opens is None else None if scope in opens else 403
    if wanted is None:
        assert response.status_code not in (401, 403)
    else:
        assert response.status_code == wanted
        assert response.json()["error"]["fix"]


def test_a_route_without_a_scope_is_refused() -> None:
    """Negative control of the matrix: an application with a route that says nothing is not built."""
    app = create_app(ServingConfig("sqlite://", Path("unused")))
    forgotten = APIRouter()
    forgotten.add_api_route("/v1/forgotten", lambda: None)
    app.router.routes.extend(forgotten.routes)
    with pytest.raises(ConfigurationError, match="/v1/forgotten"):
        check_scopes(app)


def test_a_router_whose_routes_cannot_be_listed_is_refused() -> None:
    """`include_router` hides routes from the check: what is neither ours nor FastAPI's own pages is an error."""
    app = create_app(ServingConfig("sqlite://", Path("unused")))
    app.include_router(APIRouter())
    with pytest.raises(ConfigurationError, match="scope cannot be listed"):
        check_scopes(app)


def test_openapi_names_the_scope_of_every_operation(client: TestClient) -> None:
    """A reader of the document sees which key an operation needs; public ones need none."""
    paths = client.get("/openapi.json").json()["paths"]
    for method, path, scope in routes():
        operation = paths[path][method.lower()]
        assert operation.get("security") == (None if scope == "public" else [{"key": []}])
        assert scope == "public" or f"Scope `{scope}`." in operation["description"]


@pytest.mark.parametrize("header", ["", "secret-read", "Basic secret-read", "Bearer", "Bearer ", "Bearer secret-READ"])
def test_only_bearer_and_the_exact_key_open(client: TestClient, header: str) -> None:
    """Another scheme, no key, a key in other letters."""
    response = client.get("/v1/recommendations", headers={"Authorization": header})
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_bytes_that_are_no_text_are_refused(client: TestClient) -> None:
    """A header in no encoding is a 401, not a 500."""
    response = client.get("/v1/recommendations", headers={b"Authorization": b"Bearer \xff\xfe"})  # type: ignore[dict-item]
    assert response.status_code == 401


def test_old_and_new_key_overlap() -> None:
    """Rotation: the old key ends at 12:00, the new one begins at 11:00; between them both open, outside just one."""
    noon = datetime(2027, 1, 1, 12, tzinfo=UTC)
    now = [noon]
    keys = (key_of("old", "read", not_after=noon), key_of("new", "read", not_before=noon - timedelta(hours=1)))
    access = Access(keys, None, lambda: now[0], lambda: 0.0)

    def opened() -> list[str]:
        found = []
        for name in ("old", "new"):
            with contextlib.suppress(RequestError):
                found.append(access.admit(bearing(name)["Authorization"], "read"))
        return found

    seen = {}
    for minutes in (-61, -30, 0):
        now[0] = noon + timedelta(minutes=minutes)
        seen[minutes] = opened()
    assert seen == {-61: ["old"], -30: ["old", "new"], 0: ["new"]}


def written(path: Path, *names: str) -> None:
    """A keys file with a reader's key for each name."""
    entries = [f'[[keys]]\nname = "{name}"\nsha256 = "{hashed(f"secret-{name}")}"\nscopes = ["read"]' for name in names]
    path.write_text("\n".join(entries))


def test_keys_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is taken out of the file is refused a second later; a file that became unreadable changes nothing."""
    path, seconds = tmp_path / "keys.toml", [0.0]
    written(path, "a", "b")
    access = Access((), path, lambda: NOW, lambda: seconds[0])
    assert access.admit(bearing("a")["Authorization"], "read") == "a"
    written(path, "b")
    seconds[0] += 1.0
    with pytest.raises(RequestError, match="no key that is valid now"):
        access.admit(bearing("a")["Authorization"], "read")
    path.write_text("[[keys]")
    seconds[0] += 1.0
    with caplog.at_level(logging.ERROR):
        assert access.admit(bearing("b")["Authorization"], "read") == "b"
    assert "access keys stay as they were" in caplog.text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('[[keys]]\nname = "a"\nsha256 = "plain"\nscopes = ["read"]', "sha256"),
        ('[[keys]]\nname = "a"\nsha256 = "' + "0" * 64 + '"\nscopes = ["write"]', "scopes"),
        ('[[keys]]\nname = "a"\nsha256 = "' + "0" * 64 + '"\nscopes = []', "scopes"),
        ('[[keys]]\nname = "a"\nsha256 = "' + "0" * 64 + '"\nscopes = ["read"]\nkey = "secret"', "key"),
        ("keys = 3", "keys"),
        ("[[keys]", "keys.toml"),
    ],
)
def test_wrong_keys_file_is_an_error_that_names_the_place(tmp_path: Path, text: str, names: str) -> None:
    """Not a hash, an unknown scope, none, an unknown field, no table, no TOML: the place is named, the value is not."""
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_keys(tmp_path / "keys.toml")
    assert names in str(caught.value)
    assert "plain" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_two_keys_of_one_name_are_refused() -> None:
    """The audit log could not tell them apart."""
    with pytest.raises(ConfigurationError, match="a name twice"):
        Access((key_of("a", "read"), key_of("a", "admin")), None, lambda: NOW, lambda: 0.0)


def test_bucket_holds_a_second_and_fills_with_time() -> None:
    """Two a second: two at once, then one each half second; five at once when it is full, paid for by the next 2.5 s."""
    now = [0.0]
    bucket = Bucket(2.0, lambda: now[0])
    assert [bucket.take(), bucket.take(), bucket.take()] == [0.0, 0.0, 0.5]
    now[0] = 0.5
    assert [bucket.take(), bucket.take()] == [0.0, 0.5]
    now[0] = 1.5
    assert bucket.take(5) == 0.0
    assert bucket.take() == 2.0  # -3 tokens: four more are needed


def test_rate_of_a_key_is_its_own(tmp_path: Path) -> None:
    """One request a second for `slow`; the second is a 429 that says when to come again, and `fast` goes on."""
    world = World(tmp_path)
    world.release()
    keys = (key_of("slow", "read", requests_per_second=0.25), key_of("fast", "read"))
    with world.quick(keys=keys) as client:
        service_of(client).releases.refresh()
        assert client.get(URL.format("c1"), headers=bearing("slow")).status_code == 200
        refused = client.get(URL.format("c1"), headers=bearing("slow"))
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "4")
        assert client.get(URL.format("c1"), headers=bearing("fast")).status_code == 200
        world.seconds += 4.0
        assert client.get(URL.format("c1"), headers=bearing("slow")).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example"])
def test_network_without_keys_is_refused(host: str) -> None:
    """An address of a network needs keys."""
    with pytest.raises(ConfigurationError, match="without API keys"):
        refuse_open_bind(host, is_open=True)
    refuse_open_bind(host, is_open=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    """The default is usable at once."""
    refuse_open_bind(host, is_open=True)


def test_a_key_is_written_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A canary key is used, well and badly: it is in no log line, no prediction, no metric, no error, no configuration."""
    world = World(tmp_path)
    world.release()
    keys = (KeySettings(name="canary", sha256=hashed(CANARY), scopes=("read",)),)
    config = ServingConfig(world.url, tmp_path / "log", keys=keys)
    with caplog.at_level(logging.DEBUG), world.quick(keys=keys) as client:
        service_of(client).releases.refresh()
        header = {"Authorization": f"Bearer {CANARY}"}
        texts = [client.get(URL.format("c1"), headers=header).text]
        texts += [client.get(URL.format("c1"), headers={"Authorization": f"Bearer {CANARY}x"}).text]
        texts += [client.get(URL.format("%00"), headers=header).text, client.get("/metrics", headers=header).text]
    texts += [path.read_text() for path in (tmp_path / "log").iterdir()]
    texts += [caplog.text, repr(config)]
    assert len(world.lines()) == 1
    assert [text for text in texts if "canary-7d1c" in text] == []


def test_a_made_key_opens_with_its_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pipeline-assets key`: what is printed goes into the file as it stands; the key opens what was asked for and nothing else."""
    assert main(["key", "--name", "shop", "--scope", "read", "--requests-per-second", "50"]) == 0
    shown, _, entry = capsys.readouterr().out.partition("[[keys]]")
    made = shown.split()[3]
    assert made.startswith("pa_")
    (tmp_path / "keys.toml").write_text(f"[[keys]]{entry}")
    access = Access((), tmp_path / "keys.toml", lambda: NOW, lambda: 0.0)
    assert access.admit(f"Bearer {made}", "read") == "shop"
    with pytest.raises(RequestError, match="scope admin"):
        access.admit(f"Bearer {made}", "admin")
    assert made not in entry


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": "1048577"}, 413),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "12x"}, 413),
        ({"Content-Length": "1048576"}, 405),
        ({}, 405),
    ],
)
def test_long_or_unannounced_bodies_are_refused_unread(headers: dict[str, str], status: int) -> None:
    """One byte too many, an unknown length, no number; at the limit and without a body the route is asked (405: there is nothing to post)."""
    sent: list[dict[str, Any]] = []
    app = create_app(ServingConfig("sqlite://", Path("unused")))

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/healthz", "query_string": b"", "app": app, "root_path": ""}
    asgi = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(app({**scope, "headers": asgi}, receive, send))
    assert sent[0]["status"] == status
