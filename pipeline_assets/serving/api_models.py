"""The JSON of the API, for OpenAPI and for tests, and what callers send. Answers are rendered directly: a response model costs 0.3 ms CPU."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import pydantic

from pipeline_assets.recommender.explain import shopper_sentence
from pipeline_assets.serving.answers import Answer, Live
from pipeline_assets.serving.behaviour import Event, Kind

MAX_ID_LENGTH = 128
EXPLAINED_FEATURES = 3


def readable(text: str) -> str:
    """Refuse an id that no shop would issue: empty, too long, or with characters that nobody can see.

    Raises:
        ValueError: pydantic makes a 422 of it.
    """
    if not 0 < len(text) <= MAX_ID_LENGTH or not text.isprintable() or "\ufffd" in text:
        raise ValueError(f"1 to {MAX_ID_LENGTH} printable characters in UTF-8")
    return text


Id = Annotated[str, pydantic.Field(min_length=1, max_length=MAX_ID_LENGTH), pydantic.AfterValidator(readable)]
Values = Annotated[tuple[Id, ...], pydantic.Field(max_length=100)]


class Body(pydantic.BaseModel):
    """What a caller sends: an unknown key is an error that names it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Filters(Body):
    """Values that products must have; an attribute without values is free."""

    department: Values = ()
    category: Values = ()
    type: Values = ()
    brand: Values = ()

    def given(self) -> dict[str, tuple[str, ...]]:
        """The attributes that are filtered."""
        return {name: values for name, values in self if values}


class Wanted(Body):
    """What answers should be like, whoever they are for."""

    k: int | None = None
    exclude: Annotated[tuple[Id, ...], pydantic.Field(max_length=1_000)] = ()
    filters: Filters = Filters()
    context: Annotated[dict[Id, Id], pydantic.Field(max_length=10)] = pydantic.Field(default_factory=dict)
    explain: bool = False


class RecommendationRequest(Wanted):
    """One answer. Without `customer_id` it is for a visitor who is not known."""

    customer_id: Id | None = None
    basket: Annotated[tuple[Id, ...], pydantic.Field(max_length=200)] = ()


class BatchRequest(Wanted):
    """Answers for several customers, in their order."""

    customer_ids: Annotated[tuple[Id, ...], pydantic.Field(min_length=1, max_length=100)]


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: it is outside the calendar there.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a moment between the years 1 and 9999 in UTC") from None


class EventBody(Body):
    """One event. `event_id` makes it count once however often it is sent; without `event_ts` it happens when it arrives."""

    event_id: Id
    type: Kind
    customer_id: Id
    product_id: Id
    event_ts: Annotated[pydantic.AwareDatetime, pydantic.AfterValidator(in_utc)] | None = None

    def event(self, now: datetime) -> Event:
        """The event, received `now`."""
        return Event(self.event_id, self.type, self.customer_id, self.product_id, self.event_ts or now)


class EventsBody(Body):
    """Events, in any order."""

    events: Annotated[tuple[EventBody, ...], pydantic.Field(min_length=1, max_length=1_000)]


class Taken(pydantic.BaseModel):
    """What became of them: `new` count from now on, `known` were there already, `expired` are older than the retention."""

    new: int
    known: int
    expired: int


class Contribution(pydantic.BaseModel):
    """One feature's part in a score: its value (null: missing) and its SHAP contribution."""

    feature: str
    value: float | None
    contribution: float


class Item(pydantic.BaseModel):
    """One recommended product. Scores are comparable within one answer only."""

    rank: int
    product_id: str
    score: float
    department: str | None
    category: str | None
    type: str | None
    reason: str | None = None  # with explain=true, for ranked answers: a sentence for the shopper
    explanation: list[Contribution] | None = None  # the strongest contributions to the score before the rules


class RuleEffect(pydantic.BaseModel):
    """What a rule did to a product: its place before the rules and in the answer, from 1; null: not there."""

    rule: str
    product_id: str
    before: int | None
    after: int | None


class Recommendations(pydantic.BaseModel):
    """An answer. `fallback_level` none: ranked for this customer now; batch: last night's; popularity: for everyone."""

    answer_id: str
    customer_id: str | None
    customer_kind: Literal["known", "new", "anonymous"]
    model_version: str
    as_of: date
    feature_ts: datetime | None
    feature_age_seconds: float | None
    fallback_level: Literal["none", "batch", "popularity"]
    fallback_reason: str | None = None  # with explain=true
    rules: list[RuleEffect] | None = None  # with explain=true
    items: list[Item]


class Batch(pydantic.BaseModel):
    """Answers in the order of the request."""

    answers: list[Recommendations]


class ErrorDetail(pydantic.BaseModel):
    """What is wrong, the value that was met, the value that would be right, and what to do."""

    culprit: str
    found: str
    wanted: str
    fix: str


class ErrorBody(pydantic.BaseModel):
    """Every error of the API."""

    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody},
    401: {"model": ErrorBody},
    403: {"model": ErrorBody},
    404: {"model": ErrorBody},
    411: {"model": ErrorBody},
    413: {"model": ErrorBody},
    422: {"model": ErrorBody},
    429: {"model": ErrorBody},
    503: {"model": ErrorBody, "description": "Before the first bundle is loaded"},
}


def render(live: Live, answer: Answer, answer_id: str, explain: bool) -> dict[str, object]:
    """The fields of `Recommendations` for one answer."""
    manifest, bundle = live.bundle.manifest, live.bundle
    attributes = [bundle.attributes[name] for name in ("department", "category", "type")]
    items: list[dict[str, object]] = []
    for place, (product, score) in enumerate(answer.slate):
        row = bundle.rows[product]
        department, category, kind = (values[row] for values in attributes)
        item: dict[str, object] = {
            "rank": place + 1,
            "product_id": product,
            "score": score,
            "department": department,
            "category": category,
            "type": kind,
        }
        if explain and answer.explanations and (parts := answer.explanations[place]):
            item["reason"] = shopper_sentence(kind or product, list(parts))
            item["explanation"] = [
                {"feature": feature, "value": None if value != value else value, "contribution": share}
                for feature, value, share in parts[:EXPLAINED_FEATURES]
            ]
        items.append(item)
    known, moment = answer.feature_ts, answer.moment
    age = (moment.now - known).total_seconds() if known and moment else None
    body: dict[str, object] = {
        "answer_id": answer_id,
        "customer_id": answer.customer_id,
        "customer_kind": answer.customer_kind,
        "model_version": manifest.model_version,
        "as_of": manifest.as_of,
        "feature_ts": answer.feature_ts.isoformat() if answer.feature_ts else None,
        "feature_age_seconds": age,
        "fallback_level": answer.fallback_level,
        "items": items,
    }
    if explain:
        body["fallback_reason"] = answer.reason or None
        body["rules"] = [
            {"rule": x.rule, "product_id": x.product_id, "before": x.before, "after": x.after} for x in answer.applied
        ]
    return body
