"""One self-contained HTML page for people: sections of text, tables and figures. No script, nothing from outside; all text is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline_assets.recommender.plots import BAD, GOOD, GREY, INK, MUTED
from pipeline_assets.recommender.promotion import Decision

LONG = 40  # characters: a longer cell is a sentence, which wraps
_COLOURS = {"promote": GOOD, "reject": BAD, "inconclusive": "#9a6700"}
_HEADINGS = {"promote": "Promoted", "reject": "Rejected", "inconclusive": "Inconclusive"}
_STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f5f7f9; color: {INK}; font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }}
main {{ max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
h1 {{ font-size: 1.8rem; line-height: 1.2; margin: 0 0 .25rem; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .75rem; }}
h3 {{ font-size: .95rem; margin: 1.25rem 0 .25rem; color: {INK}; }}
section {{ background: #fff; border: 1px solid #e1e6eb; border-radius: .6rem; padding: 1.25rem 1.5rem; }}
section {{ margin-top: 1.25rem; }}
.subtitle {{ color: {MUTED}; margin: 0; }}
.verdict {{ border-left: .35rem solid var(--verdict); }}
.verdict strong {{ color: var(--verdict); text-transform: uppercase; letter-spacing: .04em; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .4rem .5rem; border-bottom: 1px solid #e1e6eb; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
thead th {{ color: {MUTED}; font-weight: 600; white-space: normal; vertical-align: bottom; border-bottom: 2px solid {GREY}; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0; }}
dt {{ color: {MUTED}; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
figure {{ margin: 0 0 1.5rem; }} figcaption {{ color: {MUTED}; font-size: .9rem; }}
img {{ max-width: 100%; height: auto; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin-top: 1.25rem; }}
.tile {{ background: #fff; border: 1px solid #e1e6eb; border-radius: .6rem; padding: .8rem 1rem; }}
.tile b {{ display: block; font-size: 1.45rem; line-height: 1.3; font-variant-numeric: tabular-nums; }}
.tile span {{ color: {MUTED}; font-size: .85rem; display: block; }}
.note {{ color: {MUTED}; margin: 0 0 1rem; max-width: 46rem; }}
.figures {{ margin-top: 1.5rem; }} .figures:first-child {{ margin-top: 0; }}
td.words {{ text-align: left; white-space: normal; min-width: 24rem; }}
td small {{ color: {MUTED}; display: block; font-size: .78rem; }}
tr.marked td {{ background: #eef4fb; font-weight: 600; }} tr.marked td.words {{ text-align: left; white-space: normal; min-width: 24rem; }}
td small {{ font-weight: 400; }}
details {{ margin-top: .75rem; }} summary {{ cursor: pointer; color: {MUTED}; }}
.card h2 {{ margin-top: 1.25rem; }} .card h1 {{ font-size: 1.3rem; }} .card table {{ width: auto; }}
"""


@dataclass(frozen=True)
class Banner:
    """The first thing on a page: a word, its colour, and why; `wanted` is what would have changed it."""

    heading: str
    colour: str
    reasons: Sequence[str]
    wanted: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Section:
    """One part of the page. `note` says how to read it; `folded` tables are closed until a reader opens them.

    tables: heading ('' for none) -> frame, whose index is not shown; a cell with two lines has its second one small.
    marked: values of the first column whose row is emphasised. figures: caption -> PNG bytes. markdown: rendered, its
    HTML escaped.
    """

    title: str
    note: str = ""
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    folded: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)  # text -> relative address
    marked: frozenset[str] = frozenset()
    markdown: str = ""


def number(value: object) -> str:
    """A value as people read it: four digits, words for booleans, a dash for nothing."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4f}"
    return "–" if value is None else str(value)


def _cell(value: object) -> str:
    text = number(value)
    first, *rest = html.escape(text).split("\n")
    of = ' class="words"' if len(text) > LONG else ""
    return f"<td{of}>{first}{''.join(f'<small>{line}</small>' for line in rest)}</td>"


def _table(frame: pd.DataFrame, marked: frozenset[str]) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(column))}</th>' for column in frame.columns)
    body = "".join(
        f"<tr{' class=marked' if str(row[0]) in marked else ''}>" + "".join(map(_cell, row)) + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(caption: str, png: bytes) -> str:
    shown = html.escape(caption)
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{shown}" src="data:image/png;base64,{data}"><figcaption>{shown}</figcaption></figure>'


def _markdown(text: str) -> str:
    from markdown_it import MarkdownIt

    rendered: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return f'<div class="card scroll">{rendered}</div>'


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.note:
        parts.append(f'<p class="note">{html.escape(section.note)}</p>')
    if section.facts:
        listed = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in section.facts.items())
        parts.append(f"<dl>{listed}</dl>")
    for text, address in section.links.items():
        parts.append(f'<p><a href="{html.escape(address)}">{html.escape(text)}</a></p>')
    for heading, frame in section.tables.items():
        parts.append((f"<h3>{html.escape(heading)}</h3>" if heading else "") + _table(frame, section.marked))
    if section.figures:
        parts.append(f'<div class="figures">{"".join(_figure(*item) for item in section.figures.items())}</div>')
    for heading, frame in section.folded.items():
        parts.append(f"<details><summary>{html.escape(heading)}</summary>{_table(frame, section.marked)}</details>")
    if section.markdown:
        parts.append(f"<details><summary>Open</summary>{_markdown(section.markdown)}</details>")
    return f"<section>{''.join(parts)}</section>"


def _banner(banner: Banner) -> str:
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in banner.reasons)
    wanted = ""
    if banner.wanted:
        changes = "".join(f"<li>{html.escape(change)}</li>" for change in banner.wanted)
        wanted = f"<p>The smallest change that would have let it pass:</p><ul>{changes}</ul>"
    return (
        f'<section class="verdict" style="--verdict: {banner.colour}">'
        f"<h2><strong>{html.escape(banner.heading)}</strong></h2><ul>{reasons}</ul>{wanted}</section>"
    )


def of_decision(decision: Decision) -> Banner:
    """The banner of what the gate decided."""
    heading, colour = _HEADINGS[decision.outcome], _COLOURS[decision.outcome]
    return Banner(heading, colour, decision.reasons, decision.changes)


def html_page(
    title: str,
    subtitle: str,
    decision: Decision | Banner | None = None,
    tiles: Mapping[str, tuple[str, str]] | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """The page: verdict first, then tiles, then sections in the given order.

    Args:
        tiles: name -> (value, what it is compared with).
    """
    banner = of_decision(decision) if isinstance(decision, Decision) else decision
    parts = [_banner(banner)] if banner else []
    if tiles:
        shown = "".join(
            f'<div class="tile"><span>{html.escape(name)}</span><b>{html.escape(value)}</b>'
            f"<span>{html.escape(beside)}</span></div>"
            for name, (value, beside) in tiles.items()
        )
        parts.append(f'<div class="tiles">{shown}</div>')
    parts += [_section(section) for section in sections]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{html.escape(title)}</h1>"
        f'<p class="subtitle">{html.escape(subtitle)}</p>{"".join(parts)}</main></body></html>\n'
    )
