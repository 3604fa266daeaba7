"""docs/tutorial.md, executed from the first command to the last on a generated foreign shop: every optional part is absent."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from pipeline_assets.settings import PROJECT_ROOT
from pipeline_assets_tests.contract.repository import blocks
from pipeline_assets_tests.foreign_shop import LAST_DAY, export

PAGE = (PROJECT_ROOT / "docs/tutorial.md").read_text()
FILE = re.compile(r"<!-- file: (\S+) -->")


@dataclass(frozen=True)
class Followed:
    """What following the page left behind: the folder, the export, and the output of each command block."""

    folder: Path
    exported: pd.DataFrame
    outputs: list[str]


def shim(folder: Path) -> Path:
    """A folder for PATH in which `pipeline-assets` and `python` are this checkout's and this interpreter's."""
    (folder / "bin").mkdir()
    for name, arguments in (("pipeline-assets", "-m pipeline_assets.cli "), ("python", "")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments}"$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder / "bin"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """The page's files are written, then its commands are executed in order, in one shell session each, in an empty folder."""
    folder = tmp_path_factory.mktemp("tutorial")
    exported = export(folder / "export" / "bestellungen.csv")
    for before, content in blocks(PAGE, "toml"):
        name = FILE.fullmatch(before)
        assert name is not None, "each TOML block says which file it is"
        (folder / name[1]).write_text(content)
    ours = ("PIPELINE_", "DAGSTER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {
        "PATH": f"{shim(tmp_path_factory.mktemp('shim'))}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT_ROOT),
        "PIPELINE_CONFIG": "shop.toml",  # step 4 exports it for the whole session
    }
    outputs = []
    for before, content in blocks(PAGE, "bash"):
        done = subprocess.run(
            ["bash", "-euc", content],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert (done.returncode == 0) != (before == "<!-- fails -->"), (
            f"{content}\n{done.stdout}\n{done.stderr[-6000:]}"
        )
        outputs.append(done.stdout)
    return Followed(folder, exported, outputs)


def test_doctor_is_content(followed: Followed) -> None:
    """What the page shows is what is printed."""
    shown = next(content for _, content in blocks(PAGE, "text") if content.startswith("ok"))
    assert followed.outputs[0] == shown


def test_doctor_names_the_misspelt_column(followed: Followed) -> None:
    """Culprit and the columns there are."""
    assert "FAIL  feed purchases" in followed.outputs[1]
    assert "Mengen" in followed.outputs[1]
    assert "ready" not in followed.outputs[1]


def test_every_paid_line_was_read(followed: Followed) -> None:
    """Purchases: the paid lines of the export, none set aside; products and customers from them; no exposures."""
    summary = json.loads((followed.folder / "summary.json").read_text())
    feeds = {row["feed"]: row for row in summary["feeds"]}
    paid = followed.exported[followed.exported["Status"] == "bezahlt"]
    assert (feeds["purchases"]["read"], feeds["purchases"]["valid"]) == (len(paid), len(paid))
    assert (feeds["purchases"]["days"], feeds["purchases"]["blocked"]) == (77, 0)
    bought = paid.assign(day=paid["Bestellt am"].str[:10])
    assert feeds["products"]["valid"] == len(bought[["day", "Artikel"]].drop_duplicates())
    assert feeds["customers"]["valid"] == len(bought[["day", "Kundennummer"]].drop_duplicates())
    assert feeds["exposures"]["read"] == 0


def test_every_customer_has_recommendations(followed: Followed) -> None:
    """Twenty ranked products of the shop for each customer, as of the last day."""
    from deltalake import DeltaTable

    rows = DeltaTable(str(followed.folder / "daten/lake/recommendations/daily")).to_pandas()
    assert set(rows["customer_id"]) == set(followed.exported["Kundennummer"])
    assert set(rows["product_id"]) <= set(followed.exported["Artikel"])
    assert {str(day) for day in rows["as_of"]} == {str(LAST_DAY)}
    assert rows.groupby("customer_id")["rank"].agg(["min", "max", "count"]).drop_duplicates().to_numpy().tolist() == [
        [1, 20, 20]
    ]


def test_the_page_shows_the_data_as_it_is(followed: Followed) -> None:
    """The lines in step 1 are the first of the export."""
    shown = next(content for _, content in blocks(PAGE, "text") if content.startswith("Bestellung"))
    assert (followed.folder / "export" / "bestellungen.csv").read_text().startswith(shown)
