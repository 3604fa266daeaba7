"""docs/faults.md: every fault of the design was tried, and every test that it names exists."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from pipeline_assets.replay.policy_lane import SILENT_AFTER
from pipeline_assets.replay.story import SYSTEM_FAULTS
from pipeline_assets.sources.faulty import FAULTS
from pipeline_assets_tests.contract.repository import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text()
DESIGN = (ROOT / "docs" / "design" / "reliability.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def missing(page: str) -> list[str]:
    """Tests and experiments that a page names and that are not there."""
    found = []
    for file, name in NAMED.findall(page):
        path = ROOT / "pipeline_assets_tests" / file
        if not path.is_file() or not re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE):
            found.append(f"{file}::{name}")
    return found


def lines_without_test(page: str) -> list[str]:
    """Rows of a table that name no test."""
    rows = [
        line
        for line in page.splitlines()
        if line.startswith("|") and not line.startswith(("|---", "| fault |", "| route |"))
    ]
    return [row.split("|")[1].strip() for row in rows if not NAMED.search(row)]


def test_every_named_test_exists() -> None:
    """A test that was renamed is renamed here, too."""
    assert len(NAMED.findall(PAGE)) > 40
    assert missing(PAGE) == []


def test_every_fault_names_a_test() -> None:
    """No row is a promise."""
    assert lines_without_test(PAGE) == []


@pytest.mark.parametrize("kind", ["Data", "Process", "Model", "Serving", "Monitoring", "Operations"])
def test_every_fault_of_the_design_has_a_row(kind: str) -> None:
    """As many rows as the design lists, or more."""
    (listed,) = [line for line in DESIGN.splitlines() if line.startswith(f"*{kind}:*")]
    section = PAGE.split(f"## {kind}\n")[1].split("\n## ")[0]
    rows = [
        line for line in section.splitlines() if line.startswith("|") and not line.startswith(("|---", "| fault |"))
    ]
    assert len(rows) >= listed.count("·") + 1


def names_in_a_replay(page: str) -> set[str]:
    """Names of `--fault` in the second column of its table."""
    section = page.split("## By name in a replay\n")[1].split("\n## ")[0]
    columns = [line.split("|")[2] for line in section.splitlines() if line.startswith("| ")]
    return {name for column in columns for name in re.findall(r"`(\w+)`", column)}


def test_every_name_of_a_replay_is_on_the_page() -> None:
    """And no other: faults of the delivery and of the system."""
    assert names_in_a_replay(PAGE) == {*FAULTS, *SYSTEM_FAULTS}


def rows_without_a_name(page: str) -> list[str]:
    """Faults of the table that nothing in a replay brings about."""
    section = page.split("## By name in a replay\n")[1].split("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ") and "---" not in line][1:]
    return [row[1].strip() for row in rows if not re.search(r"`\w+`", row[2])]


def test_every_fault_of_the_design_has_a_name() -> None:
    """Each line of the table has one, and there are at least as many names as the design lists faults."""
    assert rows_without_a_name(PAGE) == []
    listed = sum(line.count("·") + 1 for line in DESIGN.splitlines() if re.match(r"\*\w+:\* ", line))
    assert listed > 35
    assert len(names_in_a_replay(PAGE)) >= listed


def test_a_fault_without_a_name_is_found() -> None:
    """Negative control: the full disk, where the page says that there is none."""
    assert rows_without_a_name(PAGE.replace("`disk_full`:", "none:")) == ["disk full"]


def test_the_dead_man_of_a_replay_rings_when_the_rule_does() -> None:
    """After the hours of alert `ReportMissing`."""
    rule = (ROOT / "deploy" / "prometheus" / "rules" / "monitors.yml").read_text().split("alert: ReportMissing")[1]
    (seconds,) = re.findall(r"pipeline_report_written_timestamp_seconds > (\d+)", rule)
    assert timedelta(seconds=int(seconds)) == SILENT_AFTER


def test_a_name_that_is_not_on_the_page_is_found() -> None:
    """Negative control: the page without one of them."""
    assert {*FAULTS, *SYSTEM_FAULTS} - names_in_a_replay(PAGE.replace("`killed_run`", "killed")) == {"killed_run"}


def test_a_name_that_is_nowhere_is_found() -> None:
    """Negative control: a file that does not exist, a test that its file does not have, a row without any."""
    page = "| fault | how | shown by |\n| a | b | `unit/test_none.py::test_a`, `contract/test_faults.py::test_none` |\n| c | d | by hand |\n"
    assert missing(page) == ["unit/test_none.py::test_a", "contract/test_faults.py::test_none"]
    assert lines_without_test(page) == ["c"]
