"""What a replay is asked to do and what it tells: policies, faults at days, events, the ledger.

Belongs here: values and their text form. Does not: running anything. Wall-clock times and CPU seconds are no part of an event, so that the
same question has the same ledger; costs are kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.sources.faulty import FAULTS

LONGEST = 600  # characters of an event's words
_ID = re.compile(
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,}\b"
)  # runs, digests, keys
_MILLISECONDS = re.compile(r"\b\d+(?:\.\d+)? ms CPU\b")  # of this machine and hour
_PLACE = re.compile(r"/(?:[\w.#@%-]+/)+[\w.#@%-]+")  # a file: its name stays
Policy = Literal["weekly", "drift", "never"]
POLICIES: Mapping[Policy, str] = {
    "weekly": "train every Monday",
    "drift": "train when drift or lost quality asks for it",
    "never": "keep the first model",
}
REFUSED = "the run of the release fails and says so, the release before stays"
# Faults of models, serving, processes and operations; those of the data are in sources/faulty.py. Name -> how it should end.
SYSTEM_FAULTS: Mapping[str, str] = {
    "degraded_model": "a challenger with reversed scores: the gate rejects it",
    "gate_bypassed": "the same challenger is made champion by force: the rollout stops it",
    "truncated_bundle": f"the day's bundle is cut after it was built: {REFUSED}",
    "bit_flipped_bundle": f"one bit of the day's model is another: {REFUSED}",
    "wrong_schema_bundle": f"the day's bundle lists its features in another order, signed: {REFUSED}",
    "nan_scores_bundle": f"the day's model scores no numbers, signed: {REFUSED}",
    "constant_scores_bundle": f"the day's model scores everything alike, signed: {REFUSED}",
    "slow_bundle": f"the day's model takes ten times as long as is allowed, signed: {REFUSED}",
    "online_store_down": "the API answers from last night's lists, flagged",
    "online_store_slow": "the API waits as long as an answer may take, then answers from last night's lists, flagged",
    "online_store_stale": "the API does not rank features of a month ago: last night's lists, flagged",
    "release_table_unreachable": "the API goes on with the release that it has; no answer fails",
    "cold_start": "the API is started anew: it listens when it is warm, and its first answer is a personal one",
    "malformed_requests": "requests that make no sense: each gets a 4xx, none a 5xx",
    "overload": "five times as many requests as are let in come at once: each is answered, or gets 429 with Retry-After",
    "killed_worker": "one of two server processes is killed: the other one answers everybody",
    "rollout_under_load": "the day's release is built, recorded and taken up while four ask without a pause: no answer fails",
    "shadow_dead": "the thread of the shadow ends: no answer fails or waits",
    "killed_run": "the run that publishes the day is killed: it is reported as failed, the next one publishes the day",
    "disk_full": "no file can be written while the day is published: the run fails, and with room the day is published",
    "database_locked": "the run waits until the database of runs can be written, and publishes the day",
    "double_trigger": "a second scheduler asks again for what the first one asked for: one effect",
    "daemon_down": "nothing is published or watched for three days, the API goes on; then each of them once, in order",
    "label_stream_stops": "three days do not arrive: nothing is published from them, their quality is unknown",
    "monitor_stops": "nothing watches for three days: the dead-man alert rings, and each day is watched later",
    "alert_storm": "a thousand failures in an hour: as many alerts as an hour may have, and one that says there are more",
    "retrain_loop": "a season for two weeks, drift each day: with policy drift one training a week, the cool-down refuses the others",
    "backfilled_twice": "the last 90 days are landed again in random order, twice, and published: the same tables, no online value goes back",
    "rollback_in_rollout": "a person rolls back the model on trial: its rollout ends, what was live stays",
    "rollback_twice": "a person goes back to the model before, and back again: what was live is live",
    "restored_backup": "a backup is taken and restored at another place: the same tables and lists, the audit log is whole",
    "erased_in_training": "in that copy a customer is erased during a training: one after the other, and nothing names her",
}
# Faults that go on for some days: how many.
LASTING: Mapping[str, int] = {"daemon_down": 3, "label_stream_stops": 3, "monitor_stops": 3, "retrain_loop": 14}
_OF_SOURCE = {"label_stream_stops": "missing_day", "retrain_loop": "season"}  # what the source does on each of them


@dataclass(frozen=True)
class Injected:
    """One fault on one business day."""

    name: str
    day: date


def parse_fault(text: str) -> Injected:
    """`name@YYYY-MM-DD`.

    Raises:
        ConfigurationError: another form, an unknown name or an unreadable day.
    """
    name, _, day = text.partition("@")
    known = {**FAULTS, **SYSTEM_FAULTS}
    try:
        if name in known:
            return Injected(name, date.fromisoformat(day))
    except ValueError:
        pass
    raise ConfigurationError(
        "--fault",
        found=text,
        wanted=f"name@YYYY-MM-DD with one of {', '.join(known)}",
        fix="correct the name or the day",
    )


def days_of(fault: Injected) -> tuple[date, ...]:
    """The days on which a fault acts: its own, or those until somebody is up again."""
    return tuple(fault.day + timedelta(days=n) for n in range(LASTING.get(fault.name, 1)))


def data_faults(faults: Iterable[Injected]) -> dict[date, tuple[str, ...]]:
    """The faults that the source makes, by day: the setting `source.faults`."""
    found: dict[date, tuple[str, ...]] = {}
    for fault in faults:
        name = _OF_SOURCE.get(fault.name, fault.name)
        for day in days_of(fault) if name in FAULTS else ():
            found[day] = (*found.get(day, ()), name)
    return found


@dataclass(frozen=True)
class Event:
    """One thing that happened: on which business day, of which kind, in words, and the figures behind it."""

    day: date
    kind: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The event as one line of JSON, keys sorted."""
        return json.dumps(
            {**asdict(self), "day": self.day.isoformat()}, sort_keys=True, ensure_ascii=False, default=str
        )


def event(day: date, kind: str, text: str, facts: Mapping[str, Any] | None = None) -> Event:
    """An event whose words are the same in an equal replay: one line, without places, ids that chance gives and times of this machine."""
    plain = _MILLISECONDS.sub("# ms CPU", _ID.sub("#", " ".join(text.split())))
    plain = _PLACE.sub(lambda found: found[0].rpartition("/")[2], plain)
    return Event(day, kind, plain[:LONGEST], facts or {})


def ledger_digest(events: Sequence[Event]) -> str:
    """SHA-256 of the ledger's lines: equal for equal replays."""
    return hashlib.sha256("\n".join(event.line() for event in events).encode()).hexdigest()


def counts(events: Iterable[Event]) -> dict[str, int]:
    """How often each kind happened, sorted by name."""
    found: dict[str, int] = {}
    for event in events:
        found[event.kind] = found.get(event.kind, 0) + 1
    return dict(sorted(found.items()))
