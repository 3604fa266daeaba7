"""`pipeline-assets doctor` on small shops with one thing wrong: the failure is named, with culprit, found, wanted and fix.

The sound shop sells four lines a day at 12:00 in New York, on five days from Sunday 2017-02-12, and lists its three products.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from pipeline_assets.cli import main
from pipeline_assets.settings import get_settings
from pipeline_assets_tests import broker
from pipeline_assets_tests.postgres import READER, READER_PASSWORD, Postgres

SUNDAY, N_DAYS = date(2017, 2, 12), 5
DAYS = [SUNDAY + timedelta(days=n) for n in range(N_DAYS)]
WEDNESDAY, NEWEST = DAYS[3], DAYS[-1]
SMALL = {
    "PIPELINE_TRAINING__LABEL_WEEKS": "2",
    "PIPELINE_CALENDAR__FIRST_DAY": "2017-01-01",
    "PIPELINE_CALENDAR__CLOSED_DAYS": "[]",
}
Report = Callable[[Mapping[str, str]], dict[str, list[dict[str, Any]]]]


def sales(day: date, hour: str = "12:00:00-05:00") -> pd.DataFrame:
    """Four lines of a day."""
    rows = [(f"{day}-{n}", f"o{n}", f"c{n}", f"p{n % 3}", 1.0, 2.0, 0.0, f"{day} {hour}") for n in range(4)]
    names = ["event_id", "order_id", "customer_id", "product_id", "quantity", "amount", "discount", "event_ts"]
    return pd.DataFrame(rows, columns=names)


def drop(root: Path, frame: pd.DataFrame, day: date, feed: str = "purchases") -> None:
    (root / feed).mkdir(parents=True, exist_ok=True)
    frame.to_csv(root / feed / f"{day}.csv", index=False)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The drops of the sound shop."""
    root = tmp_path / "drops"
    for day in DAYS:
        drop(root, sales(day), day)
    drop(root, pd.DataFrame({"product_id": ["p0", "p1", "p2"], "is_sellable": True}), SUNDAY, "products")
    return root


@pytest.fixture
def report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run the verb with these settings; what it printed as JSON, and its exit code. It must not have written anything."""

    def run(root: Path | None = None, mapping: str = "", **settings: str) -> dict[str, Any]:
        for name in [name for name in os.environ if name.startswith("PIPELINE_")]:
            monkeypatch.delenv(name)
        environment = {**SMALL, "PIPELINE_DATA_DIR": str(tmp_path / "data"), **settings}
        if root:
            environment |= {"PIPELINE_SOURCE__KIND": "files", "PIPELINE_SOURCE__PATH": str(root)}
        if mapping:
            (tmp_path / "mapping.toml").write_text(mapping)
            environment["PIPELINE_SOURCE__MAPPING"] = str(tmp_path / "mapping.toml")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        before = sorted(tmp_path.rglob("*"))
        code = main(["doctor", "--json"])
        get_settings.cache_clear()
        assert sorted(tmp_path.rglob("*")) == before, "doctor never writes"
        content: dict[str, Any] = {"code": code, **json.loads(capsys.readouterr().out)}
        assert content["ready"] == (code == 0)
        for finding in content["findings"]:
            if finding["status"] in ("warn", "FAIL"):
                assert all(finding[part] for part in ("culprit", "found", "wanted", "fix")), finding
        return content

    yield run
    get_settings.cache_clear()


def of(content: Mapping[str, Any], status: str) -> list[dict[str, Any]]:
    return [finding for finding in content["findings"] if finding["status"] == status]


def only(content: Mapping[str, Any], status: str, check: str) -> dict[str, Any]:
    """The one finding of a status, which is about this check."""
    (finding,) = of(content, status)
    assert finding["check"] == check
    return finding


def test_sound_shop_is_ready(shop: Path, report: Callable[..., Any]) -> None:
    """Nothing fails; the absent feeds are told, and that five days are not enough to train on."""
    content = report(shop)
    assert content["code"] == 0
    assert of(content, "FAIL") == []
    assert only(content, "warn", "enough to train")
    assert [finding["check"] for finding in of(content, "info")] == ["feed exposures", "feed customers"]
    assert "4 rows of 2017-02-16" in next(f["found"] for f in of(content, "ok") if f["check"] == "feed purchases")


def test_table_for_people(shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a check, with what to do below what is wrong, and the outcome last."""
    (shop / "purchases" / f"{NEWEST}.csv").write_text("event_id\n")
    for name, value in {**SMALL, "PIPELINE_SOURCE__KIND": "files", "PIPELINE_SOURCE__PATH": str(shop)}.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    get_settings.cache_clear()
    (at,) = [n for n, line in enumerate(lines) if line.startswith("FAIL")]
    assert lines[at].startswith("FAIL  feed purchases")
    assert [line.split(":")[0].strip() for line in lines[at + 1 : at + 4]] == ["culprit", "wanted", "fix"]
    assert lines[-1].startswith("1 to mend before anything runs")


# Configuration, mapping, connection


def test_unknown_setting(report: Callable[..., Any], shop: Path) -> None:
    """Nothing else can be looked at."""
    content = report(shop, PIPELINE_SOURCE__FOLDER="x")
    assert only(content, "FAIL", "configuration")["culprit"] == "setting source.folder"
    assert len(content["findings"]) == 1


def test_mapping_that_is_not_understood(report: Callable[..., Any], shop: Path) -> None:
    """The key is named."""
    assert only(report(shop, mapping="[purchases]\ntable = 'x'\n"), "FAIL", "mapping")["found"] == "table"


def test_folder_that_is_not_there(report: Callable[..., Any], tmp_path: Path) -> None:
    """The path is named."""
    assert str(tmp_path / "gone") in only(report(tmp_path / "gone"), "FAIL", "connection and purchases")["culprit"]


def test_unreachable_database_shows_no_secret(report: Callable[..., Any], tmp_path: Path) -> None:
    """There is no server at that socket."""
    url = f"postgresql+psycopg2://shop:geheim@/shop?host={tmp_path}"
    content = report(PIPELINE_SOURCE__KIND="sql", PIPELINE_SOURCE__URL=url)
    assert "No such file or directory" in only(content, "FAIL", "connection and purchases")["found"]
    assert "geheim" not in json.dumps(content)


def test_wrong_password_shows_no_secret(report: Callable[..., Any], postgres: Postgres) -> None:
    """The server refuses it; the right one gets in and finds no table."""
    wrong = postgres.url(user=READER, password="geheim")
    content = report(PIPELINE_SOURCE__KIND="sql", PIPELINE_SOURCE__URL=wrong)
    assert "password authentication failed" in only(content, "FAIL", "connection and purchases")["found"]
    assert "geheim" not in json.dumps(content)
    right = postgres.url(user=READER, password=READER_PASSWORD)
    content = report(PIPELINE_SOURCE__KIND="sql", PIPELINE_SOURCE__URL=right)
    assert only(content, "FAIL", "business days")
    assert READER_PASSWORD not in json.dumps(content)


def test_text_that_is_no_url_is_not_repeated(report: Callable[..., Any]) -> None:
    """It may hold a password."""
    content = report(PIPELINE_SOURCE__KIND="sql", PIPELINE_SOURCE__URL="shop:geheim@db")
    assert only(content, "FAIL", "connection and purchases")["culprit"] == "setting source.url"
    assert "geheim" not in json.dumps(content)


def database(folder: Path) -> str:
    """A SQLite database with the sound shop's purchases."""
    engine = sa.create_engine(f"sqlite:///{folder / 'shop.db'}")
    pd.concat([sales(day) for day in DAYS]).to_sql("verkauf", engine, index=False)
    engine.dispose()
    return f"sqlite:///{folder / 'shop.db'}"


@pytest.mark.parametrize(
    ("mapping", "culprit"),
    [
        ("[purchases]\nfrom = 'verkäufe'\n", "table of purchases"),
        ("[purchases]\nfrom = 'verkauf'\n[purchases.columns]\namount = 'betrag'\n", "column amount of verkauf"),
        ("[purchases]\nfrom = 'verkauf'\n[purchases.columns]\namount = 'amount +'\n", "column amount of verkauf"),
        ("[purchases]\nfrom = 'verkauf'\nfilter = 'storno = 0'\n", "filter of purchases"),
        ("[purchases]\nfrom = 'verkauf'\nday = 'tag'\n", "column business day of verkauf"),
    ],
    ids=["table", "column", "no SQL", "filter", "day"],
)
def test_database_without_what_the_mapping_names(
    report: Callable[..., Any], tmp_path: Path, mapping: str, culprit: str
) -> None:
    """Which part of the mapping, and what the database said to it."""
    content = report(mapping=mapping, PIPELINE_SOURCE__KIND="sql", PIPELINE_SOURCE__URL=database(tmp_path))
    (finding,) = of(content, "FAIL")
    assert finding["culprit"].startswith(culprit)
    assert finding["found"]


def test_sound_database_is_ready(report: Callable[..., Any], tmp_path: Path) -> None:
    """The control of the test above: with a mapping that fits, nothing fails."""
    content = report(
        mapping="[purchases]\nfrom = 'verkauf'\n", PIPELINE_SOURCE__KIND="sql", PIPELINE_SOURCE__URL=database(tmp_path)
    )
    assert content["code"] == 0


def test_expression_that_fails_on_a_value(report: Callable[..., Any], shop: Path) -> None:
    """Named by the contract's column, although the SQL as such is right."""
    content = report(shop, mapping="[purchases.columns]\namount = 'cast(product_id as double)'\n")
    finding = only(content, "FAIL", "feed purchases")
    assert finding["culprit"].startswith("column amount of")
    assert "p0" in finding["found"]


# Data


def test_no_days(report: Callable[..., Any], shop: Path) -> None:
    """The calendar begins after the last delivery."""
    content = report(shop, PIPELINE_CALENDAR__FIRST_DAY="2017-06-01")
    assert "2017-06-01" in only(content, "FAIL", "business days")["wanted"]


def test_missing_day_is_a_warning(report: Callable[..., Any], shop: Path) -> None:
    """Wednesday never came."""
    (shop / "purchases" / f"{WEDNESDAY}.csv").unlink()
    found = [f["found"] for f in of(report(shop), "warn") if f["check"] == "business days"]
    assert found == [f"1 of 5 days are missing: {WEDNESDAY}"]


def test_wrong_time_zone_of_daily_files(report: Callable[..., Any], shop: Path) -> None:
    """All four lines at 01:00 UTC are of the evening before in New York: validation would block the day, and the reason is told."""
    drop(shop, sales(NEWEST, "01:00:00+00:00"), NEWEST)
    (finding,) = [f for f in of(report(shop), "FAIL") if f["check"] == "time zone"]
    assert "4 of 4 purchases of 2017-02-16 (100.0%) lie on another day" in finding["found"]


def test_wrong_time_zone_of_one_file(report: Callable[..., Any], tmp_path: Path) -> None:
    """One file has no day of its own to compare with: a shop that sells at 3 o'clock is asked about."""
    (tmp_path / "all").mkdir()
    pd.concat([sales(day, "03:00:00-05:00") for day in DAYS]).to_csv(tmp_path / "all" / "purchases.csv", index=False)
    found = [f["found"] for f in of(report(tmp_path / "all"), "warn") if f["check"] == "time zone"]
    assert found == ["4 of 4 purchases of 2017-02-16 (100.0%) lie between 0 and 5 o'clock in America/New_York"]


def test_naive_timestamps(report: Callable[..., Any], shop: Path) -> None:
    """Nothing says their zone: a warning; the mapping says it: no more than a note."""
    drop(shop, sales(NEWEST, "12:00:00"), NEWEST)
    (warning,) = [f for f in of(report(shop), "warn") if f["check"] == "time zone"]
    assert warning["found"] == "event_ts says no zone; it is read as America/New_York"
    content = report(shop, mapping='time_zone = "America/New_York"\n')
    assert [f for f in of(content, "warn") if f["check"] == "time zone"] == []


def test_purchases_of_unknown_products(report: Callable[..., Any], shop: Path) -> None:
    """The catalogue has other codes: 4 of 4; with one code missing, one line in 100 is a warning and 2 in 100 too many to be silent."""
    drop(shop, sales(NEWEST).assign(product_id="EAN-1"), NEWEST)
    finding = only(report(shop), "FAIL", "references")
    assert "4 of 4 purchases (100.0%) are of products that are not in products, such as 'EAN-1'" in finding["found"]
    many = pd.concat([sales(NEWEST).assign(event_id=lambda rows, n=n: rows["event_id"] + f"-{n}") for n in range(25)])
    many.iloc[:2, many.columns.get_loc("product_id")] = "EAN-1"
    drop(shop, many, NEWEST)
    assert [f["found"][:18] for f in of(report(shop), "warn") if f["check"] == "references"] == ["2 of 100 purchases"]


def test_nothing_is_sellable(report: Callable[..., Any], shop: Path) -> None:
    """A mapping that says so for every product would recommend nothing."""
    drop(shop, pd.DataFrame({"product_id": ["p0", "p1", "p2"], "is_sellable": False}), SUNDAY, "products")
    assert only(report(shop), "FAIL", "references")["culprit"] == "products.is_sellable"


def test_every_row_breaks_a_rule(report: Callable[..., Any], shop: Path) -> None:
    """Returns only: the day would be blocked, and the rule is named."""
    drop(shop, sales(NEWEST).assign(quantity=-1.0), NEWEST)
    finding = only(report(shop), "FAIL", "feed purchases")
    assert finding["culprit"] == f"purchases of {NEWEST}"
    assert "quantity_positive 4" in finding["fix"]


def test_column_that_nothing_maps_is_told(report: Callable[..., Any], shop: Path) -> None:
    """It is not read, which is no fault."""
    drop(shop, sales(NEWEST).assign(kassierer="Schmidt"), NEWEST)
    assert "kassierer" in next(f["found"] for f in of(report(shop), "info") if f["check"] == "feed purchases")


def test_the_sample_is_ready(report: Callable[..., Any]) -> None:
    """A source that cannot be peeked into is examined as far as it goes."""
    content = report(PIPELINE_CALENDAR__UNTIL="2017-01-10", PIPELINE_CALENDAR__FIRST_DAY="2017-01-01")
    assert content["code"] == 0


def test_stream_whose_brokers_do_not_answer(report: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there; that nothing was landed is told besides."""
    monkeypatch.setattr("pipeline_assets.doctor.BROKER_SECONDS", 1.0)
    content = report(PIPELINE_SOURCE__KIND="stream", PIPELINE_STREAM__BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert [f["check"] for f in of(content, "FAIL")] == ["broker", "business days"]
    assert "127.0.0.1:9" in of(content, "FAIL")[0]["culprit"]


def test_stream_whose_topic_is_there(report: Callable[..., Any]) -> None:
    """A cluster with a topic for purchases, which nobody has consumed yet."""
    with broker.running() as (servers, _):
        broker.produce(servers, "purchases", [{"event_id": "e1"}])
        content = report(PIPELINE_SOURCE__KIND="stream", PIPELINE_STREAM__BOOTSTRAP_SERVERS=servers)
    assert "topic purchases has 4 partitions" in [f["found"] for f in of(content, "ok")]
    assert "consume" in only(content, "FAIL", "business days")["fix"]
