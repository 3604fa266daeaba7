"""The ML Test Score is counted from markers, and the committed page is what they add up to."""

from __future__ import annotations

import pytest

from pipeline_assets_tests.contract.repository import ROOT
from pipeline_assets_tests.ml_test_score import (
    HALF,
    ITEMS,
    LIMITS,
    PAGE,
    Marked,
    all_markers,
    markers,
    page,
    score,
    sections,
)

BOTH = [Marked("I4", False, "a::test_a"), Marked("I4", True, "a::test_b")]


def test_the_page_is_the_score() -> None:
    """docs/ml-test-score.md is written again after a marker came or went."""
    assert PAGE.read_text() == page(score(all_markers(), HALF))


def test_every_reason_for_half_a_point_is_written_down() -> None:
    """The page that is named exists."""
    assert [name for name, _ in HALF.values() if not (ROOT / name).exists()] == []
    assert set(HALF) | set(LIMITS) <= set(ITEMS)


def points(marked: list[Marked], half: dict[str, tuple[str, str]] | None = None) -> float:
    (found,) = [found for found in score(marked, half or {}) if found.item == "I4"]
    return found.points


def test_a_full_point_needs_a_negative_control() -> None:
    """Both: 1; without the control: 0.5; a control alone, or nothing: 0."""
    assert [points(BOTH), points(BOTH[:1]), points(BOTH[1:]), points([])] == [1.0, 0.5, 0.0, 0.0]


def test_a_reason_holds_an_item_at_half_a_point() -> None:
    """Whatever is marked besides."""
    assert points(BOTH, {"I4": ("CONTRIBUTING.md", "why")}) == 0.5


def test_sections_add_up() -> None:
    """One item of Infrastructure; Mo is not M."""
    found = sections(score([*BOTH, Marked("Mo1", False, "x"), Marked("Mo1", True, "y")], {}))
    assert found == {"Data": 0.0, "Model": 0.0, "Infrastructure": 1.0, "Monitoring": 1.0}


def test_markers_are_read_from_text() -> None:
    """An item and a control; a marker of no item is an error that names the test."""
    source = (
        "@pytest.mark.ml_test('I4')\ndef test_a(): ...\n@pytest.mark.ml_test('I4', control=True)\ndef test_b(): ...\n"
    )
    assert markers(source, "f.py") == [Marked("I4", False, "f.py::test_a"), Marked("I4", True, "f.py::test_b")]
    with pytest.raises(ValueError, match=r"f\.py::test_a is marked 'I9'"):
        markers("@pytest.mark.ml_test('I9')\ndef test_a(): ...", "f.py")
