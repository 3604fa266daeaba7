"""Every HTTP error has one shape: {"error": {culprit, found, wanted, fix}}; no stack trace leaves the process."""

from __future__ import annotations

import math
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline_assets.recommender.errors import PipelineError

MAX_ECHO = 80  # characters of a caller's own value that are sent back


class RequestError(PipelineError):
    """A request that cannot be answered, with its HTTP status. `retry_seconds` is for 429 and 503."""

    def __init__(
        self, status: HTTPStatus, culprit: str, *, found: object, wanted: object, fix: str, retry_seconds: float = 1.0
    ) -> None:
        super().__init__(culprit, found=found, wanted=wanted, fix=fix)
        self.status, self.retry_seconds = status, retry_seconds


def shown(value: object) -> str:
    """A caller's value as ASCII, cut to a length that is safe to send back."""
    text = ascii(value)
    return text if len(text) <= MAX_ECHO else f"{text[:MAX_ECHO]}... ({len(text)} characters)"


def _response(status: int, error: PipelineError, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {"culprit": error.culprit, "found": str(error.found), "wanted": str(error.wanted), "fix": error.fix}
    return JSONResponse({"error": body}, status, headers=headers)


def respond_with(error: RequestError) -> JSONResponse:
    """The response that tells `error`."""
    headers = {}
    if error.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_seconds)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return _response(error.status, error, headers)


async def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return respond_with(error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    culprit = ".".join(str(part) for part in first["loc"])
    return _response(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        PipelineError(
            culprit, found=shown(first.get("input")), wanted=first["msg"], fix="see /docs for the parameters"
        ),
    )


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    found = f"{request.method} {shown(request.url.path)}"
    fix = "see /docs for the endpoints; write a slash in an id as another character"
    return _response(
        error.status_code, PipelineError("request", found=found, wanted="an endpoint of this API", fix=fix)
    )


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    fix = "report it with the time of the request; the server's log has the details"
    return _response(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        PipelineError("server", found="an unexpected error", wanted="an answer", fix=fix),
    )


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)
