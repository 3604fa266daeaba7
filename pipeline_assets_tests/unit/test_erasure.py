"""An erasure as a whole, on a small data folder: what it leaves of others, its receipt, killed and finished, and what looks the same but is not."""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pipeline_assets.recommender.errors import Busy, ConfigurationError
from pipeline_assets.resources.erased import ERASURES, Erased, digest_of, key_file
from pipeline_assets.resources.erasure import erase, verify
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.lake_lock import shared
from pipeline_assets.resources.prediction_log_run import land_prediction_log
from pipeline_assets.serving import audit
from pipeline_assets.serving.event_store import after, open_events
from pipeline_assets.serving.release_state import open_state
from pipeline_assets.settings import PROJECT_ROOT, Settings
from pipeline_assets_tests.erasable import erasable, line
from pipeline_assets_tests.small_lake import DAYS


def quiet(_line: str) -> None:
    """Nobody watches."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return erasable(tmp_path / "data")


def others(settings: Settings) -> dict[str, list[str]]:
    """Table -> rows that are not of c1, in order."""
    lake = local_lake(settings.data_dir)
    tables = ("validated/purchases", "validated/exposures", "validated/customers", "validated/products")
    found = {table: lake.read(table).to_pylist() for table in tables}
    return {table: sorted(str(r) for r in rows if r.get("customer_id") != "c1") for table, rows in found.items()}


def test_nothing_of_her_is_left_and_all_of_others(settings: Settings) -> None:
    """Every kind of place held her before, none does after; the other customer is in each."""
    before, places = others(settings), verify(settings, "c1", 0)
    for place in ("validated/purchases", "events.db", "index.db", "2017-01-09.jsonl", "v1.parquet", "2017-01-09.html"):
        assert any(place in found for found in places), place
    assert erase(settings, "c1", quiet, 0) is not None
    assert verify(settings, "c1", 0) == []
    assert others(settings) == before
    assert len(verify(settings, "c2", 0)) > 10, "control: who was not erased is found"
    engine = open_events(settings.events_url)
    assert [event.customer_id for _, event in after(engine, 0, 10)] == ["c2"]
    engine.dispose()


def test_the_receipt(settings: Settings) -> None:
    """In the ledger and, by its digest, in the audit log; no id in either. Rows, days and digests are those of the tables."""
    receipt = erase(settings, "c1", quiet, 0)
    assert receipt is not None
    lake = local_lake(settings.data_dir)
    (of_purchases,) = [place for place in receipt.removed if place.place == "lake validated/purchases"]
    before, after_it = (commit.days for commit in lake.commits("validated/purchases")[-2:])
    assert of_purchases.rows == 27
    assert of_purchases.content == {str(day): (before[day].digest, after_it[day].digest) for day in DAYS}
    started, finished = lake.read(ERASURES).sort_by("recorded_at").to_pylist()
    assert [started["state"], finished["state"]] == ["started", "finished"]
    assert json.loads(finished["receipt"]) == json.loads(json.dumps(receipt.as_json()))
    engine = open_state(settings.release_url)
    (row,) = audit.entries(engine)
    assert row.action == "erase"
    details = json.loads(row.details)
    assert details["receipt_sha256"] == hashlib.sha256(finished["receipt"].encode()).hexdigest()
    assert audit.verify(engine).broken_at is None
    assert '"c1"' not in finished["receipt"] + row.details + row.subject
    assert receipt.customer_digest == digest_of(lake, "c1") != hashlib.sha256(b"c1").hexdigest()


def test_again_is_nothing_to_do(settings: Settings) -> None:
    """No second receipt; when something of her has come since, another one."""
    erase(settings, "c1", quiet, 0)
    assert erase(settings, "c1", quiet, 0) is None
    with (settings.data_dir / "prediction_log" / "2017-01-09.jsonl").open("a") as file:
        file.write(line("c1"))
    assert verify(settings, "c1", 0) == ["prediction_log/2017-01-09.jsonl"]
    again = erase(settings, "c1", quiet, 0)
    assert again is not None
    assert [(place.place, place.rows) for place in again.removed] == [("prediction_log/2017-01-09.jsonl", 1)]


KILLED = """
import deltalake, os, pathlib, signal, sys
left = int(sys.argv[2])

def counted(owner, name):
    inner = getattr(owner, name)
    def call(*arguments, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return inner(*arguments, **named)
    setattr(owner, name, call)

from pipeline_assets.resources.erasure import erase
from pipeline_assets.settings import Settings
for owner, name in ((deltalake, "write_deltalake"), (pathlib.Path, "unlink"), (pathlib.Path, "replace"), (os, "pwrite")):
    counted(owner, name)
erase(Settings(data_dir=pathlib.Path(sys.argv[1])), "c1", lambda _line: None, 0)
"""


def test_killed_and_finished(settings: Settings) -> None:
    """SIGKILL after 1, 6, 9 and 5 more of its steps, each time going on where the one before was; the next finishes it, with one receipt
    that has every row of the lake. Rows of others are what they were."""
    before = others(settings)
    for steps in (1, 6, 9, 5):
        command = [sys.executable, "-c", KILLED, str(settings.data_dir), str(steps)]
        assert subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode == -signal.SIGKILL
        assert verify(settings, "c1", 0), "killed before its end: something still holds her"
    receipt = erase(settings, "c1", quiet, 0)
    assert receipt is not None
    assert receipt.is_resumed
    assert {place.place: place.rows for place in receipt.removed}["lake validated/purchases"] == 27
    assert verify(settings, "c1", 0) == []
    assert others(settings) == before
    states = local_lake(settings.data_dir).read(ERASURES).sort_by("recorded_at")["state"].to_pylist()
    assert states == ["started", "finished"]
    assert len(audit.entries(open_state(settings.release_url))) == 1


def test_answers_of_others_stay_where_they_are(settings: Settings) -> None:
    """Landing goes on at a place in the file: her line is blanks of the same length, the next one begins where it did."""
    path = settings.data_dir / "prediction_log" / "2017-01-09.jsonl"
    size = path.stat().st_size
    erase(settings, "c1", quiet, 0)
    assert path.stat().st_size == size
    assert path.read_text() == " " * (len(line("c1")) - 1) + "\n" + line("c2")


def test_an_answer_to_her_is_not_landed(settings: Settings) -> None:
    """She asks again, and the API logs it: the lake does not get it. The answer to another is landed."""
    erase(settings, "c1", quiet, 0)
    lake, folder = local_lake(settings.data_dir), settings.data_dir / "prediction_log"
    answers = [{"answer_id": f"{n}", "customer_id": c, "as_of": str(DAYS[8]), "product_ids": [], "scores": []} for n, c in enumerate(("c1", "c3"))]  # fmt: skip
    (folder / "2017-01-10.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    (folder / "2017-01-09.jsonl").unlink()
    assert land_prediction_log(lake, DAYS[8], folder, "run").table["customer_id"].to_pylist() == ["c3"]


def test_rows_of_erased_customers_are_dropped(settings: Settings) -> None:
    """By digest; without a ledger nothing is looked at, and without the key nothing is landed."""
    lake, rows = local_lake(settings.data_dir), pyarrow.table({"customer_id": ["c1", "c2", None, "c1"]})
    assert Erased(lake).without(rows) is rows
    erase(settings, "c1", quiet, 0)
    assert Erased(lake).without(rows)["customer_id"].to_pylist() == ["c2", None]
    key_file(lake).unlink()
    with pytest.raises(ConfigurationError, match="put the file back"):
        Erased(lake)


def test_not_beside_a_run(settings: Settings) -> None:
    """Refused when the run does not end in time, and nothing has happened: not even the ledger knows of it."""
    lake = local_lake(settings.data_dir)
    with shared(lake.root), pytest.raises(Busy):
        erase(settings, "c1", quiet, 0)
    assert not lake.exists(ERASURES)


def test_what_cannot_be_removed_is_named(settings: Settings) -> None:
    """A person wrote her id into a reason, which the audit chain keeps: no receipt, and the error says where. Her rows are gone all the same."""
    engine = open_state(settings.release_url)
    with engine.begin() as connection:
        reason = 'complaint, {"customer_id": "c1"}'
        audit.record(connection, actor="ops", action="rollback", subject="x", reason=reason, at=datetime.now(UTC))
    engine.dispose()
    with pytest.raises(ConfigurationError, match=r"still named in release\.db"):
        erase(settings, "c1", quiet, 0)
    assert verify(settings, "c1", 0) == ["release.db"]


def test_what_deleted_rows_left_in_a_database_is_gone(settings: Settings) -> None:
    """A row that a tool deleted is still in its file, until the erasure writes the file anew."""
    path = settings.data_dir / "dagster" / "index.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma secure_delete=off")  # Debian's SQLite has it on, others do not
        database.execute("delete from events where body like '%c1%'")
        database.commit()
    assert verify(settings, "c1", 0).count("dagster/index.db") == 1, "control: SQLite leaves it there"
    erase(settings, "c1", quiet, 0)
    assert b'"c1"' not in path.read_bytes()
    assert b'"c2"' in path.read_bytes()


def test_an_empty_id_is_refused(settings: Settings) -> None:
    """It would be everybody without one."""
    with pytest.raises(ConfigurationError, match="found no id"):
        erase(settings, " ", quiet, 0)
