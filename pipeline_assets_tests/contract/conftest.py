"""The definitions, built once for all contract tests (it costs some 5 CPU s)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import dagster as dg


@pytest.fixture(scope="session")
def definitions() -> dg.Definitions:
    from pipeline_assets.definitions import defs

    return defs
