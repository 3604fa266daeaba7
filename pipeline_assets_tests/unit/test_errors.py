"""The error family: one sentence with four parts, which survives the way from a worker process."""

from __future__ import annotations

import copy

import pytest

from pipeline_assets.recommender.errors import BlockedPartition, PipelineError, SchemaError

PARTS = {"found": 3, "wanted": "at least 5", "fix": "deliver more"}


@pytest.mark.parametrize("kind", [PipelineError, SchemaError, BlockedPartition])
def test_an_error_survives_the_way_from_a_worker(kind: type[PipelineError]) -> None:
    """Taken apart and put together as between processes (`copy` uses the same protocol): the same class, sentence and parts."""
    error = copy.copy(kind("feed x", **PARTS))  # type: ignore[arg-type]
    assert type(error) is kind
    assert str(error) == "feed x: found 3; wanted at least 5. Fix: deliver more"
    assert (error.culprit, error.found, error.wanted, error.fix) == ("feed x", 3, "at least 5", "deliver more")
