"""Every test session gets a data folder of its own: no test touches the data of the checkout.

Only the smoke tests, which .ci/run starts after `make run`, look at real data: SMOKE_DATA_DIR names it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Before anything is imported: settings are read once, and partitions and the feature repository keep what they read.
if "SMOKE_DATA_DIR" in os.environ:
    os.environ["PIPELINE_DATA_DIR"] = os.environ["SMOKE_DATA_DIR"]
else:
    _FOLDER = tempfile.mkdtemp(prefix="pipeline-tests-")
    os.environ["PIPELINE_DATA_DIR"] = _FOLDER
    atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)

from pipeline_assets_tests.postgres import postgres  # noqa: F401  # nothing starts before a test asks
