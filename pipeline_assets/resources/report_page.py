"""Where the pages of the reports are, and writing one whole."""

from __future__ import annotations

import uuid
from datetime import date
from pathlib import Path

from pipeline_assets.settings import Settings


def page_path(settings: Settings, report: str, day: date) -> Path:
    """<data_dir>/reports/<report>/<day>.html"""
    return settings.data_dir / "reports" / report / f"{day}.html"


def write_page(settings: Settings, report: str, day: date, page: str) -> Path:
    """Write beside the target, then rename: a reader sees the old page or the new one."""
    path = page_path(settings, report, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
