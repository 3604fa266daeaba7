"""The route that says how an answer came to be.

Belongs here: one answer's line, and the same answer computed again from what this process has loaded. Does not: computing
(passport), answers whose bundle or features are gone from serving (`pipeline-assets replay-answer` has the lake).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pydantic
from fastapi import APIRouter, Depends

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.serving.access import requires
from pipeline_assets.serving.answers import Live
from pipeline_assets.serving.api_models import ErrorBody
from pipeline_assets.serving.http_errors import RequestError, shown
from pipeline_assets.serving.passport import find_line, recompute
from pipeline_assets.serving.service import Service


class PassportPart(pydantic.BaseModel):
    """One thing that the answer follows from, as it was recorded and as it is now."""

    name: str
    recorded: Any
    here: Any
    is_equal: bool


class PassportCandidate(pydantic.BaseModel):
    """A product that was ranked. `after`: its score in the slate, after rules and recent behaviour; null: not in it."""

    product_id: str
    before: float
    after: float | None


class PassportBody(pydantic.BaseModel):
    """An answer's line in the prediction log, and the answer computed again. `status` unavailable: its bundle is loaded here no more."""

    line: dict[str, Any]
    status: str
    first_difference: str | None
    parts: list[PassportPart]
    candidates: list[PassportCandidate]
    features: dict[str, dict[str, float | None]]  # product of the slate -> feature -> value; null: missing


RESPONSES: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in (401, 403, 404, 422, 429)}


def router(service: Service) -> APIRouter:
    """Passports of the answers in this log folder."""
    routes = APIRouter()

    @routes.get(
        "/v1/recommendations/{answer_id}",
        response_model=PassportBody,
        responses=RESPONSES,
        dependencies=[Depends(requires("admin"))],
    )
    def passport(answer_id: str) -> PassportBody:
        """How an answer came to be: its model, what its features were by digest, the candidates' scores before and after rules. It is
        computed again from the bundle and features that are served now: equal, or the first difference is named."""
        try:
            line = find_line(service.config.log_dir, answer_id)
        except NotEnoughData as error:
            raise RequestError(
                HTTPStatus.NOT_FOUND, "path.answer_id", found=shown(answer_id), wanted=error.wanted, fix=error.fix
            ) from None
        live = _loaded(service, line["release_id"])
        if live is None:
            return PassportBody(
                line=line, status="unavailable", first_difference=None, parts=[], candidates=[], features={}
            )
        features = service.features_of(live, line["customer_id"]) if line["features"] else None
        found = recompute(line, live, features, service.config.rules)
        difference = found.first_difference
        return PassportBody(
            line=line,
            status="equal" if difference is None else "different",
            first_difference=difference.name if difference else None,
            parts=[
                PassportPart(name=part.name, recorded=part.recorded, here=part.here, is_equal=part.is_equal)
                for part in found.parts
            ],
            candidates=[
                PassportCandidate(product_id=product, before=before, after=after)
                for product, before, after in found.candidates
            ],
            features={product: dict(values) for product, values in found.features.items()},
        )

    return routes


def _loaded(service: Service, release_id: int) -> Live | None:
    trial = service.releases.trial
    loaded = [service.releases.live, trial.candidate if trial else None]
    return next((live for live in loaded if live is not None and live.release_id == release_id), None)
