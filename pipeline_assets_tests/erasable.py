"""A small data folder with something of customer c1 in every kind of place, and of c2 beside it. No run ever wrote it: it costs a second."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet

from pipeline_assets.serving.behaviour import Event
from pipeline_assets.serving.event_store import append, open_events
from pipeline_assets.settings import Settings
from pipeline_assets_tests.small_lake import DAYS, small_lake

AT = datetime(2017, 1, 9, 12, tzinfo=UTC)
CUSTOMERS = ("c1", "c2")


def line(customer: str) -> str:
    """An answer, as the API logs it."""
    return json.dumps({"answer_id": f"a-{customer}", "customer_id": customer, "as_of": str(DAYS[8])}) + "\n"


def erasable(root: Path) -> Settings:
    """Tables, answers, a list for serving, events, a page, a database of a tool."""
    settings = Settings(data_dir=root)
    small_lake(root)
    for folder in ("prediction_log", "recommendations", "reports", "dagster"):
        (root / folder).mkdir()
    (root / "prediction_log" / "2017-01-09.jsonl").write_text("".join(map(line, CUSTOMERS)))
    slates = pyarrow.table({"customer_id": CUSTOMERS, "product_id": ["p1", "p1"]})
    pyarrow.parquet.write_table(slates, root / "recommendations" / "2017-01-09-v1.parquet")
    (root / "reports" / "2017-01-09.html").write_text("<td>c1 (heavy)</td><td>c2 (light)</td>")
    engine = open_events(settings.events_url)
    append(engine, [Event(f"e-{c}", "view", c, "p1", AT) for c in CUSTOMERS], AT)
    engine.dispose()
    with closing(sqlite3.connect(root / "dagster" / "index.db")) as database:
        database.execute("create table events (id integer primary key, body text)")
        database.executemany(
            "insert into events (body) values (?)", [(json.dumps({"customer_id": c}),) for c in CUSTOMERS]
        )
        database.commit()
    return settings
