"""Tables and plots: what a person must be able to read in them."""

from __future__ import annotations

import base64
import datetime as dt
import math

import pandas as pd

from pipeline_assets.monitoring.drift import ColumnDrift, DriftDecision, DriftPolicy, DriftResult
from pipeline_assets.monitoring.quality import COLUMNS, QualityDecision
from pipeline_assets.monitoring.skew import FeatureSkew, ScoreSkew, SkewResult
from pipeline_assets.monitoring.summary import (
    drift_plot,
    drift_table,
    png_markdown,
    quality_plot,
    quality_table,
    score_skew_table,
    skew_table,
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PLOT_BYTES = 60_000
DRIFT = DriftResult(
    30_000,
    4_000,
    (
        ColumnDrift("brand", "categorical", 0.004, 0.2, 0.2, 3.0, False, False),
        ColumnDrift("amount_log1p", "numerical", 0.61, 1e-30, 8e-30, 1.6, True, True),
    ),
)
HISTORY = pd.DataFrame(
    [
        (dt.date(2024, 5, 6), dt.date(2024, 5, 14), 7, "complete", "", 10, 7, 1_500, 0.2712, 0.13, 0.11, 0.008),
        (dt.date(2024, 5, 7), dt.date(2024, 5, 14), 7, "unknown", "no labels of 2024-05-09", 10, 6, 0, *[math.nan] * 4),
        (dt.date(2024, 5, 8), dt.date(2024, 5, 14), 7, "partial", "window open", 10, 5, 0, *[math.nan] * 4),
    ],
    columns=list(COLUMNS),
)
QUALITY = QualityDecision("ok", ("NDCG is fine",), 0.2712, 0.26)


def test_drift_table_puts_the_largest_change_first() -> None:
    """Verdict, reason, sizes, then one row per column by PSI."""
    lines = drift_table(DRIFT, DriftDecision("drift", ("1 of 2 columns drifted",))).splitlines()
    assert lines[0] == "**drift**"
    assert "- 1 of 2 columns drifted" in lines
    assert "Rows: 4,000 today, 30,000 reference." in lines
    assert lines[-2] == "| amount_log1p | numerical | 0.610 | 8e-30 | 1.6 | extreme |"
    assert lines[-1] == "| brand | categorical | 0.004 | 0.2 | 3.0 | no |"


def test_drift_table_without_columns_has_no_table() -> None:
    """Too few rows: the reason, and no empty table under it."""
    text = drift_table(DriftResult(10, 0, ()), DriftDecision("unknown", ("too few rows",)))
    assert "too few rows" in text
    assert "|" not in text


def test_text_from_data_cannot_break_the_table() -> None:
    """A column called `a|b <img>` over two lines stays one cell of plain text."""
    column = ColumnDrift("a|b\n<img>", "numerical", 0.1, 0.0, 0.0, 1.0, True, False)
    text = drift_table(DriftResult(1, 1, (column,)), DriftDecision("watch", ()))
    assert text.splitlines()[-1].startswith("| a\\|b &lt;img&gt; | numerical |")


def test_quality_table_is_newest_first_and_shows_no_zero_for_unknown() -> None:
    """An unknown day has dashes and its reason; a complete one its figures."""
    lines = quality_table(HISTORY, QUALITY).splitlines()
    assert "| as of | labels | NDCG@10 | recall@10 | revenue@10 | customers | why no figure |" in lines
    assert lines[-3:] == [
        "| 2024-05-08 | partial | – | – | – | 0 | window open |",
        "| 2024-05-07 | unknown | – | – | – | 0 | no labels of 2024-05-09 |",
        "| 2024-05-06 | complete | 0.2712 | 0.13 | 0.11 | 1,500 |  |",
    ]


def test_quality_table_is_limited() -> None:
    """Two days asked for, the newest two given."""
    assert "2024-05-06" not in quality_table(HISTORY, QUALITY, days=2)


def test_skew_table_names_only_features_that_differ() -> None:
    """1 of 200 values is .5 %, over the objective of .1 %."""
    features = (FeatureSkew("same", 0, 0.0, 0.0), FeatureSkew("other", 1, 0.01, 2.5))
    text = skew_table(SkewResult(100, 1, 0.005, features))
    assert text.startswith("**0.500%** of values differ over 100 rows: OVER the objective.")
    assert text.splitlines()[-1] == "| other | 1 | 1.000% | 2.5 |"
    assert "same" not in text


def test_skew_table_without_skew_is_one_sentence() -> None:
    """Nothing differs, so there is nothing to list."""
    assert "|" not in skew_table(SkewResult(100, 0, 0.0, (FeatureSkew("same", 0, 0.0, 0.0),)))


def test_score_skew_table_has_every_measure() -> None:
    """Shares as percent, distances as numbers."""
    text = score_skew_table(ScoreSkew(0.02, 0.75, 1_200, 0.1, 0.4, 0.25))
    assert "| score PSI | 0.020 |" in text
    assert "| overlap of the top lists | 75.0% of 1,200 customers |" in text
    assert "10.0% before, 40.0% now" in text


def test_plots_are_small_png_and_repeatable() -> None:
    """The same input gives the same bytes, small enough for the metadata of every day."""
    for plot in (lambda: drift_plot(DRIFT, DriftPolicy()), lambda: quality_plot(HISTORY, QUALITY)):
        png = plot()
        assert png.startswith(PNG_SIGNATURE)
        assert len(png) < MAX_PLOT_BYTES
        assert png == plot()


def test_plots_of_nothing_are_plots() -> None:
    """The first days have no history, and a day with too few rows no columns."""
    unknown = QualityDecision("unknown", (), math.nan, math.nan)
    assert quality_plot(HISTORY.head(0), unknown).startswith(PNG_SIGNATURE)
    assert drift_plot(DriftResult(0, 0, ()), DriftPolicy()).startswith(PNG_SIGNATURE)


def test_png_markdown_is_the_image_itself() -> None:
    """The picture is in the text, so the UI needs no file; brackets cannot end the alternative text."""
    text = png_markdown(PNG_SIGNATURE, "drift [today]")
    head, data = text.removesuffix(")").split(",")
    assert head == "![drift (today)](data:image/png;base64"
    assert base64.b64decode(data) == PNG_SIGNATURE
