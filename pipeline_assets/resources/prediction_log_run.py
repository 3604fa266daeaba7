"""From the API's log files to the lake: answers by business day, and what became of each product that they showed.

Belongs here: landing lines once, joining labels. Does not: writing lines (serving/prediction_log), judging (monitoring, guardrails).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.resources.erased import Erased
from pipeline_assets.resources.holdout import Door
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.training_data import window_purchases

PREDICTION_LOG_TABLE, IMPRESSIONS_TABLE = "monitoring/prediction_log", "monitoring/impressions"
LANDED_AGAIN = 2  # days with a bundle: the one before, and one more for a day whose run came late
_BUNDLE_TABLE, _WEEK = "deployment/bundle", 7
_TEXT, _NUMBER = pyarrow.string(), pyarrow.float64()
PREDICTION_LOG = pyarrow.schema(
    [
        *((name, _TEXT) for name in ("answer_id", "ts", "customer_id", "customer_kind", "arm")),
        ("rollout_id", pyarrow.int64()),
        ("release_id", pyarrow.int64()),
        *((name, _TEXT) for name in ("model_version", "model_digest", "bundle_id", "fallback_level", "fallback_reason")),
        ("failed", _TEXT),
        ("latency_ms", _NUMBER),
        ("feature_ts", _TEXT),
        ("product_ids", pyarrow.list_(_TEXT)),
        ("scores", pyarrow.list_(_NUMBER)),
        ("line", _TEXT),  # the whole line as it was written: what the passport computes from
        ("log_file", _TEXT),
        ("log_end", pyarrow.int64()),  # where the line ends in its file: the next landing goes on there
        ("event_date", pyarrow.date32()),
    ]
)  # fmt: skip
IMPRESSIONS = pyarrow.schema(
    [
        *((name, _TEXT) for name in ("answer_id", "customer_id", "arm", "model_version")),
        ("rollout_id", pyarrow.int64()),
        ("as_of", pyarrow.date32()),
        ("rank", pyarrow.int32()),
        ("product_id", _TEXT),
        ("purchased", pyarrow.bool_()),  # within the horizon after `as_of`; null where labels are not complete
        ("event_date", pyarrow.date32()),
    ]
)


@dataclass(frozen=True)
class Landed:
    """All answers of a day, how many of them are new, and lines that could not be read."""

    table: pyarrow.Table
    new: int
    unreadable: int


def land_answers(lake: Lake, day: date, folder: Path, run_id: str) -> Landed:
    """The answers from the bundle of `day`, and what came since then from the bundles of the `LANDED_AGAIN` days before that have one.

    A day's run is over before the first answer from its bundle is given: without the second part nothing would ever be landed but by hand.
    """
    released = [d for d in lake.days(_BUNDLE_TABLE) if d < day] if lake.exists(_BUNDLE_TABLE) else []
    for earlier in sorted(released)[-LANDED_AGAIN:]:
        land_prediction_log(lake, earlier, folder, run_id)
    return land_prediction_log(lake, day, folder, run_id)


def newest_answers(lake: Lake, day: date, columns: list[str] | None = None) -> tuple[date, list[dict[str, Any]]]:
    """The newest day up to `day`, of the last week, from whose bundle answers are landed, and its rows; `day` and nothing without any."""
    if lake.exists(PREDICTION_LOG_TABLE):
        for n in range(_WEEK):
            answered = day - timedelta(days=n)
            if rows := lake.read(PREDICTION_LOG_TABLE, answered, answered, columns).to_pylist():
                return answered, rows
    return day, []


def land_prediction_log(lake: Lake, day: date, folder: Path, run_id: str) -> Landed:
    """Add the answers that were given from a bundle of `day` and are not in the lake yet; again has no effect.

    Each row says where its line ends, so that files are read from there on, and rows and position are one commit. A line that is
    cut (its process was killed while it wrote) is counted, not landed; one without its end yet is left for the next time. Answers to
    customers who were erased are not landed.
    """
    known = _of_day(lake, day)
    ends: dict[str, int] = {}
    if len(known):
        last = known.group_by("log_file").aggregate([("log_end", "max")]).to_pylist()
        ends = {row["log_file"]: row["log_end_max"] for row in last if row["log_file"]}
    wanted, rows, unreadable = f'"as_of": "{day}"'.encode(), {}, 0
    seen, erased = set(known["answer_id"].to_pylist()), Erased(lake)
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
        if path.stem < day.isoformat():
            continue  # written before the day was over, so before there was a bundle of it
        for text, end in _lines(path, ends.get(path.name, 0)):
            if wanted not in text:
                continue
            try:
                answer = json.loads(text)
            except ValueError:
                unreadable += 1
                continue
            is_wanted = answer["as_of"] == day.isoformat() and answer["answer_id"] not in seen
            if is_wanted and not erased.is_erased(answer.get("customer_id")):
                place = {"line": text.decode(), "log_file": path.name, "log_end": end, "event_date": day}
                rows[answer["answer_id"]] = {name: answer.get(name) for name in PREDICTION_LOG.names} | place
    new = pyarrow.Table.from_pylist(list(rows.values()), PREDICTION_LOG)
    table = pyarrow.concat_tables([known, new])
    if len(new) or not len(known):
        lake.replace_days(PREDICTION_LOG_TABLE, table, [day], run_id, key="answer_id", evolves=True)
    return Landed(table, len(new), unreadable)


def _of_day(lake: Lake, day: date) -> pyarrow.Table:
    """What was landed of a day; columns that an older version did not have are empty."""
    if not lake.exists(PREDICTION_LOG_TABLE):
        return PREDICTION_LOG.empty_table()
    rows = lake.read(PREDICTION_LOG_TABLE, day, day).to_pylist()
    return pyarrow.Table.from_pylist(
        [{name: row.get(name) for name in PREDICTION_LOG.names} for row in rows], PREDICTION_LOG
    )


def _lines(path: Path, start: int) -> Iterator[tuple[bytes, int]]:
    """Lines that have an end, and where it is."""
    with path.open("rb") as stream:
        stream.seek(start)
        for text in stream:
            start += len(text)
            if text.endswith(b"\n"):
                yield text[:-1], start


def land_impressions(lake: Lake, day: date, horizon_days: int, run_id: str, door: Door) -> pyarrow.Table:
    """What became of the answers whose window of `horizon_days` ends on `day`: one row per answer and product.

    `purchased` is null for all of them when a day of the window has no passed verdict: unknown is not "not bought".
    """
    as_of = day - timedelta(days=horizon_days)
    days = [as_of + timedelta(days=n) for n in range(1, horizon_days + 1)]
    answers = _of_day(lake, as_of)
    answers = answers.filter(pc.is_valid(answers["customer_id"])).to_pylist()
    bought: set[tuple[str, str]] | None = None
    if answers and set(days) <= set(lake.passed_days(["purchases"], days[0], days[-1])):
        labels = window_purchases(lake, as_of, horizon_days, door)
        bought = set(zip(labels["customer_id"], labels["product_id"], strict=True))
    rows: list[dict[str, Any]] = [
        {name: answer[name] for name in ("answer_id", "customer_id", "arm", "model_version", "rollout_id")}
        | {"as_of": as_of, "rank": rank, "product_id": product, "event_date": day}
        | {"purchased": None if bought is None else (answer["customer_id"], product) in bought}
        for answer in answers
        for rank, product in enumerate(answer["product_ids"], 1)
    ]
    table = pyarrow.Table.from_pylist(rows, IMPRESSIONS)
    lake.replace_days(IMPRESSIONS_TABLE, table, [day], run_id)
    return table
