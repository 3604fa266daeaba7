"""The verb `retention` as a person types it, on an empty data folder with one page that is too old and one that is not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from pipeline_assets_tests.shop import Shop


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    """Listed and still there, removed, and nothing left to do."""
    shop = Shop(tmp_path)
    pages = [shop.data_dir / "reports" / "drift" / f"{name}.html" for name in ("old", "new")]
    pages[0].parent.mkdir(parents=True)
    for page, days in zip(pages, (181, 1), strict=True):
        page.write_text("x")
        os.utime(page, (time.time() - days * 86_400,) * 2)
    listed = shop.command("retention")
    assert (listed.returncode, pages[0].exists()) == (0, True), listed.stderr
    assert str(pages[0]) in listed.stdout
    assert str(pages[1]) not in listed.stdout
    applied = json.loads(shop.command("retention", "--apply", "--json").stdout)
    assert [row["path"] for row in applied["found"]] == [str(pages[0])]
    assert [page.exists() for page in pages] == [False, True]
    assert json.loads(shop.command("retention", "--apply", "--json").stdout)["found"] == []
