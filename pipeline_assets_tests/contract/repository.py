"""The checkout as data, for contract tests: its files, its Python modules, its Markdown."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files(*patterns: str) -> list[Path]:
    """Files that are tracked or could be (not ignored), in order; `patterns` are git pathspecs such as '*.md'."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({ROOT / name for name in listed if (ROOT / name).is_file()})


def modules(*packages: str) -> dict[str, str]:
    """Path relative to the checkout -> source, of every Python file below these folders."""
    found = (path for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in found}


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them; a `#` inside a code block is not a heading."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", without_blocks(markdown), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_blocks(markdown: str) -> str:
    """A page without its fenced code blocks."""
    return re.sub(r"^```.*?^```[^\n]*$", "", markdown, flags=re.MULTILINE | re.DOTALL)


def blocks(markdown: str, language: str) -> list[tuple[str, str]]:
    """(line before the block, content) of each fenced block of a language; the line before may be empty."""
    pattern = rf"(?:^(?P<before>[^\n]*)\n)?^```{language}\n(?P<content>.*?)^```"
    found = re.finditer(pattern, markdown, flags=re.MULTILINE | re.DOTALL)
    return [(match["before"] or "", match["content"]) for match in found]
