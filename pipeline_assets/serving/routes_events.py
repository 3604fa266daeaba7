"""The route that takes events: views, clicks, purchases.

Belongs here: what a caller may send. Does not: keeping events (event_store), what they do to an answer (behaviour).
"""

from __future__ import annotations

from http import HTTPStatus

import sqlalchemy as sa
from fastapi import APIRouter, Depends

from pipeline_assets.serving.access import requires
from pipeline_assets.serving.api_models import ERRORS, EventsBody, Taken
from pipeline_assets.serving.event_store import append, timely
from pipeline_assets.serving.http_errors import RequestError
from pipeline_assets.serving.service import Service


def router(service: Service) -> APIRouter:
    """Events into the store that the workers follow."""
    routes = APIRouter(dependencies=[Depends(requires("events:write"))], responses=ERRORS)
    follower = service.follower

    @routes.post("/v1/events")
    def take(body: EventsBody) -> Taken:
        """Keeps events durably, then answers; every worker knows them half a second later. Sending them again changes nothing."""
        now = service.wall()
        events = timely([event.event(now) for event in body.events], now, service.config.retention)
        try:
            new = append(follower.engine(), events, now)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "event store",
                found=type(error).__name__,
                wanted="a store that takes events",
                fix="send the same events again; their ids make that safe",
            ) from None
        follower.nudge()
        return Taken(new=new, known=len(events) - new, expired=len(body.events) - len(events))

    return routes
