"""What the session's one run left behind."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from pipeline_assets_tests.shop import Shop


@dataclass(frozen=True)
class FirstRun:
    """A shop after `pipeline-assets run`, and what the command printed. Nobody may change its data folder."""

    shop: Shop
    done: subprocess.CompletedProcess[str]
