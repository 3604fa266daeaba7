"""The page: verdict first, everything escaped, nothing from outside."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from pipeline_assets.recommender.page import Section, html_page
from pipeline_assets.recommender.promotion import Decision

DECISION = Decision("reject", ("ndcg < champion & equal within noise: a change.",), pd.DataFrame(), ("a change",))


def test_page_escapes_every_text() -> None:
    """Titles, notes, facts, headings, cells, captions, tiles, reasons and the card are data, not markup."""
    bad = "<script>alert(1)</script>"
    table = pd.DataFrame({bad: [bad]})
    section = Section(bad, bad, {bad: table}, {bad: table}, {bad: b"png"}, {bad: bad}, markdown=bad)
    page = html_page(bad, bad, DECISION, {bad: (bad, bad)}, [section])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 19
    assert "ndcg &lt; champion &amp; equal" in page


def test_page_needs_nothing_from_outside() -> None:
    """No address, script or style sheet: figures are embedded as data."""
    page = html_page("t", "s", DECISION, {}, [Section("f", figures={"figure": b"png"})])
    assert "http" not in page
    assert "<link" not in page
    assert "data:image/png;base64,cG5n" in page


@pytest.mark.parametrize(("outcome", "shown"), [("promote", "Promoted"), ("reject", "Rejected")])
def test_page_opens_with_the_verdict(outcome: str, shown: str) -> None:
    """The first section is the outcome, and what would have to change."""
    decision = dataclasses.replace(DECISION, outcome=outcome)  # type: ignore[arg-type]
    first = html_page("t", "s", decision, {"NDCG": ("0.3", "")}, [Section("rest")]).split("<section")[1]
    assert f"<strong>{shown}</strong>" in first
    assert "<li>a change</li>" in first


def test_tables_have_digits_words_and_small_second_lines() -> None:
    """Four digits, booleans as words, bounds below their value, the marked row emphasised."""
    frame = pd.DataFrame({"method": ["ranker", "other"], "ndcg": ["0.3\n0.2 to 0.4", 0.01234], "below": [True, False]})
    page = html_page("t", "s", sections=[Section("a", tables={"": frame}, marked=frozenset({"ranker"}))])
    assert "<tr class=marked><td>ranker</td><td>0.3<small>0.2 to 0.4</small></td><td>yes</td></tr>" in page
    assert "<tr><td>other</td><td>0.0123</td><td>no</td></tr>" in page


def test_markdown_is_rendered_with_its_tables() -> None:
    """The model card has headings and tables."""
    page = html_page("t", "s", sections=[Section("card", markdown="# A card\n\n| a |\n|---|\n| 1 |\n")])
    assert "<h1>A card</h1>" in page
    assert "<td>1</td>" in page
