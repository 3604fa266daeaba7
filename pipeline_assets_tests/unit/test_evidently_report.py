"""Evidently's page: right verdicts, whole files, no network. One run of Evidently (about 8 s) serves several tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.monitoring import evidently_report
from pipeline_assets.monitoring.evidently_report import drift_report
from pipeline_assets.recommender.errors import NotEnoughData, SchemaError


def frame(seed: int, *, shift: float = 0.0, rows: int = 600) -> pd.DataFrame:
    """amount is normal, moved by `shift`; brand is three equally likely names."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"amount": rng.normal(shift, 1.0, rows), "brand": rng.choice(["a", "b", "c"], rows)})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """amount moved by two standard deviations, brand not; 600 and 500 rows, at most 550 used. Sockets are forbidden."""
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("Evidently opened a connection")

    path = tmp_path_factory.mktemp("evidently") / "reports" / "2024-05-06.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        answer = drift_report(
            frame(1), frame(2, shift=2.0, rows=500), ["amount"], ["brand"], path, seed=7, max_rows=550
        )
    return answer, path


def test_only_the_moved_column_drifts(report: tuple[dict[str, object], Path]) -> None:
    """1 of 2 columns: share .5, and the score of each column is there."""
    answer, _ = report
    columns = answer["columns"]
    assert isinstance(columns, dict)
    assert (answer["drifted_columns"], answer["drifted_share"]) == (1, 0.5)
    assert columns["amount"]["is_drifted"]
    assert columns["amount"]["psi"] > 1.0
    assert not columns["brand"]["is_drifted"]


def test_frames_are_sampled_to_the_limit(report: tuple[dict[str, object], Path]) -> None:
    """600 rows become 550; 500 stay."""
    answer, _ = report
    assert (answer["reference_rows"], answer["current_rows"]) == (550, 500)


def test_the_answer_is_strict_json(report: tuple[dict[str, object], Path]) -> None:
    """It goes into asset metadata as it is."""
    answer, _ = report
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_the_page_is_whole_and_alone(report: tuple[dict[str, object], Path]) -> None:
    """A complete HTML page; the temporary file is gone; no script or style is loaded from elsewhere."""
    _, path = report
    html = path.read_text(encoding="utf-8")
    assert html.rstrip().endswith("</html>")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", html) == []


def test_a_failed_write_keeps_the_old_page(tmp_path: Path) -> None:
    """Writing stops half-way: the previous page is still there, and nothing else."""
    path = tmp_path / "drift.html"
    path.write_text("yesterday", encoding="utf-8")

    class FullDisk:
        def save_html(self, name: str) -> None:
            Path(name).write_text("<html>", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        evidently_report._write_whole(FullDisk(), path)
    assert path.read_text(encoding="utf-8") == "yesterday"
    assert [entry.name for entry in tmp_path.iterdir()] == ["drift.html"]


def test_a_changed_report_layout_is_an_error() -> None:
    """A column without a result is not a column without drift."""
    with pytest.raises(SchemaError, match=r"Evidently report.*amount"):
        evidently_report._compact({"tests": [], "metrics": []}, ["amount"])


def test_a_score_that_is_no_number_is_null() -> None:
    """NaN is not JSON; the column's test still says whether it drifted."""
    metrics = [
        {"id": "s", "config": {}, "value": {"count": 1.0, "share": 1.0}},
        {"id": "a", "config": {"column": "amount"}, "value": float("nan")},
    ]
    tests = [{"metric_config": {"metric_id": "a"}, "status": "FAIL"}]
    assert evidently_report._compact({"tests": tests, "metrics": metrics}, ["amount"]) == {
        "drifted_columns": 1,
        "drifted_share": 1.0,
        "columns": {"amount": {"psi": None, "is_drifted": True}},
    }


def test_missing_and_empty_columns_are_named(tmp_path: Path) -> None:
    """Before Evidently is imported, and without a page."""
    path = tmp_path / "drift.html"
    with pytest.raises(SchemaError, match=r"current frame.*brand"):
        drift_report(frame(1), frame(2)[["amount"]], ["amount"], ["brand"], path, seed=1)
    with pytest.raises(NotEnoughData, match=r"current frame.*amount"):
        drift_report(frame(1), frame(2).assign(amount=np.nan), ["amount"], ["brand"], path, seed=1)
    assert not path.exists()


def test_the_module_does_not_import_evidently() -> None:
    """9 CPU seconds and 290 MB are paid by the call, not by every import of the package."""
    code = "import sys, pipeline_assets.monitoring.evidently_report; sys.exit('evidently' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
