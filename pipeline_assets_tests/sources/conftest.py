"""Fixtures of the sources' tests."""

from __future__ import annotations

from pipeline_assets_tests.object_store import object_store  # noqa: F401
from pipeline_assets_tests.snowflake_server import snowflake  # noqa: F401
