"""Evidently's drift report of two samples, for a person to look at. `drift.decide` decides; this page explains.

Evidently takes 6-9 CPU seconds and 290 MB to import (docs/design/stack.md, section 5), so a call imports it, not this module.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline_assets.recommender.errors import NotEnoughData, SchemaError

# Evidently bins differently from `drift.compare`, so its PSI keeps the textbook limit; the share is DriftPolicy's.
PSI_THRESHOLD = 0.1
DRIFT_SHARE = 0.3


def drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    numerical: Sequence[str],
    categorical: Sequence[str],
    html_path: Path,
    *,
    seed: int,
    max_rows: int = 20_000,
) -> dict[str, object]:
    """Run DataDriftPreset (PSI, with tests) and write its page; no telemetry, no network.

    Args:
        reference: rows the model knows, with the named columns.
        current: rows of the day, with the named columns.
        numerical: numerical column names.
        categorical: categorical column names.
        html_path: written whole or not at all; 4-6 MB; its directory is made.
        seed: of the sampling to `max_rows` rows each (above it the page costs time and tells no more).
        max_rows: rows kept of each frame.

    Returns:
        JSON-able: reference_rows and current_rows (after sampling), drifted_columns (count), drifted_share (0-1) and
        columns: name -> {"psi": float or None where Evidently gives no number, "is_drifted": bool}.

    Raises:
        SchemaError: a named column is missing.
        NotEnoughData: a named column has no value in one of the frames.
    """
    names = [*numerical, *categorical]
    samples = {}
    for label, frame in (("reference frame", reference), ("current frame", current)):
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise SchemaError(label, found=f"no column {missing}", wanted=names, fix="pass the frame of input_profile")
        sample = frame[names].sample(n=max_rows, random_state=seed) if len(frame) > max_rows else frame[names]
        empty = [name for name in names if not sample[name].notna().any()]
        if empty or not names:
            raise NotEnoughData(
                label, found=f"no value in {empty or 'any column'}", wanted="values in every column", fix="leave it out"
            )
        samples[label] = sample.reset_index(drop=True)

    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(numerical), categorical_columns=list(categorical))
    preset = DataDriftPreset(
        num_method="psi",
        cat_method="psi",
        num_threshold=PSI_THRESHOLD,
        cat_threshold=PSI_THRESHOLD,
        drift_share=DRIFT_SHARE,
    )
    snapshot = Report([preset], include_tests=True).run(
        Dataset.from_pandas(samples["current frame"], definition),  # current first, then reference
        Dataset.from_pandas(samples["reference frame"], definition),
    )
    _write_whole(snapshot, html_path)
    return {
        "reference_rows": len(samples["reference frame"]),
        "current_rows": len(samples["current frame"]),
        **_compact(snapshot.dict(), names),
    }


def _compact(report: dict[str, object], names: Sequence[str]) -> dict[str, object]:
    """The numbers of Evidently's dict: `metrics` hold values, `tests` (same metric id) hold whether each passed."""
    failed = {
        test["metric_config"]["metric_id"]
        for test in report["tests"]  # type: ignore[attr-defined]
        if getattr(test["status"], "value", test["status"]) != "SUCCESS"
    }
    columns: dict[str, dict[str, object]] = {}
    totals: dict[str, object] = {}
    for metric in report["metrics"]:  # type: ignore[attr-defined]
        config, value = metric["config"], metric["value"]
        if "column" in config:
            psi = float(value)
            columns[config["column"]] = {
                "psi": psi if math.isfinite(psi) else None,
                "is_drifted": metric["id"] in failed,
            }
        else:
            totals = {"drifted_columns": int(value["count"]), "drifted_share": float(value["share"])}
    absent = [name for name in names if name not in columns]
    if absent or not totals:
        raise SchemaError(
            "Evidently report", found=f"no result for {absent or 'the share'}", wanted=names, fix="pin evidently 0.7.23"
        )
    return {**totals, "columns": {name: columns[name] for name in names}}


def _write_whole(snapshot: object, html_path: Path) -> None:
    """Write beside the target, flush to disk, then rename: a reader sees the old page or the new one."""
    html_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = html_path.with_name(f".{html_path.name}.{uuid.uuid4().hex}.tmp")
    try:
        snapshot.save_html(str(temporary))  # type: ignore[attr-defined]
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(html_path)
    finally:
        temporary.unlink(missing_ok=True)
