"""The verb `retention` as a person types it, on an empty data folder with one page that is too old and one that is not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from pipeline_assets_tests.shop import Shop


def two_pages(shop: Shop) -> list[Path]:
    """Of the drift report, written 181 days ago and yesterday."""
    pages = [shop.data_dir / "reports" / "drift" / f"{name}.html" for name in ("old", "new")]
    pages[0].parent.mkdir(parents=True)
    for page, days in zip(pages, (181, 1), strict=True):
        page.write_text("x")
        os.utime(page, (time.time() - days * 86_400,) * 2)
    return pages


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    """Listed and still there, then removed."""
    shop = Shop(tmp_path)
    pages = two_pages(shop)
    listed = shop.command("retention")
    assert (listed.returncode, pages[0].exists()) == (0, True), listed.stderr
    assert str(pages[0]) in listed.stdout
    assert str(pages[1]) not in listed.stdout
    applied = json.loads(shop.command("retention", "--apply", "--json").stdout)
    assert [row["path"] for row in applied["found"]] == [str(pages[0])]
    assert [page.exists() for page in pages] == [False, True]


def test_the_nightly_job(tmp_path: Path) -> None:
    """Run twice, as by two schedulers: one effect, and the run says what it was."""
    shop = Shop(tmp_path)
    pages = two_pages(shop)
    with shop.opened() as pipeline:
        job = pipeline.definitions.resolve_job_def("retention")
        runs = [job.execute_in_process(instance=pipeline.instance) for _ in range(2)]
        logs = [entry.user_message for run in runs for entry in pipeline.instance.all_logs(run.run_id)]
    said = [line.split("; ")[1] for line in logs if line.startswith("run_logs: ")]
    assert said == ["reports: 1 removed, 0.0 MB", "reports: 0 removed, 0.0 MB"]
    assert [page.exists() for page in pages] == [False, True]
