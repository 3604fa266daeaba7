"""Pages of benchmarks that are written from figures: the committed page is what the committed figures say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import experiments_page, training_page
from benchmarks.scale import RESULTS


@pytest.mark.parametrize(
    ("module", "name"),
    [(training_page, "training"), (experiments_page, "model-experiments")],
    ids=lambda each: str(each),
)
def test_committed_page_is_that_of_the_committed_figures(
    module: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written again it is the same."""
    (tmp_path / f"{name}.json").write_text((RESULTS / f"{name}.json").read_text())
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    module.write_page()
    assert (tmp_path / f"{name}.md").read_text() == (RESULTS / f"{name}.md").read_text()


def test_a_limit_that_is_exceeded_is_said() -> None:
    """361 CPU s are missed, 360 are met."""
    assert [training_page._verdict(value, training_page.LIMITS["cpu_s"]) for value in (361, 360)] == [
        "**missed**",
        "met",
    ]
