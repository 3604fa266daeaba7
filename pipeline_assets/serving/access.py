"""Who may ask what: API keys with scopes, a rate limit per key, and the size of a request.

Belongs here: whether a request is let in. Does not: what it is answered. A key is known by its SHA-256 only: keys are 256
random bits (`pipeline-assets key`), so a slow hash would protect nothing that a fast one does not, at 100 ms a request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from pipeline_assets.recommender.errors import ConfigurationError, PipelineError
from pipeline_assets.serving.http_errors import RequestError, respond_with
from pipeline_assets.settings_access import KeySettings, read_keys

logger = logging.getLogger(__name__)
Scope = Literal["public", "read", "events:write", "admin"]
LOOK_SECONDS = 1.0  # how often the keys file is asked whether it changed: a withdrawn key is refused after that
OWN_PAGES = ("/openapi.json", "/docs")  # FastAPI's: what the API can do, nothing of what it knows
_LOOPBACK = ("localhost", "127.", "::1")


class Bucket:
    """A token bucket that holds one second's worth of requests, one at least.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._rate, self._clock = per_second, clock
        self._most = max(1.0, per_second)
        self._tokens, self._at = self._most, clock()

    def take(self, n: int = 1) -> float:
        """Take `n` tokens and return 0, or take none and return the seconds after which to come again.

        More than the bucket ever holds is let in when it is full, and paid for by what follows.
        """
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= min(n, self._most):
            self._tokens -= n
            return 0.0
        return (min(n, self._most) - self._tokens) / self._rate


class Access:
    """The door. Without keys everything is open, which `refuse_open_bind` allows on loopback only.

    Args:
        keys_file: read again when it changes; one that cannot be read any more leaves the keys as they are, and the log
            says so.
        wall: aware wall clock, for validity; monotonic: seconds, for rates.

    Raises:
        ConfigurationError: the file cannot be read, or two keys have one name.
    """

    def __init__(
        self,
        keys: Sequence[KeySettings],
        keys_file: Path | None,
        wall: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._fixed, self._file, self._wall, self._monotonic = tuple(keys), keys_file, wall, monotonic
        self._look_again = float("-inf")
        self._changed_at = 0
        self.is_open = not keys and keys_file is None
        self._set(() if keys_file is None else read_keys(keys_file))

    def _set(self, from_file: Sequence[KeySettings]) -> None:
        """Take these keys; a rate starts anew."""
        keys = (*self._fixed, *from_file)
        if len({key.name for key in keys}) != len(keys):
            raise ConfigurationError(
                "access keys", found="a name twice", wanted="a name of its own for each key", fix="rename one"
            )
        self._keys = keys
        self._buckets = {k.name: Bucket(k.requests_per_second, self._monotonic) for k in keys if k.requests_per_second}

    def _follow_file(self) -> None:
        if self._file is None or self._monotonic() < self._look_again:
            return
        self._look_again = self._monotonic() + LOOK_SECONDS
        try:
            changed_at = self._file.stat().st_mtime_ns
            if changed_at == self._changed_at:
                return
            self._changed_at = changed_at
            self._set(read_keys(self._file))
            logger.info("access keys read again: %d", len(self._keys))
        except (OSError, PipelineError) as error:
            logger.error("access keys stay as they were: %s", error)

    def admit(self, header: str | None, scope: Scope) -> str:
        """The name of the key behind an `Authorization: Bearer` header; "anyone" where no key is needed.

        Raises:
            RequestError: 401 without a valid key, 403 without the scope, 429 above the key's rate.
        """
        if scope == "public" or self.is_open:
            return "anyone"
        self._follow_file()
        key = self._known(header)
        if scope not in key.scopes:
            raise RequestError(
                HTTPStatus.FORBIDDEN,
                f"key {key.name}",
                found=f"scopes {', '.join(key.scopes)}",
                wanted=f"scope {scope}",
                fix="use a key with this scope",
            )
        self.charge(key.name)
        return key.name

    def charge(self, name: str, n: int = 1) -> None:
        """Take `n` requests from the rate of a key; a batch pays for each of its items.

        Raises:
            RequestError: 429, above the rate.
        """
        bucket = self._buckets.get(name)
        if bucket is not None and (wait := bucket.take(n)):
            raise RequestError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"key {name}",
                found="more requests than its rate",
                wanted="its requests_per_second",
                fix="retry after the seconds in Retry-After",
                retry_seconds=wait,
            )

    def _known(self, header: str | None) -> KeySettings:
        kind, _, presented = (header or "").partition(" ")
        digest = hashlib.sha256(presented.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self._keys:  # all of them, each in constant time
            if hmac.compare_digest(digest, key.sha256):
                found = key
        now = self._wall()
        if (
            found is None
            or kind.lower() != "bearer"
            or (found.not_before is not None and now < found.not_before)
            or (found.not_after is not None and now >= found.not_after)
        ):
            raise RequestError(
                HTTPStatus.UNAUTHORIZED,
                "header Authorization",
                found="no key that is valid now" if header else "nothing",
                wanted="Bearer and an API key",
                fix="ask the operator for a key (pipeline-assets key)",
            )
        return found


def requires(scope: Scope) -> Callable[..., Awaitable[str]]:
    """A dependency of a route: lets the request in if its key has the scope, and gives the key's name.

    Every route has exactly one: `check_scopes` refuses an application with a route that says nothing.
    """

    async def admitted(request: Request) -> str:
        access: Access = request.app.state.access
        name = access.admit(request.headers.get("authorization"), scope)
        request.state.caller = name  # for the audit log
        return name

    admitted.scope = scope  # type: ignore[attr-defined]  # read by `scope_of`
    return admitted


def scope_of(route: APIRoute) -> Scope | None:
    """The scope that a route states, None if it states none or several."""
    stated = [getattr(dependency.call, "scope", None) for dependency in route.dependant.dependencies]
    found = [scope for scope in stated if scope is not None]
    return found[0] if len(found) == 1 else None


def check_scopes(app: FastAPI) -> None:
    """Refuse an application with a route that does not say who may use it.

    Raises:
        ConfigurationError: it names the route.
    """
    for route in app.routes:
        if isinstance(route, APIRoute):
            found = "no scope" if scope_of(route) is None else ""
        else:
            found = "" if getattr(route, "path", None) in OWN_PAGES else "a route whose scope cannot be listed"
        if found:
            raise ConfigurationError(
                f"route {getattr(route, 'path', route)}",
                found=found,
                wanted="one dependency requires(...)",
                fix='add dependencies=[Depends(requires("read"))], or "public" with a reason, in a router that app.py names',
            )


def describe_scopes(app: FastAPI) -> None:
    """Let the OpenAPI document say which operations need a key, and with which scope."""
    made = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["key"] = {"type": "http", "scheme": "bearer", "description": "An API key"}
            for route in app.routes:
                if isinstance(route, APIRoute) and (scope := scope_of(route)) not in (None, "public"):
                    for method in route.methods or ():
                        operation = document["paths"][route.path][method.lower()]
                        operation["security"] = [{"key": []}]
                        operation["description"] = f"{operation.get('description', '')}\n\nScope `{scope}`.".strip()
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]


def refuse_open_bind(host: str, is_open: bool) -> None:
    """Refuse to serve a network without keys.

    Raises:
        ConfigurationError: `host` is not a loopback address and there are no keys.
    """
    if is_open and not host.startswith(_LOOPBACK):
        raise ConfigurationError(
            "setting serving.host",
            found=f"{host} without API keys",
            wanted="a loopback address, or keys",
            fix="make a key with `pipeline-assets key` and name its file in PIPELINE_ACCESS__KEYS_FILE",
        )


class BodyLimit:
    """ASGI middleware: a body is announced and not too long. 413 above the limit, 411 without Content-Length.

    The server ends a request whose body is longer than announced, so the announcement can be trusted. FastAPI's own
    `max_body_size` answers in plain text, where every error of this API has one shape.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length")
        if announced is not None and announced.isdigit() and int(announced) <= self._most:
            await self._app(scope, receive, send)
            return
        if announced is None and b"transfer-encoding" not in headers:  # no body at all
            await self._app(scope, receive, send)
            return
        is_long = announced is not None
        error = RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_long else HTTPStatus.LENGTH_REQUIRED,
            "request body",
            found=f"{announced.decode('ascii', 'replace')[:20]} bytes" if announced else "a length that is not known",
            wanted=f"at most {self._most} bytes, announced by Content-Length",
            fix="send fewer items in each request",
        )
        await respond_with(error)(scope, receive, send)
